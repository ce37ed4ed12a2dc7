"""Roll back: the one use case that three roads lead to (the alarm's event, its direct action, a person), idempotent.

The decision is stored first; from then on every tick drives the alias back, whatever fails here (law 4).
An event is only a hint: it counts if the rollout it speaks of is still under way. An alarm that names another
candidate, or that went off before this rollout began, is history.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from botocore.exceptions import BotoCoreError, ClientError

from perch.app.announce import tell
from perch.app.commit import ATTEMPTS
from perch.app.qualify import first_fit
from perch.app.settle import settle_roll_back
from perch.app.world import World
from perch.domain import moves, queueing
from perch.domain.alarm_seen import speaks_of
from perch.domain.errors import Conflict, NotReady, Refused
from perch.domain.names import AlarmName
from perch.domain.policy import EndpointPolicy
from perch.domain.rollout import BEFORE_TRAFFIC, Candidate, Endpoint, Phase, Revision, Routing


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it: `rolled_back` says whether a decision was made or was already made; `reason` is the sentence."""

    rolled_back: bool
    reason: str


def roll_back_on_alarm(world: World, alarm: AlarmName, *, reason: str, since: datetime, now: datetime) -> Outcome:
    """Act on an alarm that went off at `since`. Raises NotReady if the endpoint changes each time it is tried."""
    for _ in range(ATTEMPTS):
        state = world.registry.endpoint(alarm.endpoint)
        if stale := _not_ours(state, alarm, since, now):
            return Outcome(rolled_back=False, reason=stale)
        with suppress(Conflict):
            return _roll_back(world, state, f"alarm {alarm} went off: {reason}", actor=f"alarm {alarm}", now=now)
    raise NotReady(f"endpoint {alarm.endpoint} keeps changing; the next tick looks at the alarm")


def roll_back_by_hand(
    world: World, endpoint: str, *, reason: str, actor: str, now: datetime, to: str | None = None
) -> Outcome:
    """Take back the rollout under way; with none under way, start a direct rollout of the revision before.

    Args:
        world: settings and services.
        endpoint: name of the endpoint.
        reason: why, for the ledger.
        actor: who, for the ledger.
        now: the time.
        to: a model version that served before, instead of the last one; only with no rollout under way.

    Raises:
        Refused: there is nothing to go back to, or nothing that may serve again; the message says why.
    """
    for _ in range(ATTEMPTS):
        state = world.registry.endpoint(endpoint)
        with suppress(Conflict):
            if state.rollout and to is None:
                return _abort(world, state, reason, actor=actor, now=now)
            return _return_to(world, state, to, reason, actor=actor, now=now)
    raise NotReady(f"endpoint {endpoint} keeps changing; try again")


def abort(world: World, endpoint: str, *, reason: str, actor: str, now: datetime) -> Outcome:
    """End the rollout under way, back on the stable revision. Raises Refused if none is under way."""
    for _ in range(ATTEMPTS):
        state = world.registry.endpoint(endpoint)
        if state.rollout is None:
            raise Refused(f"no rollout of {endpoint} is under way; `perch rollback` goes back to the revision before")
        with suppress(Conflict):
            return _abort(world, state, reason, actor=actor, now=now)
    raise NotReady(f"endpoint {endpoint} keeps changing; try again")


def emergency(world: World, endpoint: str, *, reason: str, actor: str, now: datetime) -> Outcome:
    """Put all traffic on the last revision that is known to have worked, first; then write down that it was done.

    No queue, lease or sequence number is asked: the alias is written at once. A candidate that has traffic goes, and
    the stable revision has all of it. Otherwise the stable revision is what hurts: a candidate without traffic is
    refused, and stable makes way for what served before it and was not gone back from. The endpoint is paused, so that
    nothing that waits moves it again. Said again, it goes no further back until somebody resumes.

    Raises:
        Refused: there is nothing to go back to.
        NotReady: the registry is too busy to store it, say it again; or Lambda is, and the next tick goes on.
    """
    policy = world.settings.endpoint(endpoint)
    refused, before = False, world.registry.endpoint(endpoint)
    if moves.in_emergency(before):
        settle_roll_back(world, before)
        return Outcome(rolled_back=True, reason=f"all traffic is on {_serving(before)} already; {_paused(before)}")
    for _ in range(ATTEMPTS):
        state = world.registry.endpoint(endpoint)
        target, passed = _last_that_worked(world, policy, state)
        if target is None and refused:
            tell(world, state)
            where = f"all traffic is on {_serving(state)}" + (f"; {passed}" if passed else "")
            return Outcome(rolled_back=True, reason=f"{where}; {_paused(state)}")
        if target is None and not state.rollout:
            nowhere = f"endpoint {endpoint} has no earlier revision to go back to"
            raise Refused(f"{nowhere}: {passed}" if passed else nowhere)
        # Whatever stands in the way of this write, it is made again below, or, once the decision is stored, by a tick.
        with suppress(Conflict, NotReady, ClientError, BotoCoreError):
            if target:
                world.functions.route(world.function(endpoint), Routing(version=target.lambda_version))
        with suppress(Conflict):
            said = f"{reason} ({passed})" if passed and not state.rollout else reason
            after = world.registry.commit(moves.emergency(state, said, to=target, actor=actor, now=now))
            if state.rollout and after.rollout is None:
                refused = True  # and now for the stable revision
                continue
            settle_roll_back(world, after)
            tell(world, after)
            assert target is not None  # noqa: S101 - whoever has traffic has a stable revision
            return Outcome(rolled_back=True, reason=f"all traffic is on {target.label}; {_paused(after)}")
    raise NotReady(f"endpoint {endpoint} keeps changing; say it again")


