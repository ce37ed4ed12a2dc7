"""Tensors of a file, as views of its bytes: weights are in memory once.

All torch formats come here with a table of `StoredTensor`s, whose places the inspectors have checked. Torch knows no
memory that may only be read; nothing that is served writes into its weights (the layers of an architecture do not, and
a graph that would is refused), so its warning about that is switched off, here and for the arrays of requests.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perch.artifacts.data import Data
from perch.artifacts.stored_tensor import StoredTensor

DTYPES: Mapping[str, torch.dtype] = {
    "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "BOOL": torch.bool,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
}  # fmt: skip

ARRAYS: Mapping[str, np.dtype[Any]] = {
    "UINT8": np.dtype(np.uint8), "INT8": np.dtype(np.int8), "INT16": np.dtype(np.int16), "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64), "FP16": np.dtype(np.float16), "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64), "BOOL": np.dtype(np.bool_), "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32), "UINT64": np.dtype(np.uint64),
}  # fmt: skip
"""NumPy's type of a signature's type."""

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.frombuffer(b"0", dtype=torch.uint8)  # torch warns of each kind once in a process, and now has
    torch.from_numpy(np.frombuffer(b"0", dtype=np.uint8))


def view(data: Data, tensor: StoredTensor) -> torch.Tensor:
    """Return a tensor of a file without copying it. Raises what torch raises if it does not fit the file."""
    dtype = DTYPES[tensor.dtype]
    if not tensor.span:
        return torch.empty(tensor.shape, dtype=dtype)
    start = tensor.start
    source: bytes | bytearray | memoryview = data
    if start % dtype.itemsize:  # who writes by the book puts no tensor there, and nothing demands the book
        start, source = 0, bytearray(memoryview(data)[start : start + tensor.span * dtype.itemsize])
    flat = torch.frombuffer(source, dtype=dtype, count=tensor.span, offset=start)
    return flat.as_strided(tensor.shape, tensor.strides)


def views(data: Data, tensors: Mapping[str, StoredTensor]) -> dict[str, torch.Tensor]:
    """Return all tensors of a file by name, like `view`: they are to be read only, and keep it in memory."""
    return {name: view(data, tensor) for name, tensor in tensors.items()}


def from_array(array: NDArray[Any]) -> torch.Tensor:
    """Return a request's array as a tensor, without copying it; it must not be written to."""
    return torch.from_numpy(array)
