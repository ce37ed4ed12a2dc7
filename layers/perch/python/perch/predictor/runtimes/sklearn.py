"""scikit-learn models, one thread a request: from skops files by making what was inspected, from pickles if trusted.

    *.skops            plain values ─► the named classes, their attributes set; no reader of the file but ours
    *.joblib, *.pkl    joblib.load, with imports of an allow-list; only ever called for bytes that a trusted key signed

A tree or a forest costs a few hundred microseconds a request and a second of import here; as ONNX it costs ten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from perch.artifacts.data import Data
from perch.artifacts.signature import Signature, Tensor
from perch.artifacts.sklearn_classes import Made, SklearnTree
from perch.artifacts.skops_file import read_skops

_LEFT_OUT = frozenset({"feature_names_in_", "n_jobs"})
"""Names make it warn of rows that have none; threads only wait for each other."""


class SklearnModel:
    """A fitted estimator: labels and probabilities, or numbers."""

    dtype: np.dtype[Any] = np.dtype(np.float64)

    def __init__(self, estimator: Any) -> None:
        self._limits = threadpool_limits(limits=1)
        self.estimator = estimator
        self.features = int(estimator.n_features_in_)
        classes = getattr(estimator, "classes_", None)
        self._proba = hasattr(estimator, "predict_proba")
        self.signature = Signature(
            inputs=(Tensor(name="features", datatype="FP64", shape=(-1, self.features)),),
            outputs=_outputs(classes, proba=self._proba),
        )
        self._labels = classes is not None
        self.axes: Mapping[str, Sequence[str | None]] = {}
        self.output: str | None = None if self._labels else "values"

    def run(self, rows: NDArray[Any]) -> list[Any]:
        """Labels and probabilities, or one row of numbers each."""
        rows = rows.view()
        rows.flags.writeable = False  # a scaler of copy=False would write into the request, for whoever reads it next
        found = self.estimator.predict(rows)
        if not self._labels:
            return [np.asarray(found, dtype=np.float64).reshape(len(rows), -1)]
        labels = _as_labels(np.asarray(found))
        return [labels, self.estimator.predict_proba(rows)] if self._proba else [labels]

    def run_named(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """The same, from the one input."""
        [rows] = inputs.values()
        return self.run(rows)


def load_skops(data: Data) -> SklearnModel:
    """Load a verified skops file that was proved harmless; it is checked once more. Raises `ArtifactRefused`."""
    return SklearnModel(make(read_skops(data)))


def make(value: Any) -> Any:
    """Build what a checked file describes: estimators, trees, and the lists and dicts that hold them."""
    if isinstance(value, Made):
        module, _, name = value.name.rpartition(".")
        kind = getattr(import_module(module), name)
        estimator = kind.__new__(kind)
        estimator.__dict__.update({key: make(one) for key, one in value.attributes.items() if key not in _LEFT_OUT})
        estimator.__dict__.setdefault("n_jobs", None)
        return estimator
    if isinstance(value, SklearnTree):
        return _tree(value)
    if isinstance(value, dict):
        return {key: make(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(make(one) for one in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        found = np.empty(value.shape, dtype=np.object_)
        for place, one in enumerate(value):
            found[place] = make(one)
        return found
    return value


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
