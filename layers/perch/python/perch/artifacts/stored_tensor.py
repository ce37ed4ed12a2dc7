"""A tensor as a file holds it: its type, its shape, and the place of its numbers; checked against the file's size.

What every torch format comes down to: safetensors, the weights of a .pt2 archive and a state dict are tables of these,
and one loader makes views of the file from them (`perch.predictor.runtimes.tensor_views`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ArtifactRefused

WIDTHS = {
    "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F64": 8, "BOOL": 1,
    "U16": 2, "U32": 4, "U64": 8,
}  # fmt: skip
"""Bytes per element, by the name that safetensors gives a type."""

DATATYPES = {
    "U8": "UINT8", "I8": "INT8", "I16": "INT16", "I32": "INT32", "I64": "INT64", "F16": "FP16", "F32": "FP32",
    "F64": "FP64", "BOOL": "BOOL", "U16": "UINT16", "U32": "UINT32", "U64": "UINT64",
}  # fmt: skip
"""The same types as a signature spells them; BF16 cannot be sent."""

MAX_RANK, MAX_SIZE = 16, 2**48


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """From byte `start` of the file on `span` elements, among which shape and strides (in elements) choose."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    span: int


def stored_tensor(
    name: str, *, dtype: str, shape: Any, strides: Any, offset: Any, start: int, length: int
) -> StoredTensor:
    """Check what a file says of a tensor.

    Args:
        name: of the tensor, for the sentence of a refusal.
        dtype: one of `WIDTHS`.
        shape: sizes, as the file tells them.
        strides: elements between neighbours along each dimension.
        offset: elements before the first one.
        start: byte of the file where its storage begins.
        length: bytes of the storage.

    Raises:
        ArtifactRefused: these are no sizes, or they reach outside of the storage or beyond what it holds.
    """
    if not (_sizes(shape) and _sizes(strides) and _sizes([offset])) or len(shape) != len(strides):
        raise ArtifactRefused(f"tensor {name[:80]!r} has a shape, strides or an offset that are no sizes")
    width = WIDTHS[dtype]
    elements = math.prod(shape)
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if elements else 0
    if (offset + span) * width > length:
        raise ArtifactRefused(
            f"tensor {name[:80]!r} needs {(offset + span) * width:,} bytes and its storage has {length:,}"
        )
    if elements > span:
        raise ArtifactRefused(
            f"tensor {name[:80]!r} repeats its numbers ({elements:,} elements of {span:,}); save it .contiguous()"
        )
    return StoredTensor(
        dtype=dtype, shape=tuple(shape), strides=tuple(strides), start=start + offset * width, span=span
    )


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a tensor that lies in one piece, last dimension first."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _sizes(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_RANK
        and all(type(size) is int and 0 <= size <= MAX_SIZE for size in value)
    )
