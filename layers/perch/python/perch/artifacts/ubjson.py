"""Read UBJSON (draft 12) as XGBoost writes it: marked values, and lists of numbers of one type as arrays.

    {  name value … }      [ value … ]      [ $ type # count numbers…      [ # count value…      S count text

Every length is compared with the bytes that are left before anything is made of it; nesting and the number of values
are bounded. Left out, and refused: no-ops, high-precision numbers, typed objects, lists of any type but numbers.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from .data import Data
from .errors import ArtifactRefused

MAX_DEPTH, MAX_VALUES = 32, 2_000_000
_NUMBERS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_SCALARS = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q", b"d": ">f", b"D": ">d"}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None}


def read_ubjson(data: Data) -> Any:
    """Return the value: dicts, lists, texts, numbers, and arrays for lists of one type.

    Raises:
        ArtifactRefused: it is cut short, damaged, or larger than the bounds.
    """
    reader = _Reader(memoryview(data))
    value = reader.value(reader.take(1), MAX_DEPTH)
    if reader.at != len(data):
        raise _damaged("bytes follow its end")
    return value


def _damaged(what: str) -> ArtifactRefused:
    return ArtifactRefused(f"the UBJSON cannot be read: {what}")


class _Reader:
    """A place in the file, and how many values may still come."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at, self.left = data, 0, MAX_VALUES

    def take(self, count: int) -> bytes:
        """The next bytes."""
        return bytes(self.view(count))

    def view(self, count: int) -> memoryview:
        """The next bytes, where they are."""
        if not 0 <= count <= len(self.data) - self.at:
            raise _damaged("it is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def value(self, marker: bytes, depth: int) -> Any:
        """The value that follows its marker."""
        self.left -= 1
        if self.left < 0 or depth < 0:
            raise _damaged(f"it is nested deeper than {MAX_DEPTH}, or has more than {MAX_VALUES:,} values")
        if marker in _SCALARS:
            return struct.unpack(_SCALARS[marker], self.take(struct.calcsize(_SCALARS[marker])))[0]
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker == b"S":
            return self.text()
        if marker == b"{":
            return self.members(depth)
        if marker == b"[":
            return self.elements(depth)
        raise _damaged(f"{marker!r} is no type that is read")

    def text(self) -> str:
        """A count and so many bytes of UTF-8."""
        try:
            return str(self.view(self.count()), "utf-8")
        except UnicodeDecodeError as error:
            raise _damaged("a text is not UTF-8") from error

    def count(self) -> int:
        """A whole number that counts something."""
        marker = self.take(1)
        if marker not in _SCALARS or marker in b"dD":
            raise _damaged(f"{marker!r} is where a count has to be")
        return int(self.value(marker, 0))

    def members(self, depth: int) -> dict[str, Any]:
        """Names and values up to the closing brace."""
        found: dict[str, Any] = {}
        while bytes(self.data[self.at : self.at + 1]) != b"}":
            name = self.text()
            if name in found:
                raise _damaged(f"{name[:60]!r} is there twice")
            found[name] = self.value(self.take(1), depth - 1)
        self.at += 1
        return found

    def elements(self, depth: int) -> Any:
        """A list: of one type and so long, so long, or up to the closing bracket."""
        marker = self.take(1)
        if marker == b"$":
            kind = self.take(1)
            if kind not in _NUMBERS or self.take(1) != b"#":
                raise _damaged(f"a list of {kind!r} is not read")
            dtype = np.dtype(_NUMBERS[kind])
            return np.frombuffer(self.view(self.count() * dtype.itemsize), dtype=dtype)
        if marker == b"#":
            return [self.value(self.take(1), depth - 1) for _ in range(self.counted())]
        found = []
        while marker != b"]":
            found.append(self.value(marker, depth - 1))
            marker = self.take(1)
        return found

    def counted(self) -> int:
        """The count of a list, whose every element takes a byte or more."""
        count = self.count()
        if not 0 <= count <= len(self.data) - self.at:
            raise _damaged("it is cut short")
        return count
