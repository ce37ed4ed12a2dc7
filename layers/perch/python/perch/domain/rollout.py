"""Rollouts: the state of an endpoint, which phase may follow which, and what the alias must look like in each.

    upload or new code ──► queued ──► preparing ──► probing ──► shifting (step 0, 1, …) ──► promoting ──► PROMOTED
                                          │            │               │                        │
                                          └── REFUSED ◄┘               └──► rolling back ◄──────┘
                                                                               └──► ROLLED BACK

`preparing` publishes the candidate revision, `probing` waits for it and tries it, `shifting` gives it traffic,
`promoting` and `rolling back` are decisions whose alias write is not yet known to hold. The phase says what is
*decided*; what the alias must look like follows from it (`desired_routing`), so whoever dies between a decision and its
effect leaves the next tick enough to finish. A refused candidate never saw a user.

The moves themselves are in `moves.py`; each makes a `Change`, the new state with the ledger entry that tells of it. The
registry stores both in one transaction, under the condition that the sequence number is still the one that was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from perch.domain.evidence import Measures
from perch.domain.experiment import Experiment
from perch.domain.ledger import Entry
from perch.domain.model import Pointer
from perch.domain.policy import GuardPolicy, RolloutPolicy, Step


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


BEFORE_TRAFFIC = (Phase.PREPARING, Phase.PROBING)
"""Phases in which no user has met the candidate."""

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

    `number` is the registration number of the model version, 0 for the placeholder that serves no model. `experiment`
    is the text of the experiment whose variants it holds, if any.
    """

    lambda_version: str
    fingerprint: str = ""
    pointer: Pointer | None = None
    number: int = 0
    experiment: str | None = None

    @property
    def label(self) -> str:
        """How people call it: the model version and the Lambda version."""
        return f"{self.pointer.version if self.pointer else 'placeholder'} (revision {self.lambda_version})"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What shall be rolled out and why: `cause` is `upload`, `code`, `manual`, `rollback` or `experiment`.

    `lambda_version` is set when the revision exists already (going back to one); it is published otherwise, with the
    text of an `experiment` beside the pointer if there is one. `direct` skips the steps. `brake` says that it only
    takes users from variants that fail them.
    """

    pointer: Pointer
    number: int
    cause: str
    actor: str
    lambda_version: str | None = None
    fingerprint: str = ""
    experiment: str | None = None
    direct: bool = False
    brake: bool = False

    @property
    def urgent(self) -> bool:
        """Whether it begins even while the endpoint is paused: it leads away from what goes wrong."""
        return self.brake or self.cause == "rollback"

    @property
    def label(self) -> str:
        """How people call it."""
        more = " with new code" if self.cause == "code" else " in an experiment" if self.experiment else ""
        return f"{self.pointer.model} {self.pointer.version}{more}"


@dataclass(frozen=True, kw_only=True)
class Shift:
    """From `at` on, the candidate's share of the traffic was `weight` (of `step`)."""

    at: datetime
    step: int
    weight: float


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The move of an endpoint from its stable revision to a candidate.

    The policy is copied at the start: a rollout finishes under the rules that it began with. `step` counts from 0 and
    is -1 before the first; `reason` is why it is in its phase. `probed` counts the probes that passed so far.

    `shifts` are the moments at which the traffic was moved, newest last; `shifted_at` is when the candidate first got
    some. `measures` says what is counted of both, frozen before it is. `gate` is the last step whose gate was opened,
    and `answered` the last whose gate was answered.
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
    shifts: tuple[Shift, ...] = ()
    measures: Measures | None = None
    gate: int = -1
    answered: int = -1

    @property
    def current_step(self) -> Step:
        """The step under way (only while shifting)."""
        return self.policy.steps[self.step]

    @property
    def weight(self) -> float:
        """The candidate's share of the traffic, as it was decided last; all of it once promoting."""
        if self.phase is Phase.PROMOTING:
            return 1.0
        if self.shifts:
            return self.shifts[-1].weight
        return self.current_step.weight if self.step >= 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Retired:
    """A revision that was stable until `at`; `left` says that somebody went back from it, so something was wrong."""

    revision: Revision
    at: datetime
    left: bool = False


HELD = ("upload", "manual")
"""Causes of candidates that an experiment holds back: they would replace its champion."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """All that is known of an endpoint: one item in the registry.

    `seq` counts ledger entries and is the lock for every write; `last_hash` chains the ledger. `considered` is the
    highest version number of `model` that was looked at; `failed` holds fingerprints of code that did not pass, newest
    last, which are not tried again unless somebody asks, and `passed_over` the one that was last said to be such.
    `stable` is stable since `stable_at`, and `retired` holds what was before, newest last. While `paused` holds a
    reason, no rollout begins and none takes a step; what goes wrong is still taken back or braked. `experiment` is
    as it shall be; what is served of it is in `stable`.
    """

    name: str
    seq: int = 0
    last_hash: str = ""
    stable: Revision | None = None
    stable_at: datetime | None = None
    retired: tuple[Retired, ...] = ()
    rollout: Rollout | None = None
    queue: tuple[Candidate, ...] = ()
    model: str = ""
    considered: int = 0
    failed: tuple[str, ...] = ()
    passed_over: str = ""
    paused: str = ""
    experiment: Experiment | None = None

    @property
    def turns(self) -> tuple[Candidate, ...]:
        """Those in the queue whose turn may come: the urgent ones while paused, no other version in an experiment."""
        if self.paused:
            return tuple(c for c in self.queue if c.urgent)
        return tuple(c for c in self.queue if self.experiment is None or c.cause not in HELD)

    @property
    def previous(self) -> Revision | None:
        """What a manual roll-back returns to."""
        return self.retired[-1].revision if self.retired else None

    @property
    def refuges(self) -> tuple[Revision, ...]:
        """What served and nobody went back from, newest first: where an emergency may go."""
        well = (r.revision for r in reversed(self.retired) if not r.left and r.revision.pointer)
        return tuple(revision for revision in well if revision != self.stable)


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
    if rollout.revision and rollout.phase in (Phase.SHIFTING, Phase.PROMOTING):
        candidate = rollout.revision.lambda_version
        if rollout.weight == 1:
            return Routing(version=candidate)
        if rollout.weight > 0:
            return Routing(version=stable, other=candidate, weight=rollout.weight)
    return Routing(version=stable)
