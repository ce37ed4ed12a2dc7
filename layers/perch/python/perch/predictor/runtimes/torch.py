"""Safetensors models on torch: the declared layers are built, the tensors are put in, nothing is unpickled.

The layers come from `perch.artifacts`, which has already compared them with the tensors of the file; here each allowed
type meets its class. They are built on torch's meta device, so that no memory is taken and no random number drawn
for weights that the file brings. Those are used where they lie: each tensor is a view of the fetched file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from perch.artifacts.architecture import Architecture, Layer
from perch.artifacts.data import Data
from perch.artifacts.safetensors_file import Header, inspect_safetensors, read_architecture, read_header
from perch.predictor.torch_layers import Sum, ToIndex


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


DTYPES = {"F32": torch.float32, "I64": torch.int64}
"""What the types of a safetensors header are called in torch."""


def tensors_of(data: Data, header: Header) -> dict[str, torch.Tensor]:
    """The tensors of a file as views of it: they are to be read only, and keep it in memory.

    A tensor that does not begin at a multiple of its element's size is copied. Whoever writes by the book puts none
    there, but the book does not demand it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")  # and nothing here writes
        return {
            name: _tensor(data, kind, *header.places[name]).reshape(shape)
            for name, (kind, shape) in header.tensors.items()
        }


def _tensor(data: Data, kind: str, begin: int, end: int) -> torch.Tensor:
    dtype = DTYPES[kind]
    if begin % dtype.itemsize:
        return torch.frombuffer(bytearray(data[begin:end]), dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, count=(end - begin) // dtype.itemsize, offset=begin)


class TorchModel:
    """A built module in evaluation mode, one thread."""

    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, data: Data) -> None:
        torch.set_num_threads(1)
        inspected = inspect_safetensors(data)
        header = read_header(data)
        with torch.device("meta"):
            self._module = build(read_architecture(header))
        self._module.load_state_dict(tensors_of(data, header), strict=True, assign=True)
        self._module.eval().requires_grad_(requires_grad=False)
        self.signature = inspected.signature
        self.axes: Mapping[str, Sequence[str | None]] = {}
        self.features = self.signature.features
        self.output: str | None = inspected.details["output"]

    def run(self, rows: NDArray[Any]) -> list[Any]:
        """The one output, as an array."""
        if not rows.flags.writeable:  # torch has no tensors that may only be read, and would warn of it
            rows = rows.copy()
        with torch.inference_mode():
            return [self._module(torch.from_numpy(rows)).numpy()]

    def run_named(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """The one output, from the one input."""
        [rows] = inputs.values()
        return self.run(rows)


def load_torch(data: Data) -> TorchModel:
    """Load a verified safetensors file."""
    return TorchModel(data)
