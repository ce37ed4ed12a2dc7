"""How fast evidence grows: the chance that a bet has won by so many requests, in closed form and without simulating.

The logarithm of a bet's E value is a sum over requests: a random walk with a drift (what a request tells on average)
and a variance. It wins when it first reaches a barrier. For a Brownian motion of mean M and variance V at some time

    P(barrier b was ever reached)  =  Φ((M - b)/√V) + exp(2·M·b/V) · Φ(-(M + b)/√V)

Mean and variance come from the tests of `sequential.py` themselves, at the counts to be expected. A mixture of bets has
won at the latest when its best bet has won alone; so the chance is that of the best.

How exact that is: walks jump and are looked at once a minute, which makes them later; the other bets of the mixture
make them earlier. Against simulated minutes the chance is within some 6 percentage points, and the time within a fifth
or two minutes (tests/unit/test_growth.py). Traffic is taken as even.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from perch.domain.hypergeometric import log_means
from perch.domain.sequential import Grid, Share

_NORMAL = NormalDist()
_FAILURES = 4000  # to be expected in the one large table that the growth is read from
_STEP = 80  # failures more and less, to see what one costs
_EXACT = 500  # Poisson sums up to this many terms; the normal law beyond
_LEAST = 1e-9  # failed share; of fewer failures nobody learns anything
FOREVER = math.inf
MOST = 1e13  # requests; what is not seen by then is never seen


@dataclass(frozen=True)
class Walk:
    """Mean and variance of log E: of one request (of both revisions together), or of many."""

    mean: float = 0.0
    variance: float = 0.0

    def __add__(self, other: Walk) -> Walk:
        """Go on with another walk."""
        return Walk(self.mean + other.mean, self.variance + other.variance)

    def __mul__(self, requests: float) -> Walk:
        """So many requests of it."""
        return Walk(self.mean * requests, self.variance * requests)

    def reached(self, barrier: float) -> float:
        """The chance that `barrier` (above 0) was reached by now, at any time.

        A walk that falls reaches it by luck alone, which a Brownian motion overrates where steps are large; it is given
        no more of that than an E value has under its null.
        """
        if self.variance <= 0:
            return float(self.mean >= barrier)
        deviation = math.sqrt(self.variance)
        above = _NORMAL.cdf((self.mean - barrier) / deviation)
        back = 2 * self.mean * barrier / self.variance + _log_cdf(-(self.mean + barrier) / deviation)
        return min(above + math.exp(min(back, 0.0)), 1.0 if self.mean > 0 else math.exp(-barrier))


@dataclass(frozen=True)
class Bet:
    """One bet of a mixture: its walk a request, and the barrier at which the whole mixture has won by it alone."""

    walk: Walk
    barrier: float


def chance(stages: Iterable[tuple[Sequence[Bet], float]]) -> float:
    """The chance that a mixture has won by the end of its stages, each with its (always the same) bets and requests."""
    walks: list[Walk] = []
    barriers: list[float] = []
    for bets, requests in stages:
        walks = [a + b.walk * requests for a, b in zip(walks or [Walk()] * len(bets), bets, strict=True)]
        barriers = [bet.barrier for bet in bets]
    return max((walk.reached(barrier) for walk, barrier in zip(walks, barriers, strict=True)), default=0.0)


def requests_until(reached: Callable[[float], float], wanted: float, *, most: float = MOST) -> float:
    """The requests at which a chance that never falls first is `wanted`; infinite if it is not by `most`."""
    if reached(most) < wanted:
        return FOREVER
    low, high = 0.0, 1.0
    while reached(high) < wanted:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < wanted else (low, middle)
    return high


@dataclass(frozen=True)
class Arms:
    """Two revisions as requests meet them: the candidate's share of the requests, and the failed share of either."""

    weight: float
    candidate: float
    stable: float


@dataclass(frozen=True)
class _Line:
    """One odds ratio: its logarithm, and what E[θ^X] costs a request, and one failure more, of either revision."""

    tilt: float
    cost: float
    a_failure: float


@lru_cache(maxsize=4096)
def _lines(grid: Grid, arms: Arms) -> tuple[_Line, ...]:
    """Read the odds ratios of a grid off one large table of what to expect; none where nothing can be learnt."""
    fails = arms.weight * arms.candidate + (1 - arms.weight) * arms.stable
    if not 0 < arms.weight < 1 or not _LEAST < fails < 1:
        return ()
    requests = _FAILURES / fails
    ours, theirs = max(round(requests * arms.weight), 1), max(round(requests * (1 - arms.weight)), 1)
    tilts = [math.log(odds) for odds in grid.odds]
    most = min(_FAILURES + _STEP, ours + theirs)
    less, here, more = (log_means(tilts, ours, theirs, k) for k in (most - 2 * _STEP, _FAILURES, most))
    return tuple(
        _Line(tilt, mean / requests, (high - low) / (2 * _STEP))
        for tilt, low, mean, high in zip(tilts, less, here, more, strict=True)
    )


