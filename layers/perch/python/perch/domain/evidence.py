"""Evidence: what was counted of both revisions, minute by minute, and what shall be counted.

Everything that is judged is a count out of a count: of so many requests so many failed, were slow, or were answered in
this or that way. Counts add up, cannot be starved by low traffic as percentiles can, and have an exact test.

`Measures` says what is counted. Its numbers (what is slow, which answers belong together) are frozen from what the
stable revision did *before* the minutes that they judge, so that a candidate has no say in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

QUANTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)


@dataclass(frozen=True, kw_only=True)
class CustomMetric:
    """A metric of the user's own: in how many requests something happened, by {Endpoint, Revision}, summed a minute."""

    name: str
    namespace: str
    metric: str


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is counted.

    `limits_ms`: a request counts as slower than each of these latencies that it exceeds (milliseconds, warm requests).
    With `usual` the first three are stable's usual p50, p95 and p99; the others are the limits of thresholds.
    `edges`: upper bounds (inclusive) of the bins of predictions, growing; one more bin lies above the last. Without
    edges predictions are not counted. `requests_a_minute` is the traffic of both revisions together at that time, and
    `failing` the share of requests that stable failed just before.
    """

    limits_ms: tuple[float, ...] = ()
    usual: bool = False
    edges: tuple[float, ...] = ()
    custom: tuple[CustomMetric, ...] = ()
    requests_a_minute: float = 0.0
    failing: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What one revision did over a span of `minutes`: what is usual of it.

    Latencies are of warm requests, in milliseconds; None when there were none. `quantiles` are those of the Prediction
    metric at `QUANTILES` (in percent); empty when nothing was predicted.
    """

    minutes: int = 0
    requests: int = 0
    failures: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Counts of one revision: in a minute, or added up.

    `requests` includes `failures` (5xx answers, crashes, time-outs). `cold` requests were the first of their process;
    they are not among the `timed`, of which `slower[i]` took longer than `Measures.limits_ms[i]`. `bins[i]` predictions
    fell into bin i (one prediction a request); `custom[i]` is the count of `Measures.custom[i]`. `unlogged` requests
    left no log line, so nobody knows whether they failed.
    """

    requests: int = 0
    failures: int = 0
    cold: int = 0
    timed: int = 0
    slower: tuple[int, ...] = ()
    bins: tuple[int, ...] = ()
    custom: tuple[int, ...] = ()
    unlogged: int = 0

    @property
    def rate(self) -> float:
        """The failed share; 0 without requests."""
        return self.failures / self.requests if self.requests else 0.0

    def __add__(self, other: Arm) -> Arm:
        """Add what was counted in another span of time by the same measures (an empty tuple counts as zeros)."""
        return Arm(
            requests=self.requests + other.requests,
            failures=self.failures + other.failures,
            cold=self.cold + other.cold,
            timed=self.timed + other.timed,
            slower=_added(self.slower, other.slower),
            bins=_added(self.bins, other.bins),
            custom=_added(self.custom, other.custom),
            unlogged=self.unlogged + other.unlogged,
        )


@dataclass(frozen=True, kw_only=True)
class Minute:
    """What both revisions did in the minute that began at `at`."""

    at: datetime
    stable: Arm = Arm()
    candidate: Arm = Arm()

    @property
    def complete(self) -> bool:
        """Whether its log lines have arrived, but for a few that may lie on its edge."""
        return all(arm.unlogged <= max(2, 0.05 * arm.requests) for arm in (self.stable, self.candidate))


def _added(ours: tuple[int, ...], theirs: tuple[int, ...]) -> tuple[int, ...]:
    if not ours or not theirs:
        return ours or theirs
    return tuple(a + b for a, b in zip(ours, theirs, strict=True))
