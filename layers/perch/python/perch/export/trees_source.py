"""Boosted trees → ONNX: Perch's own reader writes the operators that `perch.predictor.runtimes.trees` runs.

The trees are compared with the library that grew them, where it is installed; else with what an endpoint would answer
for the file, which is the same conversion, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perch.artifacts import Inspected
from perch.artifacts.lightgbm_file import read_lightgbm
from perch.artifacts.trees import Forest
from perch.artifacts.trees_onnx import to_onnx
from perch.artifacts.xgboost_file import read_xgboost

from .equivalence import Runnable
from .onnx_file import finished
from .sample import Sample
from .served import serve
from .source import Source

_MISSING = 0.05
"""Share of elements that are left out."""

_NAMES = {"xgboost": "an XGBoost", "lightgbm": "a LightGBM"}
_READERS = {"xgboost": read_xgboost, "lightgbm": read_lightgbm}


def file_source(data: bytes, inspected: Inspected) -> Source:
    """A file of XGBoost or LightGBM."""
    forest = _READERS[inspected.format](data)
    library = _library(inspected.format)
    alone = "" if library else f" (compared with Perch's own answers: {inspected.format} is not installed)"

    def convert(_: Sample, metadata: Mapping[str, str]) -> bytes:
        import onnx  # noqa: PLC0415 - the rest does without

        return finished(onnx.load_model_from_string(to_onnx(forest)), metadata)

    def ask(outputs: Sequence[str]) -> Runnable:
        if library is None:
            return serve(data, inspected.format, "onnx")
        return Native(library, data, forest, outputs, inspected.format)

    return Source(
        kind=f"{_NAMES[inspected.format]} file{alone}",
        signature=inspected.signature,
        convert=convert,
        ask=ask,
        make=lambda rows, seed: _at_thresholds(forest, rows, seed),
    )


def _at_thresholds(forest: Forest, rows: int, seed: int) -> Sample:
    """Rows whose every feature lies on a threshold, next to one, or is missing: where conversions go wrong."""
    chance = np.random.default_rng(seed)
    trees, columns = forest.trees, forest.columns
    made = chance.standard_normal((rows, forest.features)).astype(columns.dtype)
    by_category = trees.categorical
    categories = np.unique(np.stack([trees.feature[trees.members[:, 0]], trees.members[:, 1]], axis=1), axis=0)
    for feature in range(forest.features):
        split = (trees.left >= 0) & (trees.feature == feature)
        thresholds = trees.value[split & ~by_category & np.isfinite(trees.value)]
        known = categories[categories[:, 0] == feature, 1]
        if len(thresholds):
            chosen = chance.choice(thresholds, rows)
            near = np.stack([chosen, np.nextafter(chosen, -np.inf), np.nextafter(chosen, np.inf)])
            made[:, feature] = near[chance.integers(0, 3, rows), np.arange(rows)]
        if len(known):
            made[:, feature] = chance.choice([*known, -1, known[-1] + 1], rows)
    gaps = chance.random(made.shape) < _MISSING
    made[gaps] = np.nan
    for feature, names in columns.categories.items():
        made[:, feature] = np.where(gaps[:, feature], np.nan, chance.integers(0, len(names), rows))
    return Sample(inputs=columns.named(made), origin=f"made up on and beside the trees' thresholds, seed {seed}")


class Native:
    """The library that grew the trees, as one side of a comparison; it only meets files that were read whole before."""

    def __init__(self, library: Any, data: bytes, forest: Forest, outputs: Sequence[str], format_name: str) -> None:
        self.outputs = outputs
        self.size: int | None = len(data)
        self.output: str | None = None
        self._forest = forest
        self._predict: Callable[[NDArray[Any]], Any]
        if format_name == "xgboost":
            booster = library.Booster(model_file=bytearray(data))
            if forest.link == "softmax":
                booster.set_param({"objective": "multi:softprob"})  # multi:softmax would give labels alone
            best = booster.attr("best_iteration")
            ends = (0, 0 if best is None else int(best) + 1)
            self._predict = lambda rows: booster.inplace_predict(rows.astype(np.float32), iteration_range=ends)
        else:
            self._predict = library.Booster(model_str=data.decode()).predict

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Label and probabilities, or numbers."""
        rows = self._forest.columns.codes(inputs)
        found = np.asarray(self._predict(rows)).reshape(len(rows), -1)
        if not self._forest.classes:
            given = {"value": found}
        else:
            probabilities = np.concatenate([1 - found, found], axis=1) if found.shape[1] == 1 else found
            given = {"label": probabilities.argmax(axis=1), "probabilities": probabilities}
        return [given.get(name) for name in self.outputs]


def _library(format_name: str) -> Any:
    try:
        return import_module(format_name)
    except ImportError:
        return None
