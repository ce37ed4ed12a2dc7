"""How a rollout is said: where it is, what each step of its policy asks for, and how both revisions compare."""

from __future__ import annotations

import math
from datetime import timedelta

from perch.cli.durations import span
from perch.domain.moves import say_step
from perch.domain.policy import RolloutPolicy, Step, who_answers
from perch.domain.rollout import Phase, Rollout
from perch.domain.tally import ERRORS, Tally, error_test, state_of


def step_of(rollout: Rollout) -> str:
    """Say which step a rollout is at (or ended at), with its share of traffic."""
    steps = rollout.policy.steps
    if not steps:
        return "direct"
    if rollout.step < 0:
        return f"before step 1 of {len(steps)}"
    waits = ", at its gate" if waits_at_gate(rollout) else ""
    return f"step {rollout.step + 1} of {len(steps)}, {say_step(rollout.current_step, rollout.weight)}{waits}"


def waits_at_gate(rollout: Rollout) -> bool:
    """Whether the gate of the step under way is open and was not answered."""
    return rollout.phase is Phase.SHIFTING and rollout.gate == rollout.step > rollout.answered


def share_of(rollout: Rollout) -> float:
    """Return the share of traffic that the candidate has now, 0 to 1."""
    if rollout.phase is Phase.SHIFTING:
        return rollout.weight
    return 1.0 if rollout.phase in (Phase.PROMOTING, Phase.PROMOTED) else 0.0


def say_odds(rollout: Rollout, tally: Tally) -> str:
    """Say the odds ratio of failures with the interval that holds at all looks at once."""
    test, alpha = error_test(rollout.guards), rollout.guards.alpha
    state = state_of(tally, ERRORS, test)
    low, high = test.interval(state, alpha)
    sure = f"{100 * (1 - alpha):.4g}% at all looks at once"
    if low == 0 and math.isinf(high):
        return f"odds ratio of failures: nothing is known yet ({sure})"
    upper = "∞" if math.isinf(high) else f"{high:.3g}"
    best = test.likeliest(state)
    edge = {test.odds[0]: "at most ", test.odds[-1]: "at least "}.get(best, "")
    return f"odds ratio of failures: likeliest {edge}{best:.3g}, between {low:.3g} and {upper} ({sure})"


def say_rules(policy: RolloutPolicy) -> list[str]:
    """Say what each step of a policy asks for, in a line each."""
    return [_rules(step, policy) for step in policy.steps]


def _rules(step: Step, policy: RolloutPolicy) -> str:
    wanted = [f"for {span(timedelta(seconds=step.hold_s))}"] if step.hold_s else []
    if step.requests:
        counted = (
            f"compared answers, {100 * policy.agreement:.4g}% of them the same" if step.kind == "shadow" else "requests"
        )
        wanted.append(f"{step.requests:,} {counted}")
    if step.proof:
        wanted.append("until shown to be no worse")
    if step.gate:
        wanted.append(f"until {who_answers(step.gate)} says yes")
    budgeted = policy.budget is not None and step.kind == "canary"
    raised = f" (up to {policy.ceiling:.0%}, or less, by the budget)" if budgeted else ""
    return f"{say_step(step)}{raised} {', '.join(wanted)}".rstrip()
