"""Latency limits: one order, whoever asks, and what they were made of can be told from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.domain.baseline import ENOUGH, usual
from perch.domain.evidence import Habits, Measures
from perch.domain.latency_limits import limits_ms, limits_of, thresholds, usual_of
from perch.domain.policy import GuardPolicy

times = st.none() | st.floats(1, 20)
guards = st.builds(GuardPolicy, latency_p95_times=times, latency_p99_times=times, latency_p99_ms=times)
latencies = st.lists(st.floats(0, 1e5), min_size=3, max_size=3).map(sorted)


def frozen(policy: GuardPolicy, usual_ms: list[float], requests: int = ENOUGH) -> Measures:
    """What is frozen of a stable revision with these percentiles."""
    p50, p95, p99 = usual_ms
    return usual(Habits(requests=requests, p50_ms=p50, p95_ms=p95, p99_ms=p99), Habits(), policy, minutes=60)


@given(guards, latencies)
def test_each_threshold_is_found_where_it_was_put(policy: GuardPolicy, usual_ms: list[float]) -> None:
    """With its name and its limit, behind the three usual ones."""
    found = list(limits_of(policy, frozen(policy, usual_ms)))
    assert [i for i, _ in found] == list(range(3, 3 + len(found)))
    assert [threshold for _, threshold in found] == list(thresholds(policy, usual_ms))


@given(guards, latencies)
def test_what_is_usual_can_be_told_from_the_limits(policy: GuardPolicy, usual_ms: list[float]) -> None:
    """So that another policy's thresholds, which are times of it, can be judged by what was counted."""
    assert usual_of(frozen(policy, usual_ms)) == pytest.approx(usual_ms, rel=1e-9, abs=1e-9)


@given(guards, latencies)
def test_without_traffic_only_milliseconds_are_limits(policy: GuardPolicy, usual_ms: list[float]) -> None:
    """Nobody knows what twice the usual is."""
    measures = frozen(policy, usual_ms, requests=ENOUGH - 1)
    assert measures.limits_ms == limits_ms(policy, ()) == tuple(filter(None, [policy.latency_p99_ms]))
    assert usual_of(measures) == ()
    assert [threshold.name for _, threshold in limits_of(policy, measures)] == ["latency_p99_ms"][
        : len(measures.limits_ms)
    ]
