"""Latency limits: what counts as slow, in the one order that those who count and those who judge share.

stable's usual p50, p95 and p99, each with some slack     if it is known what is usual
the thresholds that the guards have                       those that are times what is usual likewise
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from perch.domain.evidence import Measures
from perch.domain.policy import GuardPolicy

USUAL = 3  # so many limits come first if it is known what is usual
# Nobody notices less: a limit lies above what is usual by a tenth, and by a millisecond at least.
SLACK, SLACK_MS = 0.1, 1.0
_THRESHOLDS = (  # the guard; which of the usual latencies it is times of, or none; the share that may be slower
    ("latency_p95_times", 1, 0.05),
    ("latency_p99_times", 2, 0.01),
    ("latency_p99_ms", None, 0.01),
)


class Threshold(NamedTuple):
    """A threshold of the guards: of the requests, the share `allowed` may take longer than `ms`."""

    name: str
    ms: float
    allowed: float


def limits_ms(guards: GuardPolicy, usual: Sequence[float]) -> tuple[float, ...]:
    """Return all limits in their order; `usual` are stable's p50, p95 and p99 in milliseconds, or nothing."""
    slow = (ms + max(SLACK * ms, SLACK_MS) for ms in usual)
    return (*slow, *(threshold.ms for threshold in thresholds(guards, usual)))


def thresholds(guards: GuardPolicy, usual: Sequence[float]) -> Iterator[Threshold]:
    """Tell the thresholds that are set and known."""
    for name, of, allowed in _THRESHOLDS:
        value = getattr(guards, name)
        if value is not None and (of is None or usual):
            yield Threshold(name, value if of is None else value * usual[of], allowed)


def limits_of(guards: GuardPolicy, measures: Measures) -> Iterator[tuple[int, Threshold]]:
    """Find the thresholds among limits that the same guards froze: the place of each, and it with that limit."""
    usual = usual_of(measures)
    for i, threshold in enumerate(thresholds(guards, usual), start=len(usual)):
        if i < len(measures.limits_ms):
            yield i, threshold._replace(ms=measures.limits_ms[i])


def usual_of(measures: Measures) -> tuple[float, ...]:
    """Return the usual latencies that limits were made of, but for rounding; nothing if they were not known."""
    limits = measures.limits_ms[:USUAL] if measures.usual else ()
    return tuple(min(limit / (1 + SLACK), limit - SLACK_MS) for limit in limits)
