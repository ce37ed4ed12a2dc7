"""Prepare: publish the candidate revision, wait until Lambda has it, freeze the baseline, and try it (law 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from perch.app.death import dies_loading
from perch.app.gather import freeze
from perch.app.probe import Face, ProbeReport, faces, knock_of, probe_revision
from perch.app.turn import Turn, View
from perch.app.watch import take_step
from perch.aws.functions import GREEN, Configuration
from perch.domain import moves
from perch.domain.errors import Conflict
from perch.domain.rollout import Candidate, Change, Endpoint, Revision

_TRIED_S, _PROBED_S = 45.0, 20.0
"""Seconds that one go at a candidate may take, of the 50 that the driver has; and of them, to send probes."""


def prepare(turn: Turn, seen: View, *, take_lease: Callable[[], bool]) -> Change | str:
    """Publish the candidate's revision, one run at a time.

    Raises:
        Conflict, NotReady: somebody else changed the function, or Lambda is busy with it.
    """
    state, rollout = seen.endpoint, seen.endpoint.rollout
    assert rollout is not None  # noqa: S101 - the caller looked
    if not take_lease():
        return "another run has the lease to publish"
    candidate = rollout.candidate
    if candidate.lambda_version:  # a return to a revision that exists
        known = turn.world.functions.configuration(turn.function, candidate.lambda_version)
        return _published(turn, state, candidate, known)
    latest = seen.latest
    if against := _against_publishing(turn, state, candidate, latest):
        return moves.refuse(state, against, now=turn.now)
    if not latest.ready:
        return f"Lambda is still updating $LATEST of {turn.function}"
    if not _carries(latest, candidate):
        turn.world.functions.point_latest(turn.function, candidate.pointer, latest, experiment=candidate.experiment)
        latest = turn.world.functions.configuration(turn.function)
        if not latest.ready:
            return f"$LATEST of {turn.function} now points to {candidate.label}; Lambda is updating it"
        if not _carries(latest, candidate):
            raise Conflict(f"somebody else changed $LATEST of {turn.function}; read it again")
    revision = turn.world.functions.publish(turn.function, latest, f"{candidate.label} ({rollout.id})")
    return _published(turn, state, candidate, revision)


def _against_publishing(turn: Turn, state: Endpoint, candidate: Candidate, latest: Configuration) -> str | None:
    """Say why $LATEST cannot carry this candidate; None if it can."""
    if latest.failure:
        return f"$LATEST cannot be published: {latest.failure}"
    if candidate.cause == "upload" and latest.fingerprint in state.failed:
        return (
            f"the code that is deployed did not pass before, so {candidate.label} would suffer for it; deploy "
            f"other code, or insist with `perch rollouts start {turn.policy.name} {candidate.pointer.version}`"
        )
    return None


def _published(turn: Turn, state: Endpoint, candidate: Candidate, found: Configuration) -> Change:
    rollout = state.rollout
    if rollout and found.version == rollout.stable.lambda_version:
        return moves.refuse(state, f"{candidate.label} is what revision {found.version} serves already", now=turn.now)
    revision = Revision(
        lambda_version=found.version,
        fingerprint=found.fingerprint,
        pointer=candidate.pointer,
        number=candidate.number,
        experiment=candidate.experiment,
    )
    return moves.published(state, revision, now=turn.now)


def probe(turn: Turn, state: Endpoint) -> Change | str:
    """Wait until the candidate is Active, try it, and only then let it near a user (law 3)."""
    rollout = state.rollout
    assert rollout is not None and rollout.revision is not None  # noqa: S101, PT018 - probing follows publishing
    version = rollout.revision.lambda_version
    found = turn.world.functions.configuration(turn.function, version)
    if found.failure:
        return moves.refuse(state, f"revision {version} failed to become Active: {found.failure}", now=turn.now)
    if not found.ready:
        return f"revision {version} is not Active yet"
    if rollout.policy.steps and (frozen := freeze(turn.world, state, rollout, until=turn.woken, now=turn.now)):
        return frozen
    asked = version
    if rollout.policy.strategy == "blue-green":
        turn.world.functions.point_green(turn.function, version)
        asked = GREEN
    shown = faces(turn.world.registry, rollout.candidate.pointer, rollout.candidate.experiment)
    report = _try(turn, shown, asked, rollout.probed)
    if report.failure:
        return moves.refuse(state, f"revision {version} {report.failure}", now=turn.now)
    said = f"{report.passed} of {report.total} probes passed, the slowest in {report.latency_ms:.0f} ms"
    if not report.done:
        return moves.probes_passed(state, report.passed, said, now=turn.now)
    if rollout.policy.steps:
        stable = rollout.stable.lambda_version
        turn.world.alarms.watch(turn.policy.name, rollout.guards, turn.function, version, stable=stable)
    return take_step(turn, state, rollout, None, said, inputs=report)


def _try(turn: Turn, shown: Sequence[Face], version: str, begin: int) -> ProbeReport:
    """Knock before the first probe, and probe; a failure begins with what the revision did.

    What passed is written down before a probe begins that, if it hung, would outlast the driver: or else it would be
    sent again at each tick, after all of them, and nobody would ever be told.
    """
    functions, function, endpoint = turn.world.functions, turn.function, turn.policy.name
    until = turn.timer() + _TRIED_S - turn.policy.timeout_s
    if not begin and (death := dies_loading(functions, function, version, knock_of(endpoint, now=turn.now))):
        return ProbeReport(passed=0, total=1, failure=f"died while loading the model ({death})")
    report = probe_revision(
        functions,
        function,
        version,
        shown,
        endpoint=endpoint,
        now=turn.now,
        timer=turn.timer,
        begin=begin,
        budget_s=min(_PROBED_S, until - turn.timer()),
    )
    return replace(report, failure=f"did not pass its probes: {report.failure}") if report.failure else report


def _carries(latest: Configuration, candidate: Candidate) -> bool:
    return latest.pointer == candidate.pointer and latest.experiment == candidate.experiment
