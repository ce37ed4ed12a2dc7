"""Tests that may be looked at after every minute: how much the evidence is worth against a hypothesis, as an E value.

An E value is the gain of a fair bet against a hypothesis: while the hypothesis is true its expectation never exceeds
1, whatever was seen before. By Ville's inequality the chance that it *ever* reaches 1/alpha is then at most alpha, so
a rollout may be judged each minute, for as long as one likes. All E values are kept as logarithms.

The flow: a minute is a 2x2 `Table`; `Comparison.update` adds its log likelihood at every odds ratio of a grid to a
small state; from that one state `log_e_above` and `log_e_below` answer "is the odds ratio above / below this?" for any
null on the grid, and `interval` says which odds ratios are left. `Split` does the same for the share of requests that
one revision gets, `Shift` for answers counted in bins, `Share` for a plain rate against a limit (SLO). `combine` joins
guards.

The law that it all rests on. Given a minute's requests of both arms and its hits together, the candidate's hits are
Fisher's noncentral hypergeometric f(x; θ) ∝ C(n1, x)·C(n0, k-x)·θˣ, which knows nothing but the odds ratio θ.
Conditioning on k takes away the base rate (drifting traffic, incidents of both arms), and conditioning on n1 and n0 the
weight (any weight chosen before the minute is fine). f has a monotone likelihood ratio, so for θj > null the mean of
f(x; θj)/f(x; null) is 1 at the null and less below it; products over minutes, and means over j by the prior, keep that.

Assumed: routing is random, and a minute's requests fail independently of each other given their arm. Left to others:
which minutes count, what is a hit, and which alpha (judge.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from perch.domain.hypergeometric import log_means

State = tuple[float, ...]

# Odds ratios to bet on, and what is staked on each when betting upwards; a bet downwards stakes on 1/θ what one upwards
# stakes on θ. Chosen on the traces of benchmarks/judge_rates.py: above 1 most is staked on a doubling, the regression
# that is hard to see (a larger one has evidence to spare); a bet on "not worse" is above all one on "equal". The usual
# margins 1.25, 1.5, 2, 3 are there to serve as nulls.
PRIOR: Mapping[float, float] = {
    1 / 32: 0.1,
    1 / 10: 0.2,
    1 / 6: 0.2,
    1 / 4: 0.4,
    1 / 3: 0.4,
    1 / 2.5: 0.4,
    1 / 2: 1.0,
    1 / 1.5: 1.0,
    1 / 1.25: 2.0,
    1.0: 40.0,
    1.25: 0.2,
    1.5: 0.8,
    2.0: 5.5,
    2.5: 0.8,
    3.0: 0.8,
    4.0: 0.4,
    6.0: 0.4,
    10.0: 1.0,
    32.0: 0.5,
}


class Table(NamedTuple):
    """One minute: `hits` of `trials` of the candidate, `other_hits` of `other_trials` of stable."""

    hits: int
    trials: int
    other_hits: int
    other_trials: int


@dataclass(frozen=True)
class Grid:
    """Odds ratios (ascending, each with its inverse, 1 in the middle) and the weight of each: what a test bets on.

    A state holds, for each of them, the log likelihood of all that was seen, relative to odds ratio 1. `weights` are
    for bets upwards, their mirror image for bets downwards, so that naming the arms the other way round changes
    nothing. Only ratios of weights on one side of a null matter; a point with weight 0 serves as a null only.

    Raises:
        ValueError: the grid is not ascending, not symmetric, or has not one nonnegative weight a point.
    """

    odds: tuple[float, ...] = tuple(PRIOR)
    weights: tuple[float, ...] = tuple(PRIOR.values())

    def __post_init__(self) -> None:
        """Check the grid."""
        mirrored = (math.isclose(one * other, 1) for one, other in zip(self.odds, reversed(self.odds), strict=True))
        if list(self.odds) != sorted(set(self.odds)) or 1.0 not in self.odds or not all(mirrored):
            raise ValueError(f"odds ratios must be ascending, each with its inverse and 1 among them: {self.odds}")
        if len(self.weights) != len(self.odds) or min(self.weights) < 0:
            raise ValueError("every odds ratio needs one weight of at least 0")

    def start(self) -> State:
        """The state before anything was seen."""
        return (0.0,) * len(self.odds)

    def log_e_above(self, state: State, null: float) -> float:
        """Log evidence against "the odds ratio is at most `null`"; 0 with no weight above. ValueError off the grid."""
        at = self._index(null)
        return _log_bet(state[at + 1 :], self.weights[at + 1 :], state[at])

    def log_e_below(self, state: State, null: float) -> float:
        """Log evidence against "the odds ratio is at least `null`"; 0 with no weight below. ValueError off the grid."""
        at = self._index(null)
        return _log_bet(state[:at], self.weights[: -at - 1 : -1], state[at])

    def log_e_outside(self, state: State, margin: float) -> float:
        """Log evidence against "the odds ratio lies in [1/margin, margin]": half a bet on either side.

        Both margins must be on the grid. Of a margin of 1, this is the two-sided test of "no difference".
        """
        return log_sum((self.log_e_above(state, margin), self.log_e_below(state, 1 / margin))) - math.log(2)

    def interval(self, state: State, alpha: float) -> tuple[float, float]:
        """Bounds that hold the odds ratio in all minutes at once with probability 1 - `alpha`.

        Each bound is a grid point (half of alpha on either side); 0 or infinity where nothing is known. An odds ratio
        is left out only if the nearest null beyond it is refuted, so one event, not many, can make the bound wrong.
        """
        enough = math.log(2 / alpha)
        low, high = 0.0, math.inf
        for null in self.odds:
            if self.log_e_above(state, null) < enough:
                break
            low = null
        for null in reversed(self.odds):
            if self.log_e_below(state, null) < enough:
                break
            high = null
        return low, high

    def likeliest(self, state: State) -> float:
        """The odds ratio of highest likelihood: a grid point, moved towards the peak of a parabola through it."""
        at = max(range(len(state)), key=lambda j: (state[j], -abs(math.log(self.odds[j]))))
        if not 0 < at < len(state) - 1:
            return self.odds[at]
        left, here, right = (math.log(one) for one in self.odds[at - 1 : at + 2])
        rise = (state[at] - state[at - 1]) / (here - left)
        fall = (state[at] - state[at + 1]) / (right - here)
        if rise + fall <= 0:  # flat: nothing was seen
            return self.odds[at]
        return math.exp(here + (rise * (right - here) - fall * (here - left)) / (2 * (rise + fall)))

    def _index(self, null: float) -> int:
        for at, odds in enumerate(self.odds):
            if math.isclose(odds, null, rel_tol=1e-9):  # 1 / 1.5 is 2 / 3 but for rounding
                return at
        raise ValueError(f"{null} is not on the grid {self.odds}")

    @cached_property
    def _logs(self) -> tuple[float, ...]:
        return tuple(math.log(one) for one in self.odds)


@dataclass(frozen=True)
class Comparison(Grid):
    """The odds of a hit on the candidate over those on stable."""

    def update(self, state: State, table: Table) -> State:
        """Add one minute: log f(x; θ) - log f(x; 1) for every θ of the grid. ValueError for counts that cannot be."""
        hits, trials, other_hits, other_trials = table
        if not (0 <= hits <= trials and 0 <= other_hits <= other_trials):
            raise ValueError(f"more hits than trials, or fewer than none: {table}")
        if not trials or not other_trials or not 0 < hits + other_hits < trials + other_trials:
            return state  # the totals leave one possible table: nothing is learnt
        means = log_means(self._logs, trials, other_trials, hits + other_hits)
        return tuple(one + hits * log_odds - mean for one, log_odds, mean in zip(state, self._logs, means, strict=True))

    def including(self, *nulls: float) -> Comparison:
        """The same bets on a grid that also holds these nulls (and their inverses)."""
        points = dict(zip(self.odds, self.weights, strict=True))
        for null in (one for given in nulls for one in (given, 1 / given)):
            if not any(math.isclose(null, one, rel_tol=1e-9) for one in points):
                points[null] = 0.0
        odds = tuple(sorted(points))
        return Comparison(odds, tuple(points[one] for one in odds))


# Many contrasts are followed at once, each on many counts: fewer points, all with the same weight, lose little there.
COARSE = Comparison((1 / 16, 1 / 6, 1 / 3, 1 / 2, 1 / 1.5, 1 / 1.25, 1.0, 1.25, 1.5, 2.0, 3.0, 6.0, 16.0), (1.0,) * 13)


@dataclass(frozen=True)
class Split(Grid):
    """The odds of a request reaching the candidate, over those that the configured weight gives it."""

    def update(self, state: State, requests: int, other_requests: int, weight: float) -> State:
        """Add one minute with `weight` (in (0, 1)) configured. ValueError for counts or weights that cannot be."""
        if min(requests, other_requests) < 0 or not 0 < weight < 1:
            raise ValueError(f"{requests} and {other_requests} requests at weight {weight}")
        total = requests + other_requests
        return tuple(
            one + requests * math.log(odds) - total * math.log1p(weight * (odds - 1))
            for one, odds in zip(state, self.odds, strict=True)
        )


@dataclass(frozen=True)
class Share:
    """A rate of hits against a limit: is it shown to be within, or beyond? Its state is the counts, added up.

    Each bet is on one rate r: the likelihood ratio (r/limit)ʰ·((1-r)/(1-limit))ᵐ of h hits and m misses. The rate may
    change from request to request; what is refuted is "never below" and "never above" the limit. `within` and `beyond`
    are what is bet on, with weights: parts of the limit, and multiples of its odds.
    """

    limit: float
    within: tuple[tuple[float, float], ...] = ((0.0, 0.5), (1 / 8, 0.15), (1 / 4, 0.2), (1 / 2, 0.15))
    beyond: tuple[tuple[float, float], ...] = ((1.25, 0.25), (1.5, 0.25), (2.0, 0.25), (4.0, 0.25))

    def __post_init__(self) -> None:
        """Check the limit, and that the bets are on its two sides."""
        if not 0 < self.limit < 1:
            raise ValueError(f"a limit lies between 0 and 1, not at {self.limit}")
        if not all(0 <= part < 1 for part, _ in self.within) or not all(by > 1 for by, _ in self.beyond):
            raise ValueError("bets on a rate within a limit lie below it, those on one beyond it above it")

    def log_e_within(self, hits: int, trials: int) -> float:
        """Log evidence against "the rate is at least the limit"."""
        return self._log_mean(hits, trials, [(part * self.limit, weight) for part, weight in self.within])

    def log_e_beyond(self, hits: int, trials: int) -> float:
        """Log evidence against "the rate is at most the limit" (bets on odds of so many times the limit's)."""
        odds = self.limit / (1 - self.limit)
        return self._log_mean(hits, trials, [(odds * by / (1 + odds * by), weight) for by, weight in self.beyond])

    def _log_mean(self, hits: int, trials: int, bets: Sequence[tuple[float, float]]) -> float:
        if not 0 <= hits <= trials:
            raise ValueError(f"{hits} hits of {trials} trials")
        logs = []
        for rate, weight in bets:
            if rate or not hits:
                gain = hits * math.log(rate / self.limit) if hits else 0.0
                lost = math.log1p(-rate) - math.log1p(-self.limit)
                logs.append(math.log(weight) + gain + (trials - hits) * lost)
        return log_sum(logs) - math.log(sum(weight for _, weight in bets))


@dataclass(frozen=True)
class Shift:
    """Have the answers shifted? Counts in bins, compared contrast by contrast (`contrasts`), each bet on equally.

    A bet tilts the bins of a set S by θ. Given the totals of bins and arms, the candidate's counts are Fisher's
    multivariate noncentral hypergeometric ∝ Π C(k_b, x_b)·θ^(x_S), so the likelihood ratio to no tilt is
    θ^(x_S) / E[θ^(X_S)]; and X_S, without tilt, is hypergeometric with k_S hits: the ratio of the merged 2x2 table.

    The null: the odds ratio of every contrast lies in [1/margin, margin].
    """

    sets: tuple[tuple[int, ...], ...]
    margin: float = 1.0
    comparison: Comparison = COARSE

    def start(self) -> tuple[State, ...]:
        """One state a contrast."""
        return (self.comparison.start(),) * len(self.sets)

    def update(self, states: tuple[State, ...], bins: Sequence[int], other_bins: Sequence[int]) -> tuple[State, ...]:
        """Add one minute: counts a bin of candidate and stable. ValueError if they have not equally many bins."""
        if len(bins) != len(other_bins):
            raise ValueError(f"{len(bins)} bins against {len(other_bins)}")
        tables = self.tables(bins, other_bins)
        return tuple(self.comparison.update(state, table) for state, table in zip(states, tables, strict=True))

    def tables(self, bins: Sequence[int], other_bins: Sequence[int]) -> tuple[Table, ...]:
        """Merge a minute's bins of the candidate and of stable into one table a contrast."""
        trials, other_trials = sum(bins), sum(other_bins)
        return tuple(
            Table(sum(bins[b] for b in one), trials, sum(other_bins[b] for b in one), other_trials) for one in self.sets
        )

    def log_e(self, states: tuple[State, ...]) -> float:
        """Log evidence against the null: the mean over contrasts. 0 without contrasts."""
        if not self.sets:
            return 0.0
        return log_sum(self.log_es(states)) - math.log(len(self.sets))

    def log_es(self, states: tuple[State, ...]) -> tuple[float, ...]:
        """Log evidence of each contrast alone, to say which one speaks."""
        return tuple(self.comparison.log_e_outside(state, self.margin) for state in states)


def rate_upper(hits: int, trials: int, alpha: float) -> float:
    """The bound that a rate stays below, in all minutes at once, with probability 1 - `alpha`; 1 if nothing is known.

    Found on a ladder of limits, eight to a factor of 10, downwards for as long as a rate above the limit is refuted.
    """
    bound = 1.0
    for rung in range(1, 8 * 7):
        limit = 10 ** (-rung / 8)
        if not enough(Share(limit).log_e_within(hits, trials), alpha):
            break
        bound = limit
    return bound


def contrasts(bins: int) -> tuple[tuple[int, ...], ...]:
    """Sets of bins worth a bet: every bin alone (classes), and every lower part of the scale (scores).

    A set and its complement ask the same question, so only one of the two is there. Fewer than two bins have none.
    """
    found: list[tuple[int, ...]] = []
    for one in [(b,) for b in range(bins)] + [tuple(range(b)) for b in range(1, bins)]:
        rest = tuple(b for b in range(bins) if b not in one)
        if rest and one not in found and rest not in found:
            found.append(one)
    return tuple(found)


def combine(log_es: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted mean of E values, as a logarithm: an E value itself however they depend on each other.

    So guards share alpha: one with w of the weight speaks alone at 1/(w·alpha). Weights need not add up to 1; those of
    guards that are not there are not counted. ValueError for a guard without a positive weight, or for no guards.
    """
    if not log_es or any(weights.get(name, 0.0) <= 0 for name in log_es):
        raise ValueError(f"every one of {sorted(log_es)} needs a positive weight, got {dict(weights)}")
    whole = math.log(sum(weights[name] for name in log_es))
    return log_sum([math.log(weights[name]) + log_e for name, log_e in log_es.items()]) - whole


def enough(log_e: float, alpha: float) -> bool:
    """Whether an E value refutes its null: under it 1/`alpha` is ever reached with a chance of at most `alpha`."""
    return log_e >= -math.log(alpha)


def _log_bet(logs: Sequence[float], weights: Sequence[float], null: float) -> float:
    """Log of the weighted mean likelihood over that of the null; 0, the worth of no bet, without weights."""
    staked = sum(weights)
    if not staked:
        return 0.0
    bets = [math.log(weight) + one for weight, one in zip(weights, logs, strict=True) if weight]
    return log_sum(bets) - math.log(staked) - null


def log_sum(logs: Sequence[float]) -> float:
    """Log of the sum of exponentials; minus infinity for none."""
    top = max(logs, default=-math.inf)
    if math.isinf(top):
        return top
    return top + math.log(sum(math.exp(one - top) for one in logs))
