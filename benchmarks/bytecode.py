"""What bytecode in zip layers is worth: process start to first answer, on Lambda's Python, with it and without.

    python -m benchmarks.bytecode [--rounds 11] [--seconds 40]

The layers are those that are deployed, built for this machine's processor instead of Lambda's, and so is the package;
`without` is a copy of them that holds no bytecode and where none can be written, as Lambda's `/opt` is. The standard
library has its own in both, as in Lambda. Both fetch, verify and load the same model and answer one request, in turns
(`benchmarks/cold_start.py` has the script). `cpu` is processor time: on Lambda that is what there is least of.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cold_start import ANSWERED, FORMATS, PERCH, ROOT, pointed_at, turns, write
from benchmarks.load_weights import store
from benchmarks.report import save
from cdk.bytecode import find_compiler
from cdk.layers import HERE, PYTHON, build
from cdk.package_layer import PREDICTOR_PACKAGE, cut
from perch.domain.formats import RUNTIMES


def main() -> None:
    """Measure and save."""
    reader = argparse.ArgumentParser()
    reader.add_argument("--rounds", type=int, default=11)
    reader.add_argument("--seconds", type=float, default=40, help="for each runtime")
    asked = reader.parse_args()
    load = os.getloadavg()
    interpreter = find_compiler(PYTHON)
    if interpreter is None:
        print(f"left out: Python {PYTHON} is not installed here, and bytecode is of one version of Python")
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, store() as environ:
        for name, runtime in RUNTIMES.items():
            if not runtime.layers:
                continue
            path = Path(folder) / f"model.{FORMATS[name]}"
            write(name, path)
            built = [build(layer, root=ROOT, architecture=HERE).path for layer in runtime.layers]
            found[name] = measure(
                interpreter, name, [cut(PREDICTOR_PACKAGE, root=ROOT), *built], pointed_at(name, path, environ), asked
            )
            print(name, found[name], flush=True)
    save("bytecode", {"python": interpreter_of(interpreter), "runtimes": found}, packages=("moto",), load=load)


def measure(
    interpreter: str, runtime: str, layers: list[Path], environ: Mapping[str, str], asked: argparse.Namespace
) -> dict[str, Any]:
    """Start a predictor on its layers and on a bare copy of them, in turns; milliseconds and megabytes."""
    handler = str(ROOT / "functions" / f"predict_{runtime}")
    with tempfile.TemporaryDirectory() as folder:
        bare = [Path(folder) / layer.name for layer in layers]
        for layer, copy in zip(layers, bare, strict=True):
            shutil.copytree(layer, copy, ignore=shutil.ignore_patterns("__pycache__"))
        jobs = {
            kind: ["env", f"PYTHONPATH={paths(taken)}", interpreter, "-B", "-c", PERCH + ANSWERED, handler]
            for kind, taken in (("with", layers), ("without", bare))
        }
        times = turns(jobs, environ, asked.rounds, asked.seconds)
        sizes = {kind: megabytes(taken) for kind, taken in (("with", layers), ("without", bare))}
    found: dict[str, Any] = {"rounds": len(times["with"])}
    for what, unit in (("wall", "ms"), ("cpu", "cpu_ms")):
        medians = {kind: 1000 * statistics.median(getattr(one, what) for one in times[kind]) for kind in jobs}
        found |= {f"{kind}_{unit}": round(medians[kind], 1) for kind in jobs}
        found[f"{what}_without_over_with"] = round(medians["without"] / medians["with"], 2)
    return found | {f"{kind}_mb": size for kind, size in sizes.items()}


def paths(layers: list[Path]) -> str:
    """The search path that these layers make."""
    return os.pathsep.join(str(layer / "python") for layer in layers)


def megabytes(layers: list[Path]) -> float:
    """Their size together, unpacked."""
    return round(sum(f.stat().st_size for layer in layers for f in layer.rglob("*") if f.is_file()) / 1e6, 1)


def interpreter_of(path: str) -> str:
    """The full version of an interpreter."""
    return subprocess.run([path, "-V"], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
