"""Inspect a safetensors file: plain tensors, plus the layers that they belong to, declared in the header.

    8 bytes: length n of the header, little-endian · n bytes: JSON header · the tensors' data, end to end

Everything is checked here in plain Python before torch sees a byte: the header's length against the file, each range
against the data and against its type and shape, the ranges against each other (no gap, no overlap, nothing left over,
no empty tensor), no key twice. Then the architecture is checked layer by layer, and the tensors in the file have to be
exactly the tensors that those layers own.

Left to others: building the layers (`perch.predictor.runtimes.torch`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from perch.domain import strict_json

from .architecture import Architecture, TensorSpec, parse_architecture
from .data import Data
from .errors import ArtifactRefused
from .inspected import Inspected
from .outputs import declared_output
from .ranges import read_ranges
from .signature import Signature, Tensor
from .stored_tensor import WIDTHS, StoredTensor, row_major

ARCHITECTURE_KEY = "perch.architecture"
MAX_HEADER = 4 * 1024 * 1024
"""Bytes of header that are parsed at most; a thousand tensors take about a hundred kilobytes."""

_SIZES = {"F32": 4, "I64": 8}
"""Bytes per element of the types that the served layers own: weights, and the batch counter of a BatchNorm."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file of declared layers says of itself: where each tensor is, and the author's metadata; checked."""

    stored: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        """Each tensor's type and shape."""
        return {name: (tensor.dtype, tensor.shape) for name, tensor in self.stored.items()}

    @property
    def places(self) -> dict[str, tuple[int, int]]:
        """Where in the file each tensor's bytes begin and end; in a safetensors file they lie in one piece."""
        return {
            name: (tensor.start, tensor.start + tensor.span * WIDTHS[tensor.dtype])
            for name, tensor in self.stored.items()
        }


def inspect_safetensors(data: Data) -> Inspected:
    """Read what a safetensors file is. Raises `ArtifactRefused`."""
    return inspect_header(read_header(data), "safetensors")


def inspect_header(header: Header, fmt: str) -> Inspected:
    """Say what a file of declared layers is, whichever format holds them. Raises `ArtifactRefused`."""
    architecture = read_architecture(header)
    signature = Signature(
        inputs=(Tensor(name="features", datatype="FP32", shape=(-1, architecture.features)),),
        outputs=(Tensor(name="output", datatype="FP32", shape=(-1, architecture.outputs)),),
    )
    return Inspected(
        format=fmt,
        runtimes=architecture.runtimes,
        signature=replace(signature, ranges=read_ranges(header.metadata, signature)),
        details={
            "layers": architecture.summary,
            "parameters": sum(math.prod(shape) for kind, shape in header.tensors.values() if kind == "F32"),
            "output": declared_output(header.metadata),
        },
    )


def read_architecture(header: Header) -> Architecture:
    """Return the declared layers, sure to own exactly the tensors of the file. Raises `ArtifactRefused`."""
    text = header.metadata.get(ARCHITECTURE_KEY)
    if text is None:
        raise ArtifactRefused(
            f"the header's metadata has no {ARCHITECTURE_KEY}, so nothing says which layers the tensors belong to; "
            "export with perch.export.torch_export.export_safetensors"
        )
    architecture = parse_architecture(text)
    wanted = architecture.tensors
    if missing := sorted(wanted.keys() - header.tensors.keys()):
        raise ArtifactRefused(f"the architecture needs tensor {missing[0]!r}, which is not in the file")
    if extra := sorted(header.tensors.keys() - wanted.keys()):
        raise ArtifactRefused(f"tensor {extra[0]!r} belongs to no layer of the architecture")
    for name, (kind, shape) in wanted.items():
        found = header.tensors[name]
        if found != (kind, shape):
            raise ArtifactRefused(
                f"tensor {name!r} is {found[0]} {list(found[1])}; the architecture needs {kind} {list(shape)}"
            )
    return architecture


def read_header(data: Data) -> Header:
    """Parse and check the header of a safetensors file. Raises `ArtifactRefused`."""
    if len(data) < 8:
        raise ArtifactRefused("the file is cut short: a safetensors file begins with eight bytes of header length")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise ArtifactRefused(
            f"this is not a safetensors file that can be served: it declares a header of {length} bytes "
            f"(at most {MAX_HEADER})"
        )
    if 8 + length > len(data):
        raise ArtifactRefused(
            f"the file is cut short: it declares a header of {length} bytes and has {len(data) - 8} left"
        )
    raw = _parse(bytes(data[8 : 8 + length]))
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ArtifactRefused("the header's __metadata__ has to map strings to strings")
    ranges = {name: _entry(name, entry) for name, entry in raw.items()}
    _check_ranges({name: entry[2] for name, entry in ranges.items()}, len(data) - 8 - length)
    begin = 8 + length
    return Header(
        stored={
            name: StoredTensor(
                dtype=kind, shape=shape, strides=row_major(shape), start=begin + first, span=math.prod(shape)
            )
            for name, (kind, shape, (first, _)) in ranges.items()
        },
        metadata=metadata,
    )


def _parse(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise ArtifactRefused("this is not a safetensors file: its header does not begin with {")
    try:
        header = strict_json.read(text)
    except ValueError as error:
        raise ArtifactRefused(f"the safetensors header is not readable: {error}") from error
    if not isinstance(header, dict):
        raise ArtifactRefused("the safetensors header is not a JSON object")
    return header


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ArtifactRefused(f"tensor {name!r} has to have exactly dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _SIZES:
        raise ArtifactRefused(
            f"tensor {name!r} is {str(kind)[:40]!r}; F32 is served (convert the module with .float())"
        )
    if not _sizes(shape, least=1) or len(shape) > 8:
        raise ArtifactRefused(f"tensor {name!r} has a shape that is not a short list of positive whole numbers")
    if not _sizes(offsets, least=0) or len(offsets) != 2:
        raise ArtifactRefused(f"tensor {name!r} has data_offsets that are not two whole numbers")
    begin, end = offsets
    if end - begin != math.prod(shape) * _SIZES[kind]:
        raise ArtifactRefused(f"tensor {name!r} is {kind} {shape} but its data has {end - begin} bytes")
    return kind, tuple(shape), (begin, end)


def _sizes(value: Any, *, least: int) -> bool:
    """Whether `value` is a list of whole numbers from `least` to 2**48 (true is not one, though Python counts it)."""
    return isinstance(value, list) and all(type(size) is int and least <= size <= 2**48 for size in value)


def _check_ranges(ranges: Mapping[str, tuple[int, int]], size: int) -> None:
    """The tensors have to tile the data from its first byte to its last."""
    ordered = sorted((begin, end, name) for name, (begin, end) in ranges.items())
    if ordered and ordered[0][0] != 0:
        raise ArtifactRefused(f"tensor {ordered[0][2]!r} leaves a gap before it")
    for (_, end, _), (begin, _, name) in pairwise(ordered):
        if begin != end:
            raise ArtifactRefused(f"tensor {name!r} {'overlaps another' if begin < end else 'leaves a gap before it'}")
    last = ordered[-1][1] if ordered else 0
    if last > size:
        raise ArtifactRefused(f"the file is cut short: its tensors need {last} bytes of data and {size} are there")
    if last < size:
        raise ArtifactRefused(f"{size - last} bytes at the end of the file belong to no tensor")
