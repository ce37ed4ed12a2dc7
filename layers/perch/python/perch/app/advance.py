"""Advance an endpoint: look at everything, decide one move, make it; again, until there is nothing to do now.

This is a level-based reconciler. What woke it does not matter (but for the time); what it reads does. Each round reads
the alias, then the state (in that order, see `look`), decides on at most one move, and makes it. Decisions are stored
before their effects, and effects are such that doing them twice is doing them once, so a run that dies anywhere is
finished by the next one.

    round:  look ─► settle the alias where a decision is waiting for it ─► move ─► commit       at the end: announce

A round that finds nothing to do costs three calls (alias, $LATEST, state); one that watches a rollout five more (the
candidate's version, tally, metrics, alarms, and one that stores the look), and a sixth until it is known what is usual
for stable.
A lease is taken for publishing alone: two runs must not put different models into $LATEST at once. Every other write is
safe by its own condition, the RevisionId or the sequence number.

Nothing may hold an endpoint for ever. Trouble that passes (a throttled call) is waited out; trouble that stays ends the
rollout: refused before it had traffic, rolled back after. Telling the bus comes last, and its failure stops nothing.

Time comes from the schedule. An event that anybody may put on the bus says any time it likes, so it is a nudge: what
was uploaded is queued or passed over, and nothing is done that depends on how late it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from botocore.exceptions import BotoCoreError, ClientError

from perch.app.announce import announce_news
from perch.app.begin import begin, consider
from perch.app.prepare import prepare, probe
from perch.app.qualify import disqualified
from perch.app.settle import settle_roll_back
from perch.app.turn import Turn, View
from perch.app.watch import watch
from perch.app.world import World
from perch.aws.trouble import passes
from perch.domain import moves
from perch.domain.errors import Conflict, NotFound, NotReady
from perch.domain.policy import EndpointPolicy
from perch.domain.rollout import BEFORE_TRAFFIC, Change, Endpoint, Phase, Rollout, desired_routing

LEASE_S = 55  # shorter than a tick, longer than the driver may run: a dead holder never delays the next tick
_ROUNDS = 24
_CONFLICTS = 5
_PATIENCE = timedelta(hours=6)  # for what Lambda has to do before a candidate can be tried
_BLIND = timedelta(hours=1)  # a step whose evidence cannot be read outlives its deadline by no more


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run did, entry by entry, and what it waits for now (None: nothing)."""

    endpoint: str
    done: tuple[str, ...]
    waiting: str | None


def advance(
    world: World,
    policy: EndpointPolicy,
    *,
    now: datetime,
    owner: str,
    timer: Callable[[], float] = time.monotonic,
    nudge: bool = False,
) -> Progress:
    """Bring one endpoint as far as it can go now.

    Args:
        world: settings and services.
        policy: the endpoint as declared.
        now: the time of the event that woke us.
        owner: who holds the lease (a request id).
        timer: measures how long a probe takes, in seconds.
        nudge: `now` is not to be relied on; only take note of uploads.

    Returns:
        What was done and what is waited for.
    """
    run = _Run(world, policy, now, owner, timer, nudge)
    try:
        waiting = run.rounds()
    finally:
        run.drop_lease()
    try:
        run.announce()
    except NotReady as refused:
        waiting = waiting or str(refused)
    return Progress(endpoint=policy.name, done=tuple(run.done), waiting=waiting)


