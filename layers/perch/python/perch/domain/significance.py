"""Significance: do users of a challenger earn more, or less, than those of the champion? Valid at any look.

A user's variant is a hash of the user's id: a coin that nobody's behaviour had a hand in. So if a challenger makes no
difference, a user who earned a reward, and is one of the challenger's or the champion's, is the challenger's with
probability w = its share of the two. That is all that is assumed; exposures need not be counted, and it does not
matter how often anybody looks, how traffic rises and falls, or why shares were moved, as long as each event is counted
with the shares in force when it is recorded, and each user once.

    a bet that the challenger earns t times as much:   b = (t - 1) / (t w + 1 - w)
    one event with a reward r in [0, 1]:               capital times 1 + b r (own - w), own = 1 for its own user, else 0

With r = 1 the factor is the likelihood ratio of t against 1. It is never negative, and its mean is 1 when there is no
difference, at most 1 when a bet on "more" meets "less" or the reverse. So the capital of a bet is a test martingale,
as is a mean of them; by Ville's inequality it ever reaches K/alpha with probability alpha/K at most. Each of K
challengers has the mean over bets on more and on less as its E value, so alpha bounds the probability that *any* claim
is false.

Logarithms add up: a `Tally` holds sums over events, to which any number of recorders may add at once.

What would break it: users who report rewards although they were shown a forced variant; a reward that is reported only
for some variants; one person with many user ids. After a ramp, a user who moved counts for the variant that is his when
the reward is recorded, which weakens evidence of a difference, and invents none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perch.domain.experiment import PARTS, Experiment, Split, parts_of

# How many times as much a challenger might earn: from a small lift to a large one, and the same downwards.
MORE = (1.02, 1.04, 1.08, 1.15, 1.3, 1.6, 2.5, 5.0)
BETS = (*MORE, *(1 / times for times in MORE))


@dataclass(frozen=True, kw_only=True)
class Versus:
    """Sums for one challenger, over rewards of its own users and the champion's while both had a share.

    `capital` is the logarithm of each bet's capital, in the order of `BETS`. `own` and `champion` are rewards divided
    by the share that earned them, so that their ratio is the lift whatever the shares were.
    """

    capital: tuple[float, ...] = (0.0,) * len(BETS)
    own: float = 0.0
    champion: float = 0.0

    def __add__(self, other: Versus) -> Versus:
        """Add what was recorded elsewhere."""
        return Versus(
            capital=tuple(a + b for a, b in zip(self.capital, other.capital, strict=True)),
            own=self.own + other.own,
            champion=self.champion + other.champion,
        )


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Sums of an experiment: users who were counted and their rewards by variant, and each challenger's comparison."""

    users: tuple[int, ...]
    rewards: tuple[float, ...]
    versus: tuple[Versus, ...]

    @staticmethod
    def of(variants: int) -> Tally:
        """Return the sums over no events."""
        return Tally(users=(0,) * variants, rewards=(0.0,) * variants, versus=(Versus(),) * (variants - 1))

    def __add__(self, other: Tally) -> Tally:
        """Add the sums over other events of the same experiment."""
        return Tally(
            users=tuple(a + b for a, b in zip(self.users, other.users, strict=True)),
            rewards=tuple(a + b for a, b in zip(self.rewards, other.rewards, strict=True)),
            versus=tuple(a + b for a, b in zip(self.versus, other.versus, strict=True)),
        )


def tally_of(split: Split, user: str, reward: float) -> Tally:
    """Return what one user's reward adds, under the shares that are in force. `reward` is in [0, 1]."""
    variant = split.variant_of(user)
    champion = parts_of(split.segments, split.champion)
    arm = split.names.index(variant)
    none = Tally.of(len(split.names))
    return Tally(
        users=tuple(int(i == arm) for i in range(len(split.names))),
        rewards=tuple(reward if i == arm else 0.0 for i in range(len(split.names))),
        versus=tuple(
            _versus(parts_of(split.segments, name), champion, reward, own=variant == name)
            if variant in (name, split.champion)
            else none.versus[i]
            for i, name in enumerate(split.challengers)
        ),
    )


def _versus(own_parts: int, champion_parts: int, reward: float, *, own: bool) -> Versus:
    if not own_parts or not champion_parts:
        return Versus()  # with one of them there is nothing to compare
    share = own_parts / (own_parts + champion_parts)
    return Versus(
        capital=tuple(
            math.log1p((times - 1) / (times * share + 1 - share) * reward * ((1.0 if own else 0.0) - share))
            for times in BETS
        ),
        own=reward * PARTS / own_parts if own else 0.0,
        champion=0.0 if own else reward * PARTS / champion_parts,
    )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known of one challenger.

    `log_e` is the natural logarithm of the E value against "no difference"; `p` = 1/E is valid at every look. `lift` is
    how much more its users earn than the champion's (0.1: a tenth more), None before there is anything to divide by.
    `decision` is `better`, `worse` or `undecided`.
    """

    variant: str
    users: int
    rewards: float
    log_e: float
    p: float
    lift: float | None
    decision: str
    reason: str


def findings(experiment: Experiment, tally: Tally) -> tuple[Finding, ...]:
    """Compare each challenger with the champion. E must reach (number of challengers) / alpha for a claim."""
    return tuple(_finding(experiment, tally, i) for i in range(1, len(experiment.variants)))


def _finding(experiment: Experiment, tally: Tally, i: int) -> Finding:
    versus = tally.versus[i - 1]
    more, less = _mean(versus.capital[: len(MORE)]), _mean(versus.capital[len(MORE) :])
    log_e = _mean((more, less))
    needed = len(experiment.challengers) / experiment.alpha
    # E ≥ needed entails that the larger of the two did reach it, and each is valid against its own direction.
    decision = "undecided" if log_e < math.log(needed) else "better" if more > less else "worse"
    lift = versus.own / versus.champion - 1 if versus.champion else None
    name, champion = experiment.variants[i].name, experiment.champion.name
    reason = (
        f"{name} earned {tally.rewards[i]:,.6g} from {tally.users[i]:,} users at {experiment.share(name):.2%}, "
        f"{champion} {tally.rewards[0]:,.6g} from {tally.users[0]:,} at {experiment.share(champion):.2%}: "
        + (f"lift {round(lift, 6) + 0.0:+.1%}, " if lift is not None else "")
        + f"E = {spelt(log_e)} {'<' if decision == 'undecided' else '≥'} {needed:g}, {decision}"
    )
    return Finding(
        variant=name,
        users=tally.users[i],
        rewards=tally.rewards[i],
        log_e=log_e,
        p=min(1.0, math.exp(-log_e)),
        lift=lift,
        decision=decision,
        reason=reason,
    )


def _mean(logs: Sequence[float]) -> float:
    """Return the logarithm of the mean of what these are logarithms of."""
    top = max(logs)
    return top + math.log(sum(math.exp(log - top) for log in logs) / len(logs))


def spelt(log_e: float) -> str:
    """Write an E value of which the logarithm is known, however large."""
    if log_e < 600:
        return f"{math.exp(log_e):.3g}"
    return f"10^{log_e / math.log(10):.0f}"
