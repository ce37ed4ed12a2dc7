"""Gradient-boosted trees, whatever library grew them: flat arrays of nodes, checked whole before anything runs them.

    XGBoost (JSON, UBJSON) ─┐
    LightGBM (text)        ─┴► `grow` ─► Forest ─► ONNX (`trees_onnx`), which onnxruntime runs

The native parsers of both libraries crash on files that somebody crafted, so they are not used: the files are read in
Python, and `grow` walks all trees at once, level by level, and proves that they are trees: children inside, no node
reached in two ways (so no cycle), no deeper than `MAX_DEPTH`, finite numbers, features that exist. What no root
reaches is left out.

Left out of both formats, and refused in words: categorical splits, linear leaves, leaves of several values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArtifactRefused
from .signature import Signature, Tensor

MAX_BYTES = 64_000_000
"""Of a file; a thousand trees of depth 8 are about 25 MB of JSON."""
MAX_TREES, MAX_NODES, MAX_DEPTH = 20_000, 4_000_000, 512
MAX_FEATURES, MAX_TARGETS = 2**20, 10_000

LINKS = ("identity", "sigmoid", "softmax", "exp")
"""What turns sums of leaves into an answer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trees:
    """All nodes of all trees, one array a property. A leaf has the children -1, and its `value` is what it adds.

    A row goes left if its feature is less than `value` (or equal to it, if the forest is `inclusive`); where it is
    missing, `missing_left` says. `roots` are positions of nodes, `targets` the output that each tree adds to.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    value: NDArray[Any]
    missing_left: NDArray[np.bool_]
    roots: NDArray[np.int64]
    targets: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Forest:
    """Trees and what their sums mean.

    Attributes:
        trees: checked; of the type (float32 or float64) in which their library compares.
        features: numbers in a row.
        inclusive: whether a feature that equals the threshold goes left.
        base: what is added to the sums, one number a target.
        link: of `LINKS`; `classes` says whether it gives probabilities of classes (a sigmoid: of two) or numbers.
        scale: what the sums are multiplied with before a sigmoid.
        zero_missing: features of which 0 counts as missing.
    """

    trees: Trees
    features: int
    inclusive: bool
    base: NDArray[Any]
    link: str
    classes: bool
    scale: float = 1.0
    zero_missing: tuple[int, ...] = ()

    @property
    def signature(self) -> Signature:
        """One matrix in, in which elements may be missing; labels and probabilities out, or numbers."""
        datatype = "FP64" if self.trees.value.dtype == np.float64 else "FP32"
        inputs = (Tensor(name="features", datatype=datatype, shape=(-1, self.features), missing=True),)
        if not self.classes:
            return Signature(
                inputs=inputs, outputs=(Tensor(name="value", datatype=datatype, shape=(-1, len(self.base))),)
            )
        columns = 2 if self.link == "sigmoid" else len(self.base)
        return Signature(
            inputs=inputs,
            outputs=(
                Tensor(name="label", datatype="INT64", shape=(-1,)),
                Tensor(name="probabilities", datatype=datatype, shape=(-1, columns)),
            ),
        )


def grow(parts: Sequence[Trees], features: int) -> Trees:
    """Return trees as one, sure to be trees; nodes in order of their depth, so that children come after parents.

    Args:
        parts: each with positions of its own, any numbers in them.
        features: how many numbers a row has.

    Raises:
        ArtifactRefused: they are not trees, or too many or too deep.
    """
    check_features(features)
    if not 1 <= len(parts) <= MAX_TREES:
        raise ArtifactRefused(f"the model has {len(parts)} trees; 1 to {MAX_TREES} are served")
    all_trees = _joined(parts)
    order, tree = _walked(all_trees)
    left, right = all_trees.left[order], all_trees.right[order]
    inner, value, feature = left >= 0, all_trees.value[order], all_trees.feature[order]
    if not np.isfinite(value).all():
        at = int(np.flatnonzero(~np.isfinite(value))[0])
        raise ArtifactRefused(f"a {'threshold' if inner[at] else 'leaf'} in tree {tree[at]} is {value[at]}")
    if (wrong := inner & ((feature < 0) | (feature >= features))).any():
        at = int(np.flatnonzero(wrong)[0])
        raise ArtifactRefused(f"a node in tree {tree[at]} asks for feature {feature[at]} of {features}")
    place = np.full(len(all_trees.left), -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    return Trees(
        left=np.where(inner, place[left], -1),
        right=np.where(inner, place[right], -1),
        feature=np.where(inner, feature, 0),
        value=value,
        missing_left=all_trees.missing_left[order],
        roots=place[all_trees.roots],
        targets=all_trees.targets,
    )


def check_features(features: int) -> None:
    """Refuse rows of no numbers, and of so many that nobody can send one. Raises `ArtifactRefused`."""
    if not 1 <= features <= MAX_FEATURES:
        raise ArtifactRefused(f"a row has {features} features; 1 to {MAX_FEATURES} are served")


def _joined(parts: Sequence[Trees]) -> Trees:
    """All parts in one; positions are made to count from the first node of all."""
    sizes = [len(part.left) for part in parts]
    if sum(sizes) > MAX_NODES:
        raise ArtifactRefused(f"the model has {sum(sizes):,} nodes; at most {MAX_NODES:,} are served")
    offset, lefts, rights, roots = 0, [], [], []
    for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        arrays = (part.right, part.feature, part.value, part.missing_left)
        if size == 0 or any(len(array) != size for array in arrays):
            raise ArtifactRefused(f"tree {number} has no nodes, or its lists of nodes differ in length")
        for side in (part.left, part.right):
            if (side < -1).any() or (side >= size).any():
                raise ArtifactRefused(f"tree {number} has a child outside of its {size} nodes")
        if ((part.left < 0) != (part.right < 0)).any():
            raise ArtifactRefused(f"tree {number} has a node with one child")
        lefts.append(np.where(part.left < 0, -1, part.left + offset))
        rights.append(np.where(part.right < 0, -1, part.right + offset))
        roots.append(part.roots + offset)
        offset += size
    return Trees(
        left=np.concatenate(lefts),
        right=np.concatenate(rights),
        feature=np.concatenate([part.feature for part in parts]),
        value=np.concatenate([part.value for part in parts]),
        missing_left=np.concatenate([part.missing_left for part in parts]),
        roots=np.concatenate(roots),
        targets=np.concatenate([part.targets for part in parts]),
    )


def _walked(trees: Trees) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every node that a root reaches, in order of depth, and which tree it is of."""
    frontier, tree = trees.roots, np.arange(len(trees.roots))
    seen = np.zeros(len(trees.left), dtype=np.bool_)
    levels: list[NDArray[np.int64]] = []
    of_trees: list[NDArray[np.int64]] = []
    reached = 0
    while len(frontier):
        if len(levels) > MAX_DEPTH:
            raise ArtifactRefused(f"tree {tree[0]} is deeper than {MAX_DEPTH}")
        seen[frontier] = True
        reached += len(frontier)
        if np.count_nonzero(seen) != reached:
            raise ArtifactRefused("a node is reached in two ways, so the nodes are not trees (is there a cycle?)")
        levels.append(frontier)
        of_trees.append(tree)
        inner = trees.left[frontier] >= 0
        parents, tree = frontier[inner], tree[inner]
        frontier, tree = np.concatenate([trees.left[parents], trees.right[parents]]), np.concatenate([tree, tree])
    return np.concatenate(levels), np.concatenate(of_trees)
