"""scikit-learn → ONNX, through skl2onnx: one matrix of float32, or a column each where the columns are of two kinds.

    fitted estimator ─► inputs (n_features_in_; the names and kinds of columns that a ColumnTransformer chooses)
                     └► skl2onnx: probabilities as a matrix (no ZipMap), labels as they are

scikit-learn calculates in float64 and ONNX in float32, so a number next to a tree's threshold may fall on its other
side; the comparison counts such rows. Estimators of other packages are converted if skl2onnx knows them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from perch.artifacts.signature import Signature, Tensor
from perch.domain.errors import Refused

from .onnx_file import finished

MATRIX = "X"

_OPSETS = ({"": 21, "ai.onnx.ml": 4}, {"": 21, "ai.onnx.ml": 3})
"""Versions of operators, the best first; a few converters of skl2onnx only know the second."""

_ASKED: Mapping[str, Sequence[str]] = {
    "label": ("predict",),
    "output_label": ("predict",),
    "probabilities": ("predict_proba", "decision_function"),
    "output_probability": ("predict_proba", "decision_function"),
    "scores": ("decision_function", "transform"),
    "variable": ("predict", "transform"),
}
"""Which method gives what skl2onnx calls so, the first that there is."""


def inputs_of(estimator: Any) -> Signature:
    """Return what a fitted estimator takes; its outputs are known once it is converted.

    Raises:
        Refused: it is not fitted, or no estimator.
    """
    columns = _columns(estimator)
    if columns is not None:
        inputs = tuple(Tensor(name=name, datatype=kind, shape=(-1, 1)) for name, kind in columns.items())
    else:
        features = getattr(estimator, "n_features_in_", None)
        if not isinstance(features, int):
            raise Refused(
                f"{type(estimator).__name__} does not say how many features it takes: it is not fitted, or no estimator"
            )
        inputs = (Tensor(name=MATRIX, datatype="FP32", shape=(-1, features)),)
    return Signature(inputs=inputs, outputs=())


def estimator_to_onnx(estimator: Any, *, metadata: Mapping[str, str] | None = None) -> bytes:
    """Convert a fitted estimator or pipeline.

    Raises:
        Refused: skl2onnx has no converter for a part of it; names the part.
    """
    from skl2onnx import to_onnx  # noqa: PLC0415 - a second and a half, for those who convert
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType  # noqa: PLC0415 - as above

    wanted = inputs_of(estimator).inputs
    types = [
        (t.name, (StringTensorType if t.datatype == "BYTES" else FloatTensorType)([None, (t.shape or (0, 0))[1]]))
        for t in wanted
    ]
    options = {id(estimator): {"zipmap": False}} if is_classifier(estimator) else None
    for opset in _OPSETS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = to_onnx(estimator, initial_types=types, options=options, target_opset=dict(opset))
        except Exception as error:  # a dozen classes of its own, and whatever an estimator raises
            if opset is _OPSETS[-1]:
                said = " ".join(str(error).split())
                raise Refused(f"skl2onnx cannot convert {type(estimator).__name__}: {said[:300]}") from error
        else:
            break
    return finished(model, metadata or {})


class Estimator:
    """An estimator as one side of a comparison, asked for what the outputs of its ONNX file are called."""

    output: str | None = None

    def __init__(self, estimator: Any, outputs: Sequence[str], size: int | None) -> None:
        self._estimator = estimator
        self.outputs = outputs
        self.size = size

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """All outputs; None for one that it has no method for."""
        rows = self._rows(inputs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [self._ask(output, rows) for output in self.outputs]

    def _ask(self, output: str, rows: Any) -> Any:
        method = next((name for name in _ASKED.get(output, ()) if hasattr(self._estimator, name)), None)
        return None if method is None else np.asarray(getattr(self._estimator, method)(rows))

    def _rows(self, inputs: Mapping[str, NDArray[Any]]) -> Any:
        if list(inputs) == [MATRIX]:
            return inputs[MATRIX].astype(np.float64)
        columns = {name: array[:, 0] for name, array in inputs.items()}
        if hasattr(self._estimator, "feature_names_in_"):
            import pandas as pd  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: PLC0415 - whoever fitted a data frame has it

            return pd.DataFrame(columns)
        return np.stack([column.astype(np.object_) for column in columns.values()], axis=1)


def _columns(estimator: Any) -> dict[str, str] | None:
    """Names and data types of columns, where a ColumnTransformer comes first and some are texts; else None."""
    first = estimator
    while isinstance(first, Pipeline):
        first = first.steps[0][1]
    if not isinstance(first, ColumnTransformer) or not hasattr(first, "transformers_"):
        return None
    names = [str(name) for name in getattr(first, "feature_names_in_", ())]
    by_name = bool(names)
    names = names or [f"x{number}" for number in range(1, int(first.n_features_in_) + 1)]
    texts = {names[index] for _, part, chosen in first.transformers_ for index in _texts(part, chosen, names)}
    if not texts and not by_name:
        return None
    return {name: "BYTES" if name in texts else "FP32" for name in names}


def _texts(part: Any, chosen: Any, names: Sequence[str]) -> Iterator[int]:
    """Positions of the columns whose fitted encoder knows texts."""
    while isinstance(part, Pipeline):
        part = next((step for _, step in part.steps if hasattr(step, "categories_")), None)
    picked = np.atleast_1d(np.arange(len(names))[chosen] if isinstance(chosen, slice) else np.asarray(chosen))
    if picked.dtype == np.bool_:
        picked = np.flatnonzero(picked)
    for column, categories in zip(picked, getattr(part, "categories_", ()), strict=False):
        if np.asarray(categories).dtype.kind in "OUST":
            yield names.index(str(column)) if isinstance(column, str) else int(column)
