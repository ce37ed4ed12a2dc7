"""Histories: rollouts as a driver would have left them, from counts that a test gives. Pure, and without a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from perch.app.watch import take_step
from perch.domain import moves
from perch.domain.agreement import Replayed
from perch.domain.alarm_seen import AlarmSeen
from perch.domain.evidence import Arm, Measures, Minute
from perch.domain.judge import Verdict, judge
from perch.domain.ledger import Entry
from perch.domain.look import Look
from perch.domain.policy import EndpointPolicy
from perch.domain.rollout import Change, Endpoint, Phase, Rollout
from perch.domain.tally import Tally, weigh
from tests.unit.values import CANARY, T0, minutes, shifting

BEGAN = T0 + minutes(2)  # when the first step of `shifting` began
SETTLE = 1  # minutes


@dataclass(frozen=True)
class Now:
    """What a minute brings beside its counts: alarms that are off, what replays showed, and what people say."""

    alarms: tuple[AlarmSeen, ...] = ()
    replayed: Replayed | None = None
    measures: Measures | None = None
    say: Callable[[Endpoint], Change] | None = None
    skip: bool = False  # nobody looks in this minute


@dataclass(frozen=True)
class History:
    """A rollout, its ledger entries after the first step, and its looks."""

    rollout: Rollout
    entries: tuple[Entry, ...]
    looks: tuple[Look, ...]
    tally: Tally
    state: Endpoint


def play(  # noqa: C901 - one minute after another, as a driver meets them
    counted: Sequence[tuple[Arm, Arm]],
    policy: EndpointPolicy = CANARY,
    *,
    happens: dict[int, Now] | None = None,
    measures: Measures | None = None,
) -> History:
    """Drive a rollout over minutes of (candidate, stable) counts, until it has ended or they are over."""
    state = shifting(policy=policy)
    assert state.rollout is not None
    rollout: Rollout = replace(state.rollout, measures=measures or Measures())
    state = replace(state, rollout=rollout)
    entries: list[Entry] = []
    looks: list[Look] = []
    tally = Tally(until=BEGAN)
    pending: list[Minute] = []

    def commit(change: Change) -> None:
        nonlocal state, rollout
        state = change.after
        rollout = change.rollout or state.rollout or rollout
        entries.append(change.entry)

    for i, (candidate, stable) in enumerate(counted):
        pending.append(Minute(at=BEGAN + minutes(i), candidate=candidate, stable=stable))
        at, seen = BEGAN + minutes(i + 1 + SETTLE), (happens or {}).get(i, Now())
        if seen.say:
            commit(seen.say(state))
        if state.rollout is None or rollout.phase is not Phase.SHIFTING:
            break
        if seen.skip:
            continue
        new, pending = tuple(counted_by(rollout.measures or Measures(), minute) for minute in pending), []
        tally = weigh(tally, new, rollout)
        said = judge(rollout, tally, alarms=seen.alarms, replayed=seen.replayed, paused=state.paused, now=at)
        looks.append(
            Look(
                at=at,
                rollout=rollout.id,
                step=rollout.step,
                weight=rollout.weight,
                minutes=new,
                judgement=said,
                alarms=seen.alarms,
                replayed=seen.replayed,
                paused=state.paused,
            )
        )
        inputs = {"verdict": said.verdict.value, "tally": tally, "findings": said.findings}
        if said.verdict is Verdict.PROMOTE:
            commit(_next_step(state, rollout, tally, said.reason, at, inputs))
        elif said.verdict is not Verdict.CONTINUE:
            why = f"{said.verdict.value}: {said.reason}"
            commit(moves.decide_roll_back(state, why, actor="judge", now=at, inputs=inputs))
        elif said.gate and rollout.gate < rollout.step:
            commit(moves.open_gate(state, said.reason, now=at, inputs=inputs))
        elif said.weight:
            commit(moves.change_weight(state, said.weight, said.reason, now=at, inputs=inputs))
        elif seen.measures:
            commit(moves.measured(state, seen.measures, "frozen", now=at))
        if rollout.phase in (Phase.PROMOTING, Phase.ROLLING_BACK):
            end = moves.promoted if rollout.phase is Phase.PROMOTING else moves.rolled_back
            commit(end(state, now=at + timedelta(seconds=30)))
            break
    return History(rollout, tuple(entries), tuple(looks), tally, state)


def counted_by(measures: Measures, minute: Minute) -> Minute:
    """Leave of a minute what is counted by some measures (the limits of fewer are the last of more)."""

    def left(arm: Arm) -> Arm:
        slower = arm.slower[len(arm.slower) - len(measures.limits_ms) :]
        return replace(arm, slower=slower, bins=arm.bins if measures.edges else ())

    return replace(minute, candidate=left(minute.candidate), stable=left(minute.stable))


def _next_step(
    state: Endpoint, rollout: Rollout, tally: Tally, reason: str, at: datetime, inputs: Mapping[str, object]
) -> Change:
    turn: Any = SimpleNamespace(now=at)
    return take_step(turn, state, rollout, tally, reason, inputs=inputs)


def arm(requests: int = 0, failures: int = 0, **fields: Any) -> Arm:
    """Count of requests, of failures among them, and of whatever else is given."""
    return Arm(requests=requests, failures=failures, **fields)
