"""scikit-learn models as skops saves them, read in Python: data and the names of allowed classes, nothing else.

    *.skops = zip of schema.json (a tree of nodes) and one .npy an array

skops' own reader builds whatever object the schema names, of a list that its user trusts; and even classes that look
harmless (a tree, a support vector machine) read memory out of bounds when their arrays were crafted. Here the schema
becomes plain values: numbers, texts, lists, arrays, and `Made`, the name of an estimator with its attributes. The same
values are checked at registration and built by the predictor (`perch.predictor.runtimes.sklearn`), so what was
inspected is what runs. Allowed are the estimators of `sklearn_classes`: those that predict by NumPy, and trees, whose
every node is checked.

Left out, and refused in words: everything else (kernels, neighbours, boosting, encoders of categories, functions);
such models go through ONNX.
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
from .sklearn_classes import CLASSES, NODES, Made, SklearnTree, check, signature_of
from .zip_archive import Archive, read_archive

MAX_SCHEMA, MAX_DEPTH = 32 * 1024 * 1024, 40
MAX_INFLATED = 256 * 1024 * 1024

UNUSED = frozenset({"_optimizer", "_random_state", "random_state", "loss_function_", "_loss_function_", "memory"})
"""Attributes that prediction never reads, and that may be of any type: they are left out."""

_SCALARS = frozenset({"bool", "bool_", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "str_",
                      "uint8", "uint16", "uint32", "uint64"})  # fmt: skip


def inspect_skops(data: Data) -> Inspected:
    """Read what a skops file is. Raises `ArtifactRefused`."""
    model = read_skops(data)
    signature, details = signature_of(model)
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
        if read is None:
            raise ArtifactRefused(f"{where} is a {_named(node)}, which is not served; {WAY_OUT}")
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
        """A dict by texts; attributes that nothing reads are left out unread."""
        content = node.get("content")
        if not isinstance(content, dict) or node.get("__module__") != "builtins":
            raise ArtifactRefused(f"{where} is no plain dict")
        return {
            name: self.value(one, f"{where}.{name[:60]}", depth - 1)
            for name, one in content.items()
            if name not in UNUSED
        }

    def array(self, node: Mapping[str, Any], where: str, depth: int) -> Any:
        """An array or a NumPy number; of objects only if each is a value by itself."""
        if node.get("type") == "json":
            return self._objects(node, where, depth)
        array = self._npy(node, where)
        if (node.get("__module__"), node.get("__class__")) == ("numpy", "ndarray"):
            return array
        if node.get("__module__") != "numpy" or node.get("__class__") not in _SCALARS or array.ndim:
            raise ArtifactRefused(f"{where} is a {_named(node)}, which is no number")
        return array[()]

    def _npy(self, node: Mapping[str, Any], where: str) -> NDArray[Any]:
        name = node.get("file")
        if node.get("type") != "numpy" or not isinstance(name, str) or name not in self.archive.members:
            raise ArtifactRefused(f"{where} is an array that is not in the archive")
        if name not in self.arrays:
            compressed = self.archive.members[name].compressed
            raw = self.archive.read(name, MAX_INFLATED) if compressed else self.archive.view(name)
            self.arrays[name] = read_npy(raw, where, (NODES,))
        return self.arrays[name]

    def _objects(self, node: Mapping[str, Any], where: str, depth: int) -> NDArray[Any]:
        shape = self.value(node.get("shape"), where, depth - 1)
        items = self.items(node, where, depth)
        if not isinstance(shape, tuple) or [*map(str, shape)] != [str(len(items))]:
            raise ArtifactRefused(f"{where} is an array of objects that is no plain list")
        found = np.empty(len(items), dtype=np.object_)
        for place, item in enumerate(items):
            found[place] = item  # all at once, NumPy would look into lists and arrays among them
        return found

    def made(self, node: Mapping[str, Any], where: str, depth: int) -> Made:
        """An estimator."""
        name = _named(node)
        if name not in CLASSES:
            raise ArtifactRefused(f"{where} is a {name}, which is not served; {WAY_OUT}")
        attributes = self.value(node.get("content"), where, depth - 1)
        if not isinstance(attributes, dict):
            raise ArtifactRefused(f"{where} has no attributes")
        return Made(name=name, attributes=attributes)

    def tree(self, node: Mapping[str, Any], where: str, depth: int) -> SklearnTree:
        """The nodes of a decision tree."""
        reduce = node.get("__reduce__")
        made = self.value(reduce.get("args") if isinstance(reduce, dict) else None, where, depth - 1)
        state = self.value(node.get("content"), where, depth - 1)
        if _named(node) != "sklearn.tree._tree.Tree" or not isinstance(made, tuple) or not isinstance(state, dict):
            raise ArtifactRefused(f"{where} is no tree as scikit-learn saves one")
        nodes = id(state.get("nodes"))
        if nodes in self.walked:
            raise ArtifactRefused(f"{where} has the nodes of another tree, as scikit-learn never saves one")
        self.walked.add(nodes)
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
}

WAY_OUT = "convert the model with skl2onnx.to_onnx"


def _named(node: Mapping[str, Any]) -> str:
    return f"{str(node.get('__module__'))[:80]}.{str(node.get('__class__'))[:80]}"
