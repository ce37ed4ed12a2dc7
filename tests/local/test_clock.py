"""The virtual clock: one timeline, stepped or free-running, that never overtakes work under way."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.local.clock import ClockStuckError, VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(0, 1000))
def test_timers_fire_in_order_of_due_time_with_the_clock_at_that_time(delays, span):
    """Whatever was set, what is due fires, in order, each at its own time, and the clock ends where it was sent."""
    clock = VirtualClock(START)
    fired = []
    for delay in delays:
        clock.call_at(START + seconds(delay), lambda due: fired.append((due, clock.now())))
    clock.advance(span)
    assert [due for due, _ in fired] == [START + seconds(delay) for delay in sorted(delays) if delay <= span]
    assert all(due == now for due, now in fired)
    assert clock.now() == START + seconds(span)


@given(st.lists(st.floats(0.001, 500), min_size=1, max_size=10))
def test_advancing_in_pieces_fires_the_same_as_advancing_at_once(pieces):
    """Stepping is additive: how the way is divided does not matter."""

    def run(steps):
        clock, fired = VirtualClock(START), []
        clock.call_every(7.5, fired.append)
        for step in steps:
            clock.advance_to(step)
        return fired

    ends, at = [], START
    for piece in pieces:
        at += seconds(piece)
        ends.append(at)
    assert run(ends) == run(ends[-1:])


def test_timers_due_together_fire_in_the_order_they_were_set():
    """Ties are broken by who came first."""
    clock, fired = VirtualClock(START), []
    for name in "abc":
        clock.call_at(START + seconds(1), lambda _, name=name: fired.append(name))
    clock.advance(1)
    assert fired == ["a", "b", "c"]


def test_a_timer_set_by_a_timer_fires_within_the_same_advance():
    """Effects of effects are part of the step."""
    clock, fired = VirtualClock(START), []
    clock.call_at(START + seconds(1), lambda due: clock.call_at(due + seconds(1), fired.append))
    clock.advance(5)
    assert fired == [START + seconds(2)]


def test_a_repeating_timer_does_not_drift_and_can_cancel_itself():
    """The third call takes itself off the timeline."""
    clock, fired = VirtualClock(START), []

    def tick(due):
        fired.append(due)
        if len(fired) == 3:
            timer.cancel()

    timer = clock.call_every(60, tick, first=START + seconds(5))
    clock.advance(3600)
    assert fired == [START + seconds(5 + 60 * n) for n in range(3)]
    assert clock.timers() == ()


def test_a_cancelled_timer_does_not_fire():
    """Cancelling twice is fine."""
    clock, fired = VirtualClock(START), []
    timer = clock.call_at(START + seconds(1), fired.append)
    timer.cancel()
    timer.cancel()
    clock.advance(10)
    assert fired == []


def test_a_stepped_advance_waits_for_work_before_it_fires_the_next_timer():
    """Work that a timer started on a thread ends while the clock still stands at the timer's time."""
    clock, order = VirtualClock(START), []
    go = threading.Event()

    def start_work(_):
        hold = clock.hold("slow work")
        hold.__enter__()

        def work():
            go.wait(60)
            order.append(("work", clock.now()))
            hold.__exit__(None, None, None)

        threading.Thread(target=work).start()
        threading.Timer(0.01, go.set).start()

    clock.call_at(START + seconds(1), start_work)
    clock.call_at(START + seconds(2), lambda due: order.append(("timer", due)))
    clock.advance(3)
    assert order == [("work", START + seconds(1)), ("timer", START + seconds(2))]


def test_work_that_never_ends_is_named_in_the_error():
    """The safety limit says who holds the clock."""
    clock = VirtualClock(START, patience_s=0.01)
    with clock.hold("the stuck handler"), pytest.raises(ClockStuckError, match="the stuck handler"):
        clock.advance(1)
    clock.advance(1)
    assert clock.now() == START + seconds(1)


