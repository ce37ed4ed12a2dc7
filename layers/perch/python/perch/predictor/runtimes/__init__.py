"""The engines that run models, behind one small interface.

Each engine is a module of its own that is imported only when a function asks for it: torch takes seconds, and neither
is installed where the other runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from perch.artifacts.signature import Signature


class Model(Protocol):
    """A loaded model."""

    signature: Signature
    features: int
    """Numbers in one row."""
    dtype: np.dtype[Any]
    """Type of one feature."""
    output: str | None
    """What its author declared that the output means (`perch.output`), or None."""

    def run(self, rows: NDArray[Any]) -> list[Any]:
        """Predict rows (n by features, of `dtype`); all outputs, in the signature's order. May raise anything."""


def loader_of(runtime: Literal["onnx", "torch"]) -> Callable[[bytes], Model]:
    """Import an engine and return its loader, which may raise anything for bytes that it cannot load."""
    if runtime == "onnx":
        from .onnx import load_onnx  # noqa: PLC0415 - see the module's story

        return load_onnx
    from .torch import load_torch  # noqa: PLC0415 - see the module's story

    return load_torch


def zero_row(model: Model) -> NDArray[Any]:
    """The row that warms a model."""
    return np.zeros((1, model.features), dtype=model.dtype)
