"""Announce: tell the event bus of every ledger entry that it was not told of yet.

The ledger is the outbox. An entry is stored with the change itself; telling the bus comes after, and is noted after
that. Whoever dies between leaves an entry that the next run announces: each entry is told at least once, in order.
"""

from __future__ import annotations

from contextlib import suppress

from perch.app.world import World
from perch.domain.errors import Conflict, NotReady
from perch.domain.rollout import Endpoint


def announce_news(world: World, endpoint: str, *, announced: int) -> None:
    """Put the entries after number `announced` on the bus. Raises NotReady if EventBridge does not take one."""
    entries = world.registry.ledger(endpoint, after=announced)
    if entries:
        world.bus.announce([(e.kind, e.announcement()) for e in entries])
        world.registry.announced(endpoint, entries[-1].seq)


def tell(world: World, state: Endpoint) -> None:
    """Announce the news of an endpoint now if that is possible; the next tick announces what is not."""
    with suppress(NotReady, Conflict):
        _, _, announced = world.registry.endpoint_and_model(state.name, state.model)
        announce_news(world, state.name, announced=announced)
