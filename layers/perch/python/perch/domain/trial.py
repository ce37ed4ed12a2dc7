"""Trials: what simulated rollouts came to, and whether a policy passes on them.

A *scenario* is what the candidate is like: as good as stable (alone, or with an incident that both suffer), or worse by
some odds ratio. A policy is judged by how often it takes back a good candidate, which should stay below what is
allowed, and how often and how soon it takes back a bad one.

Shares of runs are known up to chance only, so each has Wilson's 95 % interval. A policy fails when what it should not
do is *shown*: the lower bound of its false roll-backs lies above what is allowed, or the upper bound of what it detects
below the target. With few runs little can be shown; that a policy passes then says little, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

PROMOTED, ROLLED_BACK, REFUSED, UNDECIDED = "promoted", "rolled back", "refused", "undecided"
_Z = 1.959964  # 95 %, two-sided


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is simulated: the odds ratio of the candidate's failures, and by what an incident multiplies both rates."""

    times: float = 1.0
    incident: float = 1.0

    @property
    def good(self) -> bool:
        """Whether the candidate is as good as stable."""
        return self.times == 1

    def __str__(self) -> str:
        """How people call it."""
        if not self.good:
            return f"{self.times:g} times the failures"
        return "as good" if self.incident == 1 else f"as good, incident of both (x{self.incident:g})"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one rollout came to: the verdict, its minute since the candidate first got traffic, and the reason.

    `excess` is how many more requests failed than the candidate's would have at stable's true rate; `requests` is what
    it got; `ticks` and `seconds` are what simulating it took.
    """

    scenario: Scenario
    seed: int
    verdict: str
    minute: float
    reason: str
    excess: float = 0.0
    requests: int = 0
    ticks: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of runs, with its 95 % interval."""

    hits: int
    runs: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        """The share and its interval, in percent."""
        return f"{self.share:.1%} ({self.low:.1%} to {self.high:.1%})"


def wilson(hits: int, runs: int) -> Rate:
    """Wilson's interval of a share; from 0 to 1 without runs."""
    if not runs:
        return Rate(hits=0, runs=0, share=0.0, low=0.0, high=1.0)
    share, z2 = hits / runs, _Z * _Z
    middle = (share + z2 / (2 * runs)) / (1 + z2 / runs)
    half = _Z * math.sqrt(share * (1 - share) / runs + z2 / (4 * runs * runs)) / (1 + z2 / runs)
    low, high = (0.0 if hits == 0 else middle - half), (1.0 if hits == runs else middle + half)
    return Rate(hits=hits, runs=runs, share=share, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All runs of one scenario.

    `minutes` (median and 90th percentile) are those of its likely end: roll-backs of a bad candidate, promotions of a
    good one; None if there were none. `excess` is the mean number of failures that it cost, `excess_p95` what 95 % of
    the runs stayed below. `reasons` counts the roll-backs by what spoke against the candidate.
    """

    scenario: Scenario
    rolled_back: Rate
    promoted: Rate
    undecided: Rate
    median_minute: float | None
    p90_minute: float | None
    excess: float
    excess_p95: float
    reasons: Mapping[str, int]


def summary(outcomes: Sequence[Outcome]) -> Summary:
    """Sum up the runs of one scenario. Raises ValueError without runs, or with those of several scenarios."""
    if len({outcome.scenario for outcome in outcomes}) != 1:
        raise ValueError("a summary is of the runs of one scenario")
    scenario, runs = outcomes[0].scenario, len(outcomes)
    likely = PROMOTED if scenario.good else ROLLED_BACK
    minutes = sorted(outcome.minute for outcome in outcomes if outcome.verdict == likely)
    excess = sorted(outcome.excess for outcome in outcomes)
    reasons: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.verdict == ROLLED_BACK:
            said = speaker(outcome.reason)
            reasons[said] = reasons.get(said, 0) + 1
    counts = {verdict: sum(o.verdict == verdict for o in outcomes) for verdict in (ROLLED_BACK, PROMOTED, UNDECIDED)}
    return Summary(
        scenario=scenario,
        rolled_back=wilson(counts[ROLLED_BACK], runs),
        promoted=wilson(counts[PROMOTED], runs),
        undecided=wilson(counts[UNDECIDED], runs),
        median_minute=median(minutes) if minutes else None,
        p90_minute=_at(minutes, 0.9) if minutes else None,
        excess=sum(excess) / runs,
        excess_p95=_at(excess, 0.95),
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])),
    )


def failings(summaries: Sequence[Summary], *, allowed: float, detects: float | None = None) -> Iterator[str]:
    """Say in what a policy is shown to fail.

    Args:
        summaries: one a scenario.
        allowed: the share of good candidates that may be taken back.
        detects: the share of each bad kind that must be; None for no such target.
    """
    for one in summaries:
        if one.scenario.good and one.rolled_back.low > allowed:
            yield (
                f"{one.rolled_back} of the candidates that are {one.scenario} were taken back, where at most "
                f"{allowed:.1%} may be"
            )
        if not one.scenario.good and detects is not None and one.rolled_back.high < detects:
            yield (
                f"only {one.rolled_back} of the candidates with {one.scenario} were taken back, where at least "
                f"{detects:.1%} should be"
            )


def speaker(reason: str) -> str:
    """Name what a roll-back's reason is about."""
    for what, word in _SPEAKERS:
        if word in reason:
            return what
    return "threshold"


_SPEAKERS = (
    ("alarm", "alarm "),
    ("deadline", "deadline"),
    ("latency", "took longer than stable's usual"),
    ("predictions", "candidate predictions were"),
    ("service level", "candidate requests failed, where"),
    ("budget", "and the budget is"),
    ("errors", "E = "),
)


def _at(ascending: Sequence[float], part: float) -> float:
    return ascending[min(math.ceil(part * len(ascending)), len(ascending)) - 1]
