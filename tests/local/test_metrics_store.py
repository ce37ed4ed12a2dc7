"""The metric store: what was put comes out as the statistics of its periods."""

from __future__ import annotations

import math
import statistics as reference
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.local.metrics.statistic import percentile_rank
from perch.local.metrics.store import MetricStore, Series
from perch.local.ports import Metric

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
WHERE = ("Perch", "Latency", {"Endpoint": "digits"})
SERIES = Series.of(*WHERE)
HOUR = timedelta(hours=1)

values = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))


def seconds(count):
    return timedelta(seconds=count)


def read(store, stat, *, series=SERIES, start=START, span=HOUR, period_s=60, unit=None):
    return [
        (point.at, point.value) for point in store.statistics(series, start, start + span, period_s, stat, unit=unit)
    ]


@given(st.lists(values, min_size=1, max_size=50))
def test_statistics_are_those_of_the_values(put):
    """Exact for everything but percentiles."""
    store = MetricStore()
    for value in put:
        store.put(*WHERE, value, at=START + seconds(3))
    expected = {
        "SampleCount": len(put),
        "Sum": math.fsum(put),
        "Average": reference.fmean(put),
        "Minimum": min(put),
        "Maximum": max(put),
    }
    for stat, value in expected.items():
        [(at, found)] = read(store, stat)
        assert at == START
        assert found == pytest.approx(value, rel=1e-9, abs=1e-6)


@given(st.lists(values, min_size=1, max_size=200), st.sampled_from([1, 10, 50, 90, 95, 99, 99.9]))
def test_percentiles_are_within_one_percent_of_the_nearest_rank(put, rank):
    """The histogram's stated error, for values of either sign."""
    store = MetricStore()
    for value in put:
        store.put(*WHERE, value, at=START)
    exact = sorted(put)[max(0, math.ceil(rank / 100 * len(put) - 1e-9) - 1)]
    [(_, found)] = read(store, f"p{rank}")
    assert found == pytest.approx(exact, rel=0.0101, abs=1e-9)


