"""Advance an endpoint: look at everything, decide one move, make it; again, until there is nothing to do now.

This is a level-based reconciler. What woke it does not matter; what it reads does. Each round reads the alias, then
the state (in that order, see `look`), decides on at most one move, and makes it. Decisions are stored before their
effects, and effects are such that doing them twice is doing them once, so a run that dies anywhere is finished by the
next one.

    round:  look ─► settle the alias where a decision is waiting for it ─► move ─► commit       at the end: announce

A round that finds nothing to do costs three calls (alias, $LATEST, state), one that only watches a rollout two more.
A lease is taken for publishing alone: two runs must not put different models into $LATEST at once. Every other write is
safe by its own condition, the RevisionId or the sequence number.

Nothing may hold an endpoint for ever. Trouble that passes (a throttled call) is waited out; trouble that stays ends the
rollout: refused before it had traffic, rolled back after. Telling the bus comes last, and its failure stops nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from botocore.exceptions import BotoCoreError, ClientError

from perch.app.announce import announce_news
from perch.app.gather import gather
from perch.app.probe import ProbeReport, probe_revision
from perch.app.settle import settle_roll_back
from perch.app.world import World
from perch.aws.functions import Alias, Configuration
from perch.aws.trouble import passes
from perch.domain import rollout as moves
from perch.domain.codec import dump
from perch.domain.errors import Conflict, NotFound, NotReady
from perch.domain.judge import Evidence, Judgement, Verdict, judge
from perch.domain.model import ModelVersion
from perch.domain.names import parse_alarm
from perch.domain.policy import EndpointPolicy
from perch.domain.rollout import Candidate, Change, Endpoint, Phase, Revision, Rollout, desired_routing

LEASE_S = 55  # shorter than a tick, longer than the driver may run: a dead holder never delays the next tick
_ROUNDS = 24
_CONFLICTS = 5
_BEFORE_TRAFFIC = (Phase.PREPARING, Phase.PROBING)
_PATIENCE = timedelta(hours=6)  # for what Lambda has to do before a candidate can be tried


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run did, entry by entry, and what it waits for now (None: nothing)."""

    endpoint: str
    done: tuple[str, ...]
    waiting: str | None


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """One look at an endpoint."""

    alias: Alias
    latest: Configuration
    endpoint: Endpoint
    last_number: int
    announced: int


