"""Rows to try a model on: given by the user, or made up from the model's signature.

    rows.npy · rows.csv · rows.json · rows.npz ─┐
                                                ├─► Sample: an array for each input, all of one length
    the signature, a seed ──────────────────────┘

A sample that was made up says so: normal random numbers are no customers, and two models that agree on them may differ
where the real rows lie. Files are read without unpickling anything.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perch.artifacts.signature import Range, Signature, Tensor
from perch.domain.errors import Invalid

MOST_ROWS = 10_000
_FREE = 4  # what a dimension becomes that may vary and is not the first
_DTYPES: Mapping[str, type[np.generic]] = {
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
    "BYTES": np.object_,
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An array for each input by its name, the first dimension being the rows, and a phrase that says whence."""

    inputs: Mapping[str, NDArray[Any]]
    origin: str

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.inputs.values())))

    def first(self, count: int) -> dict[str, NDArray[Any]]:
        """The inputs of the first rows."""
        return {name: array[:count] for name, array in self.inputs.items()}


def make_sample(signature: Signature, *, rows: int, seed: int) -> Sample:
    """Make up a sample: normal numbers, zeros and ones where whole numbers are wanted, within the declared ranges.

    Raises:
        Invalid: an input has a fixed first dimension or none that is declared.
    """
    chance = np.random.default_rng(seed)
    inputs = {tensor.name: _made(tensor, signature, rows, chance) for tensor in signature.inputs}
    return Sample(inputs=inputs, origin=f"made up from the signature, seed {seed}")


def read_sample(path: Path, signature: Signature) -> Sample:
    """Read a sample: `*.npy` or `*.csv` for a matrix, `*.json` as a request's body, `*.npz` by the inputs' names.

    A CSV file may have a heading. JSON is a list of rows, `{"features": rows}`, `{"records": [{name: value}]}` or
    `{"inputs": {name: rows}}`.

    Raises:
        Invalid: there is no such file, it cannot be read, or it does not fit the signature; says how.
    """
    if not path.is_file():
        raise Invalid(f"there is no file {path} to take sample rows from")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise Invalid(f"{path.name}: sample rows come from {', '.join(f'*{suffix}' for suffix in _READERS)}")
    try:
        found = reader(path)
    except (ValueError, OSError, EOFError, RecursionError, csv.Error) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise Invalid(f"{path.name} cannot be read: {why}") from error
    return Sample(inputs=_fitted(path.name, found, signature), origin=path.name)


def _fitted(name: str, found: Any, signature: Signature) -> dict[str, NDArray[Any]]:
    """Give each input its array, of its type and shape."""
    if not isinstance(found, Mapping):
        if len(signature.inputs) != 1:
            names = ", ".join(tensor.name for tensor in signature.inputs)
            raise Invalid(f"{name} holds plain rows, and the model has {len(signature.inputs)} inputs: {names}")
        found = {signature.inputs[0].name: found}
    elif len(signature.inputs) == 1 and signature.inputs[0].name not in found:
        # A heading over the columns of a matrix: they count by their place.
        columns = [np.asarray(column).reshape(-1) for column in found.values()]
        found = {signature.inputs[0].name: np.stack(columns, axis=1)} if columns else {}
    inputs = {}
    for tensor in signature.inputs:
        if tensor.name not in found:
            raise Invalid(
                f"{name} has nothing for input {tensor.name!r}; it has {', '.join(map(str, found)) or 'none'}"
            )
        inputs[tensor.name] = _typed(name, tensor, found[tensor.name])
    rows = {len(array) for array in inputs.values()}
    if len(rows) != 1 or rows == {0}:
        raise Invalid(f"{name}: every input needs the same number of rows, at least one; there are {sorted(rows)}")
    return {key: array[:MOST_ROWS] for key, array in inputs.items()}


