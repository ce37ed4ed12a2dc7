"""What one step of a rollout can hope for at some traffic: how it can end, and which regressions it finds.

    requests ─┬─► `end`: minutes to the requests that it asks for and to its proof, and the chance of both
              └─► `step`: that, and how soon a candidate that fails so many times as often is taken back

The steps before it count: what was bet there is bet on in this one, so an `Outlook` keeps what was `past`. Chances come
from `growth.py`; the tests and their shares of alpha are the judge's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perch.domain import growth
from perch.domain.growth import Arms, Bet
from perch.domain.guards import SLO, shares
from perch.domain.policy import GuardPolicy, RolloutPolicy, Step
from perch.domain.sequential import Share
from perch.domain.tally import ERRORS, LATE_PART, error_test

POWER = 0.8  # the chance with which something is found, or is there, "after" some minutes
HOPE = 0.5  # a step that is less likely to end is hopeless
TOTAL = math.inf  # the odds ratio of failing always
TIMES = (2.0, 3.0, 10.0, TOTAL)
# What the smallest regression is looked for among.
LADDER = (1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 300.0, 1000.0)
LOOK_BACK_MINUTES = 7 * 24 * 60  # replays reach so far back
GOLDEN = 3  # a model version has at least so many golden requests


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What an endpoint gets: requests a minute, the share that stable fails, and the share that is captured."""

    requests_a_minute: float
    failure_rate: float = 0.0
    captured: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A regression in a step that begins with it: its odds ratio, and when it is taken back.

    `minutes` from the step's beginning, with a chance of 80 %, or None if not within the deadline; `cost` is the
    failures by then beyond those of stable (by the deadline, without minutes).
    """

    times: float
    minutes: float | None
    cost: float


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """What one step can hope for.

    `requests` to the candidate (in a shadow: captured ones) and its `failures`, at stable's rate, are those expected in
    the hold, with the 95 % range of requests. `smallest` is the odds ratio that is found by the end of the hold with a
    chance of 80 %, if it was there from the first step on (None: none is). `requests_after` and `proof_after` are the
    minutes until they are there with a chance of 80 % (None: not within the deadline; proof also if it is not asked
    for), `chance` is that of both within the deadline, `minutes` how long the step takes then. `problem` says why it is
    hopeless.
    """

    number: int
    kind: str
    weight: float
    hold_minutes: float
    requests: float
    requests_range: tuple[int, int]
    failures: float
    smallest: float | None
    seen: tuple[Seen, ...]
    requests_after: float | None
    proof_after: float | None
    chance: float
    minutes: float
    gate: str
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class End:
    """How a step can end: minutes to its requests and its proof, the chance of both, how long it takes."""

    requests_after: float | None
    proof_after: float | None
    chance: float
    minutes: float
    problem: str | None


class Outlook:
    """One policy at one traffic; `past` holds weight and minutes of the steps that were passed."""

    def __init__(self, policy: RolloutPolicy, guards: GuardPolicy, traffic: Traffic) -> None:
        self.policy, self.guards, self.traffic = policy, guards, traffic
        self.past: list[tuple[float, float]] = []
        self.rate = traffic.requests_a_minute
        self.test = error_test(guards)
        self.level = Share(guards.error_rate)
        self.blind = policy.settle_s / 60 + 1  # minutes of a step that no look at it has seen
        replayable = GOLDEN + self.rate * traffic.captured * LOOK_BACK_MINUTES
        self.pairs = min(float(policy.paired), replayable)

    def step(self, number: int, step: Step) -> StepPlan:
        """Plan one step."""
        hold, end = step.hold_s / 60, self.end(step)
        expected = self._share(step) * self.rate * hold
        return StepPlan(
            number=number + 1,
            kind=step.kind,
            weight=step.weight,
            hold_minutes=hold,
            requests=expected,
            requests_range=growth.poisson_range(expected),
            failures=expected * self.traffic.failure_rate,
            smallest=self._smallest(step, hold),
            seen=tuple(self._seen(step, times) for times in TIMES) if 0 < step.weight < 1 else (),
            requests_after=end.requests_after,
            proof_after=end.proof_after,
            chance=end.chance,
            minutes=end.minutes,
            gate=step.gate,
            problem=end.problem,
        )

    # -- how a step ends ------------------------------------------------------------------------------------------

    def end(self, step: Step) -> End:
        """Say whether a step can end, with a candidate that is as good as stable."""
        hold, limit = step.hold_s / 60, self._limit(step)
        known = self.pairs if step.kind == "canary" else 0.0
        needed = max(step.requests, 1) - math.floor(known)
        a_minute = self._share(step) * self.rate
        seen = growth.poisson_at_least(needed, a_minute * limit)
        enough = self._after(lambda minutes: growth.poisson_at_least(needed, a_minute * minutes), limit)
        proved, proof_after = 1.0, None
        if step.proof:
            proved = self._proved(step, limit)
            proof_after = self._after(lambda minutes: self._proved(step, minutes), limit)
        problem = None
        if seen < HOPE:
            problem = self._say_requests(step, needed, a_minute, limit)
        elif proved < HOPE:
            problem = self._say_proof(proved, limit)
        waits = [enough, proof_after] if step.proof else [enough]
        return End(
            requests_after=enough,
            proof_after=proof_after,
            chance=min(seen, proved),
            minutes=max(hold, *(limit + self.blind if wait is None else wait for wait in waits)),
            problem=problem,
        )

    def _limit(self, step: Step) -> float:
        """The minutes of evidence that a step can have before its deadline."""
        return max(max(self.policy.deadline_s, step.hold_s) / 60 - self.blind, 0.0)

    def _share(self, step: Step) -> float:
        """What part of the requests counts for a step: the candidate's, or in a shadow those that are captured."""
        return self.traffic.captured if step.kind == "shadow" else step.weight

    def _after(self, chance: Callable[[float], float], limit: float) -> float | None:
        """The minutes from the step's beginning until a chance is 80 %; None if it is not by `limit`."""
        minutes = growth.requests_until(chance, POWER, most=limit)
        return None if math.isinf(minutes) else math.ceil(minutes) + self.blind

    def _proved(self, step: Step, minutes: float) -> float:
        """The chance that "no worse, and within the level" is shown by so many minutes of a step.

        In a bake there is nothing to compare with. Where nothing fails on either, the level is all that can be shown.
        """
        rate, alpha = self.traffic.failure_rate, self.guards.alpha
        if rate >= self.guards.error_rate:
            return 0.0  # then it would have to be better
        stages = [*((w, m * self.rate) for w, m in self.past if w > 0), (step.weight, minutes * self.rate)]
        arms = [(Arms(weight, rate, rate), requests) for weight, requests in stages]
        ours = sum(weight * requests for weight, requests in stages) + self.pairs
        needed = growth.unfailing(self.level, alpha)
        # Replayed pairs count for the level like requests.
        shown = [*arms, (Arms(1.0, rate, rate), self.pairs)]
        level = growth.chance((growth.within(self.level, arm, alpha=alpha), n) for arm, n in shown)
        if ours >= needed:
            level = max(level, math.exp(needed * math.log1p(-rate)))
        if step.kind == "bake":
            return level
        no_worse = growth.chance((growth.below(self.test, self.guards.margin, arm, alpha=alpha), n) for arm, n in arms)
        nothing = math.exp(self._until(stages, needed, step) * math.log1p(-rate)) if ours >= needed else 0.0
        return max(nothing, min(level, no_worse))

    def _until(self, stages: Sequence[tuple[float, float]], needed: float, step: Step) -> float:
        """The requests to both by which the candidate has `needed` and the step's hold is over."""
        held = sum(requests for _, requests in stages[:-1]) + self.rate * step.hold_s / 60
        missing, total = needed - self.pairs, 0.0
        for weight, requests in stages:
            taken = min(requests, max(missing, 0.0) / weight)
            missing, total = missing - taken * weight, total + taken
        return max(total, held)

    # -- what a step sees -----------------------------------------------------------------------------------------

    def _seen(self, step: Step, times: float) -> Seen:
        limit, candidate = self._limit(step), worse(self.traffic.failure_rate, times)
        arms = Arms(step.weight, candidate, self.traffic.failure_rate)
        bets = self._against(arms)
        minutes = self._after(lambda minutes: growth.chance([(bets, minutes * self.rate)]), limit)
        lasting = limit + self.blind if minutes is None else minutes
        cost = lasting * self.rate * step.weight * (candidate - self.traffic.failure_rate)
        return Seen(times=times, minutes=minutes, cost=cost)

    def _smallest(self, step: Step, hold: float) -> float | None:
        if not 0 < step.weight < 1:
            return None
        stages = [*self.past, (step.weight, max(hold - self.blind, 0.0))]
        rate = self.traffic.failure_rate

        def found(times: float) -> float:
            arms = ((Arms(weight, worse(rate, times), rate), m * self.rate) for weight, m in stages if weight > 0)
            return growth.chance((self._against(arm), requests) for arm, requests in arms)

        return next((times for times in LADDER if rate and found(times) >= POWER), None)

    def _against(self, arms: Arms) -> list[Bet]:
        """The bets that take a candidate back: on more failures than stable, and on more than the level."""
        guards, bets = self.guards, list[Bet]()
        speaking = shares(guards, self.policy)
        whole = sum(speaking.values())
        if ERRORS in speaking:
            part = (1 - LATE_PART) * speaking[ERRORS] / whole  # what is staked at the first minute
            bets += growth.above(self.test, arms, alpha=guards.alpha * part)
        if SLO in speaking and arms.stable <= guards.error_rate:
            bets += growth.beyond(self.level, arms, alpha=guards.alpha * speaking[SLO] / whole)
        return bets

    # -- in words -------------------------------------------------------------------------------------------------

    def _say_requests(self, step: Step, needed: int, a_minute: float, limit: float) -> str:
        what = "compared answers" if step.kind == "shadow" else f"requests at {step.weight:.4g} of the traffic"
        if not a_minute:
            return f"it needs {needed:,} {what}, and there will be none"
        return (
            f"its {needed:,} {what} take about {say_minutes(needed / a_minute)}, and it ends after "
            f"{say_minutes(limit + self.blind)}"
        )

    def _say_proof(self, proved: float, limit: float) -> str:
        guards, rate = self.guards, self.traffic.failure_rate
        by = f"within {say_minutes(limit + self.blind)}"
        if rate >= guards.error_rate:
            return f"it asks for proof of at most {guards.error_rate:.4g} failed, and stable itself fails {rate:.4g}"
        return (
            f"a candidate as good as stable shows an odds ratio below {guards.margin:.4g} and a failed share within "
            f"{guards.error_rate:.4g} {by} with a chance of {proved:.0%} only"
        )


def worse(rate: float, times: float) -> float:
    """The failed share whose odds are so many times those of `rate`; 1 for infinitely many."""
    if math.isinf(times):
        return 1.0
    odds = times * rate / (1 - rate) if rate < 1 else math.inf
    return odds / (1 + odds) if math.isfinite(odds) else 1.0


def say_minutes(minutes: float) -> str:
    """Say a number of minutes in its largest fitting unit."""
    for unit, size in (("days", 1440), ("hours", 60)):
        if minutes >= 2 * size:
            return f"{minutes / size:,.3g} {unit}"
    return f"{math.ceil(minutes):,} minute{'' if math.ceil(minutes) == 1 else 's'}"