@given(
    st.lists(st.tuples(st.integers(0, 3599), values), min_size=1, max_size=60), st.sampled_from([10, 20, 30, 60, 300])
)
def test_periods_divide_the_data_without_loss(put, period_s):
    """Each value is in exactly one period, the one that it was put in; empty periods are absent."""
    store = MetricStore()
    for offset, value in put:
        store.put(*WHERE, value, at=START + seconds(offset))
    expected = {}
    for offset, value in put:
        expected.setdefault(START + seconds(offset // period_s * period_s), []).append(value)
    found = dict(read(store, "SampleCount", period_s=period_s))
    assert found == {at: len(group) for at, group in expected.items()}
    assert list(found) == sorted(found)


@given(st.integers(1, 5), values)
def test_a_count_is_as_many_measurements(count, value):
    """`count` seen at once is the same as put one by one."""
    one, many = MetricStore(), MetricStore()
    one.put(*WHERE, value, at=START, count=count)
    for _ in range(count):
        many.put(*WHERE, value, at=START)
    for stat in ("SampleCount", "Average", "p50", "Minimum"):
        assert read(one, stat)[0][1] == pytest.approx(read(many, stat)[0][1])


def test_dimensions_make_other_series_and_their_order_does_not_matter():
    """As in CloudWatch: no aggregation over dimensions."""
    store = MetricStore()
    store.put("N", "m", {"a": "1", "b": "2"}, 1, at=START)
    store.put("N", "m", {"b": "2", "a": "1"}, 2, at=START)
    store.put("N", "m", {"a": "1"}, 4, at=START)
    assert read(store, "Sum", series=Series.of("N", "m", {"b": "2", "a": "1"})) == [(START, 3)]
    assert read(store, "Sum", series=Series.of("N", "m", {"a": "1"})) == [(START, 4)]
    assert read(store, "Sum", series=Series.of("N", "m")) == []


def test_units_are_kept_apart_only_for_those_who_ask():
    """The classic trap: an alarm with the wrong unit sees no data."""
    store = MetricStore()
    store.put(*WHERE, 1, at=START, unit="Milliseconds")
    store.put(*WHERE, 2, at=START, unit="Seconds")
    assert read(store, "Sum") == [(START, 3)]
    assert read(store, "Sum", unit="Seconds") == [(START, 2)]
    assert read(store, "Sum", unit="Count") == []


def test_a_start_is_rounded_down_to_the_minute_and_the_end_is_not_included():
    """12:00:30 for a minute's period begins at 12:00; a period that begins at the end is not read."""
    store = MetricStore()
    for offset in (0, 60, 120):
        store.put(*WHERE, 1, at=START + seconds(offset))
    found = store.statistics(SERIES, START + seconds(30), START + seconds(120), 60, "Sum")
    assert [point.at for point in found] == [START, START + seconds(60)]


def test_a_statistic_set_has_no_percentiles_unless_all_its_values_are_equal():
    """Its distribution is unknown."""
    store = MetricStore()
    store.put_statistics(*WHERE, count=4, total=10, low=1, high=5, at=START)
    assert read(store, "Average") == [(START, 2.5)]
    assert read(store, "p50") == []
    store.put_statistics(*WHERE, count=3, total=6, low=2, high=2, at=START + seconds(60))
    assert read(store, "p50") == [(START + seconds(60), 2)]


def test_old_seconds_become_minutes_and_old_minutes_are_dropped():
    """Memory is bounded: after days of data only the retention is left, and sums stay right."""
    store = MetricStore(retention=timedelta(days=1))
    minutes = 3 * 1440
    for minute in range(minutes):
        store.put(*WHERE, 1, at=START + timedelta(minutes=minute))
        store.put(*WHERE, 1, at=START + timedelta(minutes=minute, seconds=30))
    [stream] = store._streams[SERIES]
    assert len(stream.fine) <= 2 * 181
    assert len(stream.coarse) <= 1441
    last_day = read(store, "Sum", start=START + timedelta(days=2, hours=1), span=timedelta(hours=20), period_s=3600)
    assert [value for _, value in last_day] == [120] * 20
    assert read(store, "Sum", span=timedelta(days=1)) == []


def test_late_measurements_count_where_they_belong():
    """Five hours late, and one second late."""
    store = MetricStore()
    store.put(*WHERE, 1, at=START + timedelta(hours=6))
    store.put(*WHERE, 2, at=START + timedelta(hours=1))
    store.put(*WHERE, 4, at=START + timedelta(hours=6) - seconds(1))
    found = read(store, "Sum", span=timedelta(hours=7), period_s=3600)
    assert found == [(START + HOUR, 2), (START + 5 * HOUR, 4), (START + 6 * HOUR, 1)]


@pytest.mark.parametrize("stat", ["Median", "p", "p101", "tm99", "P99.9.9", ""])
def test_a_statistic_that_is_not_supported_is_named(stat):
    """And what could be used instead."""
    with pytest.raises(ValueError, match="SampleCount"):
        percentile_rank(stat)


@pytest.mark.parametrize("period", [0, 1, 15, 45, 61, 90, -60])
def test_a_period_that_is_not_supported_is_refused(period):
    """10, 20, 30 or whole minutes."""
    with pytest.raises(ValueError, match="period"):
        MetricStore().statistics(SERIES, START, START + HOUR, period, "Sum")


def test_many_threads_lose_nothing():
    """Eight writers, one series and one of their own."""
    store = MetricStore()

    def write(number):
        for _ in range(2000):
            store.put(*WHERE, 1, at=START)
            store.put("N", "own", {"t": str(number)}, 1, at=START)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(store, "SampleCount") == [(START, 16_000)]
    assert len(store.series("N")) == 8


def counted(put, above, up_to):
    return sum((above is None or value > above) and (up_to is None or value <= up_to) for value in put)


def ranged(kind, above, up_to):
    return f"{kind}({'' if above is None else above}:{'' if up_to is None else up_to})"


bounds = st.one_of(
    st.tuples(st.integers(0, 50), st.none()),
    st.tuples(st.none(), st.integers(0, 50)),
    st.tuples(st.integers(0, 50), st.integers(0, 50)).filter(lambda both: both[0] < both[1]),
    st.sampled_from([(0.5, 1.5), (None, 0.5), (49.5, None), (12.5, 13)]),
)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), bounds)
def test_small_whole_numbers_are_counted_exactly_among_any_others(put, range_):
    """Zero and the bounds themselves included, and though a thousand other values fill the same ten seconds."""
    noise = [number / 1000 * 60 + 0.0123 for number in range(1000)]
    store = MetricStore()
    for value in noise + put:
        store.put(*WHERE, value, at=START)
    alone = MetricStore()
    for value in put:
        alone.put(*WHERE, value, at=START)
    [(_, found)] = read(alone, ranged("TC", *range_))
    assert found == counted(put, *range_)
    [(_, rank)] = read(alone, ranged("PR", *range_))
    assert rank == pytest.approx(100 * counted(put, *range_) / len(put))
    steps = [store.statistics(SERIES, START, START + HOUR, 60, f"TC({n - 0.0001:.4f}:{n})") for n in range(1, 51)]
    exact = [sum(value == n for value in put) for n in range(1, 51)]
    assert [points[0].value for points in steps] == exact


