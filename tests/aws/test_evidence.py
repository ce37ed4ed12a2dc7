"""What CloudWatch counted becomes evidence: whole minutes, none missing, consistent in themselves, or an error."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from perch.aws.evidence import RevisionMetrics
from perch.domain.errors import NotReady
from perch.domain.evidence import QUANTILES, Arm, CustomMetric, Habits, Measures, Minute
from perch.local.compute.emf import EmbeddedMetrics
from perch.local.metrics.api import MetricsApi
from perch.local.metrics.store import MetricStore
from perch.predictor.handler import make_handler
from perch.predictor.journal import PROBE_STAGE, REPLAY_STAGE
from tests.unit.test_predictor import MODEL, environment, event, pointer
from tests.unit.values import T0

FUNCTION, STABLE, CANDIDATE = "perch-digits", "3", "4"
MEASURES = Measures(
    limits_ms=(10.0, 12.5, 100.0),
    edges=(0.0, 1.0, 7.0),
    custom=(CustomMetric(name="refunds", namespace="Shop", metric="Refunds"),),
)
MINUTE = timedelta(minutes=1)


class CloudWatch:
    """The hands of a test: puts what functions would have measured, and counts the calls that read it."""

    def __init__(self, store: MetricStore) -> None:
        self.store, self.client, self.calls = store, boto3.client("cloudwatch", region_name="us-east-1"), 0
        self.client.meta.events.register("before-call.cloudwatch.GetMetricData", self._called)
        self.metrics = RevisionMetrics(self.client)

    def _called(self, **_) -> None:
        self.calls += 1

    def put(self, version: str, at: datetime = T0, **numbers) -> None:
        """`requests` and `crashes` by Lambda; all else by log lines: lists are values, numbers are sums."""
        executed = {"FunctionName": FUNCTION, "Resource": f"{FUNCTION}:live", "ExecutedVersion": version}
        for name, key in (("Invocations", "requests"), ("Errors", "crashes")):
            if key in numbers:
                self.store.put("AWS/Lambda", name, executed, float(numbers.pop(key)), at=at)
        ours = {"Endpoint": "digits", "Revision": version}
        names = {"failures": "Failures", "cold": "ColdStarts", "latencies": "Latency", "predictions": "Prediction"}
        for key, values in numbers.items():
            namespace, name = ("Shop", "Refunds") if key == "refunds" else ("Perch", names[key])
            for value in values if isinstance(values, list) else [values]:
                self.store.put(namespace, name, ours, float(value), at=at)

    def minutes(self, since=T0, until=T0 + 5 * MINUTE, measures=MEASURES) -> tuple[Minute, ...]:
        return self.metrics.minutes(
            "digits", FUNCTION, stable=STABLE, candidate=CANDIDATE, measures=measures, since=since, until=until
        )

    def habits(self, since, until) -> Habits:
        return self.metrics.habits("digits", FUNCTION, STABLE, since=since, until=until)


@pytest.fixture
def cloudwatch(monkeypatch):
    """An empty CloudWatch, strict about statistics, in this process."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        store = MetricStore()
        api = MetricsApi(store, now=lambda: T0)
        api.install()
        try:
            yield CloudWatch(store)
        finally:
            api.uninstall()


def test_a_minute_holds_what_both_revisions_did(cloudwatch):
    """Every count of it, each out of its own series, in one call."""
    cloudwatch.put(
        STABLE, requests=9, crashes=1, failures=2, cold=1, latencies=[5, 10, 10.1, 12.5, 13, 101, 4],
        predictions=[0, 1, 1, 2, 7, 7.5], refunds=3,
    )  # fmt: skip
    cloudwatch.put(CANDIDATE, requests=2, latencies=[11, 200], predictions=[8, 9])
    first, second = cloudwatch.minutes(until=T0 + 2 * MINUTE)
    assert first == Minute(
        at=T0,
        stable=Arm(
            requests=9, failures=3, cold=1, timed=7, slower=(4, 2, 1), bins=(1, 2, 2, 1), custom=(3,)
        ),
        candidate=Arm(requests=2, timed=2, slower=(2, 1, 1), bins=(0, 0, 0, 2), custom=(0,)),
    )  # fmt: skip
    zeros = Arm(slower=(0, 0, 0), bins=(0, 0, 0, 0), custom=(0,))
    assert second == Minute(at=T0 + MINUTE, stable=zeros, candidate=zeros)
    assert cloudwatch.calls == 1


