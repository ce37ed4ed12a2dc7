"""How much memory an ONNX file becomes, counted before a parser makes objects of it.

A protobuf message of two bytes becomes an object of a hundred and more, so a small file of empty nodes could take all
memory of whoever parses it. Here the file's fields are walked in place: nothing is made of them, messages, texts and
packed whole numbers are counted, and a file that is out of proportion is refused.

Left to others: whether the file is right. What cannot be walked is left to the parser, which refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .data import Data
from .errors import ArtifactRefused
from .protobuf import BYTES, EIGHT, FOUR, GROUP, GROUP_END, VARINT, read_varint

FREE, TIMES = 32_000_000, 6
"""A file may become so many bytes, and so many times its size."""

_MESSAGE, _TEXT, _PACKED = 160, 48, 8  # bytes in memory: of a message, of a text beside its own, of a packed number

_Fields = Mapping[int, str]
_TYPE: Mapping[str, _Fields] = {
    "model": {7: "graph", 8: "any", 14: "any", 20: "training", 25: "function", 26: "any"},
    "training": {1: "graph", 2: "graph", 3: "any", 4: "any"},
    "graph": {
        1: "node",
        2: "raw",
        5: "tensor",
        10: "raw",
        11: "any",
        12: "any",
        13: "any",
        14: "any",
        15: "sparse",
        16: "any",
    },
    "node": {
        1: "text",
        2: "text",
        3: "raw",
        4: "raw",
        5: "attribute",
        6: "raw",
        7: "raw",
        8: "raw",
        9: "any",
        10: "any",
    },
    "attribute": {
        1: "raw",
        4: "raw",
        5: "tensor",
        6: "graph",
        7: "raw",
        8: "packed",
        9: "text",
        10: "tensor",
        11: "graph",
        13: "raw",
        14: "any",
        15: "any",
        21: "raw",
        22: "sparse",
        23: "sparse",
    },
    "tensor": {
        1: "packed",
        3: "any",
        4: "raw",
        5: "packed",
        6: "text",
        7: "packed",
        8: "raw",
        9: "raw",
        10: "raw",
        11: "packed",
        12: "raw",
        13: "any",
        16: "any",
    },
    "sparse": {1: "tensor", 2: "tensor", 3: "packed"},
    "function": {
        1: "raw",
        4: "text",
        5: "text",
        6: "text",
        7: "node",
        8: "raw",
        9: "any",
        10: "raw",
        11: "attribute",
        12: "any",
        13: "raw",
        14: "any",
    },
}
"""What the length-delimited fields of each message are. Of one that is not here, everything counts as a message."""

_NUMBER = rb"[\x10\x18\x20\x28\x30\x38\x40][\x80-\xff]{0,9}[\x00-\x7f]|[\x15\x1d\x25\x2d\x35\x3d].{4}"
_LONGER = b"|".join(re.escape(bytes([length])) + b".{%d}" % length for length in range(8, 17))
_NUMBERS = re.compile(b"(?:" + _NUMBER + b")+", re.DOTALL)
_IN_ATTRIBUTE = re.compile(b"(?:" + _NUMBER + rb"|\x4a(?:\x04LEAF|" + _LONGER + b"))+", re.DOTALL)
"""A run of what is no message, skipped at once: the trees of a forest are millions of plain numbers, and texts that are
long enough to pay for themselves."""


def check_cost(data: Data) -> None:
    """Make sure that parsing a file takes no more memory than its size pays for. Raises `ArtifactRefused`."""
    budget = FREE + TIMES * len(data)
    spans = [("model", 0, len(data))]
    while spans:
        kind, at, end = spans.pop()
        known, plain = _TYPE.get(kind), _IN_ATTRIBUTE if kind == "attribute" else _NUMBERS
        while at < end:
            if run := plain.match(data, at, end):
                at = run.end()
                continue
            tag, at = _number(data, at, end)
            if tag & 7 != BYTES:
                at = _skipped(data, at, end, tag & 7)
                continue
            length, at = _number(data, at, end)
            if at + length > end:
                break  # cut short, which the parser says
            what = known.get(tag >> 3, "raw") if known is not None else "any"
            if what == "text":
                budget -= _TEXT
            elif what == "packed":
                budget -= _PACKED * length
            elif what != "raw":
                budget -= _MESSAGE
                spans.append((what, at, at + length))
            at += length
            if budget < 0:
                raise ArtifactRefused(
                    f"the file has {len(data):,} bytes and would become many times that in memory: it is made of "
                    "countless small parts, as no exporter writes them"
                )


def _number(data: Data, at: int, end: int) -> tuple[int, int]:
    """A number of variable length and the place after it; the end of the message where it is broken."""
    try:
        return read_varint(data, at, end)
    except ValueError:
        return 0, end


def _skipped(data: Data, at: int, end: int, wire: int) -> int:
    """The place after a field that is no message."""
    if wire == VARINT:
        return _number(data, at, end)[1]
    # Where a group begins or ends there is nothing to skip: what it holds counts as if the message held it. Of other
    # types there is no field, and the parser says so.
    return at + {EIGHT: 8, FOUR: 4, GROUP: 0, GROUP_END: 0}.get(wire, end)