def advance(
    world: World, policy: EndpointPolicy, *, now: datetime, owner: str, timer: Callable[[], float] = time.monotonic
) -> Progress:
    """Bring one endpoint as far as it can go now.

    Args:
        world: settings and services.
        policy: the endpoint as declared.
        now: the time of the event that woke us.
        owner: who holds the lease (a request id).
        timer: measures how long a probe takes, in seconds.

    Returns:
        What was done and what is waited for.
    """
    run = _Run(world, policy, now, owner, timer)
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
        self, world: World, policy: EndpointPolicy, now: datetime, owner: str, timer: Callable[[], float]
    ) -> None:
        self.world, self.policy, self.now, self.owner, self.timer = world, policy, now, owner, timer
        self.function = world.function(policy.name)
        self.done: list[str] = []
        self.leased = False
        self.announced: int | None = None  # entries up to this one are on the bus; None: so are all

    # -- looking --------------------------------------------------------------------------------------------------

    def look(self) -> _Seen:
        """Read the alias *before* the state.

        A move forward shows the RevisionId that is read here. If a roll-back is decided after our look, its alias write
        changes that RevisionId and ours is refused. Read the other way round, we could see the state before a roll-back
        and the RevisionId after it, and undo it.
        """
        alias = self.world.functions.alias(self.function)
        latest = self.world.functions.configuration(self.function)
        endpoint, last, announced = self.world.registry.endpoint_and_model(self.policy.name, self.policy.model)
        return _Seen(alias=alias, latest=latest, endpoint=endpoint, last_number=last, announced=announced)

    def take_lease(self) -> bool:
        self.leased = self.leased or self.world.registry.take_lease(
            self.policy.name, self.owner, now=self.now, seconds=LEASE_S
        )
        return self.leased

    def drop_lease(self) -> None:
        if self.leased:
            self.world.registry.drop_lease(self.policy.name, self.owner)

    def _code_changed(self, seen: _Seen) -> bool:
        stable, latest = seen.endpoint.stable, seen.latest
        return (
            stable is not None
            and stable.pointer is not None
            and latest.ready
            and latest.fingerprint != stable.fingerprint
            and latest.fingerprint not in seen.endpoint.failed
        )

    # -- rounds ---------------------------------------------------------------------------------------------------

    def rounds(self) -> str | None:
        conflicts = 0
        for _ in range(_ROUNDS):
            try:
                seen = self.look()
                if self.announced is None and seen.announced < seen.endpoint.seq:
                    self.announced = seen.announced
                moved = self._round(seen)
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

    def _round(self, seen: _Seen) -> Change | str | None:
        """Make at most one move; where something stands in its way for good, end the rollout instead."""
        rollout = seen.endpoint.rollout
        try:
            moved = self._settle(seen) or self._move(seen)
        except (Conflict, NotReady):
            raise
        except Exception as error:
            if rollout is None or rollout.phase is Phase.ROLLING_BACK or passes(error):
                raise
            return self._give_up(seen.endpoint, rollout, f"{type(error).__name__}: {error}")
        early = rollout is not None and rollout.phase in _BEFORE_TRAFFIC
        if early and rollout and isinstance(moved, str) and self.now - rollout.started_at > _PATIENCE:
            return self._give_up(seen.endpoint, rollout, f"nothing happened for {_PATIENCE}: {moved}")
        return moved

    def _give_up(self, state: Endpoint, rollout: Rollout, why: str) -> Change:
        if rollout.phase in _BEFORE_TRAFFIC:
            return moves.refuse(state, why, now=self.now)
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

    def _settle(self, seen: _Seen) -> Change | None:
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
        if state.rollout is None or state.rollout.phase in _BEFORE_TRAFFIC:
            # Nobody but a stranger moves an alias while no rollout has traffic.
            return moves.corrected(state, seen.alias.routing, wanted, now=self.now)
        return self._close(state)

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

    def _move(self, seen: _Seen) -> Change | str | None:
        """Decide the next move; text says what is waited for, None that there is nothing to do.

        The rollout under way comes first: new uploads must not keep the judge waiting.
        """
        state = seen.endpoint
        under_way = self._go_on(seen, state.rollout) if state.rollout else None
        if isinstance(under_way, Change):
            return under_way
        if seen.last_number > (state.considered if state.model == self.policy.model else 0):
            return self._consider(state, seen.last_number) or under_way
        return under_way if state.rollout else self._begin(seen)

    def _go_on(self, seen: _Seen, rollout: Rollout) -> Change | str:
        if rollout.phase is Phase.PREPARING:
            return self._prepare(seen)
        if rollout.phase is Phase.PROBING:
            return self._probe(seen.endpoint)
        return self._judge(seen.endpoint)

    def _consider(self, state: Endpoint, last_number: int) -> Change | None:
        """Queue the next registered version, or say why not.

        An endpoint that is new, or that was given another model, begins with that model's newest version.
        """
        after = state.considered if state.model == self.policy.model else last_number - 1
        found = self.world.registry.versions_after(self.policy.model, after, limit=1)
        if not found:
            return None
        version = found[0]
        candidate = Candidate(pointer=version.pointer, number=version.number, cause="upload", actor=version.created_by)
        if version.runtime != self.policy.runtime:
            reason = (
                f"{candidate.label} is {version.pointer.format} for the {version.runtime} runtime; "
                f"endpoint {self.policy.name} runs {self.policy.runtime}"
            )
            return moves.pass_over(state, candidate, reason, now=self.now, kind="RolloutRefused")
        if self.policy.approval == "manual":
            reason = (
                f"{candidate.label} waits for approval; "
                f"`perch rollouts start {self.policy.name} {version.version}` starts its rollout"
            )
            return moves.pass_over(state, candidate, reason, now=self.now, kind="ApprovalAwaited")
        return moves.enqueue(state, candidate, now=self.now)

    def _begin(self, seen: _Seen) -> Change | None:
        state = seen.endpoint
        if state.queue:
            serving = Revision(lambda_version=seen.alias.routing.version)
            return moves.start(state, self.policy, serving, now=self.now)
        if self._code_changed(seen) and state.stable and state.stable.pointer:
            candidate = Candidate(
                pointer=state.stable.pointer,
                number=state.stable.number,
                cause="code",
                actor="deployment",
                fingerprint=seen.latest.fingerprint,
            )
            return moves.enqueue(state, candidate, now=self.now)
        fingerprint = seen.latest.fingerprint
        if (
            state.stable
            and fingerprint in state.failed
            and fingerprint
            not in (
                state.stable.fingerprint,
                state.passed_over,
            )
        ):
            return moves.pass_over_code(state, fingerprint, now=self.now)
        return None

    def _prepare(self, seen: _Seen) -> Change | str:
        state, rollout = seen.endpoint, seen.endpoint.rollout
        assert rollout is not None  # noqa: S101 - _move looked
        if not self.take_lease():
            return "another run has the lease to publish"
        candidate = rollout.candidate
        if candidate.lambda_version:  # a return to a revision that exists
            known = self.world.functions.configuration(self.function, candidate.lambda_version)
            return self._published(state, candidate, known)
        latest = seen.latest
        if against := self._against_publishing(state, candidate, latest):
            return moves.refuse(state, against, now=self.now)
        if not latest.ready:
            return f"Lambda is still updating $LATEST of {self.function}"
        if latest.pointer != candidate.pointer:
            self.world.functions.point_latest(self.function, candidate.pointer, latest)
            latest = self.world.functions.configuration(self.function)
            if not latest.ready:
                return f"$LATEST of {self.function} now points to {candidate.label}; Lambda is updating it"
            if latest.pointer != candidate.pointer:
                raise Conflict(f"somebody else changed $LATEST of {self.function}; read it again")
        revision = self.world.functions.publish(self.function, latest, f"{candidate.label} ({rollout.id})")
        return self._published(state, candidate, revision)

    def _against_publishing(self, state: Endpoint, candidate: Candidate, latest: Configuration) -> str | None:
        """Say why $LATEST cannot carry this candidate; None if it can."""
        if latest.failure:
            return f"$LATEST cannot be published: {latest.failure}"
        if candidate.cause == "upload" and latest.fingerprint in state.failed:
            return (
                f"the code that is deployed did not pass before, so {candidate.label} would suffer for it; deploy "
                f"other code, or insist with `perch rollouts start {self.policy.name} {candidate.pointer.version}`"
            )
        return None

    def _published(self, state: Endpoint, candidate: Candidate, found: Configuration) -> Change:
        rollout = state.rollout
        if rollout and found.version == rollout.stable.lambda_version:
            return moves.refuse(
                state, f"{candidate.label} is what revision {found.version} serves already", now=self.now
            )
        revision = Revision(
            lambda_version=found.version,
            fingerprint=found.fingerprint,
            pointer=candidate.pointer,
            number=candidate.number,
        )
        return moves.published(state, revision, now=self.now)

    def _probe(self, state: Endpoint) -> Change | str:
        """Wait until the candidate is Active, try it, and only then let it near a user (law 3)."""
        rollout = state.rollout
        assert rollout is not None and rollout.revision is not None  # noqa: S101, PT018 - probing follows publishing
        version = rollout.revision.lambda_version
        found = self.world.functions.configuration(self.function, version)
        if found.failure:
            return moves.refuse(state, f"revision {version} failed to become Active: {found.failure}", now=self.now)
        if not found.ready:
            return f"revision {version} is not Active yet"
        pointer = rollout.candidate.pointer
        report = self._try(self.world.registry.require_version(pointer.model, pointer.version), version, rollout.probed)
        if report.failure:
            return moves.refuse(state, f"revision {version} did not pass its probes: {report.failure}", now=self.now)
        said = f"{report.passed} of {report.total} probes passed, the slowest in {report.latency_ms:.0f} ms"
        if not report.done:
            return moves.probes_passed(state, report.passed, said, now=self.now)
        if rollout.policy.steps:
            stable = rollout.stable.lambda_version
            self.world.alarms.watch(self.policy.name, rollout.guards, self.function, version, stable=stable)
        return moves.enter_step(state, said, now=self.now, inputs=report)

    def _try(self, model: ModelVersion, version: str, begin: int) -> ProbeReport:
        return probe_revision(
            self.world.functions,
            self.function,
            version,
            model,
            endpoint=self.policy.name,
            now=self.now,
            timer=self.timer,
            begin=begin,
        )

    def _judge(self, state: Endpoint) -> Change | str:
        rollout = state.rollout
        assert rollout is not None  # noqa: S101 - _move looked
        evidence = gather(self.world, state, now=self.now)
        if not any(name.version == evidence.revision for a in evidence.alarms if (name := parse_alarm(a.name))):
            # Somebody deleted the candidate's alarms.
            stable = rollout.stable.lambda_version
            self.world.alarms.watch(self.policy.name, rollout.guards, self.function, evidence.revision, stable=stable)
        judgement = judge(
            rollout.policy,
            rollout.guards,
            rollout.current_step,
            evidence=evidence,
            traffic_at=rollout.shifted_at or rollout.started_at,
            step_at=rollout.phase_at,
            now=self.now,
        )
        return self._act(state, judgement, evidence)

    def _act(self, state: Endpoint, judgement: Judgement, evidence: Evidence) -> Change | str:
        if judgement.verdict is Verdict.CONTINUE:
            return judgement.reason
        inputs = {"verdict": judgement.verdict.value, "evidence": dump(evidence)}
        if judgement.verdict is Verdict.PROMOTE:
            return moves.enter_step(state, judgement.reason, now=self.now, inputs=inputs, evidence=evidence)
        return moves.decide_roll_back(
            state, f"{judgement.verdict.value}: {judgement.reason}", actor="judge", now=self.now, inputs=inputs
        )
