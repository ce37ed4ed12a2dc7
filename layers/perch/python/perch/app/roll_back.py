"""Roll back: the one use case that three roads lead to (the alarm's event, its direct action, a person), idempotent.

The decision is stored first; from then on every tick drives the alias back, whatever fails here (law 4).
An event is only a hint: it counts if the rollout it speaks of is still under way. An alarm that names another
candidate, or that went off before this rollout began, is history.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from perch.app.announce import announce_news
from perch.app.settle import settle_roll_back
from perch.app.world import World
from perch.domain import rollout as moves
from perch.domain.errors import Conflict, NotReady, Refused
from perch.domain.judge import speaks_of
from perch.domain.names import AlarmName
from perch.domain.rollout import Candidate, Endpoint, Phase

_ATTEMPTS = 8


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it: `rolled_back` says whether a decision was made or was already made; `reason` is the sentence."""

    rolled_back: bool
    reason: str


def roll_back_on_alarm(world: World, alarm: AlarmName, *, reason: str, since: datetime, now: datetime) -> Outcome:
    """Act on an alarm that went off at `since`."""
    for _ in range(_ATTEMPTS):
        state = world.registry.endpoint(alarm.endpoint)
        if stale := _not_ours(state, alarm, since):
            return Outcome(rolled_back=False, reason=stale)
        with suppress(Conflict):
            return _roll_back(world, state, f"alarm {alarm} went off: {reason}", actor=f"alarm {alarm}", now=now)
    raise NotReady(f"endpoint {alarm.endpoint} keeps changing; the next tick looks at the alarm")


def roll_back_by_hand(world: World, endpoint: str, *, reason: str, actor: str, now: datetime) -> Outcome:
    """Take back the rollout under way; with none under way, start a direct rollout of the revision before.

    Raises:
        Refused: there is nothing to go back to.
    """
    for _ in range(_ATTEMPTS):
        state = world.registry.endpoint(endpoint)
        with suppress(Conflict):
            if state.rollout and state.rollout.phase in (Phase.PREPARING, Phase.PROBING):
                world.registry.commit(moves.refuse(state, f"{reason} (by {actor})", now=now, actor=actor))
                return Outcome(rolled_back=True, reason=f"{state.rollout.candidate.label} never saw traffic")
            if state.rollout:
                return _roll_back(world, state, reason, actor=actor, now=now)
            return _return_to_previous(world, state, reason, actor=actor, now=now)
    raise NotReady(f"endpoint {endpoint} keeps changing; try again")


def _not_ours(state: Endpoint, alarm: AlarmName, since: datetime) -> str | None:
    rollout = state.rollout
    if rollout is None or rollout.phase not in (Phase.SHIFTING, Phase.PROMOTING, Phase.ROLLING_BACK):
        return f"no rollout of {state.name} has traffic to take back"
    traffic_at, revision = rollout.shifted_at or rollout.started_at, rollout.revision
    if why := speaks_of(alarm, since, revision.lambda_version if revision else "", traffic_at):
        return f"the alarm does not speak of this candidate: {why}"
    return None


def _roll_back(world: World, state: Endpoint, reason: str, *, actor: str, now: datetime) -> Outcome:
    rollout = state.rollout
    assert rollout is not None  # noqa: S101 - callers looked
    if rollout.phase is not Phase.ROLLING_BACK:
        state = world.registry.commit(moves.decide_roll_back(state, reason, actor=actor, now=now))
    settle_roll_back(world, state)
    with suppress(NotReady, Conflict):  # the next tick announces what could not be announced here
        _, _, announced = world.registry.endpoint_and_model(state.name, rollout.candidate.pointer.model)
        announce_news(world, state.name, announced=announced)
    return Outcome(rolled_back=True, reason=f"{rollout.candidate.label} taken back to {rollout.stable.label}: {reason}")


def _return_to_previous(world: World, state: Endpoint, reason: str, *, actor: str, now: datetime) -> Outcome:
    previous = state.previous
    if previous is None or previous.pointer is None:
        raise Refused(f"endpoint {state.name} has no earlier revision to go back to, and no rollout is under way")
    candidate = Candidate(
        pointer=previous.pointer,
        number=previous.number,
        cause="rollback",
        actor=actor,
        lambda_version=previous.lambda_version,
        fingerprint=previous.fingerprint,
    )
    world.registry.commit(moves.enqueue(state, candidate, now=now))
    return Outcome(rolled_back=True, reason=f"going back to {previous.label}: {reason}")
