"""Safetensors models in NumPy alone: small networks of matrix products, without the second that importing torch takes.

    declared layers ─► one function each ─► called one after the other with n rows of float32

The weights are views of the file's bytes. Only the layers of `perch.artifacts.layers.IN_NUMPY` are here; what else a
file declares makes it one for torch, and registration says so. Numbers agree with torch's to about 1e-6: sums are taken
in another order, and the error function of GELU is a polynomial that is right to 1.5e-7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perch.artifacts.architecture import Layer
from perch.artifacts.data import Data
from perch.artifacts.safetensors_file import inspect_safetensors, read_architecture, read_header

Rows = NDArray[Any]
"""Numbers of float32."""
Step = Callable[[Rows], Rows]
Weights = Mapping[str, Rows]


def load_numpy(data: Data) -> NumpyModel:
    """Load a verified safetensors file."""
    return NumpyModel(data)


class NumpyModel:
    """The declared layers as functions over rows."""

    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, data: Data) -> None:
        inspected = inspect_safetensors(data)
        header = read_header(data)
        view = memoryview(data)
        weights = {
            name: np.require(np.frombuffer(view[slice(*header.places[name])], np.float32), requirements="A").reshape(
                shape
            )
            for name, (kind, shape) in header.tensors.items()
            if kind == "F32"
        }
        self._steps = _steps(read_architecture(header).layers, weights, "")
        self.signature = inspected.signature
        self.axes: Mapping[str, Sequence[str | None]] = {}
        self.features = self.signature.features
        self.output: str | None = inspected.details["output"]

    def run(self, rows: NDArray[Any]) -> list[Any]:
        """The one output, as an array."""
        return [_through(self._steps, rows)]

    def run_named(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """The one output, from the one input."""
        [rows] = inputs.values()
        return self.run(rows)


def _through(steps: Sequence[Step], rows: Rows) -> Rows:
    for step in steps:
        rows = step(rows)
    return rows


def _steps(layers: Sequence[Layer], weights: Weights, prefix: str) -> list[Step]:
    """One function a layer; a name of a tensor is that of torch's state dict."""
    found = []
    for number, layer in enumerate(layers):
        name = f"{prefix}{number}."
        if layer.type == "Sum":
            branches = [_steps(one, weights, f"{name}branches.{i}.") for i, one in enumerate(layer.branches)]
            found.append(_sum(branches))
        elif layer.type != "Dropout":  # nothing is dropped when a model answers
            own = {key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)}
            found.append(STEPS[layer.type](layer.options, own))
    return found


def _sum(branches: Sequence[Sequence[Step]]) -> Step:
    def step(rows: Rows) -> Rows:
        total = _through(branches[0], rows)
        for branch in branches[1:]:
            total = total + _through(branch, rows)
        return total

    return step


def _linear(_: Mapping[str, Any], weights: Weights) -> Step:
    matrix, bias = weights["weight"].T, weights.get("bias")

    def step(rows: Rows) -> Rows:
        found = rows @ matrix
        if bias is not None:
            found += bias
        return found

    return step


def _batch_norm(options: Mapping[str, Any], weights: Weights) -> Step:
    """As one product and one sum: what it subtracts and divides by is known."""
    scale = 1 / np.sqrt(weights["running_var"].astype(np.float64) + options["eps"])
    if options["affine"]:
        scale *= weights["weight"]
    shift = weights.get("bias", np.float32(0)) - weights["running_mean"] * scale
    flat = scale.astype(np.float32), shift.astype(np.float32)
    deep = flat[0][:, np.newaxis], flat[1][:, np.newaxis]

    def step(rows: Rows) -> Rows:
        factor, summand = flat if rows.ndim == 2 else deep
        found: Rows = rows * factor + summand
        return found

    return step


def _layer_norm(options: Mapping[str, Any], weights: Weights) -> Step:
    axes = tuple(range(-len(options["normalized_shape"]), 0))
    eps = np.float32(options["eps"])
    weight, bias = weights.get("weight"), weights.get("bias")

    def step(rows: Rows) -> Rows:
        centred = rows - rows.mean(axis=axes, keepdims=True)
        found: Rows = centred / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + eps)
        if weight is not None:
            found *= weight
        if bias is not None:
            found += bias
        return found

    return step


def _relu(rows: Rows) -> Rows:
    return np.maximum(rows, np.float32(0))


def _sigmoid(rows: Rows) -> Rows:
    small = np.exp(-np.abs(rows))  # at most 1, so that nothing overflows
    found: Rows = np.where(rows >= 0, np.float32(1), small) / (1 + small)
    return found


def _softmax(rows: Rows) -> Rows:
    powers: Rows = np.exp(rows - rows.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


_ERF = np.array([1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0])
"""Abramowitz and Stegun, 7.1.26."""


def _gelu(rows: Rows) -> Rows:
    wide = rows.astype(np.float64)
    size = np.abs(wide) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * size)
    erf = 1 - np.polyval(_ERF, t) * np.exp(-np.square(size))
    found: Rows = (0.5 * wide * (1 + np.copysign(erf, wide))).astype(np.float32)
    return found


def _gelu_tanh(rows: Rows) -> Rows:
    inner = np.float32(np.sqrt(2 / np.pi)) * (rows + np.float32(0.044715) * rows * rows * rows)
    found: Rows = np.float32(0.5) * rows * (1 + np.tanh(inner))
    return found


STEPS: Mapping[str, Callable[[Mapping[str, Any], Weights], Step]] = {
    "BatchNorm1d": _batch_norm,
    "Flatten": lambda _, __: lambda rows: rows.reshape(len(rows), -1),
    "GELU": lambda options, _: _gelu if options["approximate"] == "none" else _gelu_tanh,
    "LayerNorm": _layer_norm,
    "Linear": _linear,
    "ReLU": lambda _, __: _relu,
    "Sigmoid": lambda _, __: _sigmoid,
    "Softmax": lambda _, __: _softmax,
    "Tanh": lambda _, __: np.tanh,
    "Unflatten": lambda options, _: lambda rows: rows.reshape(len(rows), *options["unflattened_size"]),
}
"""What makes a function of each layer; `Sum` and `Dropout` are above."""
