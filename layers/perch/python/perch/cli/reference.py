"""The reference part of docs/cli.md, made from the commands themselves: `python -m perch.cli.reference docs/cli.md`.

What stands before the marker is written by people and stays; what follows it is replaced. A test holds the page to it.
It reads the commands' signatures and docstrings, not typer's help, so that it is the same under every typer.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from perch.cli.app import app

MARKER = "<!-- From here on: made by `python -m perch.cli.reference docs/cli.md`; a change here is lost. -->\n"
_VALUES = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER", "Path": "FILE"}


def reference() -> str:
    """Return the Markdown reference of every command, in the order of `perch --help`."""
    return "\n".join(_group("perch", app))


def rewritten(page: str) -> str:
    """Return a page with its reference made anew. Raises ValueError if it has no marker."""
    opening, marker, _ = page.partition(MARKER)
    if not marker:
        raise ValueError(f"the page has no line {MARKER!r}")
    return f"{opening}{marker}\n{reference()}"


def commands() -> tuple[str, ...]:
    """Return every command, written out."""
    return tuple(path for path, _ in _commands("perch", app))


def _commands(path: str, group: typer.Typer) -> Iterator[tuple[str, Callable[..., Any]]]:
    for command in group.registered_commands:
        if command.callback:
            yield f"{path} {command.name or command.callback.__name__}", command.callback
    for inner in group.registered_groups:
        if inner.typer_instance:
            yield from _commands(f"{path} {inner.name}", inner.typer_instance)


def _group(path: str, group: typer.Typer) -> Iterator[str]:
    if group.registered_callback and group.registered_callback.callback:
        yield from _command(f"{path} OPTIONS COMMAND", group.registered_callback.callback)
    for name, callback in _commands(path, group):
        yield from _command(name, callback)


def _command(path: str, callback: Callable[..., Any]) -> Iterator[str]:
    hints = get_type_hints(callback, include_extras=True)
    rows, arguments = [], []
    for name, parameter in inspect.signature(callback).parameters.items():
        annotation = get_args(hints[name])
        info = annotation[1] if len(annotation) > 1 and hasattr(annotation[1], "param_decls") else None
        needed = parameter.default is inspect.Parameter.empty
        if isinstance(info, ArgumentInfo):
            arguments.append(name.upper() if needed else f"[{name.upper()}]")
            rows.append(_row([name.upper()], info, []))
        elif isinstance(info, OptionInfo):
            value = next((f" {v}" for kind, v in _VALUES.items() if kind in _kinds(annotation[0])), "")
            rows.append(
                _row([f"{d}{value}" for d in _names(name, info)], info, _notes(parameter.default, needed=needed))
            )
    yield f"## `{' '.join([path, *arguments])}`\n"
    yield f"{inspect.getdoc(callback)}\n"
    if rows:
        yield "| argument or option | meaning |\n|---|---|"
        yield from rows
        yield ""


def _names(name: str, info: OptionInfo) -> list[str]:
    # In `Annotated` the first name stands where a default value otherwise does.
    first = [info.default] if isinstance(info.default, str) else []
    declared = [part for decl in (*first, *(info.param_decls or ())) for part in decl.split("/")]
    return declared or [f"--{name.replace('_', '-')}"]


def _kinds(annotation: Any) -> set[str]:
    """Return the names of the types in an annotation such as `list[str] | None`."""
    return (
        {annotation.__name__}
        if isinstance(annotation, type) and not get_args(annotation)
        else set().union(*(_kinds(a) for a in get_args(annotation)))
    )


def _notes(default: Any, *, needed: bool) -> list[str]:
    if needed:
        return ["required"]
    return [] if default is None or isinstance(default, bool) else [f"default `{default}`"]


def _row(names: list[str], info: ArgumentInfo | OptionInfo, notes: list[str]) -> str:
    if info.envvar:
        notes = [*notes, f"environment variable `{info.envvar}`"]
    shown = ", ".join(f"`{name}`" for name in names)
    more = f" ({', '.join(notes)})" if notes else ""
    return f"| {shown} | {str(info.help).replace('|', chr(92) + '|').replace('*.', chr(92) + '*.')}{more} |"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(rewritten(file.read_text("utf-8")), "utf-8")
