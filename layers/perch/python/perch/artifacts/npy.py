"""Read NumPy's `.npy` strictly: a header of three facts, and exactly as many bytes as they need.

    magic · version · length of the header · {'descr': '<f8', 'fortran_order': False, 'shape': (3, 4)} · numbers

Arrays are views of the bytes. Types are an allow-list: numbers, booleans and texts of a bounded width, and records that
the caller names. Arrays of objects hold pickles and are refused.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import Data
from .errors import ArtifactRefused

MAX_HEADER, MAX_DIMENSIONS = 4_096, 6
_PLAIN = re.compile(r"[<|](b1|[iu][1248]|f[248]|U[0-9]{1,4})")


def read_npy(data: Data, name: str, records: Collection[np.dtype[Any]] = ()) -> NDArray[Any]:
    """Return the array of a file, on its bytes.

    Args:
        data: the whole file.
        name: what it is called in a refusal.
        records: structured types that are allowed besides the plain ones.

    Raises:
        ArtifactRefused: it is damaged, lies about its size, or holds objects.
    """
    view = memoryview(data)
    if bytes(view[:6]) != b"\x93NUMPY" or len(view) < 12 or bytes(view[6:8]) not in (b"\x01\0", b"\x02\0", b"\x03\0"):
        raise ArtifactRefused(f"{name} is no NumPy array")
    width = 2 if view[6] == 1 else 4
    begin = 8 + width
    length = int.from_bytes(view[8:begin], "little")
    if length > MAX_HEADER or begin + length > len(view):
        raise ArtifactRefused(f"{name} declares a header of {length:,} bytes; it is cut short, or made up")
    dtype, fortran, shape = _header(bytes(view[begin : begin + length]), name, records)
    body = view[begin + length :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ArtifactRefused(f"{name} declares {dtype} {list(shape)} and has {len(body):,} bytes for it")
    array: NDArray[Any] = np.frombuffer(body, dtype=dtype) if len(body) else np.empty(0, dtype=dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _header(text: bytes, name: str, records: Collection[np.dtype[Any]]) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    try:
        header = ast.literal_eval(text.decode("ascii").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise ArtifactRefused(f"{name} has a header that cannot be read") from error
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ArtifactRefused(f"{name} has a header that is not NumPy's")
    kind, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    if not isinstance(fortran, bool) or not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise ArtifactRefused(f"{name} has a header that is not NumPy's")
    if not all(type(size) is int and 0 <= size < 2**40 for size in shape):
        raise ArtifactRefused(f"{name} has a shape of no sizes")
    if isinstance(kind, str) and _PLAIN.fullmatch(kind):
        return np.dtype(kind), fortran, shape
    record = next((one for one in records if one.descr == kind), None)
    if record is None:
        raise ArtifactRefused(f"{name} holds {str(kind)[:60]}; numbers, booleans and texts are read")
    return record, fortran, shape
