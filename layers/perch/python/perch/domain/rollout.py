"""Rollouts: the state of an endpoint and every legal move of it, as pure functions from state to state.

    upload or new code ──► queued ──► preparing ──► probing ──► shifting (step 0, 1, …) ──► promoting ──► PROMOTED
                                          │            │               │                        │
                                          └── REFUSED ◄┘               └──► rolling back ◄──────┘
                                                                               └──► ROLLED BACK

`preparing` publishes the candidate revision, `probing` waits for it and tries it, `shifting` gives it traffic,
`promoting` and `rolling back` are decisions whose alias write is not yet known to hold. The phase says what is
*decided*; what the alias must look like follows from it (`desired_routing`), so whoever dies between a decision and its
effect leaves the next tick enough to finish. A refused candidate never saw a user.

Each move returns a `Change`: the new state with the ledger entry that tells of it. The registry stores both in one
transaction, under the condition that the sequence number is still the one that was read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from perch.domain.codec import dump
from perch.domain.errors import Refused
from perch.domain.judge import Counts, Evidence
from perch.domain.ledger import Entry
from perch.domain.model import Pointer
from perch.domain.policy import EndpointPolicy, GuardPolicy, RolloutPolicy, Step


class Phase(StrEnum):
    """Where a rollout is; the last three are terminal."""

    PREPARING = "preparing"
    PROBING = "probing"
    SHIFTING = "shifting"
    PROMOTING = "promoting"
    ROLLING_BACK = "rolling back"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    REFUSED = "refused"


# What may follow what. A roll-back may follow any phase in which traffic may have moved.
LEGAL: dict[Phase, frozenset[Phase]] = {
    Phase.PREPARING: frozenset({Phase.PROBING, Phase.REFUSED}),
    Phase.PROBING: frozenset({Phase.SHIFTING, Phase.PROMOTING, Phase.REFUSED}),
    Phase.SHIFTING: frozenset({Phase.SHIFTING, Phase.PROMOTING, Phase.ROLLING_BACK}),
    Phase.PROMOTING: frozenset({Phase.PROMOTED, Phase.ROLLING_BACK}),
    Phase.ROLLING_BACK: frozenset({Phase.ROLLED_BACK}),
    Phase.PROMOTED: frozenset(),
    Phase.ROLLED_BACK: frozenset(),
    Phase.REFUSED: frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Revision:
    """An immutable published Lambda version: the code and configuration (`fingerprint`) with a model version in it.

    `number` is the registration number of the model version, 0 for the placeholder that serves no model.
    """

    lambda_version: str
    fingerprint: str = ""
    pointer: Pointer | None = None
    number: int = 0

    @property
    def label(self) -> str:
        """How people call it: the model version and the Lambda version."""
        return f"{self.pointer.version if self.pointer else 'placeholder'} (revision {self.lambda_version})"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What shall be rolled out and why: `cause` is `upload`, `code`, `manual` or `rollback`.

    `lambda_version` is set when the revision exists already (going back to one); it is published otherwise.
    """

    pointer: Pointer
    number: int
    cause: str
    actor: str
    lambda_version: str | None = None
    fingerprint: str = ""

    @property
    def label(self) -> str:
        """How people call it."""
        return f"{self.pointer.model} {self.pointer.version}" + (" with new code" if self.cause == "code" else "")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The move of an endpoint from its stable revision to a candidate.

    The policy is copied at the start: a rollout finishes under the rules that it began with. `step` counts from 0 and
    is -1 before the first; `reason` is why it is in its phase. `probed` counts the probes that passed so far.
    `candidate_before` and `stable_before` are the requests counted in the steps before this one, up to `counted_until`.
    """

    id: str
    endpoint: str
    candidate: Candidate
    stable: Revision
    policy: RolloutPolicy
    guards: GuardPolicy
    phase: Phase
    phase_at: datetime
    started_at: datetime
    reason: str
    step: int = -1
    shifted_at: datetime | None = None
    revision: Revision | None = None
    probed: int = 0
    counted_until: datetime | None = None
    candidate_before: Counts = Counts()
    stable_before: Counts = Counts()

    @property
    def current_step(self) -> Step:
        """The step under way (only while shifting)."""
        return self.policy.steps[self.step]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """All that is known of an endpoint: one item in the registry.

    `seq` counts ledger entries and is the lock for every write; `last_hash` chains the ledger. `considered` is the
    highest version number of `model` that was looked at; `failed` holds fingerprints of code that did not pass, newest
    last, which are not tried again unless somebody asks, and `passed_over` the one that was last said to be such.
    `previous` is what a manual roll-back returns to.
    """

    name: str
    seq: int = 0
    last_hash: str = ""
    stable: Revision | None = None
    previous: Revision | None = None
    rollout: Rollout | None = None
    queue: tuple[Candidate, ...] = ()
    model: str = ""
    considered: int = 0
    failed: tuple[str, ...] = ()
    passed_over: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A move: the state before, the state after, the ledger entry of it, and the rollout that it touched, if any."""

    before: Endpoint
    after: Endpoint
    entry: Entry
    rollout: Rollout | None = None


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Where an alias points: a main version, and at most one other with its share of the traffic in (0, 1)."""

    version: str
    other: str | None = None
    weight: float = 0.0

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.version}" + (f" with {self.weight:.0%} on {self.other}" if self.other else " at 100%")


def desired_routing(endpoint: Endpoint) -> Routing | None:
    """Return what the alias must look like in this state; None while nothing was ever rolled out.

    Before the first promotion the alias belongs to the template's placeholder, which is a rollout's `stable` then.
    """
    rollout = endpoint.rollout
    if rollout is None:
        return Routing(version=endpoint.stable.lambda_version) if endpoint.stable else None
    stable = rollout.stable.lambda_version
    if rollout.phase is Phase.SHIFTING and rollout.revision:
        return Routing(version=stable, other=rollout.revision.lambda_version, weight=rollout.current_step.weight)
    if rollout.phase is Phase.PROMOTING and rollout.revision:
        return Routing(version=rollout.revision.lambda_version)
    return Routing(version=stable)


QUEUE_LIMIT = 8


# -- moves before a rollout ---------------------------------------------------------------------------------------


def enqueue(endpoint: Endpoint, candidate: Candidate, *, now: datetime, why: str = "") -> Change:
    """Put a candidate at the end of the queue and say what it waits for, and `why` a person asked for it."""
    waiting_for = (
        f"waits for rollout {endpoint.rollout.id} of {endpoint.rollout.candidate.label}"
        if endpoint.rollout
        else f"waits for {len(endpoint.queue)} others"
        if endpoint.queue
        else "is next"
    )
    queue, dropped = (*endpoint.queue, candidate), ""
    if len(queue) > QUEUE_LIMIT:
        dropped = f"; {queue[0].label} makes room, since no more than {QUEUE_LIMIT} may wait"
        queue = queue[1:]
    after = replace(_looked_at(endpoint, candidate), queue=queue)
    reason = f"{candidate.label} {waiting_for}" + (f": {why}" if why else "") + dropped
    return _change(endpoint, after, "RolloutQueued", reason, candidate.actor, now, candidate=candidate)


def pass_over(endpoint: Endpoint, candidate: Candidate, reason: str, *, now: datetime, kind: str) -> Change:
    """Record that a registered version gets no rollout now (`kind`: RolloutRefused or ApprovalAwaited)."""
    return _change(endpoint, _looked_at(endpoint, candidate), kind, reason, candidate.actor, now, candidate=candidate)


def _looked_at(endpoint: Endpoint, candidate: Candidate) -> Endpoint:
    """Note an upload as looked at; numbers of another model than before begin anew."""
    if candidate.cause != "upload":
        return endpoint
    model = candidate.pointer.model
    before = endpoint.considered if endpoint.model == model else 0
    return replace(endpoint, model=model, considered=max(before, candidate.number))


def pass_over_code(endpoint: Endpoint, fingerprint: str, *, now: datetime) -> Change:
    """Say once that what is deployed is not rolled out, because it did not pass before."""
    reason = (
        "the code that is deployed did not pass before, so it is not rolled out again; deploy other code, "
        "or insist with `perch rollouts start`"
    )
    after = replace(endpoint, passed_over=fingerprint)
    return _change(endpoint, after, "CodePassedOver", reason, "perch", now)


def forget(endpoint: Endpoint, *, now: datetime) -> Change:
    """The function was replaced: the revisions that are remembered no longer exist, so begin as with a new endpoint."""
    gone = endpoint.stable.label if endpoint.stable else "the stable revision"
    reason = f"{gone} no longer exists: the function was replaced; the newest version starts afresh"
    rollout = replace(endpoint.rollout, phase=Phase.REFUSED, reason=reason, phase_at=now) if endpoint.rollout else None
    after = Endpoint(name=endpoint.name, queue=endpoint.queue, seq=endpoint.seq, last_hash=endpoint.last_hash)
    return _change(endpoint, after, "EndpointForgotten", reason, "perch", now, rollout=rollout)


def start(endpoint: Endpoint, policy: EndpointPolicy, serving: Revision, *, now: datetime) -> Change:
    """Begin the rollout of the first in the queue; `serving` is the revision that the alias points to now.

    The first version of an endpoint, and a return to an earlier revision, go direct: there is nothing to compare with.

    Raises:
        Refused: a rollout is under way already, or nothing waits.
    """
    if endpoint.rollout or not endpoint.queue:
        raise Refused("a rollout is under way already" if endpoint.rollout else "nothing waits to be rolled out")
    candidate = endpoint.queue[0]
    direct = endpoint.stable is None or candidate.cause == "rollback" or not policy.rollout.steps
    rollout = Rollout(
        id=f"{endpoint.name}-{endpoint.seq + 1:06d}",
        endpoint=endpoint.name,
        candidate=candidate,
        stable=endpoint.stable or serving,
        policy=replace(policy.rollout, strategy="direct", steps=()) if direct else policy.rollout,
        guards=policy.guards,
        phase=Phase.PREPARING,
        phase_at=now,
        started_at=now,
        reason=f"{candidate.cause} by {candidate.actor}",
    )
    after = replace(endpoint, rollout=rollout, queue=endpoint.queue[1:])
    how = "direct" if direct else f"{rollout.policy.strategy} in {len(rollout.policy.steps)} steps"
    return _change(
        endpoint, after, "RolloutStarted", f"{candidate.label}: {how}, {rollout.reason}", candidate.actor, now
    )


# -- moves of a rollout -------------------------------------------------------------------------------------------


def published(endpoint: Endpoint, revision: Revision, *, now: datetime) -> Change:
    """The candidate revision exists; it is to be probed."""
    return _advance(
        endpoint,
        Phase.PROBING,
        f"published revision {revision.lambda_version}",
        now,
        kind="RevisionPublished",
        revision=revision,
    )


def probes_passed(endpoint: Endpoint, probed: int, reason: str, *, now: datetime) -> Change:
    """Some probes passed and time was up; the next tick sends the others."""
    rollout = replace(_running(endpoint), probed=probed, reason=reason)
    return _change(endpoint, replace(endpoint, rollout=rollout), "ProbesPassed", reason, "perch", now)


def enter_step(
    endpoint: Endpoint, reason: str, *, now: datetime, inputs: Any = None, evidence: Evidence | None = None
) -> Change:
    """Take the next step; after the last one, decide to promote. `evidence` is what passed the step before."""
    rollout = _running(endpoint)
    step = rollout.step + 1
    counted: dict[str, Any] = (
        {
            "counted_until": evidence.until,
            "candidate_before": evidence.candidate,
            "stable_before": evidence.stable,
        }
        if evidence
        else {}
    )
    if step >= len(rollout.policy.steps):
        return _advance(endpoint, Phase.PROMOTING, reason, now, kind="PromotionDecided", inputs=inputs)
    weight = rollout.policy.steps[step].weight
    return _advance(
        endpoint,
        Phase.SHIFTING,
        f"step {step + 1} of {len(rollout.policy.steps)}, {weight:.0%}: {reason}",
        now,
        kind="StepEntered",
        inputs=inputs,
        step=step,
        shifted_at=rollout.shifted_at or now,
        **counted,
    )


def promoted(endpoint: Endpoint, *, now: datetime) -> Change:
    """The alias holds at 100 % on the candidate: it is the stable revision now."""
    rollout = _running(endpoint)
    return _finish(
        endpoint,
        Phase.PROMOTED,
        rollout.reason,
        now,
        kind="RolloutPromoted",
        stable=rollout.revision,
        previous=endpoint.stable,
    )


def decide_roll_back(
    endpoint: Endpoint, reason: str, *, actor: str, now: datetime, kind: str = "RollbackDecided", inputs: Any = None
) -> Change:
    """Decide to go back; from here on nothing else may happen to this rollout (law 4)."""
    return _advance(endpoint, Phase.ROLLING_BACK, reason, now, kind=kind, actor=actor, inputs=inputs)


def rolled_back(endpoint: Endpoint, *, now: datetime) -> Change:
    """The alias holds at 100 % on the stable revision again."""
    return _finish(endpoint, Phase.ROLLED_BACK, _running(endpoint).reason, now, kind="RolloutRolledBack")


def refuse(endpoint: Endpoint, reason: str, *, now: datetime, actor: str = "perch") -> Change:
    """End a rollout whose candidate never saw a user."""
    return _finish(endpoint, Phase.REFUSED, reason, now, kind="RolloutRefused", actor=actor)


def corrected(endpoint: Endpoint, found: Routing, wanted: Routing, *, now: datetime) -> Change:
    """Record that somebody else had moved the alias, and that it was moved back."""
    reason = f"the alias pointed to {found}, which is not Perch's doing; it was put back to {wanted}"
    return _change(endpoint, endpoint, "AliasCorrected", reason, "perch", now)


# -- how a move is made -------------------------------------------------------------------------------------------

_FAILED_KEPT = 20
REASON_LIMIT = 1000  # an answer that is quoted may be long; items and events may not


def _running(endpoint: Endpoint) -> Rollout:
    if endpoint.rollout is None:
        raise Refused(f"endpoint {endpoint.name} has no rollout under way")
    return endpoint.rollout


def _moved(endpoint: Endpoint, to: Phase, reason: str, now: datetime, **fields: Any) -> Rollout:
    rollout = _running(endpoint)
    reason = reason[:REASON_LIMIT]
    if to not in LEGAL[rollout.phase]:
        raise Refused(f"rollout {rollout.id} is {rollout.phase.value}; it cannot become {to.value}")
    return replace(rollout, phase=to, phase_at=now, reason=reason, **fields)


def _advance(
    endpoint: Endpoint,
    to: Phase,
    reason: str,
    now: datetime,
    *,
    kind: str,
    actor: str = "perch",
    inputs: Any = None,
    **fields: Any,
) -> Change:
    rollout = _moved(endpoint, to, reason, now, **fields)
    return _change(endpoint, replace(endpoint, rollout=rollout), kind, reason, actor, now, inputs=inputs)


def _finish(
    endpoint: Endpoint, to: Phase, reason: str, now: datetime, *, kind: str, actor: str = "perch", **fields: Any
) -> Change:
    rollout = _moved(endpoint, to, reason, now)
    tried = rollout.revision.fingerprint if rollout.revision else rollout.candidate.fingerprint
    # Code that failed, and code that a person went back from, is not rolled out again by itself.
    left = endpoint.stable.fingerprint if endpoint.stable and rollout.candidate.cause == "rollback" else ""
    left = "" if left == tried else left  # the code was not what was wrong
    gone = left if to is Phase.PROMOTED else tried if rollout.candidate.cause == "code" else ""
    failed = (*(f for f in endpoint.failed if f != gone), gone)[-_FAILED_KEPT:] if gone else endpoint.failed
    after = replace(endpoint, rollout=None, failed=failed, **fields)
    return _change(endpoint, after, kind, reason, actor, now, rollout=rollout)


def _change(
    before: Endpoint,
    after: Endpoint,
    kind: str,
    reason: str,
    actor: str,
    now: datetime,
    *,
    rollout: Rollout | None = None,
    candidate: Candidate | None = None,
    inputs: Any = None,
) -> Change:
    rollout = rollout or after.rollout
    reason = reason if len(reason) <= REASON_LIMIT else reason[: REASON_LIMIT - 1] + "…"
    about = candidate or (rollout.candidate if rollout else None)
    queueing = candidate is not None
    entry = Entry.chain(
        before.last_hash,
        seq=before.seq + 1,
        endpoint=before.name,
        kind=kind,
        reason=reason,
        actor=actor,
        at=now,
        rollout=rollout.id if rollout and not queueing else None,
        model=about.pointer.model if about else None,
        version=about.pointer.version if about else None,
        revision=rollout.revision.lambda_version if rollout and rollout.revision and not queueing else None,
        inputs=dump(inputs) if inputs is not None else None,
    )
    return Change(
        before=before,
        after=replace(after, seq=entry.seq, last_hash=entry.hash),
        entry=entry,
        rollout=None if queueing else rollout,
    )
