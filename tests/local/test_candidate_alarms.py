"""The alarms that are made for a candidate go off for what the candidate does, and not for what both revisions meet."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest

from perch.aws.alarms import Alarms
from perch.domain.policy import GuardPolicy
from perch.local.metrics import math as metric_math
from perch.local.metrics import math_functions
from perch.local.metrics.math_values import Window
from tests.local.machines import client, world

FUNCTION = "perch-digits"
STABLE, CANDIDATE = "3", "4"
NAME = f"perch/digits/candidate-errors/{CANDIDATE}"


@pytest.fixture
def it(monkeypatch):
    """A started world in which candidate 4 is watched beside stable 3: 5 % and 3 failures are allowed."""
    with world(monkeypatch) as started:
        watch(GuardPolicy(error_rate=0.05, min_errors=3))
        yield started


def watch(guards):
    Alarms(client("cloudwatch"), name="perch").watch("digits", guards, FUNCTION, CANDIDATE, stable=STABLE)


def traffic(it, version, requests, *, failures=0, crashes=0):
    executed = {"FunctionName": FUNCTION, "Resource": f"{FUNCTION}:live", "ExecutedVersion": version}
    ours = {"Endpoint": "digits", "Revision": version}
    for namespace, name, dimensions, value in (
        ("AWS/Lambda", "Invocations", executed, requests),
        ("AWS/Lambda", "Errors", executed, crashes),
        ("Perch", "Failures", ours, failures),
    ):
        if value or name == "Invocations":
            it.store.put(namespace, name, dimensions, float(value), at=it.clock.now())


def seen(it):
    it.advance(65)
    [found] = client("cloudwatch").describe_alarms(AlarmNames=[NAME])["MetricAlarms"]
    return found["StateValue"]


@pytest.mark.parametrize(
    ("stable", "candidate", "state"),
    [
        ((900, 0), (100, 20), "ALARM"),  # 5 are allowed, and 5 * sqrt(5) + 3 more may be chance: 19.2
        ((900, 0), (100, 19), "OK"),
        ((900, 180), (100, 20), "OK"),  # a shared incident: both fail alike
        ((900, 900), (100, 100), "OK"),  # nothing works, wherever it goes
        ((900, 45), (100, 29), "ALARM"),  # twice stable's share is 10, and 5 * sqrt(10) + 3 more may be chance: 28.8
        ((900, 45), (100, 28), "OK"),
        ((100, 1), (1000, 89), "ALARM"),  # shares are compared, not numbers
        ((100, 1), (1000, 88), "OK"),
        ((900, 0), (10, 8), "ALARM"),  # few, but nearly all of them
        ((900, 0), (10, 7), "OK"),
        ((900, 0), (6, 6), "OK"),  # too few to speak, whatever they do
        ((None, 0), (100, 20), "ALARM"),  # stable was not asked in that minute
        ((None, 0), (100, 19), "OK"),
        ((None, 0), (None, 0), "OK"),  # nobody was
    ],
)
@pytest.mark.parametrize("kind", ["failures", "crashes"])
def test_the_error_alarm_wants_the_candidate_to_be_far_worse_than_allowed_and_than_stable(
    it, stable, candidate, state, kind
):
    """Requests and failures of both revisions in one minute, then the alarm's state."""
    for version, (requests, failed) in ((STABLE, stable), (CANDIDATE, candidate)):
        if requests is not None:
            traffic(it, version, requests, **{kind: failed})
    assert seen(it) == state


@pytest.mark.parametrize("fill", ["fills a series without points", "leaves a series without points empty"])
@pytest.mark.parametrize("kind", ["failures", "crashes"])
def test_the_alarm_does_not_depend_on_how_a_series_without_any_point_is_filled(it, monkeypatch, fill, kind):
    """CloudWatch does not say; a revision that crashes at every request has no log lines, and stable may rest."""
    real = math_functions.fill
    if fill.startswith("leaves"):
        monkeypatch.setattr(math_functions, "fill", lambda env, source, filler: source and real(env, source, filler))
    traffic(it, CANDIDATE, 100, **{kind: 100})
    assert seen(it) == "ALARM"


def test_crashes_and_failed_answers_of_a_revision_count_together(it):
    """A killed function cannot log, and an answer of 500 is no error to Lambda."""
    traffic(it, STABLE, 900, failures=20, crashes=21)
    traffic(it, CANDIDATE, 100, failures=14, crashes=15)
    assert seen(it) == "ALARM"
    traffic(it, STABLE, 900, failures=45, crashes=45)
    traffic(it, CANDIDATE, 100, failures=14, crashes=15)
    it.advance(60)
    assert seen(it) == "OK"


