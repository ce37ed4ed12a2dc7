"""Gradient-boosted trees, whatever library grew them: flat arrays of nodes, checked whole before anything runs them.

    XGBoost (JSON, UBJSON) ─┐
    LightGBM (text)        ─┴► `grow` ─► Forest ─► ONNX (`trees_onnx`), which onnxruntime runs

The native parsers of both libraries crash on files that somebody crafted, so they are not used: the files are read in
Python, and `grow` walks all trees at once, level by level, and proves that they are trees: children inside, no node
reached in two ways (so no cycle), no deeper than `MAX_DEPTH`, finite numbers, features that exist. What no root
reaches is left out.

A node splits by a number or by categories. What categories are called is `columns`, and how their sets are asked in
ONNX `category_sets`. A leaf adds a number, or a linear function of the row (`linear_leaves`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .category_sets import check_sets
from .columns import Columns, check_columns
from .errors import ArtifactRefused
from .linear_leaves import check_leaves
from .served import check_served
from .signature import Signature, Tensor

MAX_BYTES = 64_000_000
"""Of a file; a thousand trees of depth 8 are about 25 MB of JSON."""
MAX_TREES, MAX_NODES, MAX_DEPTH = 20_000, 4_000_000, 512
MAX_FEATURES, MAX_TARGETS = 2**20, 10_000

MAX_MEMBERS = 2_000_000
"""Categories that all nodes name, counted at each node."""
MAX_CATEGORY = 2**22
"""The highest code of a category, well inside of the whole numbers of a float32."""

LINKS = ("identity", "sigmoid", "softmax", "exp", "step", "square", "softplus")
"""What turns sums of leaves into an answer; a step is 1 above 0, a square keeps its sign, softplus is log(1 + exp)."""


def _no_pairs() -> NDArray[np.int64]:
    return np.zeros((0, 2), dtype=np.int64)


def _no_numbers() -> NDArray[np.float64]:
    return np.zeros(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trees:
    """All nodes of all trees, one array a property. A leaf has the children -1, and its `value` is what it adds.

    A row goes left if its feature is less than `value` (or equal to it, if the forest is `inclusive`); where it is
    missing, `missing_left` says. `roots` are positions of nodes, `targets` the output that each tree adds to.

    `members` are pairs (node, category). A node that has any splits by categories and not by `value`: a row goes left
    if its category is among them.

    `terms` are pairs (leaf, feature), each with a factor. In place of its `value`, a leaf adds its constant and its
    factors times the features, unless one of these is missing. Without terms, `constants` may be empty.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    value: NDArray[Any]
    missing_left: NDArray[np.bool_]
    roots: NDArray[np.int64]
    targets: NDArray[np.int64]
    members: NDArray[np.int64] = field(default_factory=_no_pairs)
    terms: NDArray[np.int64] = field(default_factory=_no_pairs)
    factors: NDArray[Any] = field(default_factory=_no_numbers)
    constants: NDArray[Any] = field(default_factory=_no_numbers)

    @property
    def categorical(self) -> NDArray[np.bool_]:
        """Which nodes split by categories."""
        found = np.zeros(len(self.left), dtype=np.bool_)
        found[self.members[:, 0]] = True
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Forest:
    """Trees and what their sums mean.

    Attributes:
        trees: checked; of the type (float32 or float64) in which their library compares.
        columns: what a row is made of.
        inclusive: whether a feature that equals the threshold goes left.
        base: what is added to the sums, one number a target.
        link: of `LINKS`.
        classes: whether it gives probabilities of classes (one sigmoid: of two), or numbers.
        scale: what the sums are multiplied with before a sigmoid.
        zero_missing: features of which 0 counts as missing, and whatever is no farther from it than `zero`.
        first_category: the least number that is a category; what is below it, is in no set.
        weights: what a feature adds to each target beside the trees, for each unit of it (features by targets).
    """

    trees: Trees
    columns: Columns
    inclusive: bool
    base: NDArray[Any]
    link: str
    classes: bool
    scale: float = 1.0
    zero_missing: tuple[int, ...] = ()
    zero: float = 0.0
    first_category: float = 0.0
    weights: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        """Make sure that it can be asked. Raises `ArtifactRefused`."""
        check_columns(self.columns)
        check_sets(self.trees)
        check_leaves(self.trees)
        check_served(self.signature, "encode categories as numbers before training")

    @property
    def features(self) -> int:
        """How many features a row has."""
        return self.columns.count

    @property
    def signature(self) -> Signature:
        """Rows in, in which elements may be missing; labels and probabilities out, or numbers."""
        datatype = "FP64" if self.columns.dtype == np.float64 else "FP32"
        targets = len(self.base)
        label = Tensor(name="label", datatype="INT64", shape=(-1,))
        probabilities = Tensor(name="probabilities", datatype=datatype, shape=(-1, max(targets, 2)))
        value = Tensor(name="value", datatype=datatype, shape=(-1, targets))
        outputs = (label, probabilities) if self.classes else (value,)
        return Signature(inputs=self.columns.inputs, outputs=outputs, ranges=self.columns.ranges)


