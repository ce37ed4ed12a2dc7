"""Qualify: whether registered models may be given a revision, by what perch.toml declares now.

    registered under yesterday's policy ─► queued? published? tried? in its steps? gone back to? ─► asked each time

A version never changes and neither does what was found out about it: its format, whether it can run code, whose key
signed it. What is allowed and whom is trusted do change. So each step towards more users asks again (`ModelVersion.
misfit`), and what does not qualify any more ends there, with the reason. What serves already goes on serving, whatever
is withdrawn: taking a rollout back to it asks nobody (law 4), and neither does a revision that only moves users between
models that are all in service, as the shares, the brake and the end of an experiment do.
"""

from __future__ import annotations

from collections.abc import Sequence

from perch.app.probe import faces
from perch.app.world import World
from perch.domain.errors import NotFound
from perch.domain.model import Pointer
from perch.domain.policy import EndpointPolicy
from perch.domain.rollout import Candidate, Revision


def misfit(world: World, policy: EndpointPolicy, pointer: Pointer, experiment: str | None = None) -> str | None:
    """Say why an endpoint is given no new revision of a model, or of any variant of an experiment; None if it may."""
    try:
        shown = faces(world.registry, pointer, experiment)
    except NotFound as gone:
        return str(gone)
    for face in shown:
        if against := face.model.misfit(policy, world.settings.signing):
            return f"variant {face.variant}: {against}" if face.variant else against
    return None


def disqualified(world: World, policy: EndpointPolicy, candidate: Candidate) -> str | None:
    """Say why a candidate may not come nearer to users; None if it may."""
    if candidate.cause == "experiment" and candidate.direct:  # the models that serve already
        return None
    return misfit(world, policy, candidate.pointer, candidate.experiment)


def first_fit(world: World, policy: EndpointPolicy, revisions: Sequence[Revision]) -> tuple[Revision | None, str]:
    """Return the first of some earlier revisions that may serve again, and why those before it may not (or "")."""
    passed: list[str] = []
    for revision in revisions:
        assert revision.pointer is not None  # noqa: S101 - the placeholder is never gone back to
        against = misfit(world, policy, revision.pointer, revision.experiment)
        if against is None:
            return revision, "; ".join(passed)
        passed.append(f"{revision.label} may not serve again: {against}")
    return None, "; ".join(passed)
