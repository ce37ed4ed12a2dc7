"""Gradient-boosted trees on onnxruntime: read in Python, checked, written as ONNX in memory, run like any ONNX file.

A node that splits by categories is a column that every row gets (`perch.artifacts.category_sets`), and a linear leaf
has a place for each of its factors (`perch.artifacts.linear_leaves`), so many rows of such a model are run in parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perch.artifacts.data import Data
from perch.artifacts.lightgbm_file import read_lightgbm
from perch.artifacts.linear_leaves import width_of
from perch.artifacts.trees import Forest
from perch.artifacts.trees_onnx import to_onnx
from perch.artifacts.xgboost_file import read_xgboost
from perch.predictor.errors import RequestRefused

from .onnx import OnnxModel

_CELLS = 1_000_000
"""Columns of sets, or places of factors, times rows that are run at once; each takes up to 60 bytes on its way."""


class TreesModel(OnnxModel):
    """A session over the trees; elements of its rows may be missing."""

    def __init__(self, forest: Forest) -> None:
        super().__init__(to_onnx(forest))
        self.signature = forest.signature
        self._known = forest.columns.unlisted
        self._texts = {one.name: forest.columns.gap for one in self.signature.inputs if one.datatype == "BYTES"}
        trees = forest.trees
        cells = int(np.count_nonzero(trees.categorical)) + len(trees.roots) * width_of(trees)
        self._most = max(1, _CELLS // max(1, cells))

    def run_named(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """All outputs, from inputs by name. Raises `RequestRefused` (400) for a text that the model does not take."""
        for name, known in self._known.items():
            for row, text in enumerate(inputs[name].flat, start=1):
                if text and text not in known:
                    raise RequestRefused(400, f"{name!a} in row {row} is {text[:40]!a}, which is no category of it")
        if self._texts:
            inputs = {name: _filled(array, self._texts.get(name)) for name, array in inputs.items()}
        rows = len(next(iter(inputs.values())))
        if rows <= self._most:
            return super().run_named(inputs)
        parts = [
            super(TreesModel, self).run_named({name: array[at : at + self._most] for name, array in inputs.items()})
            for at in range(0, rows, self._most)
        ]
        return [np.concatenate(several) for several in zip(*parts, strict=True)]


def _filled(array: NDArray[Any], gap: str | None) -> NDArray[Any]:
    """Texts with one that is no name where they are missing: onnxruntime would read None as the text "None"."""
    if gap is None:
        return array
    return np.array([gap if text is None else text for text in array.flat], dtype=np.object_).reshape(array.shape)


def load_xgboost(data: Data) -> TreesModel:
    """Load a verified XGBoost file."""
    return TreesModel(read_xgboost(data))


def load_lightgbm(data: Data) -> TreesModel:
    """Load a verified LightGBM file."""
    return TreesModel(read_lightgbm(data))
