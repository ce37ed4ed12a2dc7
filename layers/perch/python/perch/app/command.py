"""Commands: what a person, or a hook, says to a rollout: pause, resume, promote, and the answer to a gate.

Each is one move, stored under the condition that the state is still what it was said of; the next tick does what
follows. Who said it, and why, stands in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from perch.app.announce import tell
from perch.app.commit import commit
from perch.app.qualify import disqualified
from perch.app.world import World
from perch.domain import moves
from perch.domain.change import REASON_LIMIT
from perch.domain.errors import NotFound, Refused
from perch.domain.rollout import Change, Endpoint, Phase


def pause(world: World, endpoint: str, *, reason: str, actor: str, now: datetime) -> str:
    """Let no rollout of an endpoint begin, and none take a step. Raises Refused if it is paused already."""
    return _say(world, endpoint, lambda state: moves.pause(state, reason, actor=actor, now=now))


def resume(world: World, endpoint: str, *, reason: str, actor: str, now: datetime) -> str:
    """Take the pause away. Raises Refused if there is none."""
    return _say(world, endpoint, lambda state: moves.resume(state, reason, actor=actor, now=now))


def promote(world: World, endpoint: str, *, full: bool, reason: str, actor: str, now: datetime) -> str:
    """Answer the open gate of the step under way with yes; without one, take the next step now.

    With `full`, take all of them at once: the candidate gets everything without waiting for evidence.

    Raises:
        Refused: no rollout has traffic, or its candidate may not get more.
    """
    policy = world.settings.endpoint(endpoint)

    def move(state: Endpoint) -> Change:
        rollout = state.rollout
        if rollout is None or rollout.phase is not Phase.SHIFTING:
            where = f"it is {rollout.phase.value}" if rollout else "none is under way"
            raise Refused(f"no rollout of {endpoint} is in a step that could be passed: {where}")
        if against := disqualified(world, policy, rollout.candidate):
            raise Refused(against)
        if rollout.gate == rollout.step > rollout.answered and not full:
            return moves.answer_gate(state, rollout.id, rollout.step, passed=True, reason=reason, actor=actor, now=now)
        said = f"by {actor}, without waiting for evidence: {reason}"
        return moves.enter_step(state, said, actor=actor, now=now, skip=full)

    return _say(world, endpoint, move)


def answer(
    world: World, endpoint: str, rollout: str, step: int, *, passed: bool, reason: str, actor: str, now: datetime
) -> str:
    """Answer the gate of a step (counted from 0). A no takes the traffic back. Raises Refused if it is not open."""

    def move(state: Endpoint) -> Change:
        return moves.answer_gate(state, rollout, step, passed=passed, reason=reason, actor=actor, now=now)

    return _say(world, endpoint, move)


def answer_event(world: World, detail: Mapping[str, Any], *, now: datetime) -> str:
    """Take the answer of a hook as it comes from the bus (docs/contracts.md); one that fits nothing changes nothing."""
    try:
        return answer(
            world,
            str(detail["endpoint"]),
            str(detail["rollout"]),
            int(detail["step"]),
            passed=detail["passed"] is True,
            reason=str(detail.get("reason", ""))[:REASON_LIMIT] or "no reason was given",
            actor=f"hook {str(detail.get('actor', 'unnamed'))[:100]}",
            now=now,
        )
    except (KeyError, ValueError, TypeError) as wrong:
        return f"not an answer: {type(wrong).__name__}: {wrong}"
    except (NotFound, Refused) as late:
        return f"not taken: {late}"


def _say(world: World, endpoint: str, move: Callable[[Endpoint], Change]) -> str:
    world.settings.endpoint(endpoint)
    change = commit(world, endpoint, move)
    tell(world, change.after)
    return change.entry.reason
