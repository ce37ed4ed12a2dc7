"""scikit-learn models as skops saves them, read in Python: data and the names of allowed classes, nothing else.

    *.skops = zip of schema.json (a tree of nodes) and one .npy an array

skops' own reader builds whatever object the schema names, of a list that its user trusts; and even classes that look
harmless (a tree, a support vector machine) read memory out of bounds when their arrays were crafted. Here the schema
becomes plain values: numbers, texts, lists, arrays, and `Made`, the name of an estimator with its attributes. The same
values are checked at registration (`sklearn_checks`) and built by the predictor (`perch.predictor.runtimes.sklearn`),
so what was inspected is what runs. Allowed are the classes of `sklearn_classes`; of some only what a prediction needs
is read.

Left out, and refused in words: everything else, such as functions and sparse matrices; such models go through ONNX.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import Data
from .errors import ArtifactRefused
from .inspected import Inspected
from .npy import read_npy
from .served import check_served
from .sklearn_checks import check
from .sklearn_classes import CLASSES, READ, SEARCHES, UNUSED
from .sklearn_columns import signature_of
from .sklearn_made import Made
from .sklearn_trees import RECORDS, SklearnTree
from .zip_archive import Archive, read_archive

MAX_SCHEMA, MAX_DEPTH = 32 * 1024 * 1024, 40
MAX_INFLATED = 256 * 1024 * 1024

_SCALARS = frozenset({"bool", "bool_", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "str_",
                      "uint8", "uint16", "uint32", "uint64"})  # fmt: skip

_TYPES = frozenset({"builtins.float", "builtins.int", "builtins.bool", *(f"numpy.{name}" for name in _SCALARS)})


def inspect_skops(data: Data) -> Inspected:
    """Read what a skops file is. Raises `ArtifactRefused`."""
    model = read_skops(data)
    signature, details = signature_of(model)
    check_served(signature, WAY_OUT)
    return Inspected(format="skops", runtimes=("sklearn",), signature=signature, details=details)


def read_skops(data: Data) -> Made:
    """Return the model as plain values, checked. Raises `ArtifactRefused`."""
    archive = read_archive(data, max_inflated=MAX_INFLATED)
    if "schema.json" not in archive.members:
        raise ArtifactRefused("the archive has no schema.json, so it is no skops file")
    try:
        schema = json.loads(archive.read("schema.json", MAX_SCHEMA))
    except (ValueError, RecursionError) as error:
        raise ArtifactRefused(f"schema.json cannot be read: {str(error)[:200]}") from error
    reader = _Reader(archive)
    model = reader.value(schema, "the model", MAX_DEPTH)
    if not isinstance(model, Made):
        raise ArtifactRefused("the file holds no estimator of scikit-learn's")
    check(model)
    return model


@dataclass(frozen=True)
class _Reader:
    """Turns nodes into values. An object that is there twice is written twice, so numbers of objects are not read."""

    archive: Archive
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Those that were read: a member that is named a thousand times is inflated once."""
    walked: set[int] = field(default_factory=set)
    """Which of them are nodes of a tree: nodes that are named a thousand times would be checked as often."""

    def value(self, node: Any, where: str, depth: int) -> Any:
        """The value of one node."""
        if depth < 0:
            raise ArtifactRefused(f"{where} is nested deeper than {MAX_DEPTH}")
        if not isinstance(node, dict):
            raise ArtifactRefused(f"{where} is no node of skops'")
        read = _READERS.get(str(node.get("__loader__")))
        if node.get("__loader__") == "SparseMatrixNode":
            raise ArtifactRefused(
                f"{where} is a sparse matrix, which is not served; train on dense rows (sparse_output=False of an "
                "encoder, sparse_threshold=0 of a ColumnTransformer)"
            )
        if read is None:
            raise ArtifactRefused(f"{where} is {_named(node)}, which is not served; {WAY_OUT}")
        return read(self, node, where, depth)

    def json(self, node: Mapping[str, Any], where: str, _: int) -> Any:
        """A number, a text, true, false or None."""
        try:
            value = json.loads(str(node.get("content")))
        except (ValueError, RecursionError) as error:
            raise ArtifactRefused(f"{where} is no JSON value") from error
        if isinstance(value, (dict, list)):
            raise ArtifactRefused(f"{where} is no single value")
        return value

    def items(self, node: Mapping[str, Any], where: str, depth: int) -> list[Any]:
        """A list."""
        content = node.get("content")
        if not isinstance(content, list):
            raise ArtifactRefused(f"{where} is no list")
        return [self.value(one, f"{where}[{i}]", depth - 1) for i, one in enumerate(content)]

    def members(self, node: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
        """A dict by texts."""
        content = node.get("content")
        if not isinstance(content, dict) or node.get("__module__") != "builtins":
            raise ArtifactRefused(f"{where} is no plain dict")
        return {name: self.value(one, f"{where}.{name[:60]}", depth - 1) for name, one in content.items()}

    def array(self, node: Mapping[str, Any], where: str, depth: int) -> Any:
        """An array or a NumPy number; of objects only if each is a value by itself."""
        if node.get("type") == "json":
            return self._objects(node, where, depth)
        array = self._npy(node, where)
        if (node.get("__module__"), node.get("__class__")) == ("numpy", "ndarray"):
            return array
        if node.get("__module__") != "numpy" or node.get("__class__") not in _SCALARS or array.ndim:
            raise ArtifactRefused(f"{where} is {_named(node)}, which is no number")
        return array[()]

    def _npy(self, node: Mapping[str, Any], where: str) -> NDArray[Any]:
        name = node.get("file")
        if node.get("type") != "numpy" or not isinstance(name, str) or name not in self.archive.members:
            raise ArtifactRefused(f"{where} is an array that is not in the archive")
        if name not in self.arrays:
            compressed = self.archive.members[name].compressed
            raw = self.archive.read(name, MAX_INFLATED) if compressed else self.archive.view(name)
            self.arrays[name] = read_npy(raw, where, RECORDS)
        return self.arrays[name]

    def _objects(self, node: Mapping[str, Any], where: str, depth: int) -> NDArray[Any]:
        """Of one dimension, or of two: then a list of rows, as boosted trees are kept."""
        shape = self.value(node.get("shape"), where, depth - 1)
        items = self.items(node, where, depth)
        rows = items if isinstance(shape, tuple) and len(shape) == 2 else [items]
        if not all(isinstance(row, list) for row in rows) or len({*map(len, rows)}) != 1:
            raise ArtifactRefused(f"{where} is an array of objects whose rows differ")
        found = np.empty((len(rows), len(rows[0])), dtype=np.object_)
        for place, item in enumerate(one for row in rows for one in row):
            found.flat[place] = item  # all at once, NumPy would look into lists and arrays among them
        found = found if rows is items else found[0]
        if not isinstance(shape, tuple) or [*map(str, shape)] != [*map(str, found.shape)]:
            raise ArtifactRefused(f"{where} is an array of objects that is no plain list")
        return found

    def made(self, node: Mapping[str, Any], where: str, depth: int) -> Any:
        """An estimator; of a search, the best that it found."""
        name = _named(node)
        if name in SEARCHES:
            return self._attributes(node, where, depth, frozenset({"best_estimator_"})).get("best_estimator_")
        if name not in CLASSES:
            raise ArtifactRefused(f"{where} is {name}, which is not served; {WAY_OUT}")
        short = name.rpartition(".")[2]
        model = Made(name=name, attributes=self._attributes(node, where, depth, READ.get(short)))
        if short == "TreePredictor":
            self.walk(model.attributes.get("nodes"), where)
        return model

    def _attributes(
        self, node: Mapping[str, Any], where: str, depth: int, read: frozenset[str] | None
    ) -> dict[str, Any]:
        """What an estimator has; what nothing reads stays unread, whatever it is."""
        content = node.get("content")
        if not isinstance(content, dict) or not isinstance(content.get("content"), dict):
            raise ArtifactRefused(f"{where} has no attributes")
        needed = {
            name: one
            for name, one in content["content"].items()
            if name not in UNUSED and (read is None or name in read)
        }
        found = self.value(content | {"content": needed}, where, depth - 1)
        if not isinstance(found, dict):
            raise ArtifactRefused(f"{where} has no attributes")
        return found

    def kind(self, node: Mapping[str, Any], where: str, _: int) -> np.dtype[Any]:
        """A type of numbers, named as a class."""
        name = _named(node)
        if name not in _TYPES:
            raise ArtifactRefused(f"{where} is {name}, which is not served; {WAY_OUT}")
        return np.dtype(name.rpartition(".")[2])

    def dtype(self, node: Mapping[str, Any], where: str, depth: int) -> np.dtype[Any]:
        """A type of numbers, as an empty array of it."""
        found = self.value(node.get("content"), where, depth - 1)
        if not isinstance(found, np.ndarray):
            raise ArtifactRefused(f"{where} is no type of numbers")
        kind: np.dtype[Any] = found.dtype
        return kind

    def slice(self, node: Mapping[str, Any], where: str, _: int) -> slice:
        """From here to there."""
        content = node.get("content")
        ends = [content.get(name) for name in ("start", "stop", "step")] if isinstance(content, dict) else [()]
        if not all(one is None or isinstance(one, str) or type(one) is int for one in ends) or ends[2:] == [0]:
            raise ArtifactRefused(f"{where} is no slice")
        return slice(*ends)

    def walk(self, nodes: Any, where: str) -> None:
        """Make sure that nodes are those of one tree."""
        if id(nodes) in self.walked:
            raise ArtifactRefused(f"{where} has the nodes of another tree, as scikit-learn never saves one")
        self.walked.add(id(nodes))

    def tree(self, node: Mapping[str, Any], where: str, depth: int) -> SklearnTree:
        """The nodes of a decision tree."""
        reduce = node.get("__reduce__")
        made = self.value(reduce.get("args") if isinstance(reduce, dict) else None, where, depth - 1)
        state = self.value(node.get("content"), where, depth - 1)
        if _named(node) != "sklearn.tree._tree.Tree" or not isinstance(made, tuple) or not isinstance(state, dict):
            raise ArtifactRefused(f"{where} is no tree as scikit-learn saves one")
        self.walk(state.get("nodes"), where)
        return SklearnTree.read(made, state, where)


def _tuple(reader: _Reader, node: Mapping[str, Any], where: str, depth: int) -> tuple[Any, ...]:
    if node.get("__module__") != "builtins":
        raise ArtifactRefused(f"{where} is no plain tuple")
    return tuple(reader.items(node, where, depth))


_READERS: Mapping[str, Any] = {
    "JsonNode": _Reader.json,
    "ListNode": _Reader.items,
    "TupleNode": _tuple,
    "DictNode": _Reader.members,
    "NdArrayNode": _Reader.array,
    "ObjectNode": _Reader.made,
    "TreeNode": _Reader.tree,
    "TypeNode": _Reader.kind,
    "DTypeNode": _Reader.dtype,
    "SliceNode": _Reader.slice,
}

WAY_OUT = "convert the model with skl2onnx.to_onnx"


def _named(node: Mapping[str, Any]) -> str:
    return f"{str(node.get('__module__'))[:80]}.{str(node.get('__class__'))[:80]}"
