"""Begin: what is to be rolled out next, and when its turn comes: a registered version, deployed code, an experiment."""

from __future__ import annotations

from perch.app.experiment import conduct, keep_braking
from perch.app.qualify import disqualified
from perch.app.turn import Turn, View
from perch.domain import queueing
from perch.domain.experiment_moves import served_split
from perch.domain.rollout import Candidate, Change, Endpoint, Revision


def consider(turn: Turn, state: Endpoint, last_number: int) -> Change | None:
    """Queue the next registered version, or say why not.

    An endpoint that is new, or that was given another model, begins with that model's newest version.
    """
    after = state.considered if state.model == turn.policy.model else last_number - 1
    found = turn.world.registry.versions_after(turn.policy.model, after, limit=1)
    if not found:
        return None
    version = found[0]
    candidate = Candidate(pointer=version.pointer, number=version.number, cause="upload", actor=version.created_by)
    waiting = (*state.queue, *((state.rollout.candidate,) if state.rollout else ()))
    if any(known.pointer == candidate.pointer for known in waiting):
        reason = f"{candidate.label} was started by hand already"
        return queueing.pass_over(state, candidate, reason, now=turn.now, kind="RolloutRefused")
    if misfit := version.misfit(turn.policy, turn.world.settings.signing):
        return queueing.pass_over(state, candidate, misfit, now=turn.now, kind="RolloutRefused")
    if turn.policy.approval == "manual":
        reason = (
            f"{candidate.label} waits for approval; "
            f"`perch rollouts start {turn.policy.name} {version.version}` starts its rollout"
        )
        return queueing.pass_over(state, candidate, reason, now=turn.now, kind="ApprovalAwaited")
    return queueing.enqueue(state, candidate, now=turn.now)


def begin(turn: Turn, seen: View) -> Change | str | None:
    """Start the rollout of whoever is next; code that was deployed becomes a candidate of its own.

    While the endpoint is paused only a return to an earlier revision begins, and what carries out the brake of an
    experiment, which goes on looking.
    """
    state = seen.endpoint
    if state.turns:
        serving = Revision(lambda_version=seen.alias.routing.version)
        return queueing.start(state, turn.policy, serving, now=turn.now)
    if state.paused:
        braked = keep_braking(turn.world, state, now=turn.now)
        return braked or (f"paused: {state.paused}" if state.queue else None)
    if _code_changed(seen) and state.stable and state.stable.pointer:
        candidate = Candidate(
            pointer=state.stable.pointer,
            number=state.stable.number,
            cause="code",
            actor="deployment",
            fingerprint=seen.latest.fingerprint,
            experiment=state.stable.experiment if served_split(state) else None,
        )
        against = disqualified(turn.world, turn.policy, candidate)
        if against is None:
            return queueing.enqueue(state, candidate, now=turn.now)
        if state.passed_over != candidate.fingerprint:
            said = f"the code that is deployed is not rolled out with what serves, which goes on as it is: {against}"
            return queueing.pass_over_code(state, candidate.fingerprint, said, now=turn.now)
    fingerprint = seen.latest.fingerprint
    known = (state.stable.fingerprint if state.stable else "", state.passed_over)
    if state.stable and fingerprint in state.failed and fingerprint not in known:
        return queueing.pass_over_code(state, fingerprint, now=turn.now)
    return conduct(turn.world, state, now=turn.now)


def _code_changed(seen: View) -> bool:
    stable, latest = seen.endpoint.stable, seen.latest
    return (
        stable is not None
        and stable.pointer is not None
        and latest.ready
        and latest.fingerprint != stable.fingerprint
        and latest.fingerprint not in seen.endpoint.failed
    )
