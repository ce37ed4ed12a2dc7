"""`perch rollouts explain`: the story of a rollout, on the terminal, as JSON, or as a page for an incident review."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perch.cli.context import Context
from perch.cli.find import rollout_named, story_of
from perch.cli.show import Json, emit, line, say, table

if TYPE_CHECKING:
    from perch.cli.story import Section


def explain(
    ctx: typer.Context,
    rollout: Annotated[str, typer.Argument(help="Id of a rollout, as `perch rollouts list` shows it.")],
    looks: Annotated[bool, typer.Option("--looks", help="Tell every look of the judge, with its counts.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write it to this file, as a page of Markdown.")] = None,
    as_json: Json = False,
) -> None:
    """Explain a rollout to somebody who was asleep.

    What was rolled out, why and by which rules; what happened; what was counted; the verdict, and how to check it.
    """
    from perch.cli.story import tell

    place: Context = ctx.obj
    found = rollout_named(place, rollout)
    entries = story_of(place.world.registry, found)
    seen = tuple(place.world.registry.looks(found.endpoint, found.id))
    if as_json:
        emit({"rollout": found, "ledger": entries, "looks": seen})
        return
    sections = tell(found, entries, seen, every_look=looks)
    if markdown:
        markdown.write_text("\n".join(_page(sections)), "utf-8")
        say(f"written to {markdown}")
        return
    for i, section in enumerate(sections):
        line("\n" * bool(i) + section.heading, "bold")
        for sentence in section.sentences:
            line(sentence)
        if section.table:
            table(section.table[0], section.table[1:], empty="nothing")


def _page(sections: Iterable[Section]) -> Iterator[str]:
    """Write sections as Markdown; the first heading is the page's."""
    for i, section in enumerate(sections):
        yield f"{'#' if i == 0 else '##'} {section.heading}\n"
        for sentence, following in pairwise((*section.sentences, "")):
            # An empty line ends a paragraph; between the items of a list there is none.
            listed = sentence.startswith("- ") and following.startswith("- ")
            yield _escaped(sentence) + "\n" * (not listed)
        if section.table:
            yield _row(section.table[0])
            yield "|" + "---|" * len(section.table[0])
            yield from map(_row, section.table[1:])
            yield ""


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_escaped(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _escaped(text: str) -> str:
    """Keep what others wrote (reasons, alarm texts) from being read as markup."""
    bare = " ".join(text.split())
    return bare.replace("<", "&lt;").replace("[", "\\[").replace("*", "\\*")
