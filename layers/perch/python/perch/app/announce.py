"""Announce: tell the event bus of every ledger entry that it was not told of yet.

The ledger is the outbox. An entry is stored with the change itself; telling the bus comes after, and is noted after
that. Whoever dies between leaves an entry that the next run announces: each entry is told at least once, in order.
"""

from __future__ import annotations

from perch.app.world import World


def announce_news(world: World, endpoint: str, *, announced: int) -> None:
    """Put the entries after number `announced` on the bus. Raises NotReady if EventBridge does not take one."""
    entries = world.registry.ledger(endpoint, after=announced)
    if entries:
        world.bus.announce([(e.kind, e.announcement()) for e in entries])
        world.registry.announced(endpoint, entries[-1].seq)