def _last_that_worked(world: World, policy: EndpointPolicy, state: Endpoint) -> tuple[Revision | None, str]:
    """Return where an emergency goes, and why not to what served later: what serves now is asked nothing."""
    if state.rollout and state.rollout.phase not in BEFORE_TRAFFIC:
        return state.rollout.stable, ""
    return first_fit(world, policy, state.refuges)


def _serving(state: Endpoint) -> str:
    return state.stable.label if state.stable else "the placeholder"


def _paused(state: Endpoint) -> str:
    return f"the endpoint is paused until `perch rollouts resume {state.name}`"


def _abort(world: World, state: Endpoint, reason: str, *, actor: str, now: datetime) -> Outcome:
    rollout = state.rollout
    assert rollout is not None  # noqa: S101 - callers looked
    if rollout.phase in BEFORE_TRAFFIC:
        world.registry.commit(moves.refuse(state, f"{reason} (by {actor})", now=now, actor=actor))
        return Outcome(rolled_back=True, reason=f"{rollout.candidate.label} never saw traffic")
    return _roll_back(world, state, reason, actor=actor, now=now)


def _not_ours(state: Endpoint, alarm: AlarmName, since: datetime, now: datetime) -> str | None:
    rollout = state.rollout
    if rollout is None or rollout.phase not in (Phase.SHIFTING, Phase.PROMOTING, Phase.ROLLING_BACK):
        return f"no rollout of {state.name} has traffic to take back"
    if why := speaks_of(alarm, since, rollout, now):
        return f"the alarm does not speak of this candidate: {why}"
    return None


def _roll_back(world: World, state: Endpoint, reason: str, *, actor: str, now: datetime) -> Outcome:
    rollout = state.rollout
    assert rollout is not None  # noqa: S101 - callers looked
    if rollout.phase is not Phase.ROLLING_BACK:
        state = world.registry.commit(moves.decide_roll_back(state, reason, actor=actor, now=now))
    settle_roll_back(world, state)
    tell(world, state)
    return Outcome(rolled_back=True, reason=f"{rollout.candidate.label} taken back to {rollout.stable.label}: {reason}")


def _return_to(world: World, state: Endpoint, to: str | None, reason: str, *, actor: str, now: datetime) -> Outcome:
    if state.rollout:
        raise Refused(f"rollout {state.rollout.id} is under way; without a version, it is taken back")
    earlier = [r.revision for r in reversed(state.retired) if r.revision.pointer]
    matching = [r for r in earlier if to is None or (r.pointer and r.pointer.version == to)]
    if not matching:
        known = ", ".join(dict.fromkeys(r.pointer.version for r in earlier if r.pointer)) or "none"
        wanted = f"revision of {to}" if to else "revision"
        raise Refused(f"endpoint {state.name} has no earlier {wanted} to go back to; there are: {known}")
    target, passed = first_fit(world, world.settings.endpoint(state.name), matching)
    if target is None:
        raise Refused(f"endpoint {state.name} does not go back: {passed}")
    said = f"{reason} ({passed})" if passed else reason
    world.registry.commit(queueing.enqueue(state, going_back(target, actor=actor), now=now, why=said))
    return Outcome(rolled_back=True, reason=f"going back to {target.label}: {said}")


def going_back(revision: Revision, *, actor: str) -> Candidate:
    """Make a candidate of a revision that exists; it skips the steps, and its probes are sent again."""
    assert revision.pointer is not None  # noqa: S101 - the placeholder is never gone back to
    return Candidate(
        pointer=revision.pointer,
        number=revision.number,
        cause="rollback",
        actor=actor,
        lambda_version=revision.lambda_version,
        fingerprint=revision.fingerprint,
        experiment=revision.experiment,
    )
