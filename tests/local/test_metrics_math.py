"""Metric math gives what CloudWatch documents, and refuses the rest in words."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.local.metrics.math import parse
from perch.local.metrics.math_values import MathError, Window

WINDOW = Window(0, 240, 60)
VALUES = {
    "errors": {0: 1.0, 60: 0.0, 180: 3.0},
    "requests": {0: 10.0, 60: 20.0, 120: 5.0, 180: 0.0},
    "empty": {},
    "m1": {0: 1.0, 60: 2.0},
    "m2": {60: 4.0, 120: 8.0},
}


def compute(text, values=VALUES):
    return parse(text).evaluate(values, WINDOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3 ^ 2", 19),
        ("-2 ^ 2", -4),
        ("2 ^ 3 ^ 2", 512),
        ("(1 + 2) * 3 - -4", 13),
        ("8 / 4 / 2", 1),
        ("1e3 + .5", 1000.5),
        ("1 < 2", 1),
        ("1 >= 2 OR 3 != 4 AND 1 == 1", 1),
        ("m1 + m2", {60: 6}),
        ("m1 * 2", {0: 2, 60: 4}),
        ("10 - m1", {0: 9, 60: 8}),
        ("100 * errors / requests", {0: 10, 60: 0}),  # 120 is missing, 180 divides by zero
        ("errors > 0", {0: 1, 60: 0, 180: 1}),
        ("errors > 0 AND requests > 5", {0: 1, 60: 0, 180: 0}),
        ("errors>0&&requests>5||m1==2", {0: 1, 60: 1}),
        ("IF(errors > 0, errors, 0)", {0: 1, 60: 0, 180: 3}),
        ("IF(requests, errors / requests, 0)", {0: 0.1, 60: 0, 180: 0}),
        ("IF(1, 2, 3)", 2),
        ("FILL(errors, 0)", {0: 1, 60: 0, 120: 0, 180: 3}),
        ("FILL(empty, 5)", {0: 5, 60: 5, 120: 5, 180: 5}),
        ("FILL(errors, REPEAT)", {0: 1, 60: 0, 120: 0, 180: 3}),
        ("FILL(errors, linear)", {0: 1, 60: 0, 120: 1.5, 180: 3}),
        ("FILL(m2, REPEAT)", {60: 4, 120: 8, 180: 8}),
        ("FILL(m1, requests)", {0: 1, 60: 2, 120: 5, 180: 0}),
        ("SUM(m1)", 3),
        ("SUM([m1, m2])", {0: 1, 60: 6, 120: 8}),
        ("AVG([m1, m2])", {0: 1, 60: 3, 120: 8}),
        ('MAX(METRICS("m"))', {0: 1, 60: 4, 120: 8}),
        ("MIN(METRICS('m'))", {0: 1, 60: 2, 120: 8}),
        ("METRIC_COUNT(METRICS())", 5),
        ("ABS(0 - m1)", {0: 1, 60: 2}),
        ("CEIL(m1 / 2)", {0: 1, 60: 1}),
        ("FLOOR(m1 / 2)", {0: 0, 60: 1}),
        ("RUNNING_SUM(errors)", {0: 1, 60: 1, 180: 4}),
        ("DIFF(requests)", {60: 10, 120: -15, 180: -5}),
        ("RATE(m1)", {60: 1 / 60}),
        ("DIFF_TIME(errors)", {60: 60, 180: 120}),
        ("PERIOD(m1)", 60),
        ("m1 / PERIOD(m1)", {0: 1 / 60, 60: 2 / 60}),
        ("TIME_SERIES(7)", {0: 7, 60: 7, 120: 7, 180: 7}),
        ("SUM(empty)", {}),
        ("empty + 1", {}),
    ],
)
def test_an_expression_gives(text, expected):
    """Missing on one side is missing in the result."""
    assert compute(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "too soon"),
        ("1 +", "too soon"),
        ("(1", r"\)"),
        ("1 2", "did not expect '2'"),
        ("m1 $ m2", r"did not expect '\$'"),
        ("nope + 1", "no metric with the id 'nope'"),
        ("SEARCH('x', 'Sum', 60)", "SEARCH is not supported"),
        ("ANOMALY_DETECTION_BAND(m1)", "not supported"),
        ("SUM(m1, m2)", "takes 1 argument"),
        ("METRICS(m1)", "quotes"),
        ("SUM(m1", "expected , or"),
        ("1 / 0", "no real value"),
        ("__import__('os')", "not supported"),
        ("m1.__class__", "did not expect"),
    ],
)
def test_what_is_not_valid_is_refused_in_words(text, reason):
    """Nothing is ever run as code."""
    with pytest.raises(MathError, match=reason):
        compute(text)


numbers = st.integers(-50, 50)


@given(numbers, numbers, numbers)
def test_arithmetic_is_pythons(a, b, c):
    """Precedence, signs and brackets, against another parser."""
    text = f"({a}) + ({b}) * ({c}) - -({a} - {b}) * 2"
    assert compute(text) == a + b * c - -(a - b) * 2


series = st.dictionaries(st.sampled_from([0, 60, 120, 180]), st.floats(-100, 100), max_size=4)


@given(series, series)
def test_operators_work_where_both_sides_have_a_point(one, other):
    """The intersection of the times."""
    found = compute("a + b", {"a": one, "b": other})
    assert found == {at: one[at] + other[at] for at in one.keys() & other.keys()}


@given(series)
def test_filling_leaves_no_gap_and_changes_no_point(one):
    """FILL with a number is total and keeps what is there."""
    found = compute("FILL(a, 0)", {"a": one})
    assert list(found) == list(WINDOW.times())
    assert all(found[at] == one.get(at, 0) for at in found)


@given(st.text(max_size=20))
def test_any_text_is_parsed_or_refused(text):
    """Nothing else comes out of the parser."""
    with contextlib.suppress(MathError):
        parse(text)
