"""What a loaded model takes and gives, as requests meet it: names, datatypes, shapes, and which dimensions agree.

It is made once, at init: from the signature, from the names of variable dimensions that the engine knows, and from the
answer to one row of zeros, which tells what outputs look like whose shape is not declared.

Three kinds of models are told apart. A *matrix* model takes rows of features. The inputs of a *columns* model are one
scalar a row each, so that a record has a name for each. Any other is asked by the protocol alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from perch.artifacts.signature import DATATYPES, Signature, Tensor

from .errors import RequestRefused
from .tensors import KINDS, datatype_of, is_finite

if TYPE_CHECKING:
    from .limits import Limits

Axes = Mapping[str, Sequence[str | None]]
"""Of inputs by name: the names of their dimensions, None for one that has none."""

_BATCH = "batch"
"""The name of a variable first dimension that has none of its own."""


class Interface(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Inputs by name, outputs that can be asked for (position among all, and what it is), names of dimensions."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, tuple[int, Tensor]]
    axes: Axes
    matrix: Tensor | None
    signature: Signature
    limits: Limits | None = None

    @cached_property
    def is_columns(self) -> bool:
        """Whether every input is one scalar a row: of shape [any] or [any, 1]."""
        return all(tensor.shape in ((-1,), (-1, 1)) for tensor in self.inputs.values())

    @cached_property
    def batched(self) -> bool:
        """Whether the first dimension of every input is the rows of the request."""
        firsts = {names[0] if names else None for names in self.axes.values()}
        return len(firsts) == 1 and None not in firsts

    def check(self, name: str, datatype: str, shape: Sequence[int]) -> None:
        """Compare what an input of a request says of itself with the signature. Raises `RequestRefused` (400)."""
        wanted = self.inputs.get(name)
        if wanted is None:
            raise RequestRefused(400, f"there is no input {name[:60]!a}; the model takes {_listed(self.inputs)}")
        if datatype != wanted.datatype:
            word = "; BF16 is not served" if datatype == "BF16" else ""
            raise RequestRefused(
                400, f"input {name!a} is {datatype[:20]}; the model takes {wanted.datatype} there{word}"
            )
        sizes = wanted.shape or ()
        if len(shape) != len(sizes) or any(
            size < 1 or expected not in (-1, size) for size, expected in zip(shape, sizes, strict=True)
        ):
            raise RequestRefused(
                400,
                f"input {name!a} has shape {list(shape[:10])}; the model takes {list(sizes)} (-1: any size)",
            )

    def agree(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Make sure that all inputs are there, and as long as each other where the model says so.

        Raises:
            RequestRefused: 400.
        """
        if len(feeds) != len(self.inputs):
            missing = next(name for name in self.inputs if name not in feeds)
            raise RequestRefused(400, f"input {missing!a} is missing; the model takes {_listed(self.inputs)}")
        if len(feeds) == 1:
            return
        sizes: dict[str, tuple[int, str]] = {}
        for name, array in feeds.items():
            for axis, size in zip(self.axes[name], array.shape, strict=True):
                if axis is not None and sizes.setdefault(axis, (size, name))[0] != size:
                    other, where = sizes[axis]
                    raise RequestRefused(
                        400, f"input {name!a} has {size} where input {where!a} has {other} (dimension {axis!a})"
                    )

    def rows(self, feeds: Mapping[str, NDArray[Any]]) -> int:
        """How many rows a request has."""
        return len(next(iter(feeds.values()))) if self.batched else 1

    def zeros(self) -> dict[str, NDArray[Any]]:
        """One row of nothing for each input: zeros, false, empty texts, or what in its range is next to that."""
        found = {}
        for name, tensor in self.inputs.items():
            shape = [max(size, 1) for size in tensor.shape or ()]
            found[name] = np.full(shape, "" if tensor.datatype == "BYTES" else 0, dtype=KINDS[tensor.datatype].dtype)
        ranges = self.signature.ranges
        for name, rule in ranges.rules if ranges else ():
            array = found[self.matrix.name if self.matrix else name]
            place = ... if (column := self.signature.column(name)) is None else (..., column)
            array[place] = rule.nearest("" if array.dtype.kind == "O" else 0)
        return found

    def learn(self, outputs: Sequence[Any]) -> Interface:
        """Return this interface, with the outputs as the answer to one row shows them."""
        found = {}
        declared = (tensor for _, tensor in self.outputs.values())
        for position, (tensor, output) in enumerate(zip(declared, outputs, strict=True)):
            array = as_array(output)
            datatype = None if array is None else datatype_of(array)
            if array is None or datatype is None:
                continue
            shape = tensor.shape
            if shape is None or len(shape) != array.ndim:
                shape = (-1,) * array.ndim if tensor.datatype != "SEQUENCE" else (-1, array.shape[1])
            found[tensor.name] = (position, Tensor(name=tensor.name, datatype=datatype, shape=shape))
        return msgspec.structs.replace(self, outputs=found)

    def fits(self, outputs: Sequence[NDArray[Any]]) -> bool:
        """Whether arrays can be all outputs of this model: as many, of its types and dimensions, and finite."""
        return len(outputs) == len(self.signature.outputs) and all(
            (datatype_of(array), array.ndim) == (tensor.datatype, len(tensor.shape or ()))
            and (array.dtype.kind != "f" or is_finite(array))
            for array, tensor in ((outputs[position], tensor) for position, tensor in self.outputs.values())
        )

    def as_declared(self) -> Interface:
        """Return this interface for a model that zeros say nothing about: with the outputs that are tensors."""
        kept = {
            name: (position, replace(tensor, shape=(-1,) if tensor.shape is None else tensor.shape))
            for name, (position, tensor) in self.outputs.items()
            if tensor.datatype in DATATYPES
        }
        return msgspec.structs.replace(self, outputs=kept)


def interface_of(signature: Signature, axes: Axes | None = None) -> Interface:
    """Make the interface that a signature declares; `axes` are the names that the engine knows."""
    named = {
        tensor.name: _named(tensor, (axes or {}).get(tensor.name, (None,) * len(tensor.shape or ())))
        for tensor in signature.inputs
    }
    return Interface(
        inputs={tensor.name: tensor for tensor in signature.inputs},
        outputs={tensor.name: (position, tensor) for position, tensor in enumerate(signature.outputs)},
        axes=named,
        matrix=signature.inputs[0] if signature.is_matrix else None,
        signature=signature,
        limits=None if signature.ranges is None else _limits(signature),
    )


def _limits(signature: Signature) -> Limits | None:
    from .limits import limits_of  # noqa: PLC0415 - most models declare none

    return limits_of(signature)


def as_array(output: Any) -> NDArray[Any] | None:
    """Return an output as an array, None if it is none; a ZipMap (a dict a row) is the matrix of its scores."""
    if isinstance(output, np.ndarray):
        return output
    if isinstance(output, list) and output and all(isinstance(row, dict) for row in output):
        return np.array([list(row.values()) for row in output], dtype=np.float32)
    return None


def _named(tensor: Tensor, names: Sequence[str | None]) -> tuple[str | None, ...]:
    """The names of a tensor's variable dimensions; the first is the batch if it has none."""
    found = [name if size < 0 else None for name, size in zip(names, tensor.shape or (), strict=True)]
    if found and found[0] is None and (tensor.shape or (1,))[0] < 0:
        found[0] = _BATCH
    return tuple(found)


def _listed(inputs: Mapping[str, Tensor]) -> str:
    shown = [f"{name!a} ({tensor.datatype} {list(tensor.shape or ())})" for name, tensor in inputs.items()]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
