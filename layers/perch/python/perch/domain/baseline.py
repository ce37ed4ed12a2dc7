"""The baseline: what is usual for stable, read once before a candidate is measured by it, and frozen (`Measures`).

What counts as slow, and which predictions belong together, must be fixed before the minutes that are judged by it;
otherwise the candidate would have a say in it, and the tests would promise nothing.
"""

from __future__ import annotations

from perch.domain.evidence import Habits, Measures
from perch.domain.latency_limits import USUAL, limits_ms
from perch.domain.policy import GuardPolicy

ENOUGH = 100  # requests; fewer have no 99th percentile to speak of


def usual_latencies(habits: Habits) -> tuple[float, ...]:
    """Return what is usual, p50, p95 and p99 in milliseconds; nothing if there were too few requests to tell."""
    known = tuple(ms for ms in (habits.p50_ms, habits.p95_ms, habits.p99_ms) if ms is not None)
    return known if len(known) == USUAL and habits.requests >= ENOUGH else ()


def usual(habits: Habits, recent: Habits, guards: GuardPolicy, *, minutes: float) -> Measures:
    """Say what to count, from what stable did in the `minutes` before; if too little, only what is configured.

    `recent` is the last quarter of an hour: whether stable fails just now, so that a fix may be what is coming.
    """
    latencies = usual_latencies(habits)
    # Six digits: bounds that differ by less are the same bound to CloudWatch.
    edges = sorted({float(f"{q:.6g}") for q in habits.quantiles}) if latencies and guards.shift_odds is not None else []
    return Measures(
        limits_ms=limits_ms(guards, latencies),
        usual=bool(latencies),
        edges=tuple(edges),
        custom=guards.custom,
        requests_a_minute=habits.requests / minutes if minutes else 0.0,
        failing=recent.failures / recent.requests if recent.failures >= guards.min_errors else 0.0,
    )


def say_measures(measures: Measures) -> str:
    """Say a baseline in a sentence."""
    if not measures.usual:
        return "stable has had too little traffic to know what is usual for it; errors are compared all the same"
    p50, p95, p99 = measures.limits_ms[:3]
    said = f"slower than usual for stable is above {p50:.4g} (p50), {p95:.4g} (p95) and {p99:.4g} ms (p99)"
    if measures.edges:
        said += f"; predictions are counted in {len(measures.edges) + 1} bins"
    if measures.failing:
        said += f"; it fails {measures.failing:.1%} of its requests just now"
    return f"{said}, at {measures.requests_a_minute:,.4g} requests a minute"