def test_a_dry_run_of_the_guard_on_errors_has_no_alarm(monkeypatch):
    """What shall only report takes nothing back, by whatever road."""
    with world(monkeypatch):
        watch(GuardPolicy(dry_run=("errors",)))
        assert client("cloudwatch").describe_alarms(AlarmNames=[NAME])["MetricAlarms"] == []


def test_the_alarm_is_one_that_cloudwatch_takes(it):
    """At most ten metrics and expressions, one of which is returned, and only functions that CloudWatch documents."""
    [found] = client("cloudwatch").describe_alarms(AlarmNames=[NAME])["MetricAlarms"]
    assert len(found["Metrics"]) <= 10
    assert [metric["Id"] for metric in found["Metrics"] if metric["ReturnData"]] == ["percent"]
    words = {word for metric in found["Metrics"] for word in re.findall("[A-Z]{2,}", metric.get("Expression", ""))}
    assert words == {"AND", "FILL", "IF", "SUM"}


# -- how often chance sets it off ---------------------------------------------------------------------------------


def binomial(number, share):
    """The chances of 0, 1, … `number` out of `number`."""
    logs = (
        math.lgamma(number + 1) - math.lgamma(k + 1) - math.lgamma(number - k + 1)
        + k * math.log(share) + (number - k) * math.log1p(-share)
        for k in range(number + 1)
    )  # fmt: skip
    return [math.exp(log) for log in logs]


def fewest(expression, *, candidate, stable, stable_failed):
    """The fewest failures of a minute at which the alarm's own expression is above its threshold, if any."""
    window, fixed = Window(0, 60, 60), {"invocations": {0: candidate}, "stable_invocations": {0: stable}}
    for failed in range(candidate + 1):
        known = fixed | {
            "failed": {0: failed}, "stable_failed": {0: stable_failed}, "stable_requests": {0: stable}
        }  # fmt: skip
        if expression.evaluate(known, window)[0] > 5.0:
            return failed
    return None


@pytest.fixture(scope="module")
def expression():
    """What the alarm with the usual settings (5 %, 5 failures) computes last."""
    kept = {}
    Alarms(SimpleNamespace(put_metric_alarm=kept.update), name="perch").watch(
        "digits", GuardPolicy(), FUNCTION, CANDIDATE, stable=STABLE
    )
    return metric_math.parse(kept["Metrics"][-1]["Expression"])


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5, 0.98])
@pytest.mark.parametrize("requests", [60, 600, 6000])
def test_equal_revisions_within_their_level_set_it_off_in_less_than_one_week_in_a_hundred(expression, requests, share):
    """The chance of the week's 10,080 minutes, from exact binomials; stable's failures can only make it smaller."""
    candidate = round(requests * share)
    least = fewest(expression, candidate=candidate, stable=requests - candidate, stable_failed=0)
    for rate in (0.005, 0.01, 0.02, 0.03, 0.05):
        a_minute = 0.0 if least is None else math.fsum(binomial(candidate, rate)[least:])
        assert -math.expm1(10_080 * math.log1p(-a_minute)) < 0.01, (rate, least)


@pytest.mark.parametrize(
    ("requests", "share", "failing", "sees"),
    [
        (60, 0.1, 1.0, False),  # 6 requests a minute: all of them are too few, and the judge must
        (60, 0.25, 0.5, False),
        (60, 0.25, 1.0, True),
        (60, 0.5, 0.5, True),
        (600, 0.05, 0.5, True),
        (600, 0.1, 0.5, True),
        (6000, 0.1, 0.12, True),
        (6000, 0.1, 0.05, False),  # as much as is allowed
    ],
)
def test_a_candidate_that_fails_grossly_is_seen_within_ten_minutes(expression, requests, share, failing, sees):
    """With a chance of at least 99 %, or it cannot be: where the requests of a minute are too few."""
    candidate = round(requests * share)
    least = fewest(expression, candidate=candidate, stable=requests - candidate, stable_failed=0)
    chances = [0.0] * candidate + [1.0] if failing == 1 else binomial(candidate, failing)
    a_minute = 0.0 if least is None else math.fsum(chances[least:])
    assert (1 - (1 - a_minute) ** 10 > 0.99) == sees, (least, a_minute)
