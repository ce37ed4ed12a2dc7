"""Ranges: what values each input may have, as the author of a model declares it in the artifact.

    perch.ranges   {"features": ["age", "income"],                       names of a matrix's columns, optional
                    "inputs": {"age": {"min": 0, "max": 130},            an input, or a column: by its name,
                               "2": {"min": 0},                          or by its number, from 1
                               "town": {"values": ["Bern", "Chur"]}}}

They stand where the format has room for its author's texts: in ONNX `metadata_props`, the `__metadata__` of a
safetensors header, the members `extra/` of `.pt2` and TorchScript archives, beside a state dict. So they are part of
the bytes that are hashed, signed and verified. `declare` writes them into the first two. Trees, skops files and pickles
have no such room; of these, and of any other, they may stand in `perch.json` as `"ranges"` (`add_ranges`), which then
travels with the artifact: pinned in the pointer, fetched and verified as it is (`perch.predictor.beside`).

Left to others: comparing a request with them (`perch.predictor.limits`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .errors import ArtifactRefused
from .protobuf import field
from .signature import NUMBERS, Range, Ranges, Signature

RANGES_KEY = "perch.ranges"
MAX_VALUES = 1_000
_KEYS = {"min", "max", "values"}


def read_ranges(metadata: Mapping[str, str], signature: Signature) -> Ranges | None:
    """Return the ranges that an artifact declares, None if it declares none.

    Raises:
        ArtifactRefused: they are not like above, or do not fit the signature.
    """
    text = metadata.get(RANGES_KEY)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactRefused(f"{RANGES_KEY} is not JSON: {error}") from error
    return parse_ranges(document, signature)


def parse_ranges(document: Any, signature: Signature) -> Ranges:
    """Check a document of ranges against a signature. Raises `ArtifactRefused`."""
    if not isinstance(document, dict) or document.keys() - {"features", "inputs"}:
        raise ArtifactRefused(f'{RANGES_KEY} is {{"features": [names], "inputs": {{"name": {{"min": 0}}}}}}')
    features, rules = document.get("features", []), document.get("inputs", {})
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise ArtifactRefused(f"features of {RANGES_KEY} has to be a list of names")
    named_once = signature.is_matrix and len(features) == len(set(features)) == signature.features
    if features and not named_once:
        raise ArtifactRefused(
            f"features of {RANGES_KEY} has {len(features)} names; it has to name each column of a matrix once"
        )
    if not isinstance(rules, dict):
        raise ArtifactRefused(f"inputs of {RANGES_KEY} has to be an object")
    known = {tensor.name: tensor.datatype for tensor in signature.inputs}
    if signature.is_matrix:
        datatype = signature.inputs[0].datatype
        known = dict.fromkeys([*features, *map(str, range(1, signature.features + 1))], datatype) | known
    return Ranges(
        features=tuple(features),
        rules=tuple((name, _range(name, rule, known)) for name, rule in rules.items()),
    )


def add_ranges(signature: Signature, document: Any) -> Signature:
    """Return a signature with the ranges of a manifest, beside those that the file has of its own.

    Raises:
        ArtifactRefused: they are not like above or do not fit, or the file says something of the same input or column.
    """
    known = signature.ranges or Ranges()
    if isinstance(document, dict) and known.features:
        document = {"features": list(known.features), **document}
    declared = parse_ranges(document, signature)
    if known.features and declared.features != known.features:
        raise ArtifactRefused(
            f"the columns are named {', '.join(known.features[:20])} in the file, and otherwise beside it"
        )
    if twice := dict(known.rules).keys() & dict(declared.rules).keys():
        raise ArtifactRefused(f"the file itself says what {min(twice)!r} may be; say it in one place")
    return replace(signature, ranges=replace(declared, rules=(*known.rules, *declared.rules)))


def declare(data: bytes, document: Mapping[str, Any]) -> bytes:
    """Return an ONNX or safetensors file with these ranges in its metadata; all else stays as it is.

    Raises:
        ArtifactRefused: the file is of another format, declares ranges already, or they do not fit its inputs.
    """
    from . import inspect  # noqa: PLC0415 - it imports this module

    text = json.dumps(document, separators=(",", ":"))
    declared = _in_safetensors(data, text) if data[8:9] == b"{" else _in_onnx(data, text)
    name = "model.safetensors" if data[8:9] == b"{" else "model.onnx"
    if inspect(name, data).signature.ranges is not None:
        raise ArtifactRefused(f"the file has {RANGES_KEY} already")
    inspect(name, declared)
    return declared


def _in_onnx(data: bytes, text: str) -> bytes:
    """Protocol buffers add up: a message of one more metadata entry, behind the file, is an entry of the file."""
    return data + field(14, field(1, RANGES_KEY) + field(2, text))


def _in_safetensors(data: bytes, text: str) -> bytes:
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise ArtifactRefused(f"the safetensors header is not readable: {error}") from error
    header["__metadata__"] = {**header.get("__metadata__", {}), RANGES_KEY: text}
    written = json.dumps(header, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)  # the tensors begin at a multiple of eight
    return len(written).to_bytes(8, "little") + written + data[8 + length :]


def _range(name: str, rule: Any, known: Mapping[str, str]) -> Range:
    if name not in known:
        names = ", ".join(list(known)[:20])
        raise ArtifactRefused(f"{RANGES_KEY} names {name[:60]!r}, which is no input or column; there are {names}")
    if not isinstance(rule, dict) or not rule or rule.keys() - _KEYS:
        raise ArtifactRefused(f'{RANGES_KEY} of {name!r} has to be {{"min": …, "max": …}} or {{"values": […]}}')
    datatype, low, high, values = known[name], rule.get("min"), rule.get("max"), rule.get("values")
    for bound in (low, high):
        if bound is not None and (datatype not in NUMBERS or not _is_of(datatype, bound)):
            raise ArtifactRefused(f"{RANGES_KEY} of {name!r} has a bound that is no {datatype} number")
    if low is not None and high is not None and low > high:
        raise ArtifactRefused(f"{RANGES_KEY} of {name!r} has a min of {low}, above its max {high}")
    if values is not None:
        if datatype == "BOOL" or not isinstance(values, list) or not 1 <= len(values) <= MAX_VALUES:
            raise ArtifactRefused(f"{RANGES_KEY} of {name!r} has values that are no list of 1 to {MAX_VALUES}")
        if not all(_is_of(datatype, value) for value in values):
            raise ArtifactRefused(f"{RANGES_KEY} of {name!r} has a value that is no {datatype}")
    return Range(min=low, max=high, values=None if values is None else tuple(values))


def _is_of(datatype: str, value: Any) -> bool:
    """Whether a value of JSON is one of a datatype."""
    if datatype == "BYTES":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if datatype.startswith("FP"):
        return math.isfinite(value) and abs(value) <= {"FP16": 65_504.0, "FP32": 3.4e38, "FP64": 1.7e308}[datatype]
    sign, bits = not datatype.startswith("U"), int(datatype.lstrip("UINT"))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if sign else (0, 2**bits - 1)
    return isinstance(value, int) and low <= value <= high
