"""One rollout whose weight may grow within its blast-radius budget, against the same at a fixed weight.

Metrics are `LAG` minutes late and the minute in which the weight changes is not judged, as in a real rollout.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from benchmarks.judge_rules import ALPHA, COMPARISON, SHARE
from benchmarks.judge_traces import Scenario
from perch.domain.blast_radius import BUDGET, CEILING, excess_failures, next_weight
from perch.domain.evidence import Arm
from perch.domain.sequential import Table, enough

LAG = 2


class Outcome(NamedTuple):
    """When it was taken back (0: never), its failures beyond those at stable's true rate, and its last weight."""

    look: int
    excess: float
    weight: float


def roll_out(
    scenario: Scenario, random: np.random.Generator, *, adaptive: bool = True, alpha: float = ALPHA
) -> Outcome:
    """Play one rollout; without `adaptive` the weight stays the scenario's."""
    weight, changed = scenario.weight, False
    state, candidate, stable = COMPARISON.start(), Arm(), Arm()
    spent = excess = 0.0
    unseen: deque[tuple[tuple[int, int, int, int], bool]] = deque()
    for look in range(1, scenario.looks + 1):
        counts = scenario.minute(random, look, weight)
        excess += counts[0] - counts[1] * scenario.rates(look)[1]
        unseen.append((counts, changed))
        changed = False
        if len(unseen) <= LAG:
            continue
        (hits, trials, other_hits, other_trials), mixed = unseen.popleft()
        arms = Arm(requests=trials, failures=hits), Arm(requests=other_trials, failures=other_hits)
        candidate, stable = candidate + arms[0], stable + arms[1]
        spent += excess_failures(*arms)
        if not mixed:
            state = COMPARISON.update(state, Table(hits, trials, other_hits, other_trials))
        if enough(COMPARISON.log_e_above(state, 1.0), alpha):
            return Outcome(look, excess, weight)
        wanted = next_weight(
            weight=weight,
            floor=scenario.weight,
            spent=spent,
            candidate=candidate,
            stable=stable,
            odds_upper=COMPARISON.interval(state, 2 * ALPHA)[1],
            requests_a_minute=scenario.per_minute,
            blind_minutes=LAG + 1,
            ceiling=CEILING if adaptive else scenario.weight,
            budget=BUDGET,
        )
        weight, changed = wanted, wanted != weight
    return Outcome(0, excess, weight)


def fixed(scenario: Scenario, random: np.random.Generator) -> dict[str, float]:
    """The weight stays."""
    return roll_out(scenario, random, adaptive=False)._asdict()


def adaptive(scenario: Scenario, random: np.random.Generator) -> dict[str, float]:
    """The weight may grow."""
    return roll_out(scenario, random)._asdict()


def adaptive_sharing(scenario: Scenario, random: np.random.Generator) -> dict[str, float]:
    """The weight may grow, and other guards hold their part of alpha."""
    return roll_out(scenario, random, alpha=ALPHA * SHARE)._asdict()
