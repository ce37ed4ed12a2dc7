"""The queue: what waits to be rolled out, what is passed over, and whose rollout begins.

Pure functions from one state to the next, as the moves of a rollout (`moves.py`) are.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from perch.domain.change import change
from perch.domain.errors import Refused
from perch.domain.policy import EndpointPolicy
from perch.domain.rollout import HELD, Candidate, Change, Endpoint, Phase, Revision, Rollout

QUEUE_LIMIT = 8


def enqueue(endpoint: Endpoint, candidate: Candidate, *, now: datetime, why: str = "") -> Change:
    """Put a candidate into the queue and say what it waits for, and `why` a person asked for it.

    A way back goes first: who wants to leave what serves now does not wait until something new was tried. For the same
    reason it is never what makes room in a full queue.
    """
    back = candidate.cause == "rollback"
    waiting_for = (
        f"waits for rollout {endpoint.rollout.id} of {endpoint.rollout.candidate.label}"
        if endpoint.rollout
        else f"waits for experiment {endpoint.experiment.id} to end"
        if endpoint.experiment and candidate.cause in HELD
        else f"waits for {len(endpoint.queue)} others"
        if endpoint.queue and not back
        else "is next"
    )
    waiting, dropped = endpoint.queue, ""
    oldest = next((at for at, other in enumerate(waiting) if other.cause != "rollback"), None)
    if len(waiting) >= QUEUE_LIMIT and oldest is not None:
        dropped = f"; {waiting[oldest].label} makes room, since no more than {QUEUE_LIMIT} may wait"
        waiting = (*waiting[:oldest], *waiting[oldest + 1 :])
    queue = (candidate, *waiting) if back else (*waiting, candidate)
    after = replace(_looked_at(endpoint, candidate), queue=queue)
    reason = f"{candidate.label} {waiting_for}" + (f": {why}" if why else "") + dropped
    return change(endpoint, after, "RolloutQueued", reason, candidate.actor, now, candidate=candidate)


def pass_over(endpoint: Endpoint, candidate: Candidate, reason: str, *, now: datetime, kind: str) -> Change:
    """Record that a registered version gets no rollout now (`kind`: RolloutRefused or ApprovalAwaited)."""
    return change(endpoint, _looked_at(endpoint, candidate), kind, reason, candidate.actor, now, candidate=candidate)


def _looked_at(endpoint: Endpoint, candidate: Candidate) -> Endpoint:
    """Note an upload as looked at; numbers of another model than before begin anew."""
    if candidate.cause != "upload":
        return endpoint
    model = candidate.pointer.model
    before = endpoint.considered if endpoint.model == model else 0
    return replace(endpoint, model=model, considered=max(before, candidate.number))


FAILED_BEFORE = (
    "the code that is deployed did not pass before, so it is not rolled out again; deploy other code, "
    "or insist with `perch rollouts start`"
)


def pass_over_code(endpoint: Endpoint, fingerprint: str, reason: str = FAILED_BEFORE, *, now: datetime) -> Change:
    """Say once why what is deployed is not rolled out."""
    after = replace(endpoint, passed_over=fingerprint)
    return change(endpoint, after, "CodePassedOver", reason, "perch", now)


def start(endpoint: Endpoint, policy: EndpointPolicy, serving: Revision, *, now: datetime) -> Change:
    """Begin the rollout of the first whose turn it is; `serving` is the revision that the alias points to now.

    The first version of an endpoint, and a return to an earlier revision, go direct: there is nothing to compare with.
    So does a candidate that says so.

    Raises:
        Refused: a rollout is under way already, nothing waits, or the endpoint is paused.
    """
    if endpoint.rollout:
        raise Refused("a rollout is under way already")
    if not endpoint.turns:
        held = endpoint.paused and endpoint.queue
        raise Refused(f"endpoint {endpoint.name} is paused: {endpoint.paused}" if held else "nothing waits to roll out")
    candidate = endpoint.turns[0]
    at = endpoint.queue.index(candidate)
    direct = endpoint.stable is None or candidate.cause == "rollback" or candidate.direct
    direct = direct or not policy.rollout.steps
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
    after = replace(endpoint, rollout=rollout, queue=(*endpoint.queue[:at], *endpoint.queue[at + 1 :]))
    how = "direct" if direct else f"{rollout.policy.strategy} in {len(rollout.policy.steps)} steps"
    return change(
        endpoint, after, "RolloutStarted", f"{candidate.label}: {how}, {rollout.reason}", candidate.actor, now
    )
