"""Declared layers on torch, of a safetensors file or another: built, filled with the tensors, nothing unpickled.

The layers come from `perch.artifacts`, which has already compared them with the tensors of the file; here each allowed
type meets its class. They are built on torch's meta device, so that no memory is taken and no random number drawn
for weights that the file brings. Those are used where they lie: each tensor is a view of the fetched file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from perch.artifacts.architecture import Architecture, Layer
from perch.artifacts.data import Data
from perch.artifacts.safetensors_file import Header, inspect_header, read_architecture, read_header
from perch.predictor.torch_layers import Sum, ToIndex

from .tensor_views import from_array, views


def _embedding(num_embeddings: int, embedding_dim: int) -> nn.Embedding:
    # With weights of its own it draws none: that would import torch's compiler, a second or two of a cold start.
    return nn.Embedding(num_embeddings, embedding_dim, _weight=torch.empty(num_embeddings, embedding_dim))


CLASSES: dict[str, Callable[..., nn.Module]] = {
    "AvgPool1d": nn.AvgPool1d,
    "AvgPool2d": nn.AvgPool2d,
    "BatchNorm1d": nn.BatchNorm1d,
    "BatchNorm2d": nn.BatchNorm2d,
    "Conv2d": nn.Conv2d,
    "Dropout": nn.Dropout,
    "Embedding": _embedding,
    "Flatten": nn.Flatten,
    "GELU": nn.GELU,
    "LayerNorm": nn.LayerNorm,
    "Linear": nn.Linear,
    "MaxPool2d": nn.MaxPool2d,
    "ReLU": nn.ReLU,
    "Sigmoid": nn.Sigmoid,
    "Softmax": lambda: nn.Softmax(dim=-1),
    "Tanh": nn.Tanh,
    "ToIndex": ToIndex,
    "Unflatten": lambda unflattened_size: nn.Unflatten(1, unflattened_size),
}


def build(architecture: Architecture) -> nn.Sequential:
    """Make the layers of a checked architecture, with weights as torch initialises them."""
    return _sequential(architecture.layers)


def _sequential(layers: Sequence[Layer]) -> nn.Sequential:
    return nn.Sequential(*(_module(layer) for layer in layers))


def _module(layer: Layer) -> nn.Module:
    if layer.type == "Sum":
        return Sum(*(_sequential(branch) for branch in layer.branches))
    return CLASSES[layer.type](**layer.options)


class TorchModel:
    """A built module in evaluation mode, one thread."""

    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, data: Data, header: Header) -> None:
        torch.set_num_threads(1)
        inspected = inspect_header(header, "")
        with torch.device("meta"):
            self._module = build(read_architecture(header))
        self._module.load_state_dict(views(data, header.stored), strict=True, assign=True)
        self._module.eval().requires_grad_(requires_grad=False)
        self.signature = inspected.signature
        self.axes: Mapping[str, Sequence[str | None]] = {}
        self.features = self.signature.features
        self.output: str | None = inspected.details["output"]

    def run(self, rows: NDArray[Any]) -> list[Any]:
        """The one output, as an array."""
        with torch.inference_mode():
            return [self._module(from_array(rows)).numpy()]

    def run_named(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """The one output, from the one input."""
        [rows] = inputs.values()
        return self.run(rows)


def load_torch(data: Data) -> TorchModel:
    """Load a verified safetensors file."""
    return TorchModel(data, read_header(data))
