"""The plan: what a policy can hope to see at some traffic, step by step, before a rollout begins.

    traffic ─► requests of each step ─┬─► what it detects, how soon, at what cost
                                      └─► whether it can end: its requests, and its proof, within its deadline

Nothing is simulated: the chances of each step come from `outlook.py`, and those from `growth.py`, which says how exact
they are (`perch simulate` plays the real driver instead). A plan is *hopeless* if a step would more likely than not end
without its requests or its proof, even with a candidate that is exactly as good as stable. Then `better` looks for the
gentlest change of the policy that is not: more traffic for the candidate, a longer deadline, replays, a wider margin.

What is left out: thresholds, latency, shifts of predictions, and the candidate's alarm, which sees gross failures some
minutes sooner; the weight that a budget holds back or adds; traffic that is uneven. So detection is rather sooner than
planned, except where a budget keeps the weight down.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from perch.domain.outlook import Outlook, StepPlan, Traffic, say_minutes
from perch.domain.policy import GuardPolicy, RolloutPolicy, Step

LONGEST_S = 14 * 86_400  # a deadline may not be longer: CloudWatch keeps minutes for 15 days


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
    outlook, steps = Outlook(policy, guards, traffic), []
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
    outlook = Outlook(policy, guards, traffic)
    for number, step in enumerate(policy.steps):
        end = outlook.end(step)
        if end.problem:
            return f"step {number + 1}: {end.problem}"
        outlook.past.append((step.weight, end.minutes))
    return None


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
