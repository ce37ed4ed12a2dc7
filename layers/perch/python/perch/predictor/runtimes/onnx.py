"""ONNX models on onnxruntime, one thread a request.

Lambda gives one environment one request at a time and, below 1.8 GB of memory, less than one core; a thread pool
would only wait for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from perch.artifacts.outputs import OUTPUT_KEY
from perch.artifacts.ranges import read_ranges
from perch.artifacts.signature import DATATYPES, Signature, Tensor

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

    def __init__(self, data: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # Left to guess, it would read bytes as its own flatbuffer format if a marker stands in them: another graph than
        # the one that was inspected.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.log_severity_level = 4  # a failing run raises; its log line would only say so twice
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
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


def load_onnx(data: bytes) -> OnnxModel:
    """Load a verified ONNX file."""
    return OnnxModel(data)


def _tensor(value: Any) -> Tensor:
    datatype = _TYPES[value.type][0] if value.type in _TYPES else value.type
    if not value.type.startswith("tensor("):
        return Tensor(name=value.name, datatype="SEQUENCE", shape=None)
    shape = None if value.shape is None else tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return Tensor(name=value.name, datatype=datatype, shape=shape)