def test_an_error_in_a_timer_reaches_whoever_steps_the_clock():
    """A stepped test fails where the machinery fails, and the clock can go on."""
    clock = VirtualClock(START)
    clock.call_at(START + seconds(1), lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clock.advance(2)
    clock.advance(1)
    assert clock.now() == START + seconds(2)


def test_the_clock_refuses_what_makes_no_sense():
    """Naive times, going back, a period of nothing, a speed of nothing, stepping from a timer."""
    clock = VirtualClock(START)
    with pytest.raises(ValueError, match="aware"):
        clock.call_at(datetime(2026, 1, 1), print)  # noqa: DTZ001 - the point of the test
    with pytest.raises(ValueError, match="go back"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="positive"):
        clock.call_every(0, print)
    for speed in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="speed"):
            VirtualClock(START, speed=speed)
    clock.call_at(START + seconds(1), lambda _: clock.advance(1))
    with pytest.raises(RuntimeError, match="not from a timer"):
        clock.advance(2)


class Wall:
    """Real time, in a test's hands."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_free_running_time_flows_at_the_speed_and_the_speed_may_change():
    """Ten real seconds at 60, then ten at 2."""
    wall = Wall()
    clock = VirtualClock(START, speed=60, wall=wall)
    clock.run()
    try:
        wall.now = 10
        assert clock.now() == START + seconds(600)
        clock.speed = 2
        wall.now = 20
        assert clock.now() == START + seconds(620)
    finally:
        clock.stop()
    wall.now = 99
    assert clock.now() == START + seconds(620)
    clock.advance(1)
    assert clock.now() == START + seconds(621)


def test_a_running_clock_cannot_be_stepped():
    """One or the other."""
    clock = VirtualClock(START)
    clock.run()
    try:
        with pytest.raises(RuntimeError, match="stop"):
            clock.advance(1)
    finally:
        clock.stop()


def test_above_real_time_a_hold_stops_the_clock_at_the_next_due_timer():
    """However much real time passes, virtual time stands at the due time until the work has ended."""
    wall, fired = Wall(), threading.Event()
    clock = VirtualClock(START, speed=1000, wall=wall)
    seen = []
    clock.call_at(START + seconds(60), lambda due: (seen.append((due, clock.now())), fired.set()))
    with clock.hold():
        clock.run()
        wall.now = 100
        clock.call_at(START + seconds(10**9), print)  # wakes the thread, so that it sees the new real time
        assert clock.now() == START + seconds(60)
        assert not fired.is_set()
    assert fired.wait(60)
    clock.stop()
    assert seen == [(START + seconds(60), START + seconds(60))]
    assert clock.now() == START + seconds(60)


def test_steady_traffic_cannot_stop_time():
    """There is never a moment without work, yet timers fire: each waits only for work that began before it was due."""
    wall, ticks = Wall(), threading.Semaphore(0)
    clock = VirtualClock(START, speed=1000, wall=wall)
    clock.call_every(60, lambda _: ticks.release())
    request = clock.hold("a request")
    request.__enter__()
    clock.run()
    for n in range(1, 6):
        wall.now += 1
        clock.call_at(START + seconds(10**9), print)  # wakes the thread, so that it sees the new real time
        assert clock.now() == START + seconds(60 * n)
        following = clock.hold("the next request")
        following.__enter__()
        request.__exit__(None, None, None)
        request = following
        assert ticks.acquire(timeout=60)
    clock.stop()
    request.__exit__(None, None, None)


def test_at_real_time_a_hold_stops_nothing():
    """A handler that hangs cannot stop the real world."""
    wall, fired = Wall(), threading.Event()
    clock = VirtualClock(START, speed=1, wall=wall)
    clock.call_at(START + seconds(60), lambda _: fired.set())
    with clock.hold("a handler that hangs"):
        clock.run()
        wall.now = 100
        clock.call_at(START + seconds(10**9), print)
        assert fired.wait(60)
        assert clock.now() == START + seconds(100)
        clock.stop()


def test_a_failing_timer_does_not_stop_a_running_clock(caplog):
    """The error is logged with the timer's name; the next timer fires."""
    clock, fired = VirtualClock(START, speed=100_000), threading.Event()
    clock.call_at(START + seconds(1), lambda _: 1 / 0, "the bad one")
    clock.call_at(START + seconds(2), lambda _: fired.set())
    clock.run()
    assert fired.wait(60)
    clock.stop()
    assert "the bad one" in caplog.text
