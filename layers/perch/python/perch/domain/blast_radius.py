"""The blast radius: how many requests a bad candidate may fail that stable would have answered, and what follows.

The budget is a number of excess failures. Spent of it is what was counted, minute by minute: the candidate's failures
less those that its requests would have had at stable's rate. While the verdict is open, a larger weight brings it
sooner; it may grow as far as what is left covers, should the candidate be as bad as it still may be:

    weight * requests a minute * blind minutes * (plausible rate - stable's rate)  <=  (budget - spent) / 2

Blind minutes are those whose failures are not seen before the next chance to stop: one look, and the time that metrics
take to arrive. The plausible rate is the smaller of two upper bounds that hold at all times at once: stable's odds
times the largest odds ratio that the comparison leaves, and the bound on the candidate's own rate. Half of what is left
is kept back at each raise. When even the whole of it no longer covers the present weight, the weight falls to the
step's own. That is a brake and not a guarantee: what was spent is known up to chance and the delay of metrics, and the
step's own weight goes on spending until there is a verdict.

A weight that depends on the past only keeps every test valid that is conditional on a minute's totals. A change of
weight costs the minute in which it happens (its requests are not judged), so a small raise is not worth making.
"""

from __future__ import annotations

import math

from perch.domain.evidence import Arm
from perch.domain.sequential import rate_upper

BUDGET = 50.0
WORTHWHILE = 1.5
# A minute at weight w tells as much as w·(1-w) and costs as much as w: beyond a third there is little to gain.
CEILING = 0.35
ALPHA = 0.05


def excess_failures(candidate: Arm, stable: Arm) -> float:
    """Failures of the candidate in a minute beyond those that its requests would have had at stable's rate.

    Negative when it did better. Add up the minutes: totals would mix up minutes of different weights and incidents.
    """
    return candidate.failures - candidate.requests * stable.rate


def plausible_rate(candidate: Arm, stable: Arm, odds_upper: float, alpha: float = ALPHA) -> float:
    """The highest failed share that the candidate may still have.

    Args:
        candidate: all that was counted of it.
        stable: all that was counted of stable in the same minutes.
        odds_upper: upper bound of the odds ratio (`Comparison.interval`), infinite if there is none.
        alpha: the chance that the bound on the candidate's own rate may be wrong, ever.
    """
    own = rate_upper(candidate.failures, candidate.requests, alpha)
    if math.isinf(odds_upper):
        return own
    odds = odds_upper * (stable.failures + 1) / (stable.requests - stable.failures + 1)  # +1: few failures may be luck
    return min(own, odds / (1 + odds))


def next_weight(
    *,
    weight: float,
    floor: float,
    spent: float,
    candidate: Arm,
    stable: Arm,
    odds_upper: float,
    requests_a_minute: float,
    blind_minutes: float,
    ceiling: float = CEILING,
    budget: float = BUDGET,
) -> float:
    """The weight for the next minutes: as it is, raised by at least half, or back to the floor, as the budget allows.

    Args:
        weight: the candidate's share of requests now, in (0, 1).
        floor: the share that the step itself gives it.
        spent: excess failures so far (`excess_failures`, added up over the minutes).
        candidate: all that was counted of the candidate.
        stable: all that was counted of stable in the same minutes.
        odds_upper: upper bound of the odds ratio of failing, infinite if there is none.
        requests_a_minute: of both revisions, as expected in the next minutes.
        blind_minutes: until what happens next can be seen and acted on.
        ceiling: raised to no more than this.
        budget: excess failures that the rollout may cost.
    """
    left = max(budget - max(spent, 0.0), 0.0)
    harm = max(plausible_rate(candidate, stable, odds_upper) - stable.rate, 0.0)
    exposed = requests_a_minute * blind_minutes * harm  # excess failures at weight 1 before anything can be done
    if weight * exposed >= left:
        return floor
    raised = min(left / (2 * exposed), ceiling) if exposed else ceiling
    return raised if raised >= min(weight * WORTHWHILE, ceiling) and raised > weight else weight
