"""Alarm states are decided as CloudWatch documents it, missing data included."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.local.alarms.evaluate import AlarmSpec, evaluate, reason_data
from perch.local.metrics.store import Point

START = datetime(2024, 7, 16, 13, 9, tzinfo=UTC)
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
OK, ALARM, NO_DATA = "OK", "ALARM", "INSUFFICIENT_DATA"
KEEP = "keep"


def spec(n=3, m=None, **more):
    given_ = {
        "evaluation_periods": n,
        "datapoints_to_alarm": m or n,
        "threshold": 1.0,
        "comparison": "GreaterThanOrEqualToThreshold",
        "period_s": 60,
        "statistic": "Sum",
    }
    return AlarmSpec(**(given_ | more))


def points(text, samples=1.0):
    """Read the documentation's notation: 0 is fine, X is breaching, - is missing; the oldest first."""
    values = {"0": 0.0, "X": 5.0}
    return [
        None if mark == "-" else Point(START + timedelta(minutes=n), values[mark], samples)
        for n, mark in enumerate(text.split())
    ]


# The documentation's tables: data points, then the state for missing, ignore, breaching and notBreaching.
THREE_OF_THREE = [
    ("0 - X - X", OK, OK, OK, OK),
    ("0 - - - -", OK, OK, OK, OK),
    ("- - - - -", NO_DATA, KEEP, ALARM, OK),
    ("0 X X - X", ALARM, ALARM, ALARM, ALARM),
    ("- - - - X", NO_DATA, KEEP, ALARM, OK),
    ("X - - - -", ALARM, KEEP, ALARM, OK),
    ("- - X - -", ALARM, KEEP, ALARM, OK),
]
TWO_OF_THREE = [
    ("0 - X - X", ALARM, ALARM, ALARM, ALARM),
    ("0 0 X 0 X", ALARM, ALARM, ALARM, ALARM),
    ("0 - X - -", OK, OK, ALARM, OK),
    ("- - - - 0", OK, OK, ALARM, OK),
    ("- - - - X", NO_DATA, KEEP, ALARM, OK),
    ("- - - X -", ALARM, KEEP, ALARM, OK),
]


@pytest.mark.parametrize("current", [OK, ALARM, NO_DATA])
@pytest.mark.parametrize(
    ("m", "row"), [(3, row) for row in THREE_OF_THREE] + [(2, row) for row in TWO_OF_THREE], ids=str
)
def test_the_documented_tables(m, row, current):
    """Three of three and two of three, for each way to treat missing data, whatever the state was."""
    data, *states = row
    for treatment, state in zip(TREATMENTS, states, strict=True):
        verdict = evaluate(spec(3, m, treat_missing_data=treatment), points(data), current)
        assert verdict.state == (current if state == KEEP else state), treatment


@pytest.mark.parametrize("data", ["- - - X -", "- - - - X"])
def test_an_alarm_does_not_go_off_too_early(data):
    """With three of three, the breaching point must be three periods old before missing ones count with it."""
    assert evaluate(spec(), points(data), OK).state != ALARM
    assert evaluate(spec(), points(data.replace("-", "0")), OK).state == OK


@pytest.mark.parametrize(
    ("comparison", "below", "equal", "above"),
    [
        ("GreaterThanOrEqualToThreshold", OK, ALARM, ALARM),
        ("GreaterThanThreshold", OK, OK, ALARM),
        ("LessThanThreshold", ALARM, OK, OK),
        ("LessThanOrEqualToThreshold", ALARM, ALARM, OK),
    ],
)
def test_every_comparison(comparison, below, equal, above):
    """Of the data point with the threshold."""
    for value, state in ((0.5, below), (1.0, equal), (1.5, above)):
        assert evaluate(spec(1, comparison=comparison), [Point(START, value, 1)], NO_DATA).state == state


marks = st.lists(st.sampled_from("0X-"), min_size=5, max_size=5).map(" ".join)


