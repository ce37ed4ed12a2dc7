"""Pace: how much traffic a candidate may have, where a budget for failed requests says so.

The arithmetic is in `blast_radius`; here it is asked with what a rollout has seen.
"""

from __future__ import annotations

from perch.domain.blast_radius import next_weight
from perch.domain.evidence import Measures, Minute
from perch.domain.rollout import Rollout
from perch.domain.tally import ERRORS, Tally, error_test, state_of

LEAST = 0.001  # a smaller share of the traffic would show nothing


def other_weight(rollout: Rollout, tally: Tally) -> float | None:
    """What the budget makes of an undecided step's weight; None if it may stay as it is."""
    policy, step = rollout.policy, rollout.current_step
    seen = rollout.shifts and tally.moved_at == rollout.shifts[-1].at  # something of the weight that it has now
    if policy.budget is None or step.kind != "canary" or not seen:
        return None
    wanted = safe_weight(
        rollout,
        tally,
        weight=rollout.weight,
        floor=min(rollout.weight, step.weight),
        ceiling=max(policy.ceiling, rollout.weight),
    )
    return wanted if abs(wanted - rollout.weight) > 1e-4 else None


def safe_weight(
    rollout: Rollout, tally: Tally | None, *, ceiling: float, weight: float = LEAST, floor: float = LEAST
) -> float:
    """Return the share of traffic, up to `ceiling`, that the budget of the rollout allows next; all of it without one.

    `weight` is the share that the candidate has now, and `floor` what it is never lowered under.
    """
    policy, test = rollout.policy, error_test(rollout.guards)
    if policy.budget is None:
        return ceiling
    seen = tally or Tally(until=rollout.started_at)
    traffic = _traffic(seen.recent) or (rollout.measures or Measures()).requests_a_minute
    if not traffic:
        return min(LEAST, ceiling)  # nobody knows what more would cost
    allowed = next_weight(
        weight=weight,
        floor=floor,
        ceiling=ceiling,
        spent=seen.excess,
        candidate=seen.candidate,
        stable=seen.stable,
        odds_upper=test.interval(state_of(seen, ERRORS, test), rollout.guards.alpha)[1],
        requests_a_minute=traffic,
        blind_minutes=policy.settle_s / 60 + 1,
        budget=policy.budget,
    )
    return max(round(allowed, 4), LEAST)  # Lambda need not keep more digits than that


def _traffic(recent: tuple[Minute, ...]) -> float:
    return sum(m.stable.requests + m.candidate.requests for m in recent) / len(recent) if recent else 0.0
