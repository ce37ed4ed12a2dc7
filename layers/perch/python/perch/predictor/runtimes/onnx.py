"""ONNX models on onnxruntime, one thread a request.

Lambda gives one environment one request at a time and, below 1.8 GB of memory, less than one core; a thread pool
would only wait for itself. Elsewhere PERCH_THREADS may give a request more.

Weights of a megabyte and more are used where they lie in the fetched file (`onnx_weights`). For its matrix products
onnxruntime would also hold them in an order of its own, which takes their size again and a second for 500 MB, and makes
one row 1.25 and a few rows 2.5 times as fast: it does so where the function has the memory (`perch.domain.memory`). The
two orders add up the same products differently, so their last bits may differ.

Held once more than said: convolutions, whose weights are put into another order even so, and what is no initializer,
such as the trees of an ensemble.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from perch.artifacts.data import Data
from perch.artifacts.outputs import OUTPUT_KEY
from perch.artifacts.ranges import read_ranges
from perch.artifacts.signature import DATATYPES, Signature, Tensor
from perch.domain.memory import has_room_to_prepare

if TYPE_CHECKING:
    from .onnx_weights import Outline


SMALL = 1 << 20
"""Bytes below which no file has a weight that is worth lending."""

_TYPES: dict[str, tuple[str, type[np.generic]]] = {
    "tensor(float16)": ("FP16", np.float16),
    "tensor(float)": ("FP32", np.float32),
    "tensor(double)": ("FP64", np.float64),
    "tensor(int8)": ("INT8", np.int8),
    "tensor(int16)": ("INT16", np.int16),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(uint16)": ("UINT16", np.uint16),
    "tensor(uint32)": ("UINT32", np.uint32),
    "tensor(uint64)": ("UINT64", np.uint64),
    "tensor(bool)": ("BOOL", np.bool_),
    "tensor(string)": ("BYTES", np.object_),
}


class OnnxModel:
    """An onnxruntime session and what it says of itself."""

    def __init__(self, data: Data, memory_mb: float = math.inf) -> None:
        """Load a file.

        Args:
            data: the whole file; where it was fetched into memory of its own, it is the model's from now on.
            memory_mb: what the process may take.
        """
        outline = _outline(data)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads()
        options.inter_op_num_threads = 1
        # Left to guess, it would read bytes as its own flatbuffer format if a marker stands in them: another graph than
        # the one that was inspected.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.log_severity_level = 4  # a failing run raises; its log line would only say so twice
        if outline is not None:
            options.add_external_initializers_from_files_in_memory([outline.location], [data], [len(data)])
            options.add_session_config_entry("session.use_external_initializer_file_buffers_directly", "1")
            if not has_room_to_prepare(len(data) / 1e6, memory_mb):
                options.add_session_config_entry("session.disable_prepacking", "1")
        model = bytes(data) if outline is None else outline.model
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._lent = None if outline is None else data  # the session points into it
        inputs = self._session.get_inputs()
        self._input = inputs[0].name
        metadata = self._session.get_modelmeta().custom_metadata_map
        signature = Signature(
            inputs=tuple(map(_tensor, inputs)), outputs=tuple(map(_tensor, self._session.get_outputs()))
        )
        self.signature = replace(signature, ranges=read_ranges(metadata, signature))
        for tensor in self.signature.inputs:
            if tensor.datatype not in DATATYPES or tensor.shape is None:
                raise ValueError(f"input {tensor.name!r} is of type {tensor.datatype} and shape {tensor.shape}")
        self.axes: Mapping[str, Sequence[str | None]] = {
            value.name: [size if isinstance(size, str) else None for size in value.shape] for value in inputs
        }
        self.features = self.signature.features if self.signature.is_matrix else 0
        self.dtype: np.dtype[Any] = np.dtype(_TYPES[inputs[0].type][1])
        self.output: str | None = metadata.get(OUTPUT_KEY)

    def run(self, rows: NDArray[Any]) -> list[Any]:
        """All outputs: arrays, and lists of dicts where scikit-learn's converter put a ZipMap."""
        return self.run_named({self._input: rows})

    def run_named(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """All outputs, from inputs by name."""
        outputs: list[Any] = self._session.run(None, inputs)
        return outputs


def _outline(data: Data) -> Outline | None:
    """The model without the weights that are lent; None if none are."""
    if len(data) < SMALL:
        return None
    from .onnx_weights import take_apart  # noqa: PLC0415 - milliseconds that a small model need not pay

    return take_apart(data)


def _threads() -> int:
    """Threads of one request: PERCH_THREADS, or one. Raises ValueError unless it is a whole number above 0."""
    text = os.environ.get("PERCH_THREADS") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"PERCH_THREADS is {text!r}; it is a whole number above 0")
    return int(text)


def load_onnx(data: Data) -> OnnxModel:
    """Load a verified ONNX file."""
    return OnnxModel(data, float(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", math.inf)))


def _tensor(value: Any) -> Tensor:
    datatype = _TYPES[value.type][0] if value.type in _TYPES else value.type
    if not value.type.startswith("tensor("):
        return Tensor(name=value.name, datatype="SEQUENCE", shape=None)
    shape = None if value.shape is None else tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return Tensor(name=value.name, datatype=datatype, shape=shape)
