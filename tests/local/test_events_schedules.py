"""Schedule expressions fall due as EventBridge documents them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.local.events.schedules import InvalidScheduleError, parse_schedule

NOW = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)  # a Thursday


def dues(expression, count, now=NOW):
    schedule, found = parse_schedule(expression), []
    while len(found) < count and (now := schedule.next_after(now, NOW)) is not None:
        found.append(now)
    return [f"{due:%Y-%m-%d %H:%M:%S}" for due in found]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("rate(1 minute)", ["2026-01-01 00:01:30", "2026-01-01 00:02:30"]),
        ("rate(12 hours)", ["2026-01-01 12:00:30", "2026-01-02 00:00:30"]),
        ("rate(1 day)", ["2026-01-02 00:00:30"]),
        ("cron(0 10 * * ? *)", ["2026-01-01 10:00:00", "2026-01-02 10:00:00"]),
        ("cron(5,35 14 * * ? *)", ["2026-01-01 14:05:00", "2026-01-01 14:35:00", "2026-01-02 14:05:00"]),
        ("cron(0 18 ? * MON-FRI *)", ["2026-01-01 18:00:00", "2026-01-02 18:00:00", "2026-01-05 18:00:00"]),
        ("cron(0 8 1 * ? *)", ["2026-01-01 08:00:00", "2026-02-01 08:00:00"]),
        ("cron(0/15 * * * ? *)", ["2026-01-01 00:15:00", "2026-01-01 00:30:00"]),
        ("cron(1/10 0 * * ? *)", ["2026-01-01 00:01:00", "2026-01-01 00:11:00"]),
        ("cron(0 20-2 ? * * *)", ["2026-01-01 01:00:00", "2026-01-01 02:00:00", "2026-01-01 20:00:00"]),
        ("cron(15 10 ? * 6L 2026-2027)", ["2026-01-30 10:15:00", "2026-02-27 10:15:00"]),
        ("cron(0 0 L * ? *)", ["2026-01-31 00:00:00", "2026-02-28 00:00:00"]),
        ("cron(0 0 LW * ? *)", ["2026-01-30 00:00:00", "2026-02-27 00:00:00"]),
        ("cron(0 0 3W * ? *)", ["2026-01-02 00:00:00", "2026-02-03 00:00:00"]),
        ("cron(0 0 1W FEB,MAR ? *)", ["2026-02-02 00:00:00", "2026-03-02 00:00:00"]),
        ("cron(0 0 ? * 3#2 *)", ["2026-01-13 00:00:00", "2026-02-10 00:00:00"]),
        ("cron(0 0 ? * L *)", ["2026-01-03 00:00:00"]),
        ("cron(0 0 29 2 ? *)", ["2028-02-29 00:00:00"]),
        ("cron(0 0 1 1 ? 2025)", []),
    ],
)
def test_the_next_due_times(expression, expected):
    """The documentation's examples, and the corners of the calendar."""
    assert dues(expression, max(1, len(expected))) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "rate(1 minutes)",
        "rate(5 minute)",
        "rate(0 minutes)",
        "rate(1 second)",
        "every minute",
        "cron(* * * * *)",
        "cron(0 10 * * * *)",
        "cron(0 10 ? * ? *)",
        "cron(60 10 * * ? *)",
        "cron(0 24 * * ? *)",
        "cron(0 0 32 * ? *)",
        "cron(0 0 ? * 8 *)",
        "cron(0/0 0 * * ? *)",
        "cron(0 0 ? * 3#6 *)",
        "cron(0 0 * FOO ? *)",
    ],
)
def test_an_expression_that_is_not_valid_is_refused(expression):
    """With the expression in the message."""
    with pytest.raises(InvalidScheduleError):
        parse_schedule(expression)


@given(st.integers(0, 59), st.integers(0, 23), st.integers(0, 10**6))
def test_a_cron_is_due_after_now_and_within_its_period(minute, hour, ahead):
    """Once a day means: later than now, at most a day later, at that minute."""
    now = NOW + timedelta(seconds=ahead)
    due = parse_schedule(f"cron({minute} {hour} * * ? *)").next_after(now, NOW)
    assert due is not None
    assert timedelta(0) < due - now <= timedelta(days=1)
    assert (due.hour, due.minute, due.second) == (hour, minute, 0)


@given(st.integers(2, 100), st.integers(0, 10**6))
def test_a_rate_keeps_its_beat(value, ahead):
    """Every due time is a whole number of periods after the beginning."""
    now = NOW + timedelta(seconds=ahead)
    due = parse_schedule(f"rate({value} minutes)").next_after(now, NOW)
    assert due is not None
    assert (due - NOW) % timedelta(minutes=value) == timedelta(0)
    assert timedelta(0) < due - now <= timedelta(minutes=value)
