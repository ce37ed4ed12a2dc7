"""The bandit: give each variant as much of the users as it is probable that it is the best (Thompson sampling).

What is not known of a variant's rate of reward is a Gamma(1 + rewards, 1 + requests). Draw a rate for each variant,
see which is highest, many times: that is how probable each is to be the best, and so large a share it gets, on top of a
floor. The floor keeps every comparison alive, and lets a variant that began badly come back.

A variant that was braked keeps nothing: what it earns no longer matters when it fails its users.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from perch.domain.experiment import PARTS

DRAWS = 4_000  # probabilities to within 1 or 2 points, in some milliseconds


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What a variant had: the sum of its rewards, the number of its requests, and whether it may have users at all."""

    name: str
    rewards: float
    requests: float
    open: bool = True


def probable_best(arms: Sequence[Arm], *, seed: str, draws: int = DRAWS) -> dict[str, float]:
    """Return how probable each open arm is to have the highest rate; the same seed gives the same answer."""
    # Not for secrets: what matters is that the same evidence gives the same shares.
    chance = random.Random(seed)  # noqa: S311 - as said above
    running = [arm for arm in arms if arm.open]
    best = dict.fromkeys((arm.name for arm in arms), 0)
    for _ in range(draws):
        rates = [(chance.gammavariate(1 + arm.rewards, 1 / (1 + arm.requests)), arm.name) for arm in running]
        best[max(rates)[1]] += 1
    return {name: wins / draws for name, wins in best.items()}


def shares_of(best: dict[str, float], arms: Sequence[Arm], *, floor: float) -> dict[str, int]:
    """Return the parts that each arm shall have: its floor, and its probability of what is left.

    Whole parts that add up to all there are, those that are left over given where most was cut off.
    """
    running = [arm.name for arm in arms if arm.open]
    free = 1 - floor * len(running)
    exact = {name: PARTS * (floor + free * best[name]) for name in running}
    parts = {arm.name: int(exact.get(arm.name, 0.0)) for arm in arms}
    for name in sorted(running, key=lambda n: parts[n] - exact[n])[: PARTS - sum(parts.values())]:
        parts[name] += 1
    return parts


def moved(before: dict[str, int], after: dict[str, int]) -> float:
    """Return the share of users that would change their variant."""
    return sum(max(0, after[name] - before[name]) for name in after) / PARTS
