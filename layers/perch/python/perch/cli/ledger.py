"""`perch ledger`: the audit ledger of an endpoint, and the proof that nobody changed it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from perch.cli.context import Context
from perch.cli.show import Json, emit, say, table, when
from perch.domain.ledger import Entry, broken_at

if TYPE_CHECKING:
    from perch.aws.registry import Registry


def ledger(
    ctx: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Name of an endpoint.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the hash chain of the whole ledger; exit 1 if it is broken.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show every change of an endpoint, with its reason."""
    place: Context = ctx.obj
    place.settings.endpoint(endpoint)
    entries = list(entries_of(place.world.registry, endpoint))
    broken = broken_at(entries) if verify else None
    if as_json:
        emit({"endpoint": endpoint, "entries": entries} | ({"broken_at": broken} if verify else {}))
    else:
        show_entries(entries, empty=f"nothing has happened to {endpoint} yet")
    if broken is not None:
        say(f"perch: entry {broken} does not follow from the one before: it or an earlier one was altered or removed")
        raise typer.Exit(1)
    if verify:
        say(f"{len(entries)} entries, each follows from the one before")


def entries_of(registry: Registry, endpoint: str, *, after: int = 0) -> Iterator[Entry]:
    """Read the ledger after a sequence number, page by page."""
    while page := registry.ledger(endpoint, after=after):
        yield from page
        if page[-1].seq <= after:  # altered: it would never end
            return
        after = page[-1].seq


def show_entries(entries: Iterable[Entry], *, empty: str) -> None:
    """Print ledger entries as a story."""
    table(
        ("", "time (UTC)", "what", "why", "who"),
        ((e.seq, when(e.at), e.kind, e.reason, e.actor) for e in entries),
        empty=empty,
    )
