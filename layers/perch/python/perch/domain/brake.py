"""The brake: does a variant fail its users more often than the champion? Then it loses them all, at once.

Requests and failures of each variant are compared with the champion's minute by minute, by the same test that judges
rollouts (`sequential.Comparison`): valid at any look, blind to how much traffic there is and to the shares. The K
challengers divide alpha, so it bounds the probability that a good variant is ever braked.

A process that is killed leaves no line in the log, so a variant that crashes is not seen here. It takes requests of all
variants with it, and is stopped before it is one: by its probes and by the rollout that began the experiment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from perch.domain.sequential import Comparison, Table, enough

COMPARISON = Comparison()


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Requests of one variant, and how many of them failed."""

    requests: int = 0
    failures: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Add counts of another time."""
        return Counts(requests=self.requests + other.requests, failures=self.failures + other.failures)

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.failures:,} of {self.requests:,} requests"


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What was seen of the variants before `until`: the test's state of each challenger, and all counts."""

    until: datetime
    states: dict[str, tuple[float, ...]]
    counts: dict[str, Counts]


def begin(at: datetime) -> Watch:
    """Return the watch over an experiment that begins now."""
    return Watch(until=at, states={}, counts={})


def look(watch: Watch, champion: str, minutes: Sequence[Mapping[str, Counts]], *, until: datetime) -> Watch:
    """Add minutes, each with the counts of the variants that had requests in it."""
    states, counts = dict(watch.states), dict(watch.counts)
    for minute in minutes:
        theirs = minute.get(champion, Counts())
        for name, own in minute.items():
            counts[name] = counts.get(name, Counts()) + own
            if name != champion:
                table = Table(own.failures, own.requests, theirs.failures, theirs.requests)
                states[name] = COMPARISON.update(states.get(name) or COMPARISON.start(), table)
    return Watch(until=until, states=states, counts=counts)


def failing(watch: Watch, champion: str, challengers: Sequence[str], *, alpha: float) -> dict[str, str]:
    """Return the challengers that are shown to fail more often than the champion, each with the reason."""
    found = {}
    each = alpha / max(1, len(challengers))
    for name in challengers:
        log_e = COMPARISON.log_e_above(watch.states.get(name) or COMPARISON.start(), 1.0)
        if enough(log_e, each):
            found[name] = (
                f"{watch.counts[name]} of {name} failed against {watch.counts.get(champion, Counts())} of {champion}: "
                f"E = {math.exp(min(log_e, 700)):.3g} ≥ {1 / each:g}"
            )
    return found
