"""Start a rollout by hand: what approval means, and how a version that was passed over or failed is tried again."""

from __future__ import annotations

from datetime import datetime, timedelta

from perch.app.commit import commit
from perch.app.roll_back import going_back
from perch.app.world import World
from perch.domain import queueing
from perch.domain.errors import Refused
from perch.domain.rollout import Candidate, Change, Endpoint


def start(
    world: World, endpoint: str, version: str, *, actor: str, now: datetime, reason: str = "", direct: bool = False
) -> str:
    """Queue a registered version for rollout; the next tick takes it up. Return what the ledger says.

    What served not long ago (`way_back_s` of the policy) goes back to the revision that it was, without steps, unless
    somebody went back from it: that takes the steps again. What is asked for `direct` takes none.

    Raises:
        NotFound: no such endpoint or version.
        Refused: the version does not fit the endpoint or is not trusted (any more), is in the queue or in rollout, or
            serves already.
    """
    policy = world.settings.endpoint(endpoint)
    found = world.registry.require_version(policy.model, version)
    if misfit := found.misfit(policy, world.settings.signing):
        raise Refused(misfit)
    new = Candidate(pointer=found.pointer, number=found.number, cause="manual", actor=actor, direct=direct)
    way_back = timedelta(seconds=policy.rollout.way_back_s)

    def queue(state: Endpoint) -> Change:
        served = [r for r in state.retired if r.revision.pointer == found.pointer][-1:]
        well = [r.revision for r in served if not r.left and now - r.at <= way_back]
        candidate = going_back(well[-1], actor=actor) if well else new
        if any(c.pointer == found.pointer for c in state.queue):
            raise Refused(f"{candidate.label} is in the queue of {endpoint} already")
        if state.rollout and state.rollout.candidate.pointer == found.pointer:
            raise Refused(f"{candidate.label} is being rolled out on {endpoint} already, as {state.rollout.id}")
        if state.stable and state.stable.pointer == found.pointer and state.rollout is None and not state.queue:
            raise Refused(f"{candidate.label} serves {endpoint} already")
        return queueing.enqueue(state, candidate, now=now, why=reason)

    return commit(world, endpoint, queue).entry.reason
