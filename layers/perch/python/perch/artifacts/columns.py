"""What a row of a forest is made of: numbers, and categories that are known by their names.

    {"records": [{"age": 41, "town": "Bern"}]}  ─►  [41, 2]     "Bern" is the third category that was trained with

Whoever trains on a data frame never sees the codes of categories: the library takes them when it is trained, and writes
the names beside the trees. So such a column is asked by its names. If any names are texts, every feature is an input of
its own (a model of columns); if all are numbers, rows stay a matrix. Without names, the numbers in a row are the codes.

A name that the model does not know counts as missing in LightGBM, and is an error in XGBoost. Then the signature says
which values are taken (`Ranges`); of texts that are too many for it the predictor knows them (`unlisted`), and of such
numbers an unknown one counts as missing. A text may be missing too: None in a request, and in ONNX, which knows no such
text, any that is no name (`gap`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArtifactRefused
from .onnx_bytes import node
from .signature import Range, Ranges, Tensor

_TAKEN = frozenset({"label", "probabilities", "value"})

MATRIX = "features"
"""The input of a model whose rows are numbers."""

_ROOM = 50_000
"""Characters that all listed names may take in a signature, which the registry keeps."""

Categories = tuple[str, ...] | tuple[float, ...]
"""Names in the order of their codes."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The features of a row.

    Attributes:
        count: how many there are.
        dtype: of the numbers: float32 or float64.
        names: of the features, as far as the file has them: none, or `count`.
        categories: the names of a feature's categories, by its position.
        known_only: whether a name that is not among them is refused, rather than missing.
    """

    count: int
    dtype: np.dtype[Any]
    names: tuple[str, ...] = ()
    categories: Mapping[int, Categories] = field(default_factory=dict)
    known_only: bool = False

    @property
    def by_name(self) -> bool:
        """Whether each feature is an input of its own, since texts are no numbers."""
        return any(self.is_text(feature) for feature in self.categories)

    def is_text(self, feature: int) -> bool:
        """Whether a feature is asked by texts."""
        return isinstance(self.categories.get(feature, (0.0,))[0], str)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """One matrix, or one column a feature; elements may be missing."""
        datatype = "FP64" if self.dtype == np.float64 else "FP32"
        if not self.by_name:
            return (Tensor(name=MATRIX, datatype=datatype, shape=(-1, self.count), missing=True),)
        return tuple(
            Tensor(
                name=name,
                datatype="BYTES" if self.is_text(feature) else datatype,
                shape=(-1, 1),
                missing=True,
            )
            for feature, name in enumerate(self.names)
        )

    @property
    def listed(self) -> frozenset[int]:
        """Features whose categories the signature tells, where no others are taken: those with few and short names."""
        found, room = set(), _ROOM
        for feature, values in sorted(self.categories.items(), key=lambda one: len(one[1])):
            room -= sum(len(str(value)) + 4 for value in values)
            if self.known_only and room >= 0:
                found.add(feature)
        return frozenset(found)

    @property
    def ranges(self) -> Ranges | None:
        """Which categories are taken, of the features where that is told."""
        if not (listed := self.listed):
            return None
        names = self.names if self.by_name or len(set(self.names)) == self.count else ()
        rules = tuple(
            (names[feature] if names else str(feature + 1), Range(values=self.categories[feature]))
            for feature in sorted(listed)
        )
        return Ranges(features=() if self.by_name else names, rules=rules)

    @property
    def unlisted(self) -> dict[str, frozenset[Any]]:
        """The texts that an input takes, where no others are taken and `ranges` does not tell."""
        if not self.known_only:
            return {}
        rest = self.categories.keys() - self.listed
        return {self.names[feature]: frozenset(self.categories[feature]) for feature in rest if self.is_text(feature)}

    @property
    def gap(self) -> str:
        """A text that is the name of nothing: an empty one, if that is not a name."""
        texts = {value for values in self.categories.values() for value in values}
        return next(text for length in count() if (text := "?" * length) not in texts)

    def codes(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return a request's rows as the trees take them: names as codes, or NaN where there is no such name."""
        given = [inputs[name].reshape(-1) for name in self.names] if self.by_name else list(inputs[MATRIX].T)
        for feature, values in self.categories.items():
            place = {value: code for code, value in enumerate(values)}
            given[feature] = np.array([place.get(value, np.nan) for value in given[feature].tolist()])
        return np.stack([column.astype(self.dtype) for column in given], axis=1)

    def named(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the inputs of a model that mean these rows: the other way round; what is missing is `gap` in texts."""
        given: list[NDArray[Any]] = list(rows.T)
        for feature, values in self.categories.items():
            gap = self.gap if self.is_text(feature) else np.nan
            names = [gap if np.isnan(code) else values[int(code)] for code in rows[:, feature]]
            given[feature] = np.array(names, dtype=np.object_ if self.is_text(feature) else self.dtype)
        if self.by_name:
            return {name: column.reshape(-1, 1) for name, column in zip(self.names, given, strict=True)}
        return {MATRIX: np.stack(given, axis=1).astype(self.dtype)}


def check_columns(columns: Columns) -> None:
    """Make sure that the names can be asked. Raises `ArtifactRefused`."""
    for feature, values in columns.categories.items():
        where = f"the categories of feature {feature}"
        if not 0 <= feature < columns.count or not values:
            raise ArtifactRefused(f"{where} are none, or belong to no feature")
        if len(set(values)) != len(values):
            raise ArtifactRefused(f"{where} have one name for two; give each its own")
        if not columns.is_text(feature) and not np.isfinite(np.array(values)).all():
            raise ArtifactRefused(f"{where} have a name that is no finite number; use texts")
        if not columns.is_text(feature) and (np.array(values).astype(columns.dtype) != np.array(values)).any():
            raise ArtifactRefused(f"{where} are numbers that a {columns.dtype.name} cannot tell apart; use texts")
    if not columns.by_name:
        return
    if len(columns.names) != columns.count or not all(columns.names):
        raise ArtifactRefused("categories have names and features have none; train with names of features")
    if wrong := next((name for name in columns.names if name in _TAKEN or name.startswith("/")), None):
        raise ArtifactRefused(f"a feature is called {wrong[:40]!r}, as an output or a step is; rename it")


def named(values: Sequence[Any]) -> Categories:
    """Return names as they came in JSON: texts, or numbers of any kind. Raises `ArtifactRefused`."""
    if all(isinstance(value, str) for value in values):
        return tuple(values)
    if not all(isinstance(value, bool | int | float) for value in values):
        raise ArtifactRefused("the categories of a feature are neither all texts nor all numbers; train with texts")
    try:
        return tuple(float(value) for value in values)
    except OverflowError as error:
        raise ArtifactRefused("a category is a number of more than 64 bits; train with texts") from error


def encode(columns: Columns, nodes: list[bytes], constants: dict[str, NDArray[Any]]) -> str:
    """Append to an ONNX graph what makes a matrix of numbers of the inputs, and return its name."""
    if not columns.categories:
        return MATRIX
    if columns.by_name:
        parts, place = list(columns.names), {feature: feature for feature in columns.categories}
    else:
        starts = sorted({0, *columns.categories, *(feature + 1 for feature in columns.categories)} - {columns.count})
        parts, place = [f"/from {start}" for start in starts], {start: at for at, start in enumerate(starts)}
        constants["/sizes"] = np.diff([*starts, columns.count])
        nodes.append(node("Split", [MATRIX, "/sizes"], parts, {"axis": 1}))
    for feature, values in columns.categories.items():
        keys = np.array(values, dtype=np.object_ if columns.is_text(feature) else columns.dtype)
        attributes = {
            "keys_tensor": keys,
            "values_tensor": np.arange(len(values)).astype(columns.dtype),
            "default_tensor": np.full(1, np.nan, dtype=columns.dtype),
        }
        at, code = place[feature], f"/code {feature}"
        nodes.append(node("LabelEncoder", [parts[at]], [code], attributes, domain="ai.onnx.ml"))
        parts[at] = code
    nodes.append(node("Concat", parts, ["/encoded"], {"axis": 1}))
    return "/encoded"
