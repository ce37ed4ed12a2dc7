"""Tensors of the Open Inference Protocol: JSON values or bytes in, arrays out, and back.

    JSON     a list, flat or nested as the shape says ─► struct packs it ─► array
    bytes    little-endian, row after row; a text as four bytes of length and its bytes ─► array

Both ways end in the same checks: as many elements as the shape has, each of them one of its datatype, and finite (or
missing, where the model takes that: null in JSON, in bytes NaN; a text that is missing is None and comes in JSON only).
What is refused is named: the input, the position (from 1) and the value. Memory stays in proportion to what was sent.

`struct` packs a list of Python's numbers about twice as fast as NumPy converts it, and looks at each while doing so.
BF16 is a datatype of Triton's that NumPy does not have; it is refused in words.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import RequestRefused


class Kind(NamedTuple):
    """A datatype: NumPy's type of an element, and how `struct` packs one (None: it does not)."""

    dtype: np.dtype[Any]
    code: str | None = None


KINDS: dict[str, Kind] = {
    "BOOL": Kind(np.dtype(np.bool_)),
    "UINT8": Kind(np.dtype(np.uint8), "B"),
    "UINT16": Kind(np.dtype(np.uint16), "H"),
    "UINT32": Kind(np.dtype(np.uint32), "I"),
    "UINT64": Kind(np.dtype(np.uint64), "Q"),
    "INT8": Kind(np.dtype(np.int8), "b"),
    "INT16": Kind(np.dtype(np.int16), "h"),
    "INT32": Kind(np.dtype(np.int32), "i"),
    "INT64": Kind(np.dtype(np.int64), "q"),
    "FP16": Kind(np.dtype(np.float16), "e"),
    "FP32": Kind(np.dtype(np.float32), "f"),
    "FP64": Kind(np.dtype(np.float64), "d"),
    "BYTES": Kind(np.dtype(np.object_)),
}
"""Every datatype that is served."""

_NAMES = {kind.dtype: name for name, kind in KINDS.items()}
_LENGTH = struct.Struct("<I")


def datatype_of(array: NDArray[Any]) -> str | None:
    """Return what the protocol calls an array's type, None if it has no word for it."""
    return "BYTES" if array.dtype.kind in "OUS" else _NAMES.get(array.dtype)


def from_json(
    name: str, datatype: str, shape: Sequence[int], data: Sequence[Any], *, missing: bool = False
) -> NDArray[Any]:
    """Return the array of an input whose elements came as JSON.

    Args:
        name: of the input, for what is said about it.
        datatype: one of `KINDS`.
        shape: sizes, all of them 1 or more.
        data: numbers, booleans or texts, in one list or nested as the shape is.
        missing: whether null stands for NaN, and for a text that is missing.

    Raises:
        RequestRefused: 400, which input is at fault, and where.
    """
    flat = _flat(name, shape, data)
    if len(flat) != math.prod(shape):
        raise RequestRefused(
            400, f"input {name!a} has {len(flat)} elements; its shape {list(shape)} has {math.prod(shape)}"
        )
    kind = KINDS[datatype]
    if kind.code is not None:
        if missing and None in flat:
            flat = [math.nan if value is None else value for value in flat]
        return _numbers(name, datatype, kind, flat, missing=missing).reshape(shape)
    if datatype == "BYTES":
        if not set(map(type, flat)) <= ({str, type(None)} if missing else {str}):
            raise _fault(name, datatype, flat, missing=missing)
        return _texts(flat).reshape(shape)
    if not all(value is True or value is False or (type(value) is int and value in (0, 1)) for value in flat):
        raise _fault(name, datatype, flat)
    return np.array(flat, dtype=np.bool_).reshape(shape)


def from_bytes(
    name: str, datatype: str, shape: Sequence[int], data: memoryview, *, missing: bool = False
) -> NDArray[Any]:
    """Return the array of an input whose elements came as bytes. Raises `RequestRefused` (400)."""
    kind, count = KINDS[datatype], math.prod(shape)
    if datatype == "BYTES":
        return _texts(_unpacked(name, data, count)).reshape(shape)
    if len(data) != count * kind.dtype.itemsize:
        raise RequestRefused(
            400,
            f"input {name!a} has {len(data):,} bytes of data; {datatype} of shape {list(shape)} takes "
            f"{count * kind.dtype.itemsize:,}",
        )
    if datatype == "BOOL":
        array: NDArray[Any] = np.frombuffer(data, dtype=np.uint8)
        if (array > 1).any():
            raise RequestRefused(400, f"input {name!a} is BOOL and has a byte that is neither 0 nor 1")
        return array.astype(np.bool_).reshape(shape)
    array = np.frombuffer(data, dtype=kind.dtype)
    if not array.flags.aligned:
        array = array.copy()
    return _finite(name, array, missing=missing).reshape(shape)


def to_flat_list(array: NDArray[Any]) -> list[Any]:
    """Return an output's elements as JSON takes them, row after row."""
    flat: list[Any] = array.ravel().tolist()
    return [_text(value) for value in flat] if array.dtype.kind in "OS" else flat


