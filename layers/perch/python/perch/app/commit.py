"""Commit: make one move that somebody asked for, though others move the same endpoint at the same time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from perch.app.world import World
from perch.domain.errors import Conflict, NotReady
from perch.domain.rollout import Change, Endpoint

ATTEMPTS = 8


def commit(world: World, endpoint: str, decide: Callable[[Endpoint], Change]) -> Change:
    """Store what `decide` makes of the state of an endpoint; if that changed meanwhile, ask it again.

    Raises:
        NotReady: it changed each time.
    """
    for _ in range(ATTEMPTS):
        with suppress(Conflict):
            change = decide(world.registry.endpoint(endpoint))
            world.registry.commit(change)
            return change
    raise NotReady(f"endpoint {endpoint} keeps changing; try again")
