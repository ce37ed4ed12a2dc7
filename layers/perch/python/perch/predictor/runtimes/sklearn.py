"""scikit-learn models, one thread a request: from skops files by making what was inspected, from pickles if trusted.

    *.skops            plain values ─► the named classes, their attributes set; no reader of the file but ours
    *.joblib, *.pkl    joblib.load, with imports of an allow-list; only ever called for bytes that a trusted key signed

A model of named columns gets them as a `Frame`: each part of a ColumnTransformer then sees the columns that it was
trained on, of their own type, as it would see them of a data frame. pandas is not here.

A tree or a forest costs a few hundred microseconds a request and a second of import here; as ONNX it costs ten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from inspect import signature as parameters_of
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from perch.artifacts.data import Data
from perch.artifacts.signature import Signature, Tensor
from perch.artifacts.sklearn_columns import Columns, columns_of, signature_of
from perch.artifacts.sklearn_made import Made
from perch.artifacts.sklearn_trees import SklearnTree
from perch.artifacts.skops_file import read_skops

from .sklearn_parts import FINISHED, NAMED

_LEFT_OUT = frozenset({"feature_names_in_", "n_jobs"})
"""Names make it warn of rows that have none; threads only wait for each other."""


class SklearnModel:
    """A fitted estimator: labels and probabilities, or numbers.

    `columns` say that it is asked by names; `signature` that it was told by an inspector, instead of by the estimator.
    """

    dtype: np.dtype[Any] = np.dtype(np.float64)

    def __init__(self, estimator: Any, signature: Signature | None = None, columns: Columns | None = None) -> None:
        self._limits = threadpool_limits(limits=1)
        self.estimator = estimator
        self.columns = columns
        classes = getattr(estimator, "classes_", None)
        self._proba = hasattr(estimator, "predict_proba")
        self._labels = classes is not None
        self.signature = signature or Signature(
            inputs=(Tensor(name="features", datatype="FP64", shape=(-1, int(estimator.n_features_in_))),),
            outputs=_outputs(classes, proba=self._proba),
        )
        self.features = self.signature.features if self.signature.is_matrix else 0
        self.axes: Mapping[str, Sequence[str | None]] = {}
        self.output: str | None = None if self._labels else "values"

    def run(self, rows: NDArray[Any]) -> list[Any]:
        """Labels and probabilities, or one row of numbers each."""
        rows = rows.view()
        rows.flags.writeable = False  # a scaler of copy=False would write into the request, for whoever reads it next
        return self._ask(rows, len(rows))

    def run_named(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """The same, from the one input, or from a column each."""
        if self.columns is None:
            [rows] = inputs.values()
            return self.run(rows)
        rows = framed(self.columns, inputs)
        return self._ask(rows, len(rows))

    def _ask(self, rows: Any, count: int) -> list[Any]:
        found = self.estimator.predict(rows)
        if not self._labels:
            return [np.asarray(found, dtype=np.float64).reshape(count, -1)]
        labels = _as_labels(np.asarray(found))
        return [labels, self.estimator.predict_proba(rows)] if self._proba else [labels]


class Frame:
    """Columns, each of its own type: as much of a data frame as a ColumnTransformer asks for.

    `frame[:, 2]` is a column, `frame[:, [0, 2]]` a matrix: of numbers if all are, else of objects.
    """

    ndim = 2

    def __init__(self, columns: Sequence[NDArray[Any] | None], rows: int) -> None:
        self._columns = columns
        self.shape = (rows, len(columns))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: tuple[slice, Any]) -> NDArray[Any]:
        chosen = key[1]
        if isinstance(chosen, int):
            return self._column(chosen)
        return self._matrix([self._column(place) for place in chosen])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._matrix([self._column(place) for place in range(self.shape[1])]), dtype=dtype)

    def _column(self, place: int) -> NDArray[Any]:
        found = self._columns[place]
        return np.full(len(self), np.nan) if found is None else found

    def _matrix(self, columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
        if all(column.dtype.kind == "f" for column in columns):
            return np.array(columns).T  # column by column, as a data frame keeps them: sums add up in this order
        found = np.empty((len(self), len(columns)), dtype=np.object_)
        for place, column in enumerate(columns):
            found[:, place] = column
        return found


def framed(columns: Columns, inputs: Mapping[str, NDArray[Any]]) -> Any:
    """Return inputs by name as what an estimator of columns takes: a frame, or the texts of a lone column."""
    found: list[NDArray[Any] | None] = [None] * len(columns.every)
    for name, column, place in zip(columns.names, columns.columns, columns.places, strict=True):
        given = inputs[name].reshape(-1)
        if column.text:
            given = np.array([column.null if one is None else one for one in given] + [None], dtype=np.object_)[:-1]
        found[place] = given.astype(np.object_) if column.boxed else given
    return found[0] if columns.lone and len(found) == 1 else Frame(found, len(next(iter(inputs.values()))))


def load_skops(data: Data) -> SklearnModel:
    """Load a verified skops file that was proved harmless; it is checked once more. Raises `ArtifactRefused`."""
    model = read_skops(data)
    return SklearnModel(make(model), signature_of(model)[0], columns_of(model))


def make(value: Any) -> Any:
    """Build what a checked file describes: estimators, trees, and the lists and dicts that hold them."""
    if isinstance(value, Made):
        return _estimator(value)
    if isinstance(value, SklearnTree):
        return _tree(value)
    if isinstance(value, dict):
        return {key: make(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(make(one) for one in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        found = np.empty(value.shape, dtype=np.object_)
        for place, one in enumerate(value.flat):
            found.flat[place] = make(one)
        return found
    # A member of a zip archive begins anywhere; of numbers that do, BLAS makes other sums in their last bit.
    return np.require(value, requirements="A") if isinstance(value, np.ndarray) else value


def _estimator(value: Made) -> Any:
    """Its attributes, as they are; what was not read, as the constructor would have it; what is made anew of these."""
    module, _, name = value.name.rpartition(".")
    kind = getattr(import_module(module), name)
    estimator = kind.__new__(kind)
    left_out = _LEFT_OUT - NAMED.get(name, frozenset())
    attributes = {key: one for key, one in value.attributes.items() if key not in left_out}
    if name == "ColumnTransformer":  # parts of no columns were never fitted
        attributes["transformers_"] = [(one.name, one.estimator, one.columns) for one in value.parts]
    estimator.__dict__.update({**_defaults(kind)} | {key: make(one) for key, one in attributes.items()})
    if name in FINISHED:
        FINISHED[name](estimator)
    return estimator


@cache
def _defaults(kind: type) -> Mapping[str, Any]:
    given = parameters_of(kind).parameters.values()
    return {one.name: one.default for one in given if one.default is not one.empty}


def _tree(value: SklearnTree) -> Any:
    tree = import_module("sklearn.tree._tree").Tree(value.features, value.classes.astype(np.intp), 1)
    state = {"max_depth": value.depth, "node_count": len(value.nodes), "nodes": value.nodes, "values": value.values}
    tree.__setstate__(state)
    return tree


def _outputs(classes: Any, *, proba: bool) -> tuple[Tensor, ...]:
    if classes is None:
        return (Tensor(name="value", datatype="FP64", shape=(-1, -1)),)
    label = "INT64" if np.asarray(classes).dtype.kind in "iub" else "BYTES"
    labels = (Tensor(name="label", datatype=label, shape=(-1,)),)
    probabilities = Tensor(name="probabilities", datatype="FP64", shape=(-1, len(classes)))
    return (*labels, probabilities) if proba else labels


def _as_labels(found: NDArray[Any]) -> NDArray[Any]:
    """Labels as the answer reads them: whole numbers, or texts."""
    return found.astype(np.int64) if found.dtype.kind in "iub" else found.astype(np.object_)