@given(st.lists(st.tuples(st.integers(0, 59), st.floats(0, 1000)), min_size=1, max_size=120), st.data())
def test_few_values_are_counted_exactly_whatever_the_bounds(put, data):
    """Up to 128 distinct ones in ten seconds: also when a bound is one of them."""
    store = MetricStore()
    for offset, value in put:
        store.put(*WHERE, round(value, 6), at=START + seconds(offset))
    found_values = [round(value, 6) for _, value in put]
    above, up_to = sorted(
        data.draw(st.lists(st.one_of(st.sampled_from(found_values), st.integers(0, 1000)), min_size=2, max_size=2))
    )
    for low, high in ((above, None), (None, up_to), *([(above, up_to)] if above < up_to else [])):
        stat = f"TC({'' if low is None else format(low, '.6f')}:{'' if high is None else format(high, '.6f')})"
        assert read(store, stat) == [(START, counted(found_values, low, high))]


def test_many_values_are_counted_exactly_but_for_those_within_two_percent_of_a_bound():
    """Ten thousand different latencies in ten seconds: the rest of them is counted in bins."""
    store = MetricStore()
    put = [1 + number * 0.0123 for number in range(10_000)]
    for value in put:
        store.put(*WHERE, value, at=START)
    for bound in (1.5, 12.5, 100):
        [(_, found)] = read(store, f"TC(:{bound})")
        assert counted(put, None, bound / 1.02) <= found <= counted(put, None, bound * 1.02)
        [(_, rest)] = read(store, f"TC({bound}:)")
        assert found + rest == len(put)


def test_counts_stay_exact_when_seconds_become_minutes():
    """Whole numbers and zeros, hours later."""
    store = MetricStore()
    for second in range(60):
        for value in (0, 7, 8, 9.5 + second / 1000):
            store.put(*WHERE, value, at=START + seconds(second))
    store.put(*WHERE, 1, at=START + timedelta(hours=6))
    span = timedelta(minutes=1)
    assert read(store, "TC(:0)", span=span) == [(START, 60)]
    assert read(store, "TC(7:8)", span=span) == [(START, 60)]
    assert read(store, "TC(8:)", span=span) == [(START, 60)]


def test_a_period_without_a_value_in_the_range_has_a_zero_and_one_without_values_has_nothing():
    """No request was slow; and no request was there."""
    store = MetricStore()
    store.put(*WHERE, 5, at=START)
    assert read(store, "TC(5:)") == [(START, 0)]
    assert read(store, "PR(5:)") == [(START, 0)]


def test_a_statistic_set_cannot_be_counted_over_a_range():
    """Its distribution is unknown."""
    store = MetricStore()
    store.put_statistics(*WHERE, count=4, total=10, low=1, high=5, at=START)
    assert read(store, "TC(:3)") == []
    assert read(store, "PR(:9)") == []


