"""The four digit classifiers as ONNX, trained with scikit-learn and converted with skl2onnx."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from threadpoolctl import threadpool_limits

from examples.digits.data import HEAVY, VERY_HEAVY, Scans, ink_table, smeared, split

_OPSETS = {"": 18, "ai.onnx.ml": 3}


def train_onnx(version: str, seed: int) -> bytes:
    """Train one version and return the ONNX file."""
    training = split().training
    if version == "v1":
        few = Scans(training.features[:100], training.digits[:100])
        return _bytes(_converted(LogisticRegression(max_iter=500), few))
    if version == "v2":
        return _bytes(_converted(_network(100, seed, max_iter=300), training))
    return _bytes(_with_ink_table(_of_smeared_scans(seed), HEAVY if version == "v3" else VERY_HEAVY))


@cache  # v3 and v4 differ in their tables only
def _of_smeared_scans(seed: int) -> Any:
    return _converted(_network(128, seed, max_iter=60), smeared(split().training))


def _network(width: int, seed: int, *, max_iter: int) -> Any:
    return make_pipeline(
        MinMaxScaler(), MLPClassifier((width,), alpha=0.01, max_iter=max_iter, random_state=seed, early_stopping=False)
    )


def _converted(classifier: Any, scans: Scans) -> Any:
    # One thread: small matrices gain nothing from more, and the bytes do not depend on how many cores there are.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # a set number of rounds is what keeps this short
        classifier.fit(scans.features, scans.digits)
    return to_onnx(classifier, scans.features[:1], name="digits", target_opset=_OPSETS, options={"zipmap": False})


def _with_ink_table(model: Any, limit: float) -> Any:
    """Return a model that adds a row of the ink table to the log-probabilities; the sum is the model's only output."""
    name = model.graph.input[0].name
    model = onnx.utils.Extractor(model).extract_model([name], ["probabilities"])
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 10]))
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(ink_table(limit), "ink_table"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "ink_axis"),
            numpy_helper.from_array(np.array(2, dtype=np.float32), "ink_scale"),
            numpy_helper.from_array(np.array(1e-6, dtype=np.float32), "least"),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", [name, "ink_axis"], ["ink"], keepdims=0),
            helper.make_node("Mul", ["ink", "ink_scale"], ["ink_scaled"]),
            helper.make_node("Floor", ["ink_scaled"], ["ink_floor"]),
            helper.make_node("Cast", ["ink_floor"], ["ink_level"], to=TensorProto.INT64),
            helper.make_node("Gather", ["ink_table", "ink_level"], ["correction"], axis=0),
            helper.make_node("Max", ["probabilities", "least"], ["likely"]),
            helper.make_node("Log", ["likely"], ["log_likely"]),
            helper.make_node("Add", ["log_likely", "correction"], ["scores"]),
        ]
    )
    entry = model.metadata_props.add()
    entry.key, entry.value = "perch.output", "logits"
    return model


def _bytes(model: Any) -> bytes:
    data: bytes = model.SerializeToString(deterministic=True)
    return data
