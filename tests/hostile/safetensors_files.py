"""safetensors files whose header lies, and archives that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hostile import Hostile
from tests.hostile.made import zipped

LAYERS = '[{"type":"Linear","in_features":2,"out_features":1}]'
GOOD = {
    "0.weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
    "0.bias": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
}
DATA = b"\0" * 12


def hostile(trap: Path) -> Iterator[Hostile]:
    """Every kind."""
    weight, bias = GOOD["0.weight"], GOOD["0.bias"]
    memory, behind = "makes a loader take memory that the file does not pay for", "reads behind the end of the file"
    yield _lie("a header of 2^63 bytes", b"\xff" * 7 + b"\x7f{}", memory, "declares a header")
    yield _lie("a header longer than the file", (10_000).to_bytes(8, "little") + b"{}", behind, "cut short")
    yield _lie("no header", b"\0" * 8, "divides by what is not there", "")
    yield _file("a tensor behind the end", {**GOOD, "0.bias": {**bias, "data_offsets": [8, 2**40]}}, behind, "")
    yield _file("a tensor of negative place", {**GOOD, "0.bias": {**bias, "data_offsets": [-8, -4]}}, behind, "")
    yield _file(
        "tensors that overlap", {**GOOD, "0.bias": {**bias, "data_offsets": [4, 8]}}, "one weight shows another", ""
    )
    yield _file("a shape of 2^62 numbers", {**GOOD, "0.weight": {**weight, "shape": [2**31, 2**31]}}, memory, "")
    yield _file(
        "a shape that multiplies to 2^64 + 2", {**GOOD, "0.weight": {**weight, "shape": [2**63 + 1, 2]}}, memory, ""
    )
    yield _file("a shape of true", {**GOOD, "0.weight": {**weight, "shape": [True, 2]}}, "passes for a number", "")
    yield _file("a type that does not exist", {**GOOD, "0.bias": {**bias, "dtype": "OBJECT"}}, "is unpickled", "")
    yield _file("bytes that belong to nothing", GOOD, "carries another file along", "", data=DATA + b"MZ" * 64)
    twice = json.dumps({"0.bias": bias})[:-1] + ", " + json.dumps(GOOD)[1:]
    yield _lie(
        "a key twice", _framed(twice.encode()), "is one tensor to the inspector and another to the loader", "twice"
    )
    yield _lie("lists 100,000 deep", _framed(b'{"a":' + b"[" * 100_000), "exhausts the stack of a parser", "")
    yield _lie("a number of 5,000 digits", _framed(b'{"a":' + b"9" * 5_000 + b"}"), "keeps a parser busy", "")
    yield _file(
        "layers that are not served", GOOD, "runs what a name leads to", "not served", layers='[{"type":"os.system"}]'
    )
    yield _file(
        "layers of 2^40 numbers a row",
        GOOD,
        memory,
        "",
        layers='[{"type":"Linear","in_features":2,"out_features":1048576},{"type":"Linear","in_features":1048576,"out_features":1048576}]',
    )
    yield _file("layers that nest 20,000 deep", GOOD, "exhausts the stack of a builder", "", layers=_deep(20_000))
    yield _archive("a zip bomb under its name", "model.safetensors", _bomb(), "becomes 200 MB", "zip archive")
    yield _archive("a zip bomb", "model.zip", _bomb(), "becomes 200 MB", "an archive is not a model")
    for what, name in (
        ("upwards", "../../../etc/cron.d/x"),
        ("to an absolute path", str(trap)),
        ("by a Windows path", "C:\\x"),
    ):
        yield _archive(
            f"an archive that unpacks {what}",
            "model.zip",
            zipped({name: b"x"}, compress=True),
            "writes outside of its folder",
            "an archive is not a model",
        )


def _lie(title: str, data: bytes, threat: str, words: str) -> Hostile:
    return Hostile(title=f"safetensors, {title}", file="model.safetensors", data=data, threat=threat, words=words)


def _file(
    title: str, tensors: dict[str, Any], threat: str, words: str, *, data: bytes = DATA, layers: str = LAYERS
) -> Hostile:
    header = {"__metadata__": {"perch.architecture": layers}, **tensors}
    return _lie(title, _framed(json.dumps(header).encode()) + data, threat, words)


def _framed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def _deep(depth: int) -> str:
    return '[{"type":"Sum","branches":[' * depth + "[],[]" + "]}]" * depth


def _archive(title: str, file: str, data: bytes, threat: str, words: str) -> Hostile:
    return Hostile(title=title, file=file, data=data, threat=threat, words=words)


def _bomb() -> bytes:
    return zipped({"model.bin": b"\0" * 200_000_000}, compress=True)
