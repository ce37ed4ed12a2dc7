"""The alarms that are made for a candidate go off for what the candidate does, and not for what both revisions meet."""

from __future__ import annotations

import pytest

from perch.aws.alarms import Alarms
from perch.domain.policy import GuardPolicy
from tests.local.machines import client, world

FUNCTION = "perch-digits"
STABLE, CANDIDATE = "3", "4"
NAME = f"perch/digits/candidate-errors/{CANDIDATE}"


@pytest.fixture
def it(monkeypatch):
    """A started world in which candidate 4 is watched beside stable 3: over 5 % of at least 3 failures."""
    with world(monkeypatch) as started:
        alarms = Alarms(client("cloudwatch"), name="perch")
        guards = GuardPolicy(error_rate=0.05, min_errors=3)
        alarms.watch("digits", guards, FUNCTION, CANDIDATE, stable=STABLE)
        yield started


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
        ((900, 0), (100, 10), "ALARM"),  # only the candidate fails
        ((900, 90), (100, 10), "OK"),  # a shared incident: both fail alike
        ((900, 900), (100, 100), "OK"),  # nothing works, wherever it goes
        ((900, 45), (100, 10), "OK"),  # twice the share is not more than twice
        ((900, 44), (100, 10), "ALARM"),
        ((100, 1), (1000, 60), "ALARM"),  # shares are compared, not numbers
        ((900, 0), (100, 5), "OK"),  # 5 % is not more than 5 %
        ((900, 0), (10, 2), "OK"),  # two failures are too few to speak
        ((None, 0), (100, 10), "ALARM"),  # stable was not asked in that minute
        ((None, 0), (None, 0), "OK"),  # nobody was
    ],
)
@pytest.mark.parametrize("kind", ["failures", "crashes"])
def test_the_error_alarm_wants_the_candidate_to_be_worse_than_allowed_and_than_stable(
    it, stable, candidate, state, kind
):
    """Requests and failures of both revisions in one minute, then the alarm's state."""
    for version, (requests, failed) in ((STABLE, stable), (CANDIDATE, candidate)):
        if requests is not None:
            traffic(it, version, requests, **{kind: failed})
    assert seen(it) == state


def test_crashes_and_failed_answers_of_a_revision_count_together(it):
    """A killed function cannot log, and an answer of 500 is no error to Lambda."""
    traffic(it, STABLE, 900, failures=20, crashes=21)
    traffic(it, CANDIDATE, 100, failures=5, crashes=5)
    assert seen(it) == "ALARM"
    traffic(it, STABLE, 900, failures=45, crashes=45)
    traffic(it, CANDIDATE, 100, failures=5, crashes=5)
    it.advance(60)
    assert seen(it) == "OK"


def test_the_alarm_is_one_that_cloudwatch_takes(it):
    """At most ten metrics, one of which is returned."""
    [found] = client("cloudwatch").describe_alarms(AlarmNames=[NAME])["MetricAlarms"]
    assert len(found["Metrics"]) <= 10
    assert [metric["Id"] for metric in found["Metrics"] if metric["ReturnData"]] == ["percent"]
