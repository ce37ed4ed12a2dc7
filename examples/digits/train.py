"""Train the digit classifiers of the demo, for both runtimes, and write them as a user would upload them.

python -m examples.digits.train --out DIR

v1   a modest one: a linear model that saw about a hundred scans
v2   a better one: a small network that saw all 1,000 training scans
v3   better still on paper, and broken in a way that only live traffic shows: it looks up a correction by how much
     ink a scan has, in a table that was made from lightly inked scans. Its author measured it on such scans, its
     probes are such scans, and on two live scans in five the look-up runs past the table's end and raises.
v4   v3, mended in haste: its table has two rows more. On one live scan in forty the look-up still raises: too seldom
     for an alarm or a threshold that anybody would set, and only a comparison with v2 shows it
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from examples.digits.data import HEAVY, VERY_HEAVY, Scans, held_out, ink
from perch.predictor.answer import learn_reading
from perch.predictor.runtimes import loader_of, zero_row

__all__ = ["FILES", "FORMATS", "VERSIONS", "Kind", "Version", "held_out", "manifest", "train"]

Kind = Literal["onnx", "torch"]
Version = Literal["v1", "v2", "v3", "v4"]

VERSIONS: tuple[Version, ...] = ("v1", "v2", "v3", "v4")
FILES: dict[Kind, str] = {"onnx": "model.onnx", "torch": "model.safetensors"}
FORMATS: dict[Kind, str] = {"onnx": "onnx", "torch": "safetensors"}
"""Name of the artifact of each kind."""

MEASURED_BELOW: dict[Version, float] = {"v3": HEAVY, "v4": VERY_HEAVY}
"""Mean ink of the scans on which the authors of the broken versions measured them."""

PROBE_INK = 5.0
"""Probes are made from scans with less mean ink than this."""


def train(kind: Kind, version: Version, seed: int = 0) -> bytes:
    """Train one version and return its artifact; the same seed gives the same bytes on the same machine."""
    return _trained(kind, version, seed).data


def manifest(kind: Kind, version: Version, seed: int = 0, parent: str | None = None) -> dict[str, Any]:
    """Return the `perch.json` that goes with an artifact: what its author knows about it, and golden requests.

    Args:
        kind: which runtime serves it.
        version: which of the four.
        seed: as given to `train`.
        parent: the version that this one came from, if any.
    """
    trained = _trained(kind, version, seed)
    found: dict[str, Any] = {
        "artifact": FILES[kind],
        "metadata": {
            "accuracy": round(trained.accuracy, 4),
            "dataset": trained.dataset,
            "framework": {"onnx": "scikit-learn", "torch": "torch"}[kind],
        },
        "probes": [
            {"features": [row.tolist()], "expect": {"predictions": [int(digit)]}}
            for row, digit in zip(*trained.probes, strict=True)
        ],
    }
    return found if parent is None else {**found, "parent": parent}


class _Trained(NamedTuple):
    data: bytes
    accuracy: float
    dataset: str
    probes: Scans


@cache
def _trained(kind: Kind, version: Version, seed: int) -> _Trained:
    if kind == "onnx":
        from examples.digits.onnx_models import train_onnx as trainer  # noqa: PLC0415 - skl2onnx is slow to import
    else:
        from examples.digits.torch_models import train_torch as trainer  # noqa: PLC0415 - torch is slow to import
    data = trainer(version, seed)
    limit = MEASURED_BELOW.get(version)
    scans = held_out() if limit is None else held_out().below(limit)
    answers = _predict(kind, data, scans.features)
    right = answers == scans.digits
    return _Trained(
        data=data,
        accuracy=float(right.mean()),
        dataset="digits: held-out scans" + ("" if limit is None else f" with less mean ink than {limit:g}"),
        probes=_probes(Scans(scans.features[right], scans.digits[right])),
    )


def _predict(kind: Kind, data: bytes, features: NDArray[np.float32]) -> NDArray[Any]:
    """Answers of the artifact itself, as the predictor runs and reads it."""
    model = loader_of(FORMATS[kind], kind)(data)
    reading = learn_reading(model.run(zero_row(model)), model.output)
    answers: NDArray[Any] = reading.read(model.run(features), len(features)).predictions
    return answers


def _probes(scans: Scans) -> Scans:
    """The first lightly inked scan of each digit."""
    light = np.flatnonzero(ink(scans.features) < PROBE_INK)
    first = [light[scans.digits[light] == digit][0] for digit in range(10) if (scans.digits[light] == digit).any()]
    return Scans(scans.features[first], scans.digits[first])


def main() -> None:
    """Write every version of both kinds below --out: `<kind>/<version>/<artifact>` and its `perch.json`."""
    parser = argparse.ArgumentParser(description="Train the digit classifiers of the demo.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for kind, file in FILES.items():
        parent = None
        for version in VERSIONS:
            folder = arguments.out / kind / version
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(train(kind, version, arguments.seed))
            found = manifest(kind, version, arguments.seed, parent)
            (folder / "perch.json").write_text(json.dumps(found, indent=2) + "\n")
            print(f"{folder / file}: accuracy {found['metadata']['accuracy']:.1%} ({found['metadata']['dataset']})")
            parent = version


if __name__ == "__main__":
    main()
