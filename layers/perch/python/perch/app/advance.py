"""Advance an endpoint: look at everything, decide one move, make it; again, until there is nothing to do now.

This is a level-based reconciler. What woke it does not matter; what it reads does. Each round reads the alias, then
the state (in that order, see `look`), decides on at most one move, and makes it. Decisions are stored before their
effects, and effects are such that doing them twice is doing them once, so a run that dies anywhere is finished by the
next one.

    round:  look ─► announce what is new ─► settle the alias where a decision is waiting for it ─► move ─► commit

A round that finds nothing to do costs three calls (alias, $LATEST, state), one that only watches a rollout two more.
A lease is taken for publishing alone: two runs must not put different models into $LATEST at once. Every other write is
safe by its own condition, the RevisionId or the sequence number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from perch.app.announce import announce_news
from perch.app.probe import ProbeReport, probe_revision
from perch.app.world import World
from perch.aws.functions import Alias, Configuration
from perch.domain import rollout as moves
from perch.domain.codec import dump
from perch.domain.errors import Conflict, NotReady
from perch.domain.judge import Evidence, Judgement, Verdict, judge
from perch.domain.model import ModelVersion
from perch.domain.policy import EndpointPolicy
from perch.domain.rollout import Candidate, Change, Endpoint, Phase, Revision, desired_routing

LEASE_S = 55  # shorter than a tick, longer than the driver may run: a dead holder never delays the next tick
_ROUNDS = 24
_CONFLICTS = 5


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
    return Progress(endpoint=policy.name, done=tuple(run.done), waiting=waiting)


class _Run:
    def __init__(
        self, world: World, policy: EndpointPolicy, now: datetime, owner: str, timer: Callable[[], float]
    ) -> None:
        self.world, self.policy, self.now, self.owner, self.timer = world, policy, now, owner, timer
        self.function = world.function(policy.name)
        self.done: list[str] = []
        self.leased = False

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
            seen = self.look()
            try:
                if seen.announced < seen.endpoint.seq:
                    announce_news(self.world, self.policy.name, announced=seen.announced)
                moved = self._settle(seen) or self._move(seen)
                if moved is None:
                    return None
                if isinstance(moved, str):
                    return moved
                self._commit(moved)
            except Conflict as conflict:
                conflicts += 1
                if conflicts >= _CONFLICTS:
                    return str(conflict)
            except NotReady as busy:
                return str(busy)
        return "more to do than one run should; the next tick goes on"

    def _commit(self, change: Change) -> None:
        self.world.registry.commit(change)
        self.done.append(f"{change.entry.kind}: {change.entry.reason}")

    def _settle(self, seen: _Seen) -> Change | None:
        """Make the alias what the state says, and close a decision whose alias holds."""
        state, wanted = seen.endpoint, desired_routing(seen.endpoint)
        if wanted is None or wanted == seen.alias.routing:
            return self._close(state)
        if state.rollout and state.rollout.phase is Phase.ROLLING_BACK:
            settle_roll_back(self.world, state)
        else:
            self.world.functions.route(self.function, wanted, revision_id=seen.alias.revision_id)
            if self.world.functions.alias(self.function).routing != wanted:
                raise NotReady(f"alias of {self.function} does not hold at {wanted} yet")
        if state.rollout is None:  # nobody but a stranger moves an alias while no rollout is under way
            return moves.corrected(state, seen.alias.routing, wanted, now=self.now)
        return self._close(state)

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
        """Decide the next move; text says what is waited for, None that there is nothing to do."""
        state = seen.endpoint
        if seen.last_number > state.considered:
            return self._consider(state)
        if state.rollout is None:
            return self._begin(seen)
        if state.rollout.phase is Phase.PREPARING:
            return self._prepare(seen)
        if state.rollout.phase is Phase.PROBING:
            return self._probe(state)
        return self._judge(state)

    def _consider(self, state: Endpoint) -> Change | None:
        """Queue the next registered version, or say why not."""
        found = self.world.registry.versions_after(self.policy.model, state.considered, limit=1)
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
        if latest.failure:
            return moves.refuse(state, f"$LATEST cannot be published: {latest.failure}", now=self.now)
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
        model = self.world.registry.require_version(self.policy.model, rollout.candidate.pointer.version)
        report = self._try(model, version)
        if report.failure:
            return moves.refuse(state, f"revision {version} did not pass its probes: {report.failure}", now=self.now)
        if rollout.policy.steps:
            self.world.alarms.watch(self.policy, self.function, version)
        passed = f"{report.passed} of {report.total} probes passed, the slowest in {report.latency_ms:.0f} ms"
        return moves.enter_step(state, passed, now=self.now, inputs=report)

    def _try(self, model: ModelVersion, version: str) -> ProbeReport:
        return probe_revision(
            self.world.functions,
            self.function,
            version,
            model,
            endpoint=self.policy.name,
            now=self.now,
            timer=self.timer,
        )

    def _judge(self, state: Endpoint) -> Change | str:
        rollout = state.rollout
        assert rollout is not None  # noqa: S101 - _move looked
        evidence = gather(self.world, state, now=self.now)
        judgement = judge(
            rollout.policy,
            rollout.guards,
            rollout.current_step,
            evidence=evidence,
            started_at=rollout.started_at,
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


def gather(world: World, state: Endpoint, *, now: datetime) -> Evidence:
    """Read what the judge needs of a rollout that has traffic: alarms, and counts over closed minutes.

    The counts of the steps before stand in the rollout; only what came after is read.
    """
    rollout = state.rollout
    assert rollout is not None and rollout.revision is not None and rollout.shifted_at is not None  # noqa: S101, PT018
    stable, candidate = rollout.stable.lambda_version, rollout.revision.lambda_version
    until = (now - timedelta(seconds=rollout.policy.settle_s)).replace(second=0, microsecond=0)
    uncounted, step = rollout.counted_until or rollout.shifted_at, rollout.phase_at
    counts = world.metrics.counts(
        state.name, world.function(state.name), (stable, candidate), since=(uncounted, step), until=until
    )
    return Evidence(
        candidate=rollout.candidate_before + counts[candidate, uncounted],
        stable=rollout.stable_before + counts[stable, uncounted],
        candidate_step=counts[candidate, step],
        until=until,
        alarms=world.alarms.of(state.name),
    )


def settle_roll_back(world: World, state: Endpoint, *, attempts: int = 5) -> None:
    """Put the alias back on the stable revision alone, whoever moved it meanwhile, and read it back until it holds.

    No RevisionId is shown: a roll-back wins over every other write (law 4).

    Raises:
        NotReady: it did not hold; the decision is stored, so the next tick goes on.
    """
    wanted = desired_routing(state)
    assert wanted is not None  # noqa: S101 - a rollout has a stable revision
    function = world.function(state.name)
    for _ in range(attempts):
        with suppress(Conflict, NotReady):
            world.functions.route(function, wanted)
        if world.functions.alias(function).routing == wanted:
            return
    raise NotReady(f"alias of {function} does not hold at {wanted} yet; the next tick tries again")
