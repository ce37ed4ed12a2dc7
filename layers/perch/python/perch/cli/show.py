"""How commands speak: documents and tables on standard output, remarks and progress on standard error.

With `--json` standard output holds one JSON document and nothing else. Colour and moving lines are for terminals only.
What is shown may come from anybody's file or request, so all of it is made printable first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perch.domain.codec import dump
from perch.domain.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print plain JSON instead of text.")]

_WIDE = 200  # of what is not a terminal: a cut line cannot be searched
_STYLES = {
    "healthy": "green",
    "promoted": "green",
    "registered": "green",
    "failing": "bold red",
    "rolled back": "red",
    "rolling back": "bold red",
    "refused": "red",
    "shifting": "yellow",
    "preparing": "yellow",
    "probing": "yellow",
    "promoting": "yellow",
}


def emit(document: Any) -> None:
    """Print a value as JSON on standard output."""
    tell(json.dumps(dump(document), indent=2, ensure_ascii=False))


def tell(text: str) -> None:
    """Print a text on standard output."""
    typer.echo(printable(text))


def say(sentence: str) -> None:
    """Tell the person something, on standard error."""
    typer.echo(printable(sentence), err=True)


def when(at: datetime | None) -> str:
    """Return a time as people read it, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if at else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows as a table on standard output; with none, say `empty`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if not cells:
        say(empty)
        return
    shown = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for row in cells:
        # Text, because a reason may hold square brackets, which are markup otherwise.
        shown.add_row(*(Text(cell, style=_STYLES.get(cell.split(" (")[0], "")) for cell in row))
    console().print(shown)


def line(text: str, style: str = "") -> None:
    """Print a line on standard output."""
    from rich.text import Text

    console().print(Text(printable(text), style=style), soft_wrap=True)


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """Show that something is under way, with its seconds; yields a function that says what it does now.

    On a terminal this is one moving line; elsewhere a plain line for each new thing.
    """
    began = monotonic()
    if not sys.stderr.isatty():
        say(f"{title} …")
        yield lambda text: say(f"  {monotonic() - began:5.1f} s  {text}")
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda text: bar.update(task, description=f"{title}: {text}")
    say(f"{title}: {monotonic() - began:.1f} s")


def console(wide: int = _WIDE) -> Console:
    """Return a console on standard output, `wide` columns where that is no terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else wide)
