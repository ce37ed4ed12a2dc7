"""ONNX models on onnxruntime, one thread a request.

Lambda gives one environment one request at a time and, below 1.8 GB of memory, less than one core; a thread pool
would only wait for itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from perch.artifacts.outputs import OUTPUT_KEY
from perch.artifacts.signature import Signature, Tensor

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
        [wanted] = self._session.get_inputs()
        self._input = wanted.name
        self.signature = Signature(
            inputs=(_tensor(wanted),), outputs=tuple(_tensor(output) for output in self._session.get_outputs())
        )
        if len(wanted.shape) != 2:
            raise ValueError(f"the input's shape is {wanted.shape}; [batch, features] is served")
        self.features = self.signature.features
        self.dtype: np.dtype[Any] = np.dtype(_TYPES[wanted.type][1])
        self.output: str | None = self._session.get_modelmeta().custom_metadata_map.get(OUTPUT_KEY)

    def run(self, rows: NDArray[Any]) -> list[Any]:
        """All outputs: arrays, and lists of dicts where scikit-learn's converter put a ZipMap."""
        outputs: list[Any] = self._session.run(None, {self._input: rows})
        return outputs


def load_onnx(data: bytes) -> OnnxModel:
    """Load a verified ONNX file."""
    return OnnxModel(data)


def _tensor(value: Any) -> Tensor:
    datatype = (
        _TYPES[value.type][0] if value.type in _TYPES else {"tensor(string)": "BYTES"}.get(value.type, value.type)
    )
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape) if value.shape else None
    return Tensor(name=value.name, datatype=datatype, shape=shape)
