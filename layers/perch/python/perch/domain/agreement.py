"""Agreement: what two revisions answered to the same requests, compared pair by pair and summed up.

A replayed request gives a pair of answers, stable's and the candidate's. `compare` makes a `Replayed` of one pair, and
sums of them tell the rest: how often both answered the same, how often only one of them failed, how long each took.

    Answer, Answer ──► compare ──► Replayed + Replayed + … ──► ready · log_e_worse · summary

Answers agree when their predictions do: labels exactly, numbers within a tolerance. Probabilities always differ between
two models, so they are measured (`moved`) and not held against anybody.

Pairs make failures cheap to judge. If the candidate is no worse, a request on which exactly one of the two failed is as
likely to be stable's failure as the candidate's, whatever the requests are (McNemar's test). `log_e_worse` is the
evidence against that, valid at every look. The requests are those that stable answered once, and golden ones; so "no
worse" is said of these, with both asked at the same time (`app/replay.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from perch.domain.sequential import Split

DIFFERENCES_KEPT = 20
_SHORT = 120
_WIDTH = math.log(1.05)
_SPLIT = Split()  # of the pairs of which one failed, half are the candidate's if it is no worse


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a revision made of one request.

    `status` is HTTP's (a crash or a time-out is 502); `predictions` has one value a row and `probabilities` one list of
    numbers a row, if the model gives them; `latency_ms` is the predictor's own measure, None if it is not known.
    """

    status: int
    predictions: tuple[Any, ...] = ()
    probabilities: tuple[tuple[float, ...], ...] = ()
    latency_ms: float | None = None
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether the revision failed, rather than refused a bad request."""
        return self.status >= 500

    def __str__(self) -> str:
        """Say it shortly."""
        if self.status != 200:
            return _short(f"{self.status} {self.error}".rstrip())
        return _short(", ".join(map(_said, self.predictions)))


def agree(stable: Answer, candidate: Answer, tolerance: float) -> str | None:
    """Say how the candidate's answer differs from stable's; None if it does not.

    Predictions with a fraction (floats) agree when they are no further apart than `tolerance`, or than that share of
    the larger; all others only when they are equal. Probabilities are not looked at.
    """
    if candidate.status != stable.status:
        return f"answered {candidate}, stable {stable.status}"
    if stable.status != 200:
        return None
    ours, theirs = stable.predictions, candidate.predictions
    if len(ours) != len(theirs):
        return f"answered {len(theirs)} predictions, stable {len(ours)}"
    differing = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if not _same(a, b, tolerance)]
    if not differing:
        return None
    first = differing[0]
    rows = f"; {len(differing)} of {len(ours)} rows differ" if len(ours) > 1 else ""
    return f"row {first + 1}: {_said(theirs[first])}, stable {_said(ours[first])}{rows}"


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of positive numbers in bins that are 5 % wide, so that sums of them give quantiles within 2.5 %.

    `bins` are pairs (bin, count), the bin growing; bin b holds what lies in [1.05^b, 1.05^(b+1)). Numbers below 0.0001
    count as that.
    """

    bins: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, value: float) -> Histogram:
        """Count one number."""
        return cls(bins=((math.floor(math.log(max(value, 1e-4)) / _WIDTH), 1),))

    @property
    def count(self) -> int:
        """How many numbers were counted."""
        return sum(count for _, count in self.bins)

    def quantile(self, q: float) -> float | None:
        """Return the number that a share `q` in (0, 1] of what was counted does not exceed; None without any."""
        left = q * self.count
        for number, count in self.bins:
            left -= count
            if left <= 1e-9:  # q times the count need not be the whole number that it ought to be
                return math.exp((number + 0.5) * _WIDTH)
        return None

    def __add__(self, other: Histogram) -> Histogram:
        """Add what was counted elsewhere."""
        counts = dict(self.bins)
        for number, count in other.bins:
            counts[number] = counts.get(number, 0) + count
        return Histogram(bins=tuple(sorted(counts.items())))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A request that was answered differently: how, in a few words, and both answers, shortened."""

    request_id: str
    what: str
    stable: str
    candidate: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """How far the log was read: up to the time `at`, and of that very millisecond the requests in `seen`."""

    at: datetime
    seen: tuple[str, ...] = ()

    def past(self, request_id: str, at: datetime) -> Mark:
        """Return the mark after one more request."""
        return Mark(at=at, seen=(*self.seen, request_id) if at == self.at else (request_id,))


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What the replays of a rollout showed so far: a sum, and how far they got.

    `pairs` counts the requests that were sent to the candidate and that stable did not refuse; of these both `agreed`,
    or they differed, or the candidate alone failed, or stable alone, or both. `skipped` could not be compared.
    Latencies are the predictors' own, in milliseconds, of pairs that both answered; `moved` is the largest change of a
    probability within such a pair. The first twenty `differences` are kept.

    `forward` is how far live requests were followed (a shadow). In paired mode `sent` counts the requests that were
    taken from the pool, golden ones first, `backward` is how far back the log was read for it, and `exhausted` says
    that nothing is left. `runs` counts the sums that were stored.
    """

    pairs: int = 0
    agreed: int = 0
    candidate_failed_only: int = 0
    stable_failed_only: int = 0
    both_failed: int = 0
    skipped: int = 0
    stable_ms: Histogram = Histogram()
    candidate_ms: Histogram = Histogram()
    moved: Histogram = Histogram()
    differences: tuple[Difference, ...] = ()
    forward: Mark | None = None
    backward: Mark | None = None
    sent: int = 0
    exhausted: bool = False
    runs: int = 0

    @property
    def until(self) -> datetime | None:
        """Live requests before this time were replayed; None before the first."""
        return self.forward.at if self.forward else None

    @property
    def compared(self) -> int:
        """Pairs that stable answered: the candidate owed the same answer."""
        return self.pairs - self.stable_failed_only - self.both_failed

    @property
    def differed(self) -> int:
        """Pairs that both answered, but not the same."""
        return self.compared - self.agreed - self.candidate_failed_only

    @property
    def agreement(self) -> float | None:
        """The share of compared pairs that agreed (the candidate's failures do not); None without any."""
        return self.agreed / self.compared if self.compared else None

    def __add__(self, later: Replayed) -> Replayed:
        """Add what came later: counts are summed, and how far it got is the later's word."""
        return Replayed(
            pairs=self.pairs + later.pairs,
            agreed=self.agreed + later.agreed,
            candidate_failed_only=self.candidate_failed_only + later.candidate_failed_only,
            stable_failed_only=self.stable_failed_only + later.stable_failed_only,
            both_failed=self.both_failed + later.both_failed,
            skipped=self.skipped + later.skipped,
            stable_ms=self.stable_ms + later.stable_ms,
            candidate_ms=self.candidate_ms + later.candidate_ms,
            moved=self.moved + later.moved,
            differences=(self.differences + later.differences)[:DIFFERENCES_KEPT],
            forward=later.forward or self.forward,
            backward=later.backward or self.backward,
            sent=self.sent + later.sent,
            exhausted=later.exhausted or self.exhausted,
            runs=self.runs + later.runs,
        )

    def log_e_worse(self) -> float:
        """Return the natural logarithm of the evidence (an E value) that the candidate fails more often than stable.

        If it does not, on the requests that are replayed (those that stable answered once, and golden ones), it exceeds
        log(1/alpha) with a chance of at most alpha, ever, however often it is looked at. That takes pairs of which
        neither answer was chosen for being one.
        """
        state = _SPLIT.update(_SPLIT.start(), self.candidate_failed_only, self.stable_failed_only, 0.5)
        return _SPLIT.log_e_above(state, 1.0)

    def summary(self) -> str:
        """Say it in one sentence with its numbers."""
        if not self.pairs:
            return "no request was replayed yet" + (f" ({self.skipped:,} skipped)" if self.skipped else "")
        said = f"{self.agreed:,} of {self.compared:,} replayed answers agree"
        if self.agreement is not None:
            said += f" ({self.agreement:.1%})"
        ours, theirs = self.candidate_failed_only, self.stable_failed_only
        said += f"; the candidate alone failed on {ours:,}, stable alone on {theirs:,}"
        if self.both_failed:
            said += f", both on {self.both_failed:,}"
        slow, slow_stable = self.candidate_ms.quantile(0.99), self.stable_ms.quantile(0.99)
        if slow is not None and slow_stable is not None:
            said += f"; p99 {slow:.3g} ms against {slow_stable:.3g} ms"
        return said