@pytest.mark.parametrize(
    "stat", ["TC(:)", "TC", "TC()", "tc(1:2)", "TC(1)", "TC(10%:90%)", "TC(-1:2)", "TC(2:1)", "PR(1e2:)", "TM(1:2)"]
)
def test_a_range_that_is_not_one_is_refused(stat):
    """In words that show what one looks like."""
    with pytest.raises(ValueError, match=r"TC\(0.5:1.5\)"):
        MetricStore().statistics(SERIES, START, START + HOUR, 60, stat)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_is_not_measured(value):
    """It leaves no trace."""
    store = MetricStore()
    with pytest.raises(ValueError, match="measurement"):
        store.put(*WHERE, value, at=START)
    assert read(store, "Sum") == []


# -- recorders --------------------------------------------------------------------------------------------------------

ENDPOINT, REVISION = {"Endpoint": "digits"}, {"Endpoint": "digits", "Revision": "7"}
TOGETHER = (
    Metric(namespace="Perch", name="Latency", unit="Milliseconds", dimensions=(ENDPOINT, REVISION)),
    Metric(namespace="Perch", name="Requests", unit="Count", dimensions=(ENDPOINT,)),
    Metric(namespace="Perch", name="Unseen", unit="None", dimensions=()),
)
STATISTICS = ("SampleCount", "Sum", "Average", "Minimum", "Maximum", "p50", "p99", "TC(0:5)")


def told(store):
    """All that a store tells of what is recorded together."""
    return [
        (name, stat, unit, [(at, pytest.approx(value)) for at, value in found])
        for name, dimensions in (("Latency", ENDPOINT), ("Latency", REVISION), ("Requests", ENDPOINT))
        for stat in STATISTICS
        for unit in (None, "Milliseconds")
        if (found := read(store, stat, series=Series.of("Perch", name, dimensions), period_s=10, unit=unit))
    ]


@given(st.lists(st.tuples(values, values, st.integers(0, 40)), max_size=200), st.integers(1, 90))
def test_what_is_recorded_together_is_what_would_be_put_one_by_one(rows, every):
    """Whatever the times are, and however often somebody asks meanwhile."""
    one_by_one, together = MetricStore(), MetricStore()
    recorder = together.recorder(TOGETHER)
    for number, (latency, requests, after) in enumerate(rows):
        at = START + seconds(after)
        recorder.record((latency, requests, 1.0), at)
        for metric, value in zip(TOGETHER, (latency, requests, 1.0), strict=True):
            for dimensions in metric.dimensions:
                one_by_one.put(metric.namespace, metric.name, dimensions, value, at=at, unit=metric.unit)
        if number % every == 0:
            assert told(together) == told(one_by_one)

    assert told(together) == told(one_by_one)
    assert together.series() == one_by_one.series()


def test_a_store_that_forgot_everything_records_on():
    """What was recorded before is gone, the recorder is not."""
    store = MetricStore()
    recorder = store.recorder(TOGETHER)
    recorder.record((1.0, 1.0, 1.0), START)
    store.clear()
    assert store.series() == []

    recorder.record((5.0, 1.0, 1.0), START)
    assert read(store, "Sum") == [(START, 5.0)]


@pytest.mark.parametrize("row", [(1.0, math.nan, 1.0), (math.inf, 1.0, 1.0), (1.0, 1.0), (1.0, 1.0, 1.0, 1.0)])
def test_a_row_that_does_not_measure_each_metric_is_refused_whole(row):
    """At once, not when it is added up."""
    store = MetricStore()
    with pytest.raises(ValueError, match="no measurements of 3 metrics"):
        store.recorder(TOGETHER).record(row, START)

    assert store.series() == []


def test_many_threads_that_record_lose_nothing():
    """Each with a recorder of its own, for the same series, while another reads."""
    store = MetricStore()

    def record(thread):
        recorder = store.recorder(TOGETHER)
        for number in range(1_000):
            recorder.record((float(thread), 1.0, 1.0), START + seconds(number % 25))
            if number % 100 == 0:
                read(store, "Sum")

    threads = [threading.Thread(target=record, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert read(store, "SampleCount") == [(START, 4_000)]
    assert read(store, "Sum") == [(START, 6_000)]
