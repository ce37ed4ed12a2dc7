"""The engines that run models, behind one small interface.

Each engine is a module of its own that is imported only when a function asks for it: torch takes seconds, and none is
installed where another runs, but for NumPy, which all of them need.

onnxruntime tells its maker over the network which models are loaded, unless this variable is there when it is imported
(its `disable_telemetry_events` comes too late), so importing any engine of this package sets it first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perch.artifacts.data import Data
from perch.artifacts.signature import Signature
from perch.domain.formats import FORMATS, named

os.environ["ORT_DISABLE_TELEMETRY"] = "1"


class Model(Protocol):
    """A loaded model."""

    signature: Signature
    axes: Mapping[str, Sequence[str | None]]
    """Names of the dimensions of inputs, where the model has such: equal names are equal sizes."""
    features: int
    """Numbers in one row; 0 unless the model takes a matrix."""
    dtype: np.dtype[Any]
    """Type of the first input's elements."""
    output: str | None
    """What its author declared that the output means (`perch.output`), or None."""

    def run(self, rows: NDArray[Any]) -> list[Any]:
        """Predict rows (n by features, of `dtype`); all outputs, in the signature's order. May raise anything."""

    def run_named(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Predict from all inputs by name, each of its type and shape; outputs as `run` gives them."""


def loader_of(format_name: str, runtime: str) -> Callable[[Data], Model]:
    """Import an engine and return its loader of a format, which may raise anything for bytes that it cannot load.

    Raises:
        KeyError: the runtime does not load such a format (`perch.domain.formats.formats_of`).
    """
    return named(FORMATS[format_name].loaders[runtime])


def zero_row(model: Model) -> NDArray[Any]:
    """The row that warms a model that takes rows."""
    return np.zeros((1, model.features), dtype=model.dtype)
