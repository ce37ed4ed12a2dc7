"""Watch: look at a rollout that is in one of its steps, let the judge speak, and do what it says.

    gather ─► weigh ─► judge ─► keep the look and the tally ─► act

The tally is stored before anything is done about it, on the condition that nobody counted the same minutes meanwhile;
whoever dies in between leaves the next tick the same evidence, and so the same judgement.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from perch.app.gather import Seen, freeze, gather
from perch.app.turn import Turn
from perch.aws.alarms import wanted
from perch.domain import moves
from perch.domain.codec import dump
from perch.domain.errors import Conflict
from perch.domain.judge import Judgement, Verdict, judge
from perch.domain.look import Look
from perch.domain.names import parse_alarm
from perch.domain.pace import safe_weight
from perch.domain.rollout import Change, Endpoint, Rollout
from perch.domain.tally import Tally


def watch(turn: Turn, state: Endpoint, rollout: Rollout) -> Change | str:
    """Judge the step under way and decide the move that follows; text says what is waited for."""
    seen = gather(turn.world, state, rollout, now=turn.woken)
    # An event that comes late tells a time that is over: what was counted already was counted before now.
    settled = seen.tally.until + timedelta(seconds=rollout.policy.settle_s)
    turn = replace(turn, now=max(turn.now, settled))
    _keep_alarms(turn, rollout, seen)
    judgement = judge(
        rollout, seen.tally, alarms=seen.alarms, replayed=seen.replayed, paused=state.paused, now=turn.now
    )
    if seen.minutes:
        look = Look(
            at=turn.now,
            rollout=rollout.id,
            step=rollout.step,
            weight=rollout.weight,
            minutes=seen.minutes,
            judgement=judgement,
            alarms=tuple(alarm for alarm in seen.alarms if alarm.in_alarm),
            replayed=seen.replayed,
            paused=state.paused,
        )
        before = seen.before.until if seen.before else None
        turn.world.registry.record_look(state.name, look, seen.tally, before=before)
    return _act(turn, state, rollout, seen, judgement)


def _act(turn: Turn, state: Endpoint, rollout: Rollout, seen: Seen, judgement: Judgement) -> Change | str:
    inputs = {"verdict": judgement.verdict.value, "tally": dump(seen.tally), "findings": dump(judgement.findings)}
    if judgement.verdict is Verdict.PROMOTE:
        return take_step(turn, state, rollout, seen.tally, judgement.reason, inputs=inputs)
    if judgement.verdict is not Verdict.CONTINUE:
        reason = f"{judgement.verdict.value}: {judgement.reason}"
        return moves.decide_roll_back(state, reason, actor="judge", now=turn.now, inputs=inputs)
    if made_room := _supersede(turn, state, rollout, judgement, inputs):
        return made_room
    if judgement.gate and rollout.gate < rollout.step:
        gate = {"gate": rollout.current_step.gate, "rollout": rollout.id, "step": rollout.step}
        return moves.open_gate(state, judgement.reason, now=turn.now, inputs=inputs | gate)
    if judgement.weight:
        return moves.change_weight(state, judgement.weight, judgement.reason, now=turn.now, inputs=inputs)
    return freeze(turn.world, state, rollout, until=seen.tally.until, now=turn.now) or judgement.reason


def _supersede(turn: Turn, state: Endpoint, rollout: Rollout, judgement: Judgement, inputs: Any) -> Change | None:
    """Make room for the newest candidate, if the policy says so.

    A candidate that is only watched on has proved itself, and is promoted where nothing but time is lacking; where
    anything else is, the newer one waits. Any other candidate is taken back.
    """
    if not state.turns or rollout.policy.when_busy != "supersede" or state.paused:
        return None
    newer = state.turns[-1].label
    if not rollout.current_step.watch:
        reason = f"superseded by {newer}: {judgement.reason}"
        return moves.decide_roll_back(state, reason, actor="perch", now=turn.now, inputs=inputs)
    if not judgement.only_hold:
        return None
    reason = f"{newer} waits, and this one has proved itself: {judgement.reason}"
    return moves.enter_step(state, reason, now=turn.now, inputs=inputs, skip=True)


def take_step(
    turn: Turn, state: Endpoint, rollout: Rollout, tally: Tally | None, reason: str, *, inputs: Any = None
) -> Change:
    """Enter the next step, with no more traffic than the budget allows."""
    following = rollout.policy.steps[rollout.step + 1 : rollout.step + 2]
    if not following or following[0].kind != "canary":
        return moves.enter_step(state, reason, now=turn.now, inputs=inputs)
    weight = safe_weight(rollout, tally, ceiling=following[0].weight)
    return moves.enter_step(state, reason, now=turn.now, inputs=inputs, weight=weight)


def _keep_alarms(turn: Turn, rollout: Rollout, seen: Seen) -> None:
    """Make the candidate's alarms again if somebody deleted them.

    Another run may have, at the end of the rollout, after our look at the state. Whoever ends one says so before
    deleting; so what is made is taken away again unless the step is still under way after that.

    Raises:
        Conflict: the rollout is over.
    """
    assert rollout.revision is not None  # noqa: S101 - it is in a step
    version, endpoint = rollout.revision.lambda_version, turn.policy.name
    if not wanted(rollout.guards) or any(
        name.version == version for alarm in seen.alarms if (name := parse_alarm(alarm.name))
    ):
        return
    turn.world.alarms.watch(endpoint, rollout.guards, turn.function, version, stable=rollout.stable.lambda_version)
    found = turn.world.registry.endpoint(endpoint).rollout
    if found is None or (found.id, found.phase) != (rollout.id, rollout.phase):
        turn.world.alarms.unwatch(endpoint)
        raise Conflict(f"rollout {rollout.id} is over; read its endpoint again")
