"""The two functions that the `perch export` command and scripts call: convert, and make smaller."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perch.artifacts import Inspected, inspect
from perch.artifacts.outputs import MEANINGS, OUTPUT_KEY
from perch.domain.errors import Invalid, Refused
from perch.domain.formats import named

from .equivalence import Limits, Report, compare
from .quantise import METHODS, quantise
from .sample import Sample, make_sample, read_sample
from .served import Served, serve_onnx
from .source import open_source

Tell = Callable[[str], None]
TOLERANCE, AGREEMENT = 1e-4, 0.99
ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An ONNX file that `perch push` takes: its bytes, what Perch reads in it, and how it compares on which rows."""

    data: bytes
    inspected: Inspected
    report: Report
    sample: Sample


def to_onnx(
    model: Any,
    *,
    sample: str | Path | Sample | None = None,
    rows: int = ROWS,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    min_agreement: float = AGREEMENT,
    output: str | None = None,
    metadata: Mapping[str, str] | None = None,
    trust: bool = False,
    tell: Tell = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Exported:
    """Convert a model to ONNX and compare the two.

    Args:
        model: path of a file that Perch reads, a torch module, or a fitted scikit-learn estimator.
        sample: rows to compare on: a file (`perch.export.sample.read_sample`); without it they are made up.
        rows: how many rows are made up.
        seed: what they are made up from.
        tolerance: how far each number may be off, as a share of max(1, |number|).
        min_agreement: share of rows that have to have the same answer.
        output: what the numbers mean (`perch.output`), where the source does not say.
        metadata: more strings for the file.
        trust: open a file that can run code.
        tell: hears what is being done.
        clock: seconds, for the time that a row takes.

    Raises:
        Invalid: an argument does not fit.
        Refused: the model cannot be converted, or what comes out is nothing that Perch serves.
    """
    if output is not None and output not in MEANINGS:
        raise Invalid(f"output is {output!r}; it can be {', '.join(MEANINGS)}")
    tell("reading the model")
    source = open_source(model, trust=trust)
    if isinstance(sample, str | Path):
        sample = read_sample(Path(sample), source.signature)
    if sample is None:
        sample = source.make(rows, seed) if source.make else make_sample(source.signature, rows=rows, seed=seed)
    tell(f"converting {source.kind} to ONNX")
    data = source.convert(sample, {**source.metadata, **(metadata or {}), **({OUTPUT_KEY: output} if output else {})})
    inspected, after = _served(data)
    tell(f"comparing on {sample.rows:,} rows")
    report = compare(
        source.ask(after.outputs),
        after,
        sample,
        what=f"{source.kind} to ONNX",
        limits=Limits(tolerance=tolerance, min_agreement=min_agreement),
        clock=clock,
    )
    return Exported(data=data, inspected=inspected, report=report, sample=sample)


def quantised(
    exported: Exported,
    how: str,
    *,
    min_agreement: float = AGREEMENT,
    tell: Tell = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Exported:
    """Make an exported file smaller and compare it with itself before; its report says whether enough rows agree.

    Raises:
        Invalid: there is no such method.
        Refused: there is nothing to make smaller in this way, or Perch does not serve what comes out.
    """
    if how not in METHODS:
        raise Invalid(f"{how!r} is no way to quantise; there are {', '.join(METHODS)}")
    tell(f"quantising ({how})")
    data = quantise(exported.data, how)
    inspected, after = _served(data)
    tell(f"comparing on {exported.sample.rows:,} rows")
    report = compare(
        serve_onnx(exported.data),
        after,
        exported.sample,
        what=f"quantised ({how})",
        limits=Limits(tolerance=None, min_agreement=min_agreement),
        clock=clock,
    )
    return Exported(data=data, inspected=inspected, report=report, sample=exported.sample)


def to_safetensors(model: Any, *, output: str | None = None) -> bytes:
    """Return a model as a safetensors file with declared layers, which runs without ONNX.

    Args:
        model: an `nn.Sequential` of served layers, or the path of a file that declares its layers (a state dict).
        output: what the numbers mean (`perch.output`), where the source does not say.

    Raises:
        Refused: the model is no list of served layers.
    """
    return named("perch.export.torch_source:as_safetensors")(model, output)  # type: ignore[no-any-return]  # `named` gives Any


def _served(data: bytes) -> tuple[Inspected, Served]:
    """Read and load what came out, as registration and the predictor will. Raises Refused."""
    inspected = inspect("model.onnx", data)
    try:
        return inspected, serve_onnx(data)
    except Exception as error:  # onnxruntime's classes are those of its C++ code
        raise Refused(f"ONNX Runtime does not load what came out: {str(error).splitlines()[0][:300]}") from error