def above(grid: Grid, arms: Arms, *, alpha: float) -> list[Bet]:
    """The bets of `Grid.log_e_above(…, 1)`, to reach 1/`alpha`; none where nothing can be learnt."""
    at = grid.odds.index(1.0)
    return _against(arms, _lines(grid, arms), at, range(at + 1, len(grid.odds)), grid.weights[at + 1 :], alpha)


def below(grid: Grid, margin: float, arms: Arms, *, alpha: float) -> list[Bet]:
    """The bets of `Grid.log_e_below(…, margin)`, to reach 1/`alpha`; none where nothing can be learnt."""
    at = min(range(len(grid.odds)), key=lambda j: abs(math.log(grid.odds[j] / margin)))
    return _against(arms, _lines(grid, arms), at, range(at), grid.weights[: -at - 1 : -1], alpha)


def _against(
    arms: Arms, lines: Sequence[_Line], null: int, chosen: Sequence[int], weights: Sequence[float], alpha: float
) -> list[Bet]:
    """The bets on some odds ratios against one of them."""
    bets, staked = [], sum(weights)
    for j, weight in zip(chosen, weights, strict=True):
        if not weight:
            continue
        walk = Walk()
        if lines:
            tilt = lines[j].tilt - lines[null].tilt
            failure = lines[j].a_failure - lines[null].a_failure
            hits, other_hits = arms.weight * arms.candidate, (1 - arms.weight) * arms.stable
            walk = Walk(
                mean=hits * tilt - (lines[j].cost - lines[null].cost),
                variance=hits * (1 - arms.candidate) * (tilt - failure) ** 2
                + other_hits * (1 - arms.stable) * failure**2,
            )
        bets.append(Bet(walk, math.log(staked / (weight * alpha))))
    return bets


def within(share: Share, arms: Arms, *, alpha: float) -> list[Bet]:
    """The bets of `Share.log_e_within` on some failures, to reach 1/`alpha` (`unfailing` is the one on none)."""
    return _of_share(share, arms, [(part * share.limit, weight) for part, weight in share.within], alpha)


def beyond(share: Share, arms: Arms, *, alpha: float) -> list[Bet]:
    """The bets of `Share.log_e_beyond`, to reach 1/`alpha`."""
    odds = share.limit / (1 - share.limit)
    return _of_share(share, arms, [(odds * by / (1 + odds * by), weight) for by, weight in share.beyond], alpha)


def _of_share(share: Share, arms: Arms, rates: Sequence[tuple[float, float]], alpha: float) -> list[Bet]:
    bets, staked = [], sum(weight for _, weight in rates)
    for rate, weight in rates:
        if not rate:
            continue
        hit, miss = math.log(rate / share.limit), math.log1p(-rate) - math.log1p(-share.limit)
        walk = Walk(
            mean=arms.weight * (arms.candidate * hit + (1 - arms.candidate) * miss),
            variance=arms.weight * arms.candidate * (1 - arms.candidate) * (hit - miss) ** 2,
        )
        bets.append(Bet(walk, math.log(staked / (weight * alpha))))
    return bets


def unfailing(share: Share, alpha: float) -> float:
    """How many requests without a failure show a rate within the limit."""
    gains = [(w, math.log1p(-part * share.limit) - math.log1p(-share.limit)) for part, w in share.within]
    staked = sum(w for w, _ in gains)

    def log_e(requests: float) -> float:
        top = max(gain for _, gain in gains) * requests
        return top + math.log(sum(w * math.exp(gain * requests - top) for w, gain in gains) / staked)

    return requests_until(lambda requests: log_e(requests) + math.log(alpha), 0.0)


def poisson_at_least(count: int, mean: float) -> float:
    """The chance of `count` or more where `mean` are expected."""
    if count <= 0:
        return 1.0
    if mean <= 0:
        return 0.0
    if count > _EXACT:
        return _NORMAL.cdf((mean - count + 0.5) / math.sqrt(mean))
    logs = (k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(count))
    return max(1.0 - math.fsum(math.exp(log) for log in logs), 0.0)


def poisson_range(mean: float, share: float = 0.95) -> tuple[int, int]:
    """The counts between which `share` lies where `mean` are expected, the same share left out on either side."""
    if mean <= 0:
        return 0, 0
    tail = (1 - share) / 2
    spread = _NORMAL.inv_cdf(1 - tail) * math.sqrt(mean)
    if mean > _EXACT:
        return round(mean - spread), round(mean + spread)
    low = max(math.floor(mean - 2 * spread - 5), 0)
    while poisson_at_least(low + 1, mean) > 1 - tail:
        low += 1
    high = low
    while poisson_at_least(high + 1, mean) > tail:
        high += 1
    return low, high


def _log_cdf(z: float) -> float:
    """Log of Φ; below -8 by its asymptotic series, which is exact enough there."""
    if z > -8:
        return math.log(_NORMAL.cdf(z))
    return -z * z / 2 - math.log(-z * math.sqrt(2 * math.pi)) - 1 / (z * z)