def to_bytes(array: NDArray[Any]) -> bytes | memoryview:
    """Return an output's elements as the binary extension writes them; of numbers a view, which copies nothing."""
    if array.dtype.kind not in "OUS":
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    parts: list[bytes] = []
    for value in array.ravel().tolist():
        text = value if isinstance(value, bytes) else str(value).encode()
        parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _flat(name: str, shape: Sequence[int], data: Sequence[Any]) -> Sequence[Any]:
    """The elements in one list; lists in lists have to be nested as the shape is."""
    if not data or type(data[0]) is not list:
        return data
    level: Sequence[Any] = data
    if not shape or len(level) != shape[0]:
        raise _misshapen(name, shape)
    for size in shape[1:]:
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            raise _misshapen(name, shape)
        level = list(chain.from_iterable(level))
    return level


def _misshapen(name: str, shape: Sequence[int]) -> RequestRefused:
    return RequestRefused(400, f"the data of input {name!a} is not nested as its shape {list(shape)} is")


def _numbers(name: str, datatype: str, kind: Kind, flat: Sequence[Any], *, missing: bool) -> NDArray[Any]:
    try:
        packed = struct.pack(f"{len(flat)}{kind.code}", *flat)
    except (struct.error, OverflowError) as error:
        if kind.dtype.kind == "f" or not all(type(value) is int or _is_whole(value) for value in flat):
            raise _fault(name, datatype, flat) from error
        try:  # 1.0 is a whole number to a client that knows one kind of number
            packed = struct.pack(f"{len(flat)}{kind.code}", *map(int, flat))
        except struct.error as still:
            raise _fault(name, datatype, flat) from still
    return _finite(name, np.frombuffer(packed, dtype=kind.dtype), missing=missing)


def _is_whole(value: Any) -> bool:
    return isinstance(value, (bool, float)) and float(value).is_integer()


def is_finite(array: NDArray[Any]) -> bool:
    """Whether no element is NaN or infinity: as `np.isfinite(array).all()`, in half the time for a small array."""
    return bool(np.count_nonzero(np.isfinite(array)) == array.size)


def _finite(name: str, array: NDArray[Any], *, missing: bool) -> NDArray[Any]:
    if array.dtype.kind == "f" and not is_finite(array):
        bad = np.isinf(array) if missing else ~np.isfinite(array)
        if not bad.any():
            return array
        position = int(np.flatnonzero(bad)[0])
        raise RequestRefused(
            400, f"element {position + 1} of input {name!a} is {array[position]}; elements have to be finite"
        )
    return array


def _fault(name: str, datatype: str, flat: Sequence[Any], *, missing: bool = False) -> RequestRefused:
    """Name the first element that is not of the datatype."""
    for position, value in enumerate(flat, start=1):
        if not _belongs(datatype, value) and not (missing and value is None):
            said = "null" if value is None else f"{str(value)[:40]!a}" if isinstance(value, str) else _short(value)
            return RequestRefused(400, f"element {position} of input {name!a} is {said}, which is no {datatype}")
    return RequestRefused(400, f"the data of input {name!a} is not {datatype}")


def _short(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 128:
        return "a whole number of more than 128 bits"
    return str(value)


def _belongs(datatype: str, value: Any) -> bool:
    kind = KINDS[datatype]
    if datatype == "BYTES":
        return isinstance(value, str)
    if datatype == "BOOL":
        return isinstance(value, (bool, int)) and value in (0, 1)
    if not isinstance(value, (bool, int, float)) or kind.code is None:
        return False
    try:
        struct.pack(kind.code, int(value) if _is_whole(value) and kind.dtype.kind != "f" else value)
    except (struct.error, OverflowError):
        return False
    return True


def _texts(flat: Sequence[str | None]) -> NDArray[Any]:
    array = np.empty(len(flat), dtype=np.object_)  # np.array() would make every element as wide as the widest
    array[:] = flat
    return array


def _unpacked(name: str, data: memoryview, count: int) -> list[str]:
    """Take the texts of a BYTES tensor apart."""
    found: list[str] = []
    at, end = 0, len(data)
    while at < end:
        if len(found) == count:
            raise RequestRefused(400, f"input {name!a} has more than the {count} elements of its shape in its data")
        if at + 4 > end or at + 4 + _LENGTH.unpack_from(data, at)[0] > end:
            raise RequestRefused(400, f"element {len(found) + 1} of input {name!a} is cut short")
        (length,) = _LENGTH.unpack_from(data, at)
        try:
            found.append(str(data[at + 4 : at + 4 + length], "utf-8"))
        except UnicodeDecodeError as error:
            raise RequestRefused(400, f"element {len(found) + 1} of input {name!a} is no UTF-8 text") from error
        at += 4 + length
    if len(found) != count:
        raise RequestRefused(400, f"input {name!a} has {len(found)} elements in its data; its shape has {count}")
    return found
