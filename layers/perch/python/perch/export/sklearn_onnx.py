"""scikit-learn → ONNX, through skl2onnx: one matrix of float32, or a column each where the columns are of two kinds.

    fitted estimator ─► inputs (n_features_in_, or its columns, told as a skops file's are: `perch.artifacts`)
                     └► skl2onnx: probabilities as a matrix (no ZipMap), labels as they are

A text cannot be missing in ONNX, so an imputer of texts fills in for empty ones there.

scikit-learn calculates in float64 and ONNX in float32, so a number next to a tree's threshold may fall on its other
side; the comparison counts such rows. Estimators of other packages are converted if skl2onnx knows them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.impute import SimpleImputer

from perch.artifacts.signature import Signature, Tensor
from perch.artifacts.sklearn_columns import Columns, columns_of, ranges_of
from perch.artifacts.sklearn_made import Made
from perch.domain.errors import Refused
from perch.predictor.runtimes.sklearn import framed

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


def inputs_of(model: Made) -> Signature:
    """Return what a fitted estimator takes; its outputs are known once it is converted.

    Raises:
        Refused: it is not fitted, or no estimator.
    """
    if model.features is None:
        raise Refused(f"{model.short} does not say how many features it takes: it is not fitted, or no estimator")
    columns = columns_of(model)
    inputs: tuple[Tensor, ...]
    if columns is None:
        inputs = (Tensor(name=MATRIX, datatype="FP32", shape=(-1, model.features)),)
    else:
        texts = {name for name, one in zip(columns.names, columns.columns, strict=True) if one.text}
        inputs = tuple(
            Tensor(name=name, datatype="BYTES" if name in texts else "FP32", shape=(-1, 1)) for name in columns.every
        )
    return Signature(inputs=inputs, outputs=(), ranges=ranges_of(model))


def described(value: Any) -> Any:
    """Return an estimator in memory as a file would describe it; a search is what it found."""
    value = getattr(value, "best_estimator_", value)
    kind = type(value)
    if kind in (list, tuple):
        return kind(map(described, value))
    if (not kind.__module__.startswith("sklearn.") and not isinstance(value, BaseEstimator)) or not hasattr(
        value, "__dict__"
    ):
        return value
    attributes = {name: described(one) for name, one in vars(value).items()}
    attributes.setdefault("n_features_in_", getattr(value, "n_features_in_", None))
    return Made(name=f"{kind.__module__}.{kind.__qualname__}", attributes=attributes)


def without_gaps(estimator: Any) -> Any:
    """Return a copy of an estimator whose imputers take an empty text for a missing one: ONNX has no other."""
    found = copy.deepcopy(estimator)
    for one in _imputers(found):
        if one.statistics_.dtype.kind == "O" and not isinstance(one.missing_values, str):
            one.missing_values = ""
    return found


def _imputers(value: Any) -> Iterator[SimpleImputer]:
    if isinstance(value, SimpleImputer) and hasattr(value, "statistics_"):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _imputers(one)
    elif isinstance(value, BaseEstimator):
        yield from _imputers(list(vars(value).values()))


def estimator_to_onnx(
    estimator: Any, *, metadata: Mapping[str, str] | None = None, signature: Signature | None = None
) -> bytes:
    """Convert a fitted estimator or pipeline.

    Args:
        estimator: to be converted.
        metadata: strings for the file.
        signature: what it takes, if that is known already (`inputs_of`).

    Raises:
        Refused: skl2onnx has no converter for a part of it; names the part.
    """
    from skl2onnx import to_onnx  # noqa: PLC0415 - a second and a half, for those who convert
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType  # noqa: PLC0415 - as above

    wanted = (signature or inputs_of(described(estimator))).inputs
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

    def __init__(
        self, estimator: Any, outputs: Sequence[str], size: int | None, columns: Columns | None = None
    ) -> None:
        self._estimator = estimator
        self._columns = columns
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
        if self._columns is not None:
            return framed(self._columns, {name: _widened(one) for name, one in inputs.items()})
        columns = {name: array[:, 0] for name, array in inputs.items()}
        if hasattr(self._estimator, "feature_names_in_"):
            import pandas as pd  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: PLC0415 - whoever fitted a data frame has it

            return pd.DataFrame(columns)
        return np.stack([column.astype(np.object_) for column in columns.values()], axis=1)


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.dtype.kind == "O" else array.astype(np.float64)
