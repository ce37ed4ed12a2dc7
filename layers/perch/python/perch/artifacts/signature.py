"""The signature of a model: the tensors that it takes and gives.

Data types are spelled as the Open Inference Protocol spells them (`FP32`, `INT64`, `BYTES` for strings); a size of -1
may vary, and a shape of None is not declared at all. A signature is read from the artifact, never measured, so it is
a claim of the artifact's author until a probe has passed.

Most models take one matrix: rows of so many numbers, the features. Such a signature has `features`; others are asked by
the names of their inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NUMBERS = frozenset({"FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
"""Data types that a feature may have."""

DATATYPES = NUMBERS | {"BOOL", "BYTES"}
"""Data types that an input may have, and an output that is answered by its name."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input or output: its name, data type and shape (batch first).

    Elements of an input of which some may be `missing` can be NaN, which JSON writes as null.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] | None
    missing: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, strings and numbers."""
        shape = None if self.shape is None else list(self.shape)
        said = {"name": self.name, "datatype": self.datatype, "shape": shape}
        return {**said, "missing": True} if self.missing else said

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tensor:
        """Read back what `to_json` gave; numbers may come as Decimal, as DynamoDB returns them."""
        shape = value["shape"]
        return cls(
            name=str(value["name"]),
            datatype=str(value["datatype"]),
            shape=None if shape is None else tuple(int(size) for size in shape),
            missing=bool(value.get("missing", False)),
        )


@dataclass(frozen=True, kw_only=True)
class Range:
    """What an element of an input may be: from `min` to `max`, or one of `values`; None where nothing is said."""

    min: float | None = None
    max: float | None = None
    values: tuple[Any, ...] | None = None

    def nearest(self, value: Any) -> Any:
        """Return the value that lies in the range and next to a given one (of texts: the first)."""
        if self.values is not None:
            numbers = not isinstance(self.values[0], str)
            return min(self.values, key=lambda one: abs(one - value)) if numbers else self.values[0]
        least = value if self.min is None else max(value, self.min)
        return least if self.max is None else min(least, self.max)

    def to_json(self) -> dict[str, Any]:
        """Return what is said, and nothing else."""
        said = {"min": self.min, "max": self.max, "values": None if self.values is None else list(self.values)}
        return {word: value for word, value in said.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """What the author declared of a model's values (`perch.artifacts.ranges`).

    `rules` are ranges by the name of an input, or by the name or number (from 1) of a column of the matrix.
    """

    features: tuple[str, ...] = ()
    rules: tuple[tuple[str, Range], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, strings and numbers."""
        return {"features": list(self.features), "inputs": {name: rule.to_json() for name, rule in self.rules}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ranges:
        """Read back what `to_json` gave."""
        rules = {
            name: Range(
                min=rule.get("min"),
                max=rule.get("max"),
                values=tuple(rule["values"]) if "values" in rule else None,
            )
            for name, rule in value["inputs"].items()
        }
        return cls(features=tuple(value["features"]), rules=tuple(rules.items()))


@dataclass(frozen=True, kw_only=True)
class Signature:
    """All inputs and outputs of a model, in the model's own order, and the ranges that its author declared."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ranges: Ranges | None = None

    @property
    def is_matrix(self) -> bool:
        """Whether the model takes rows of numbers: one numeric input of shape [any, features]."""
        if len(self.inputs) != 1 or self.inputs[0].datatype not in NUMBERS:
            return False
        shape = self.inputs[0].shape
        return shape is not None and len(shape) == 2 and shape[0] < 0 < shape[1]

    def column(self, name: str) -> int | None:
        """Return which column of the matrix (from 0) a name or number (from 1) of a range means, None if none."""
        if self.ranges is not None and name in self.ranges.features:
            return self.ranges.features.index(name)
        if not self.is_matrix or name == self.inputs[0].name:
            return None
        return int(name) - 1

    @property
    def features(self) -> int:
        """How many numbers one row holds. Raises ValueError for a model that does not take a matrix."""
        if not self.is_matrix:
            names = ", ".join(repr(tensor.name) for tensor in self.inputs)
            raise ValueError(f"the model takes no rows of features; its inputs are {names}")
        shape = self.inputs[0].shape or ()
        return shape[1]

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, strings and numbers; `features`, if any, is for readers and ignored by `from_json`."""
        return {
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
            **({"features": self.features} if self.is_matrix else {}),
            **({"ranges": self.ranges.to_json()} if self.ranges else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Signature:
        """Read back what `to_json` gave."""
        return cls(
            inputs=tuple(Tensor.from_json(tensor) for tensor in value["inputs"]),
            outputs=tuple(Tensor.from_json(tensor) for tensor in value["outputs"]),
            ranges=Ranges.from_json(value["ranges"]) if value.get("ranges") else None,
        )