def grow(parts: Sequence[Trees], features: int) -> Trees:
    """Return trees as one, sure to be trees; nodes in order of their depth, so that children come after parents.

    Args:
        parts: each with positions of its own, any numbers in them.
        features: how many numbers a row has.

    Returns:
        The trees; pairs of members are sorted, each is there once, and the value of their nodes is 0.

    Raises:
        ArtifactRefused: they are not trees, or too many or too deep.
    """
    check_features(features)
    if not 1 <= len(parts) <= MAX_TREES:
        raise ArtifactRefused(f"the model has {len(parts)} trees; 1 to {MAX_TREES} are served")
    all_trees = _joined(parts)
    order, tree = _walked(all_trees)
    left, right = all_trees.left[order], all_trees.right[order]
    by_category = all_trees.categorical[order]
    inner, feature = left >= 0, all_trees.feature[order]
    value = np.where(by_category, 0, all_trees.value[order]).astype(all_trees.value.dtype)
    # Infinity is a threshold: on one side of it lies whatever is not missing.
    if (wrong := np.isnan(value) | (np.isinf(value) & ~inner)).any():
        at = int(np.flatnonzero(wrong)[0])
        raise ArtifactRefused(f"a {'threshold' if inner[at] else 'leaf'} in tree {tree[at]} is {value[at]}")
    if (wrong := inner & ((feature < 0) | (feature >= features))).any():
        at = int(np.flatnonzero(wrong)[0])
        raise ArtifactRefused(f"a node in tree {tree[at]} asks for feature {feature[at]} of {features}")
    if (both := np.isin(feature, feature[by_category]) & inner & ~by_category).any():
        raise ArtifactRefused(f"feature {feature[both][0]} is a number at one node and a category at another")
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
        members=_placed(all_trees.members, place),
        **_leaves(all_trees, place, order, features),
    )


def _leaves(trees: Trees, place: NDArray[np.int64], order: NDArray[np.int64], features: int) -> dict[str, Any]:
    """Terms of leaves that were reached, by their new places. Raises `ArtifactRefused`."""
    if not len(trees.terms):
        return {}
    if not (np.isfinite(trees.factors).all() and np.isfinite(trees.constants[order]).all()):
        raise ArtifactRefused("a leaf has a factor or a constant that is no finite number")
    if (wrong := (trees.terms[:, 1] < 0) | (trees.terms[:, 1] >= features)).any():
        raise ArtifactRefused(f"a leaf asks for feature {trees.terms[wrong, 1][0]} of {features}")
    kept = place[trees.terms[:, 0]] >= 0
    terms = np.stack([place[trees.terms[kept, 0]], trees.terms[kept, 1]], axis=1)
    return {"terms": terms, "factors": trees.factors[kept], "constants": trees.constants[order]}


def _placed(members: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs whose node was reached, by its new place; sorted, each once."""
    nodes = place[members[:, 0]]
    kept = np.stack([nodes, members[:, 1]], axis=1)[nodes >= 0]
    kept = kept[np.lexsort((kept[:, 1], kept[:, 0]))]
    again = np.zeros(len(kept), dtype=np.bool_)
    again[1:] = (kept[1:] == kept[:-1]).all(axis=1)
    return kept[~again]


def check_features(features: int) -> None:
    """Refuse rows of no numbers, and of so many that nobody can send one. Raises `ArtifactRefused`."""
    if not 1 <= features <= MAX_FEATURES:
        raise ArtifactRefused(f"a row has {features} features; 1 to {MAX_FEATURES} are served")


def _joined(parts: Sequence[Trees]) -> Trees:
    """All parts in one; positions are made to count from the first node of all."""
    sizes = [len(part.left) for part in parts]
    if sum(sizes) > MAX_NODES:
        raise ArtifactRefused(f"the model has {sum(sizes):,} nodes; at most {MAX_NODES:,} are served")
    if (count := sum(len(part.members) for part in parts)) > MAX_MEMBERS:
        raise ArtifactRefused(f"the nodes name {count:,} categories; at most {MAX_MEMBERS:,} are served")
    offset, lefts, rights, roots, members, terms = 0, [], [], [], [], []
    for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        arrays = (part.right, part.feature, part.value, part.missing_left)
        if size == 0 or any(len(array) != size for array in arrays):
            raise ArtifactRefused(f"tree {number} has no nodes, or its lists of nodes differ in length")
        for side in (part.left, part.right):
            if (side < -1).any() or (side >= size).any():
                raise ArtifactRefused(f"tree {number} has a child outside of its {size} nodes")
        if ((part.left < 0) != (part.right < 0)).any():
            raise ArtifactRefused(f"tree {number} has a node with one child")
        _check_members(part, number)
        lefts.append(np.where(part.left < 0, -1, part.left + offset))
        rights.append(np.where(part.right < 0, -1, part.right + offset))
        roots.append(part.roots + offset)
        members.append(part.members + np.array([offset, 0]))
        terms.append(part.terms + np.array([offset, 0]))
        offset += size
    return Trees(
        left=np.concatenate(lefts),
        right=np.concatenate(rights),
        feature=np.concatenate([part.feature for part in parts]),
        value=np.concatenate([part.value for part in parts]),
        missing_left=np.concatenate([part.missing_left for part in parts]),
        roots=np.concatenate(roots),
        targets=np.concatenate([part.targets for part in parts]),
        members=np.concatenate(members),
        terms=np.concatenate(terms),
        factors=np.concatenate([part.factors for part in parts]),
        constants=np.concatenate([part.constants if len(part.constants) else part.value for part in parts]),
    )


def _check_members(part: Trees, number: int) -> None:
    if not len(part.members):
        return
    nodes, categories = part.members.T
    if (nodes < 0).any() or (nodes >= len(part.left)).any() or (part.left[nodes] < 0).any():
        raise ArtifactRefused(f"tree {number} gives categories to what is none of its splits")
    if (categories < 0).any() or (categories > MAX_CATEGORY).any():
        wrong = categories[(categories < 0) | (categories > MAX_CATEGORY)][0]
        raise ArtifactRefused(
            f"tree {number} has the category {wrong}; 0 to {MAX_CATEGORY:,} are served: number categories from 0 on"
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
