"""Settle a roll-back: put the alias back and see that it stays there."""

from __future__ import annotations

from contextlib import suppress

from perch.app.world import World
from perch.domain.errors import Conflict, NotReady
from perch.domain.rollout import Endpoint, desired_routing


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
