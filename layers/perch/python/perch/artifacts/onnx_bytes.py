"""Write ONNX models without the onnx package: the few messages of its protobuf schema that a small graph needs.

The predictor has onnxruntime, which reads such bytes, and no protobuf. Numbers of fields are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .protobuf import field

_IR_VERSION, _OPSET, _ML_OPSET = 10, 18, 5
_ELEMENTS = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7, "object": 8, "float64": 11}
_INT, _TENSOR, _INTS = 2, 4, 7  # types of attributes


def varints(numbers: NDArray[np.int64]) -> bytes:
    """Whole numbers from 0 to below 2**35 as `protobuf.varint` writes each, end to end."""
    shifts = np.arange(0, 35, 7)
    groups = (numbers[:, np.newaxis] >> shifts) & 0x7F
    more = (numbers[:, np.newaxis] >> (shifts + 7)) > 0
    kept = np.concatenate([np.ones((len(numbers), 1), dtype=np.bool_), more[:, :-1]], axis=1)
    written: NDArray[np.uint8] = (groups | (more << 7)).astype(np.uint8)[kept]
    return written.tobytes()


def element(dtype: np.dtype[Any]) -> int:
    """The number of a type of elements."""
    return _ELEMENTS[dtype.name]


def tensor(array: NDArray[Any], name: str = "") -> bytes:
    """A TensorProto; an array of objects is one of texts."""
    dims = b"".join(field(1, size) for size in array.shape)
    named = field(8, name) if name else b""
    if array.dtype == np.object_:
        return dims + field(2, _ELEMENTS["object"]) + b"".join(field(6, text) for text in array.tolist()) + named
    return dims + field(2, _ELEMENTS[array.dtype.name]) + named + field(9, array.tobytes())


def node(
    kind: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    attributes: Mapping[str, int | NDArray[Any]] | None = None,
    *,
    domain: str = "",
) -> bytes:
    """A NodeProto; an attribute is a whole number, a list of them (an array of int64), or a tensor (any other)."""
    named = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs)
    written = b"".join(field(5, _attribute(name, value)) for name, value in (attributes or {}).items())
    return named + field(4, kind) + written + (field(7, domain) if domain else b"")


def _attribute(name: str, value: int | NDArray[Any]) -> bytes:
    if isinstance(value, int):
        return field(1, name) + field(3, value) + field(20, _INT)
    if value.dtype == np.int64:
        return field(1, name) + field(8, varints(value)) + field(20, _INTS)
    return field(1, name) + field(5, tensor(value)) + field(20, _TENSOR)


def rows(name: str, element: str, columns: int | None) -> bytes:
    """A ValueInfoProto: any number of rows, each of so many elements (None: of one, without a dimension of its own)."""
    dimensions = field(1, field(2, "batch")) + (b"" if columns is None else field(1, field(1, columns)))
    return field(1, name) + field(2, field(1, field(1, _ELEMENTS[element]) + field(2, dimensions)))


def model(
    *,
    nodes: Sequence[bytes],
    constants: Mapping[str, NDArray[Any]],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    metadata: Mapping[str, str],
) -> bytes:
    """A ModelProto of one graph."""
    graph = b"".join(field(1, one) for one in nodes) + field(2, "graph")
    graph += b"".join(field(5, tensor(array, name)) for name, array in constants.items())
    graph += b"".join(field(11, one) for one in inputs) + b"".join(field(12, one) for one in outputs)
    opsets = field(8, field(1, "") + field(2, _OPSET)) + field(8, field(1, "ai.onnx.ml") + field(2, _ML_OPSET))
    said = b"".join(field(14, field(1, key) + field(2, value)) for key, value in metadata.items())
    return field(1, _IR_VERSION) + field(2, "perch") + field(7, graph) + opsets + said
