"""`perch export`: from what training left to an ONNX file, written only if it says the same on a sample of rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perch.cli.files import write
from perch.cli.show import Json, emit, progress, say, table, tell
from perch.domain.errors import Invalid, Refused

if TYPE_CHECKING:
    from perch.export.equivalence import Report

_SEEDED = 256


def export(
    model: Annotated[Path, typer.Argument(help="The model's file, of any format that `perch inspect` knows.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    to: Annotated[str, typer.Option("--to", help="onnx, or safetensors for declared layers.")] = "onnx",
    sample: Annotated[
        Path | None, typer.Option(help="Rows to compare on: *.npy, *.csv, *.json or *.npz [default: made up].")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="How many rows are made up.")] = _SEEDED,
    seed: Annotated[int, typer.Option(min=0, help="What they are made up from.")] = 0,
    tolerance: Annotated[
        float, typer.Option(min=0, help="How far a number may be off: times max(1, |number|).")
    ] = 1e-4,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Share of rows that have to have the same answer.")
    ] = 0.99,
    quantize: Annotated[
        str | None, typer.Option(help="dynamic (8-bit weights) or float16; compared with the file before.")
    ] = None,
    meaning: Annotated[
        str | None, typer.Option(help="What the output is: probabilities, logits or values [default: as declared].")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Open a file that can run code, which then runs as you.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Also write the comparison to this file, as JSON.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a model as ONNX, if it then says the same.

    Both are asked the same rows; what differs is reported, and nothing is written that does not pass.
    """
    if output.exists() and not force:
        raise Invalid(f"{output} is there already; --force replaces it")
    if to not in ("onnx", "safetensors"):
        raise Invalid(f"--to is onnx or safetensors, not {to}")
    if output.suffix.lower() != f".{to}":
        raise Invalid(f"{output} would not be taken for what it is; call it {output.with_suffix(f'.{to}').name}")
    with progress(f"exporting {model.name}") as tell:
        data, reports, found = _made(
            model,
            to=to,
            quantize=quantize,
            tell=tell,
            sample=sample,
            rows=rows,
            seed=seed,
            tolerance=tolerance,
            min_agreement=min_agreement,
            output=meaning,
            trust=trust,
        )
    passed = all(one.passed for one in reports)
    told: dict[str, Any] = {
        "model": str(model),
        "output": str(output) if passed else None,
        "passed": passed,
        "bytes": len(data),
        "comparisons": [one.to_json() for one in reports],
        **found,
    }
    if report:
        write(report, (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode())
    if passed:
        write(output, data)
    _tell(told, reports, as_json=as_json)
    if not passed:
        failed = next(one for one in reports if not one.passed)
        raise Refused(f"{output} is not written: {failed.what}: {failed.reason}")
    say(f"wrote {output} ({len(data) / 1000:,.1f} KB); `perch inspect {output}` says where it would run")


def _made(
    model: Path, *, to: str, quantize: str | None, tell: Any, **options: Any
) -> tuple[bytes, list[Report], dict[str, Any]]:
    """Return the bytes to be written, the comparisons that they have to pass, and what Perch reads in them."""
    try:
        from perch.export import quantised, to_onnx, to_safetensors
    except ImportError as missing:
        raise Refused(f"{missing.name} is not installed: pip install 'perch[local,export]'") from missing
    if to == "safetensors":
        if quantize:
            raise Invalid("only ONNX files are quantised; leave out --quantize or --to")
        data = to_safetensors(model)
        return data, [], {}
    exported = to_onnx(model, tell=tell, **options)
    reports = [exported.report]
    if quantize and exported.report.passed:
        exported = quantised(exported, quantize, min_agreement=options["min_agreement"], tell=tell)
        reports.append(exported.report)
    return exported.data, reports, {"signature": exported.inspected.signature.to_json()}


def _tell(told: dict[str, Any], reports: list[Report], *, as_json: bool) -> None:
    if as_json:
        emit(told)
        return
    for one in reports:
        tell(f"{'PASS' if one.passed else 'FAIL'}  {one.what}: {one.reason}")
        tell(f"      {one.rows:,} rows, {one.sample}")
        table(
            ("output", "max |difference|", "mean |difference|"),
            [(o.name, f"{o.max_abs:.3g}", f"{o.mean_abs:.3g}") for o in one.outputs],
            empty="      no output could be compared",
        )
        if one.left_out:
            tell(f"      not compared: {', '.join(one.left_out)}")
        tell(f"      one row: {one.ms_before:.3f} ms → {one.ms_after:.3f} ms{_times(one)}")


def _times(report: Report) -> str:
    """How the two compare, in time and in size."""
    faster = report.ms_before / report.ms_after if report.ms_after else 0.0
    said = f" ({faster:.1f} times as fast)" if faster >= 1 else f" ({1 / faster:.1f} times as long)" if faster else ""
    if report.bytes_before and report.bytes_after:
        share = report.bytes_after / report.bytes_before
        said += f" · size: {report.bytes_before / 1000:,.1f} KB → {report.bytes_after / 1000:,.1f} KB ({share:.0%})"
    return said
