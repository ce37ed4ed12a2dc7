"""`perch inspect`: say what a file is, what in it could run code, and where Perch would run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perch.cli.context import SETTINGS
from perch.cli.show import Json, emit, line, say
from perch.domain.errors import PerchError
from perch.domain.formats import RUNTIMES
from perch.domain.policy import EndpointPolicy

if TYPE_CHECKING:
    from perch.artifacts import Tensor
    from perch.artifacts.signature import Ranges
    from perch.cli.inspection import Finding

_MOST = 12
"""Inputs and outputs that are printed; the JSON has all."""


def inspect(
    file: Annotated[Path, typer.Argument(help="A model's file, or a folder that holds one.")],
    as_json: Json = False,
) -> None:
    """Say what a model file is and where it would run.

    Nothing in it is run and nothing is asked of AWS. Exit code 0: it is served as it is; 1: it is refused, or could run
    code and needs a trusted signature.
    """
    from perch.cli.inspection import SERVED, look

    try:
        finding = look(file, _endpoints())
    except ImportError as missing:
        say(f"perch: {missing.name} is not installed: pip install 'perch[local]'")
        raise typer.Exit(1) from missing
    if as_json:
        emit(finding.to_json())
    else:
        for name, text, style in _lines(finding):
            line(f"{name:<11}{text}", style)
    if finding.verdict != SERVED:
        raise typer.Exit(1)


def _endpoints() -> tuple[EndpointPolicy, ...]:
    """The endpoints that this folder declares; none where no project is."""
    from perch.cli.declared import read_settings

    if not SETTINGS.is_file():
        return ()
    try:
        return read_settings(SETTINGS).endpoints
    except (PerchError, OSError) as wrong:
        say(f"{SETTINGS} is left out: {str(wrong).splitlines()[0]}")
        return ()


def _lines(finding: Finding) -> Iterator[tuple[str, str, str]]:
    """What is printed: a word, what there is to say, and a style."""
    from perch.cli.inspection import SERVED, TRUST, flat, meaning, package

    found = finding.inspected
    yield "file", f"{finding.file}, {finding.size:,} bytes", ""
    if finding.sha256:
        yield "sha256", finding.sha256, ""
    for remark in finding.remarks:
        yield "folder", remark, ""
    if found is None:
        yield "verdict", f"refused: {finding.reason}", "red"
        return
    runs = " or ".join(f"{RUNTIMES[name].engine} ({name}, {package(name)})" for name in found.runtimes)
    yield "format", f"{found.format}, runs on {runs}", ""
    yield from _tensors("input", found.signature.inputs)
    yield from _ranges(found.signature.ranges)
    yield from _tensors("output", found.signature.outputs)
    yield "answer", meaning(found), ""
    for name, text in flat({key: value for key, value in found.details.items() if key != "output"}):
        yield "", f"{name}: {text}", ""
    yield "code", found.code or "none: nothing in it can run code", "red" if found.code else "green"
    yield "signature", finding.signed, ""
    yield "memory", f"about {finding.memory_mb:,} MB while it loads", ""
    for place in finding.places:
        said = f"{place.endpoint} (model {place.model}, {place.runtime})"
        why = f": {place.why}" if place.why else ""
        yield "endpoint", f"{said} {'would serve it' if place.serves else 'would not'}{why}", ""
    if finding.verdict == TRUST:
        yield "verdict", f"needs trust: {finding.reason}", "yellow"
    elif finding.verdict == SERVED:
        yield "verdict", "served as it is", "green"


def _tensors(title: str, tensors: tuple[Tensor, ...]) -> Iterator[tuple[str, str, str]]:
    for tensor in tensors[:_MOST]:
        yield title, f"{tensor.name}: {tensor.datatype} {_shape(tensor.shape)}{', or missing' * tensor.missing}", ""
    if len(tensors) > _MOST:
        yield title, f"… and {len(tensors) - _MOST} more", ""


def _ranges(ranges: Ranges | None) -> Iterator[tuple[str, str, str]]:
    if ranges is None:
        return
    for name, rule in ranges.rules[:_MOST]:
        said = [f"at least {rule.min}"] if rule.min is not None else []
        said += [f"at most {rule.max}"] if rule.max is not None else []
        if rule.values is not None:
            more = f" … ({len(rule.values)} values)" if len(rule.values) > _MOST else ""
            said.append(f"one of {', '.join(map(str, rule.values[:_MOST]))}{more}")
        yield "range", f"{name}: {' and '.join(said)}", ""
    if len(ranges.rules) > _MOST:
        yield "range", f"… and {len(ranges.rules) - _MOST} more", ""


def _shape(shape: tuple[int, ...] | None) -> str:
    return "of any shape" if shape is None else f"[{', '.join('any' if size < 0 else str(size) for size in shape)}]"