def _typed(name: str, tensor: Tensor, values: Any) -> NDArray[Any]:
    try:
        array = np.asarray(values)
        if tensor.datatype != "BYTES":
            array = array.astype(_DTYPES[tensor.datatype])
        else:
            array = array.astype(np.str_).astype(np.object_)
    except (ValueError, TypeError) as error:
        raise Invalid(f"{name}: input {tensor.name!r} takes {tensor.datatype}: {error}") from error
    wanted = tensor.shape or (-1,)
    if array.ndim == 1 and len(wanted) == 2:  # one row of features, or one column of scalars
        array = array[None, :] if wanted[1] == len(array) else array[:, None]
    fits = array.ndim == len(wanted) and all(want in (-1, size) for size, want in zip(array.shape, wanted, strict=True))
    if not fits:
        shape = " by ".join("any" if size < 0 else str(size) for size in wanted)
        raise Invalid(f"{name}: input {tensor.name!r} takes {shape}, and the sample has {list(array.shape)}")
    if array.dtype.kind == "f" and not tensor.missing and not (finite := np.isfinite(array)).all():
        row = np.argwhere(~finite)[0][0]  # two models say the same nothing of it, which is no agreement
        raise Invalid(f"{name}: row {row} of input {tensor.name!r} holds NaN or infinity, which a request cannot")
    return array


def _csv(path: Path) -> Any:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    if not lines:
        raise ValueError("it is empty")
    if len(set(map(len, lines))) > 1:
        raise ValueError("its lines are not equally long")
    if all(map(_is_number, lines[0])):
        return [[float(cell) for cell in line] for line in lines]
    if len(lines) == 1:
        raise ValueError("there is no row under its heading")
    columns = zip(*lines[1:], strict=True)
    return {name: _column(cells) for name, cells in zip(lines[0], columns, strict=True)}


def _column(cells: Sequence[str]) -> Any:
    return [float(cell) for cell in cells] if all(map(_is_number, cells)) else list(cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _json(path: Path) -> Any:
    document = json.loads(path.read_text("utf-8"))
    if isinstance(document, list) and document and isinstance(document[0], dict):
        document = {"records": document}
    if not isinstance(document, dict):
        return document
    if "features" in document:
        return document["features"]
    if records := document.get("records"):
        return {name: [record[name] for record in records] for name in records[0]}
    return document.get("inputs", document)


def _npy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def _npz(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


_READERS = {".npy": _npy, ".csv": _csv, ".json": _json, ".npz": _npz}


def _made(tensor: Tensor, signature: Signature, rows: int, chance: np.random.Generator) -> NDArray[Any]:
    shape = tensor.shape
    if not shape or shape[0] >= 0:
        raise Invalid(f"input {tensor.name!r} has no variable first dimension, so no rows can be made up for it")
    shape = (rows, *(size if size >= 0 else _FREE for size in shape[1:]))
    if tensor.datatype.startswith("FP"):
        array = chance.standard_normal(shape).astype(_DTYPES[tensor.datatype])
    elif tensor.datatype == "BYTES":
        known = next((rule.values for name, rule in _ranges(signature) if name == tensor.name), None) or ("",)
        array = np.array([*known], dtype=np.object_)[chance.integers(0, len(known), shape)]
    else:
        array = chance.integers(0, 2, shape).astype(_DTYPES[tensor.datatype])
    return _ranged(array, tensor, signature)


def _ranged(array: NDArray[Any], tensor: Tensor, signature: Signature) -> NDArray[Any]:
    """Move what lies outside the declared ranges to where it may be."""
    for name, rule in _ranges(signature):
        if name == tensor.name and tensor.datatype != "BYTES":
            array = np.array([rule.nearest(value) for value in array.ravel()], dtype=array.dtype).reshape(array.shape)
        elif signature.is_matrix and (column := signature.column(name)) is not None:
            array[:, column] = [rule.nearest(value) for value in array[:, column]]
    return array


def _ranges(signature: Signature) -> Sequence[tuple[str, Range]]:
    return signature.ranges.rules if signature.ranges else ()
