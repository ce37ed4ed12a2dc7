"""Large ONNX weights, used where they lie: onnxruntime reads them out of the file's own bytes and keeps no copy.

Given a model as bytes, onnxruntime parses them into a second copy of the weights, and prepares a third one for its
matrix products. But it can also borrow weights from a "file in memory" that a model names as its external data. So the
model is taken apart here, without parsing more of it than its outline:

    file ─► walk over the protobuf ─► outline: all but the large weights, each of which now says "external: these bytes
                                      of the file"             + the file itself, lent to the session

A weight has to begin at a multiple of its element's size, or onnxruntime copies it. In a file it rarely does; where the
memory is a download of ours, the weight is moved down by the few bytes, over the length that stood before it. The bytes
of the file were verified before, and nobody reads the file as a file after.

What the walk does not know for certain (a weight that is split, or has two values) stays as it is. A file that is no
protobuf at all is left to onnxruntime, which says so.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

from perch.artifacts.data import Data
from perch.artifacts.protobuf import BYTES, EIGHT, FOUR, VARINT, field, read_varint

LOCATION = "the file itself"
"""What the outline calls the file."""

LARGE = 1 << 20
"""Bytes of a weight that is worth lending."""

# Field numbers of onnx.proto3.
_GRAPH, _INITIALIZER = 7, 5
_TYPE, _NAME, _RAW, _EXTERNAL, _WHERE = 2, 8, 9, 13, 14
_DIMS, _SEGMENT = 1, 3
_KEPT = {_DIMS, _TYPE, _NAME, 12, 16}  # a weight with anything else beside its bytes is not taken apart
_EXTERNALLY = 1

_SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""Bytes of an element by its type: whole ones only, because two types of four bits share a byte."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A model without its large weights, and how many bytes they have; they are to be read from the file."""

    model: bytes
    lent: int
    location: str = LOCATION


@dataclass(frozen=True, kw_only=True)
class _Weight:
    """A TensorProto that says where its bytes are; where they are in the file, and where they are to be."""

    said: bytes
    begin: int
    size: int
    place: int


@dataclass(frozen=True, kw_only=True)
class _Field:
    number: int
    kind: int
    start: int
    begin: int
    end: int


def take_apart(data: Data) -> Outline | None:
    """Leave the large weights of a model out of it; None when there are none or the file is no protobuf.

    Args:
        data: the file. Memory that was fetched may be changed: weights are moved to where they can be used.
    """
    view = memoryview(data)
    weights: list[_Weight] = []
    try:
        model = _outline(view, weights)
    except ValueError:
        return None
    for weight in weights:  # only now that all of the file is understood
        if weight.place != weight.begin:
            assert isinstance(view.obj, mmap.mmap)  # noqa: S101 - else it would stay
            view.obj.move(weight.place, weight.begin, weight.size)
    return Outline(model=model, lent=sum(weight.size for weight in weights)) if weights else None


def _outline(view: memoryview, weights: list[_Weight]) -> bytes:
    pieces: list[bytes | memoryview] = []
    for part in _fields(view, 0, len(view)):
        if (part.number, part.kind) != (_GRAPH, BYTES):
            pieces.append(view[part.start : part.end])
            continue
        graph: list[bytes | memoryview] = []
        for inner in _fields(view, part.begin, part.end):
            weight = None
            if (inner.number, inner.kind) == (_INITIALIZER, BYTES) and inner.end - inner.begin >= LARGE:
                weight = _lend(view, inner)
            if weight is None:
                graph.append(view[inner.start : inner.end])
            else:
                graph.append(field(_INITIALIZER, weight.said))
                weights.append(weight)
        pieces.append(field(_GRAPH, b"".join(graph)))
    return b"".join(pieces)


def _lend(view: memoryview, tensor: _Field) -> _Weight | None:
    """A weight that can be read from the file; None if it is to stay as it is."""
    raw: _Field | None = None
    kept: list[bytes] = []
    element = 0
    for part in _fields(view, tensor.begin, tensor.end):
        if (part.number, part.kind) == (_RAW, BYTES) and raw is None:
            raw = part
        elif part.number not in _KEPT:
            return None
        else:
            kept.append(bytes(view[part.start : part.end]))
            if (part.number, part.kind) == (_TYPE, VARINT):
                element = _SIZES.get(read_varint(view, part.begin, part.end)[0], 0)
    if raw is None or not element or raw.end - raw.begin < LARGE:
        return None
    size = raw.end - raw.begin
    place = raw.begin - raw.begin % element
    if place < tensor.start or not isinstance(view.obj, mmap.mmap) or len(view.obj) != len(view):
        place = raw.begin
    entries = {"location": LOCATION, "offset": str(place), "length": str(size)}
    said = b"".join(field(_EXTERNAL, field(1, key) + field(2, value)) for key, value in entries.items())
    return _Weight(said=b"".join(kept) + said + field(_WHERE, _EXTERNALLY), begin=raw.begin, size=size, place=place)


def _fields(view: memoryview, begin: int, end: int) -> Iterator[_Field]:
    """The fields of a message that lies there. Raises ValueError if it is none."""
    at = begin
    while at < end:
        start = at
        key, at = read_varint(view, at, end)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, (_, at) = at, read_varint(view, at, end)
        elif kind in (EIGHT, FOUR):
            value, at = at, at + (8 if kind == EIGHT else 4)
        elif kind == BYTES:
            size, value = read_varint(view, at, end)
            at = value + size
        else:
            raise ValueError(f"wire type {kind}")
        if at > end or not number:
            raise ValueError("a field that ends outside its message")
        yield _Field(number=number, kind=kind, start=start, begin=value, end=at)
