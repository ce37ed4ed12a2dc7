"""A model as Perch serves it, as one side of a comparison: read, inspected and loaded by the predictor's own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from perch.artifacts.signature import Signature
from perch.predictor.runtimes import Model, loader_of


class Served:
    """A loaded artifact."""

    def __init__(self, model: Model, size: int) -> None:
        self._model = model
        self.signature: Signature = model.signature
        self.outputs: Sequence[str] = [tensor.name for tensor in model.signature.outputs]
        self.output = model.output
        self.size = size

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """All outputs."""
        return self._model.run_named(inputs)


def serve(data: bytes, format_name: str, runtime: str) -> Served:
    """Load an artifact that was inspected. May raise anything for bytes that do not load."""
    return Served(loader_of(format_name, runtime)(data), len(data))


def serve_onnx(data: bytes) -> Served:
    """Load an ONNX file that was inspected."""
    return serve(data, "onnx", "onnx")