def compare(request_id: str, stable: Answer, candidate: Answer, *, tolerance: float) -> Replayed:
    """Return the sum of one pair. What stable refuses (4xx) says nothing of the candidate and is skipped."""
    if 400 <= stable.status < 500:
        return Replayed(skipped=1)
    pair = Replayed(pairs=1)
    if stable.failed:
        return replace(pair, both_failed=1) if candidate.failed else replace(pair, stable_failed_only=1)
    what = agree(stable, candidate, tolerance)
    if what is not None:
        short = Difference(
            request_id=request_id[:_SHORT], what=_short(what), stable=str(stable), candidate=str(candidate)
        )
        pair = replace(pair, differences=(short,))
    if candidate.failed:
        return replace(pair, candidate_failed_only=1)
    if stable.latency_ms is not None and candidate.latency_ms is not None:
        pair = replace(pair, stable_ms=Histogram.of(stable.latency_ms), candidate_ms=Histogram.of(candidate.latency_ms))
    if (moved := _moved(stable, candidate)) is not None:
        pair = replace(pair, moved=Histogram.of(moved))
    return replace(pair, agreed=0 if what else 1)


def ready(replayed: Replayed, *, pairs_needed: int, agreement: float) -> tuple[bool | None, str]:
    """Say whether the candidate answers as stable does.

    Args:
        replayed: the sum.
        pairs_needed: compared answers that it takes to say anything (at least one).
        agreement: the share of them that must agree.

    Returns:
        True, False, or None while there are too few; and the reason with its numbers.
    """
    needed, has = max(pairs_needed, 1), replayed.compared
    if has < needed or replayed.agreement is None:
        none_left = ", and there are no more to replay" if replayed.exhausted else ""
        return None, f"needs {needed:,} compared answers, has {has:,}{none_left}; {replayed.summary()}"
    if replayed.agreement < agreement:
        return False, f"answers agree less than the {agreement:.1%} that are asked for: {replayed.summary()}"
    return True, replayed.summary()


def _same(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if _number(a) and _number(b) and (isinstance(a, float) or isinstance(b, float)):
        return bool(abs(a - b) <= tolerance * max(1.0, abs(a), abs(b)))
    return bool(a == b)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _moved(stable: Answer, candidate: Answer) -> float | None:
    """Return by how much the probability that changed most did; None where there are none to compare."""
    rows = list(zip(stable.probabilities, candidate.probabilities, strict=False))
    if not rows or any(len(a) != len(b) for a, b in rows):
        return None
    return max((abs(x - y) for a, b in rows for x, y in zip(a, b, strict=True)), default=None)


def _said(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