def test_without_measures_there_are_requests_and_failures(cloudwatch):
    """And no series is asked for that nobody wants."""
    cloudwatch.put(CANDIDATE, requests=5, failures=1, latencies=[3, 3, 3], predictions=[1])
    [minute] = cloudwatch.minutes(until=T0 + MINUTE, measures=Measures())
    assert minute.candidate == Arm(requests=5, failures=1, timed=3, unlogged=2)


@given(st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_whole_minutes_between_the_times_count_and_none_is_missing(cloudwatch, begin_s, length_s):
    """The first begins at or after `since`, the last ends at or before `until`, in order and without a gap."""
    since = T0 + timedelta(seconds=begin_s)
    until = since + timedelta(seconds=length_s)
    times = [minute.at for minute in cloudwatch.minutes(since=since, until=until, measures=Measures())]
    assert times == [T0 + n * MINUTE for n in range(15) if since <= T0 + n * MINUTE and T0 + (n + 1) * MINUTE <= until]


def test_three_hours_are_read_at_a_time_and_the_next_call_goes_on(cloudwatch):
    """What a look saw has to fit into an item of the registry, also after the driver was away for a day."""
    cloudwatch.put(STABLE, at=T0 + 200 * MINUTE, requests=7)
    first = cloudwatch.minutes(until=T0 + 300 * MINUTE)
    assert len(first) == 180
    assert all(minute.stable.requests == 0 for minute in first)
    rest = cloudwatch.minutes(since=first[-1].at + MINUTE, until=T0 + 300 * MINUTE)
    assert [minute.at for minute in rest] == [T0 + n * MINUTE for n in range(180, 300)]
    assert rest[20].stable.requests == 7


def test_a_minute_is_complete_when_its_log_lines_are_there(cloudwatch):
    """A few may lie on its edge; more that are missing are failures that nobody knows of."""
    cloudwatch.put(CANDIDATE, requests=5, latencies=[3, 3, 3])
    cloudwatch.put(CANDIDATE, at=T0 + MINUTE, requests=5, latencies=[3, 3])
    assert [m.complete for m in cloudwatch.minutes(until=T0 + 2 * MINUTE, measures=Measures())] == [True, False]


def test_more_series_than_a_call_takes_are_read_in_several(cloudwatch):
    """500 queries are a call's limit."""
    measures = Measures(limits_ms=tuple(float(n) for n in range(1, 301)))
    cloudwatch.put(STABLE, requests=1, latencies=[150.5])
    [minute] = cloudwatch.minutes(until=T0 + MINUTE, measures=measures)
    assert sum(minute.stable.slower) == 150
    assert cloudwatch.calls == 2


def test_pages_of_an_answer_are_put_together(cloudwatch, monkeypatch):
    """A day of many series is more points than one answer holds."""
    monkeypatch.setattr("perch.local.metrics.api._MAX_DATAPOINTS", 7)
    for n in range(20):
        cloudwatch.put(STABLE, at=T0 + n * MINUTE, requests=n + 1, latencies=[20])
    minutes = cloudwatch.minutes(until=T0 + 20 * MINUTE)
    assert [minute.stable.requests for minute in minutes] == list(range(1, 21))
    assert [minute.stable.slower for minute in minutes] == [(1, 1, 0)] * 20
    assert cloudwatch.calls > 5


numbers = st.integers(0, 9)


@given(numbers, numbers, numbers, numbers, st.lists(st.floats(0, 300), max_size=9))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_arm_is_consistent_whatever_was_published_late(cloudwatch, requests, crashes, failures, cold, latencies):
    """Failures never exceed requests and slow ones never the timed; nothing that was read is dropped."""
    cloudwatch.store.clear()
    cloudwatch.put(
        CANDIDATE, requests=requests, crashes=crashes, failures=failures, cold=cold, latencies=latencies, predictions=1
    )
    [minute] = cloudwatch.minutes(until=T0 + MINUTE)
    arm = minute.candidate
    assert arm.failures == crashes + failures <= arm.requests
    assert arm.requests >= requests
    assert arm.requests >= arm.cold + arm.timed + crashes
    assert all(slower <= arm.timed for slower in arm.slower)


def test_requests_that_lambda_did_not_count_yet_are_known_from_their_log_lines(cloudwatch):
    """So a late Invocations does not turn two failures of forty into two of two."""
    cloudwatch.put(CANDIDATE, failures=2, cold=1, latencies=[5] * 39)
    [minute] = cloudwatch.minutes(until=T0 + MINUTE)
    assert (minute.candidate.failures, minute.candidate.requests) == (2, 40)


def test_fractions_of_an_interpolated_count_are_rounded(cloudwatch, monkeypatch):
    """CloudWatch documents that trimmed counts may have decimals."""
    cloudwatch.put(STABLE, requests=10, latencies=[20] * 10)
    window = cloudwatch.store.window
    monkeypatch.setattr(
        cloudwatch.store,
        "window",
        lambda series, begin, end, period, stat, unit=None: {
            at: (value + 0.4 if stat.startswith("TC") else value, n)
            for at, (value, n) in window(series, begin, end, period, stat, unit).items()
        },
    )
    [minute] = cloudwatch.minutes(until=T0 + MINUTE)
    assert minute.stable.slower == (10, 10, 0)


def test_an_incomplete_answer_is_no_evidence(cloudwatch):
    """Failures that could not be read are not failures that did not happen."""
    cloudwatch.put(STABLE, requests=10)

    def spoil(parsed, **_):
        parsed["MetricDataResults"][-1]["StatusCode"] = "InternalError"

    cloudwatch.client.meta.events.register("after-call.cloudwatch.GetMetricData", spoil)
    with pytest.raises(NotReady, match="candidate_custom_0: InternalError"):
        cloudwatch.minutes()
    with pytest.raises(NotReady, match="its_quantile_99"):
        cloudwatch.habits(T0, T0 + MINUTE)


# -- habits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [1, 7, 61, 181, 719, 1440])
def test_habits_sum_up_the_whole_span(cloudwatch, minutes):
    """However long: one point of CloudWatch covers it, and what lies around it is left out."""
    rng = random.Random(minutes)  # noqa: S311 - repeatable data, no secret
    latencies = [rng.lognormvariate(3, 0.5) for _ in range(minutes)]
    since = T0 + timedelta(minutes=13, seconds=20)
    first = T0 + 14 * MINUTE
    for n, latency in enumerate(latencies):
        cloudwatch.put(STABLE, at=first + n * MINUTE, requests=2, failures=n % 2, cold=1, latencies=[latency])
    for outside in (first - MINUTE, first + minutes * MINUTE):
        cloudwatch.put(STABLE, at=outside, requests=1000, failures=1000, latencies=[9999.0])
    found = cloudwatch.habits(since, first + minutes * MINUTE + timedelta(seconds=40))
    assert (found.minutes, found.requests, found.failures) == (minutes, 2 * minutes, minutes // 2)
    latencies.sort()
    for rank, value in ((50, found.p50_ms), (95, found.p95_ms), (99, found.p99_ms)):
        assert value == pytest.approx(latencies[-(-rank * minutes // 100) - 1], rel=0.0101)
    assert cloudwatch.calls == 1


def test_habits_look_back_a_day_at_most(cloudwatch):
    """The last one of a longer span."""
    cloudwatch.put(STABLE, at=T0, requests=1000)
    cloudwatch.put(STABLE, at=T0 + 2000 * MINUTE, requests=5)
    found = cloudwatch.habits(T0, T0 + 2001 * MINUTE)
    assert (found.minutes, found.requests) == (1440, 5)


def test_quantiles_of_predictions_tell_where_the_edges_of_bins_lie(cloudwatch):
    """Classes as they are counted: 0 to 9."""
    cloudwatch.put(STABLE, requests=100, latencies=[3.0], predictions=[n // 10 for n in range(100)])
    found = cloudwatch.habits(T0, T0 + MINUTE)
    assert dict(zip(QUANTILES, found.quantiles, strict=True)) == {
        1: 0, 5: 0, 10: 0, 25: 2, 50: 4, 75: 7, 90: 8, 95: 9, 99: 9,
    }  # fmt: skip


def test_a_span_without_requests_has_no_habits(cloudwatch):
    """Nor has one without a whole minute."""
    assert cloudwatch.habits(T0, T0 + 3 * MINUTE) == Habits(minutes=3)
    assert cloudwatch.habits(T0, T0 + timedelta(seconds=59)) == Habits()
    assert cloudwatch.habits(T0 + MINUTE, T0) == Habits()


def test_failures_alone_have_no_latency(cloudwatch):
    """Crashes leave no log line."""
    cloudwatch.put(STABLE, requests=4, crashes=4)
    found = cloudwatch.habits(T0, T0 + MINUTE)
    assert found == Habits(minutes=1, requests=4, failures=4)


def test_bounds_are_written_as_the_service_takes_them(cloudwatch):
    """At most ten decimals and no exponent, whatever the number."""
    asked = []
    cloudwatch.client.meta.events.register(
        "provide-client-params.cloudwatch.GetMetricData",
        lambda params, **_: asked.extend(
            q["MetricStat"]["Stat"] for q in params["MetricDataQueries"] if "slower" in q["Id"]
        ),
    )
    limits = (1e-7, 0.1 + 0.2, 12.0, 1e12, 1 / 3)
    cloudwatch.minutes(until=T0 + MINUTE, measures=Measures(limits_ms=limits))
    assert asked[: len(limits)] == [
        "TC(0.0000001:)", "TC(0.3:)", "TC(12:)", "TC(1000000000000:)", "TC(0.3333333333:)",
    ]  # fmt: skip


# -- the whole way ------------------------------------------------------------------------------------------------


def ask(handler, asked, cloudwatch, capsys):
    """Send requests to a predictor and give its log lines to CloudWatch; return when it was."""
    at = datetime.fromtimestamp(asked[0]["requestContext"]["timeEpoch"] / 1000, UTC)
    for one in asked:
        handler(one, SimpleNamespace(aws_request_id="r", function_version=CANDIDATE))
    for line in capsys.readouterr().out.splitlines():
        EmbeddedMetrics(cloudwatch.store).take(line.encode(), at)
    return at


def test_what_a_predictor_writes_is_what_is_counted_of_it(cloudwatch, capsys):
    """Its log lines, read as CloudWatch reads them, become the counts of its arm: probes and replays in none."""
    handler = make_handler(runtime="onnx", environ=environment(pointer(MODEL)), fetch=lambda *_: MODEL)
    probe, replay = event({"features": [1, 0, 0]}), event({"features": [1, 0, 0]})
    probe["requestContext"]["stage"], replay["requestContext"]["stage"] = PROBE_STAGE, REPLAY_STAGE
    answered = [event({"features": [[n % 3, 0, 0], [0, 0, 0]]}) for n in range(9)]
    asked = [*answered, event("{"), event({"features": [9, 0, 0]}), probe, replay]
    at = ask(handler, asked, cloudwatch, capsys)
    [minute] = cloudwatch.metrics.minutes(
        "table", FUNCTION, stable=STABLE, candidate=CANDIDATE, since=at, until=at + MINUTE,
        measures=Measures(limits_ms=(0.0, 1e9), edges=(0.0, 1.0)),
    )  # fmt: skip
    assert minute.stable.requests == 0
    assert minute.candidate == Arm(requests=11, failures=1, cold=1, timed=10, slower=(10, 0), bins=(3, 3, 3))


def test_answers_from_a_cache_are_predictions_and_no_requests_of_the_revision(cloudwatch, capsys):
    """Ten requests of which the model answered three; the gateway counted ten, and none of them is missing."""
    environ = {**environment(pointer(MODEL)), "PERCH_CACHE": '{"ttl_s": 60, "size_mb": 1}'}
    handler = make_handler(runtime="onnx", environ=environ, fetch=lambda *_: MODEL)
    asked = [event({"features": [n % 2, 0, 0]}) for n in (0, 0, 0, 1, 1, 1, 1, 1, 1, 1)]
    at = ask(handler, asked, cloudwatch, capsys)
    executed = {"FunctionName": FUNCTION, "Resource": f"{FUNCTION}:live", "ExecutedVersion": CANDIDATE}
    cloudwatch.store.put("AWS/Lambda", "Invocations", executed, 10.0, at=at)
    [minute] = cloudwatch.metrics.minutes(
        "table", FUNCTION, stable=STABLE, candidate=CANDIDATE, since=at, until=at + MINUTE,
        measures=Measures(limits_ms=(0.0,), edges=(0.0, 1.0)),
    )  # fmt: skip
    # The first request of a process always runs the model; what it gave is kept, so the second is a hit.
    assert minute.candidate == Arm(requests=2, failures=0, cold=1, timed=1, slower=(1,), bins=(3, 7, 0), unlogged=0)
