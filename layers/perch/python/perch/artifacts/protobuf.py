"""The wire format of protocol buffers, as far as ONNX files are walked and written here without a protobuf library.

    field = key (number << 3 | wire type) · value;  varint for whole numbers, length and bytes for everything else

Standard library only: registration, the predictor and exports all read or write some of it.
"""

from __future__ import annotations

from .data import Data

VARINT, EIGHT, BYTES, GROUP, GROUP_END, FOUR = range(6)
"""Wire types: a number of variable length, eight bytes, a length and so many bytes, the begin and the end of a group
(fields without a length, which nobody writes any more), four bytes."""


def varint(number: int) -> bytes:
    """Write a whole number from 0 on, seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def field(number: int, value: bytes | str | int) -> bytes:
    """Write one field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | BYTES) + varint(len(data)) + data


def read_varint(data: Data, at: int, end: int) -> tuple[int, int]:
    """Read a whole number that begins at `at`; return it and where it ends. Raises ValueError if it does not."""
    found = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found, at
        shift += 7
    raise ValueError("a number that does not end")
