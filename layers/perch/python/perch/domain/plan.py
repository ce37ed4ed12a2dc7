"""The plan: what a policy can hope to see at some traffic, step by step, before a rollout begins.

    traffic ─► requests of each step ─┬─► what it detects, how soon, at what cost
                                      └─► whether it can end: its requests, and its proof, within its deadline

Nothing is simulated: the chances come from `growth.py`, which says how exact they are (`perch simulate` plays the real
driver instead). A plan is *hopeless* if a step would more likely than not end without its requests or its proof, even
with a candidate that is exactly as good as stable. Then `better` looks for the gentlest change of the policy that is
not: more traffic for the candidate, a longer deadline, replays, a wider margin.

What is left out: thresholds, latency, shifts of predictions, and the candidate's alarm, which sees gross failures some
minutes sooner; the weight that a budget holds back or adds; traffic that is uneven. So detection is rather sooner than
planned, except where a budget keeps the weight down.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from perch.domain import growth
from perch.domain.growth import Arms, Bet
from perch.domain.guards import SLO, shares
from perch.domain.policy import GuardPolicy, RolloutPolicy, Step
from perch.domain.sequential import Share
from perch.domain.tally import ERRORS, LATE_PART, error_test

POWER = 0.8
HOPE = 0.5
TOTAL = math.inf  # the odds ratio of failing always
TIMES = (2.0, 3.0, 10.0, TOTAL)
# What the smallest regression is looked for among.
LADDER = (1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 300.0, 1000.0)
LONGEST_S = 14 * 86_400  # a deadline may not be longer: CloudWatch keeps minutes for 15 days
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
class Plan:
    """A policy's steps at some traffic. `problem` is None, or why it is hopeless; `minutes` the sum of its steps."""

    traffic: Traffic
    steps: tuple[StepPlan, ...]
    minutes: float
    problem: str | None
    remarks: tuple[str, ...] = ()


def plan(policy: RolloutPolicy, guards: GuardPolicy, traffic: Traffic) -> Plan:
    """Plan a rollout.

    Args:
        policy: its steps.
        guards: what is watched.
        traffic: what the endpoint gets.
    """
    outlook, steps = _Outlook(policy, guards, traffic), []
    for number, step in enumerate(policy.steps):
        steps.append(outlook.step(number, step))
        outlook.past.append((step.weight, steps[-1].minutes))
    problem = next((f"step {one.number}: {one.problem}" for one in steps if one.problem), None)
    return Plan(
        traffic=traffic,
        steps=tuple(steps),
        minutes=sum(one.minutes for one in steps),
        problem=problem,
        remarks=tuple(_remarks(policy, traffic)),
    )


def hopeless(policy: RolloutPolicy, guards: GuardPolicy, traffic: Traffic) -> str | None:
    """Say why a rollout would more likely than not end without evidence; None if it can hope for some."""
    outlook = _Outlook(policy, guards, traffic)
    for number, step in enumerate(policy.steps):
        end = outlook.end(step)
        if end.problem:
            return f"step {number + 1}: {end.problem}"
        outlook.past.append((step.weight, end.minutes))
    return None


@dataclass(frozen=True, kw_only=True)
class Better:
    """A policy that can hope, and what was changed for it, in words."""

    policy: RolloutPolicy
    guards: GuardPolicy
    changes: tuple[str, ...]


def better(policy: RolloutPolicy, guards: GuardPolicy, traffic: Traffic) -> Better | None:
    """Find the gentlest change that makes a hopeless policy one that can hope; None if nothing that is tried does."""
    longest = max((step.hold_s for step in policy.steps), default=0)
    deadlines = [policy.deadline_s, *(s for s in (86_400, 3 * 86_400, 7 * 86_400, LONGEST_S) if s > policy.deadline_s)]
    weights = [0.0, *(w for w in (0.1, 0.25, 0.5) if any(0 < step.weight < w for step in policy.steps))]
    margins = [guards.margin, *(m for m in (2.0, 3.0, 5.0, 10.0) if m > guards.margin)]
    needed = max((step.requests for step in policy.steps if step.kind == "canary"), default=0)
    paired = [policy.paired, *([needed] if needed > policy.paired else [])]
    tried = itertools.product(enumerate(weights), enumerate(deadlines), enumerate(paired), enumerate(margins))
    # A wider margin says less, so it comes last; a higher weight risks more, so it comes after waiting longer.
    for choice in sorted(tried, key=lambda some: 2 * some[0][0] + some[1][0] + 2 * some[2][0] + 3 * some[3][0]):
        (_, weight), (_, deadline), (_, pairs), (_, margin) = choice
        changed = replace(
            policy, steps=_from(policy.steps, weight), deadline_s=max(deadline, longest + 1), paired=pairs
        )
        watched = replace(guards, margin=margin)
        if hopeless(changed, watched, traffic) is None:
            return Better(policy=changed, guards=watched, changes=tuple(_changes(policy, guards, changed, watched)))
    return None


def _from(steps: Sequence[Step], weight: float) -> tuple[Step, ...]:
    """Leave out the canary steps below a weight; the last of them takes it if none is left."""
    canaries = [step for step in steps if step.kind == "canary"]
    kept = [step for step in canaries if step.weight >= weight] or [
        replace(step, weight=weight) for step in canaries[-1:]
    ]
    shadows = [step for step in steps if step.kind == "shadow"]
    return (*shadows, *kept, *(step for step in steps if step.kind in ("bake", "holdback")))


def _changes(policy: RolloutPolicy, guards: GuardPolicy, new: RolloutPolicy, watched: GuardPolicy) -> Iterator[str]:
    if new.steps != policy.steps:
        first = next(step.weight for step in new.steps if step.kind == "canary")
        yield f"the candidate begins with {first:.4g} of the traffic"
    if new.deadline_s != policy.deadline_s:
        yield f"a step may take {say_minutes(new.deadline_s / 60)} instead of {say_minutes(policy.deadline_s / 60)}"
    if new.paired != policy.paired:
        yield f"up to {new.paired:,} requests are replayed to both revisions"
    if watched.margin != guards.margin:
        yield f"no worse means an odds ratio below {watched.margin:.4g} instead of {guards.margin:.4g}"


def _remarks(policy: RolloutPolicy, traffic: Traffic) -> Iterator[str]:
    if not policy.steps:
        yield "all traffic moves at once, without a comparison"
    if policy.budget is not None:
        yield (
            f"a budget of {policy.budget:,} excess failures holds weights back until there is evidence, and may raise "
            f"an undecided step's to {policy.ceiling:.4g}; the plan takes the weights of the steps"
        )
    if any(step.gate for step in policy.steps):
        yield "steps with a gate also wait for their answer"
    if traffic.failure_rate == 0:
        yield "stable did not fail at all, so that no multiple of its rate can be planned for"


@dataclass(frozen=True, kw_only=True)
class _End:
    """How a step can end: minutes to its requests and its proof, the chance of both, how long it takes."""

    requests_after: float | None
    proof_after: float | None
    chance: float
    minutes: float
    problem: str | None


class _Outlook:
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

    def end(self, step: Step) -> _End:
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
        return _End(
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

    def _after(self, chance: object, limit: float) -> float | None:
        """The minutes from the step's beginning until a chance is 80 %; None if it is not by `limit`."""
        minutes = growth.requests_until(chance, POWER, most=limit)  # type: ignore[arg-type]
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