@given(marks, st.integers(1, 3), st.sampled_from([OK, ALARM, NO_DATA]))
def test_not_breaching_never_goes_off_without_enough_breaching_points(data, m, current):
    """notBreaching: ALARM if and only if M of the newest N real points are breaching."""
    verdict = evaluate(spec(3, m, treat_missing_data="notBreaching"), points(data), current)
    newest = [mark for mark in data.split() if mark != "-"][-3:]
    assert (verdict.state == ALARM) == (newest.count("X") >= m)
    assert verdict.state != NO_DATA


@given(marks, st.integers(1, 3), st.sampled_from([OK, ALARM, NO_DATA]))
def test_with_enough_real_points_the_treatment_does_not_matter(data, m, current):
    """All four treatments agree when N real points are in the range."""
    if sum(mark != "-" for mark in data.split()) < 3:
        return
    states = {evaluate(spec(3, m, treat_missing_data=one), points(data), current).state for one in TREATMENTS}
    assert len(states) == 1


@given(marks, st.integers(1, 3))
def test_breaching_is_the_strictest_treatment(data, m):
    """Where any treatment alarms on the data, breaching does."""
    states = {one: evaluate(spec(3, m, treat_missing_data=one), points(data), OK).state for one in TREATMENTS}
    if ALARM in states.values():
        assert states["breaching"] == ALARM


def test_a_percentile_over_too_few_samples_keeps_the_state_if_told_to():
    """p99 needs a thousand samples, p90 a hundred, p1 a thousand; a plain statistic none."""
    for stat, needed in (("p99", 1000), ("p90", 100), ("p1", 1000)):
        for samples, state in ((needed - 1, OK), (needed, ALARM)):
            asked = spec(1, statistic=stat, low_samples="ignore")
            assert evaluate(asked, points("- - X", samples), OK).state == state
    assert evaluate(spec(1, statistic="p99"), points("- - X"), OK).state == ALARM
    assert evaluate(spec(1, low_samples="ignore"), points("- - X"), OK).state == ALARM


def test_reasons_read_as_the_service_writes_them():
    """Datapoints newest first, with their times; what was filled in; what was missing."""
    reason = evaluate(spec(), points("0 0 X X X"), OK).reason
    assert reason == (
        "Threshold Crossed: 3 out of the last 3 datapoints [5.0 (16/07/24 13:13:00), 5.0 (16/07/24 13:12:00), "
        "5.0 (16/07/24 13:11:00)] were greater than or equal to the threshold (1.0) "
        "(minimum 3 datapoints for OK -> ALARM transition)."
    )
    reason = evaluate(spec(1), points("- - 0"), ALARM).reason
    assert reason == (
        "Threshold Crossed: 1 out of the last 1 datapoints [0.0 (16/07/24 13:11:00)] was not greater than or equal to "
        "the threshold (1.0) (minimum 1 datapoint for ALARM -> OK transition)."
    )
    assert evaluate(spec(1), points("- - -"), OK).reason == "Insufficient Data: 1 datapoint was unknown."
    assert evaluate(spec(2, treat_missing_data="notBreaching"), points("- - - -"), ALARM).reason == (
        "Threshold Crossed: no datapoints were received for 2 periods and 2 missing datapoints were treated as "
        "[NonBreaching]."
    )


def test_reason_data_holds_what_was_evaluated():
    """The documented JSON."""
    asked = spec(2, unit="Count")
    verdict = evaluate(asked, points("0 0 X X", 4), OK)
    data = json.loads(reason_data(asked, verdict, START + timedelta(minutes=5, milliseconds=817)))
    assert data == {
        "version": "1.0",
        "queryDate": "2024-07-16T13:14:00.817+0000",
        "startDate": "2024-07-16T13:11:00.000+0000",
        "unit": "Count",
        "statistic": "Sum",
        "period": 60,
        "recentDatapoints": [5.0, 5.0],
        "threshold": 1.0,
        "evaluatedDatapoints": [
            {"timestamp": "2024-07-16T13:12:00.000+0000", "value": 5.0, "sampleCount": 4},
            {"timestamp": "2024-07-16T13:11:00.000+0000", "value": 5.0, "sampleCount": 4},
        ],
    }