class _Run:
    def __init__(
        self, world: World, policy: EndpointPolicy, now: datetime, owner: str, timer: Callable[[], float], nudge: bool
    ) -> None:
        self.world, self.policy, self.now, self.owner, self.nudge = world, policy, now, owner, nudge
        self.turn = Turn(world=world, policy=policy, now=now, woken=now, timer=timer)
        self.function = self.turn.function
        self.done: list[str] = []
        self.leased = False
        self.announced: int | None = None  # entries up to this one are on the bus; None: so are all

    # -- looking --------------------------------------------------------------------------------------------------

    def look(self) -> View:
        """Read the alias *before* the state.

        A move forward shows the RevisionId that is read here. If a roll-back is decided after our look, its alias write
        changes that RevisionId and ours is refused. Read the other way round, we could see the state before a roll-back
        and the RevisionId after it, and undo it.
        """
        alias = self.world.functions.alias(self.function)
        latest = self.world.functions.configuration(self.function)
        endpoint, last, announced = self.world.registry.endpoint_and_model(self.policy.name, self.policy.model)
        return View(alias=alias, latest=latest, endpoint=endpoint, last_number=last, announced=announced)

    def _keep_up(self, state: Endpoint) -> None:
        """Take no time for now that is over: an event may come late, after what another run decided since.

        That is asked anew in each round: what a rollout said of time ends with it.
        """
        rollout = state.rollout
        known = (rollout.phase_at, *(shift.at for shift in rollout.shifts[-1:])) if rollout else ()
        self.now = max((self.turn.woken, *known))
        self.turn = replace(self.turn, now=self.now)

    def take_lease(self) -> bool:
        self.leased = self.leased or self.world.registry.take_lease(
            self.policy.name, self.owner, now=self.now, seconds=LEASE_S
        )
        return self.leased

    def drop_lease(self) -> None:
        if self.leased:
            self.world.registry.drop_lease(self.policy.name, self.owner)

    # -- rounds ---------------------------------------------------------------------------------------------------

    def rounds(self) -> str | None:
        conflicts = 0
        for _ in range(_ROUNDS):
            try:
                seen = self.look()
                self._keep_up(seen.endpoint)
                if self.announced is None and seen.announced < seen.endpoint.seq:
                    self.announced = seen.announced
                moved = self._take_note(seen) if self.nudge else self._round(seen)
                if not isinstance(moved, Change):
                    return moved
                self._commit(moved)
            except Conflict as conflict:
                conflicts += 1
                if conflicts >= _CONFLICTS:
                    return str(conflict)
            except NotReady as busy:
                return str(busy)
            except (ClientError, BotoCoreError) as error:
                if not passes(error):
                    raise
                return f"AWS did not answer as it should: {error}"
        return "more to do than one run should; the next tick goes on"

    def _round(self, seen: View) -> Change | str | None:
        """Make at most one move; where something stands in its way for good, end the rollout instead."""
        rollout = seen.endpoint.rollout
        try:
            moved = self._settle(seen) or self._move(seen)
        except Conflict:
            raise
        except Exception as error:
            if rollout is None or rollout.phase is Phase.ROLLING_BACK:
                raise
            if isinstance(error, NotReady) or passes(error):
                if not self._out_of_patience(rollout):
                    raise
                return self._give_up(seen.endpoint, rollout, f"trouble that does not pass: {error}")
            return self._give_up(seen.endpoint, rollout, f"{type(error).__name__}: {error}")
        if rollout and rollout.phase in BEFORE_TRAFFIC and isinstance(moved, str) and self._out_of_patience(rollout):
            return self._give_up(seen.endpoint, rollout, f"nothing happened for {_PATIENCE}: {moved}")
        return moved

    def _out_of_patience(self, rollout: Rollout) -> bool:
        """Whether a rollout has waited for AWS longer than it may.

        In a step that is its deadline, of which the judge would speak if it could see, and an hour more: whoever looks
        late, after an outage, should not fail for one throttled call.
        """
        if rollout.phase in BEFORE_TRAFFIC:
            return self.now - rollout.started_at > _PATIENCE
        if rollout.phase is not Phase.SHIFTING or rollout.policy.at_deadline != "roll back":
            return False
        limit = max(rollout.policy.deadline_s, rollout.current_step.hold_s)
        return self.now - rollout.phase_at > timedelta(seconds=limit) + _BLIND

    def _give_up(self, state: Endpoint, rollout: Rollout, why: str, *, tried: bool = True) -> Change:
        if rollout.phase in BEFORE_TRAFFIC:
            return moves.refuse(state, why, now=self.now, tried=tried)
        return moves.decide_roll_back(state, why, actor="perch", now=self.now)

    def _commit(self, change: Change) -> None:
        if self.announced is None:
            self.announced = change.before.seq
        self.world.registry.commit(change)
        self.done.append(f"{change.entry.kind}: {change.entry.reason}")

    def announce(self) -> None:
        """Tell the bus what it was not told."""
        if self.announced is not None:
            announce_news(self.world, self.policy.name, announced=self.announced)

    def _settle(self, seen: View) -> Change | None:
        """Make the alias what the state says, and close a decision whose alias holds."""
        state, wanted = seen.endpoint, desired_routing(seen.endpoint)
        if wanted is None or wanted == seen.alias.routing:
            return self._close(state)
        if self._gone(wanted.version):
            return moves.forget(state, now=self.now)
        if state.rollout and state.rollout.phase is Phase.ROLLING_BACK:
            settle_roll_back(self.world, state)
        else:
            self.world.functions.route(self.function, wanted, revision_id=seen.alias.revision_id)
            if self.world.functions.alias(self.function).routing != wanted:
                raise NotReady(f"alias of {self.function} does not hold at {wanted} yet")
        if not self._was_due(state):
            return moves.corrected(state, seen.alias.routing, wanted, now=self.now)
        return self._close(state)

    def _was_due(self, state: Endpoint) -> bool:
        """Whether the alias had only to follow a decision of this minute; otherwise somebody, or a delay, moved it."""
        rollout = state.rollout
        if rollout is None or rollout.phase in BEFORE_TRAFFIC:
            return False
        since = self.now - rollout.shifts[-1].at if rollout.shifts else timedelta(0)
        return rollout.phase is not Phase.SHIFTING or since < timedelta(minutes=1)

    def _gone(self, version: str) -> bool:
        """Whether a version no longer exists: the function was deleted and made anew."""
        try:
            self.world.functions.configuration(self.function, version)
        except NotFound:
            return True
        return False

    def _close(self, state: Endpoint) -> Change | None:
        rollout = state.rollout
        if rollout is None or rollout.phase not in (Phase.PROMOTING, Phase.ROLLING_BACK):
            return None
        if rollout.revision:
            self.world.alarms.unwatch(state.name)
        if rollout.phase is Phase.PROMOTING:
            return moves.promoted(state, now=self.now)
        return moves.rolled_back(state, now=self.now)

    # -- moves ----------------------------------------------------------------------------------------------------

    def _move(self, seen: View) -> Change | str | None:
        """Decide the next move; text says what is waited for, None that there is nothing to do.

        The rollout under way comes first: new uploads must not keep the judge waiting.
        """
        state = seen.endpoint
        under_way = self._go_on(seen, state.rollout) if state.rollout else None
        if isinstance(under_way, Change):
            return under_way
        return self._take_note(seen) or (under_way if state.rollout else begin(self.turn, seen))

    def _take_note(self, seen: View) -> Change | None:
        """Queue what was uploaded, or pass it over."""
        state = seen.endpoint
        if seen.last_number <= (state.considered if state.model == self.policy.model else 0):
            return None
        return consider(self.turn, state, seen.last_number)

    def _go_on(self, seen: View, rollout: Rollout) -> Change | str:
        decided = rollout.phase not in (*BEFORE_TRAFFIC, Phase.SHIFTING)
        if not decided and (against := disqualified(self.world, self.policy, rollout.candidate)):
            return self._give_up(seen.endpoint, rollout, against, tried=False)
        if rollout.phase is Phase.PREPARING:
            return prepare(self.turn, seen, take_lease=self.take_lease)
        if rollout.phase is Phase.PROBING:
            return probe(self.turn, seen.endpoint)
        return watch(self.turn, seen.endpoint, rollout)
