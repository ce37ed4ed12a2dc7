"""A forest as an ONNX model: one TreeEnsemble, and the few operators that turn its sums into an answer.

    features ─► [zeros to NaN] ─► TreeEnsemble ─► + base ─► sigmoid, softmax, exp ─► label, probabilities | value

Comparisons are made in the type and with the operator of the library that grew the trees (XGBoost: `<` of float32;
LightGBM: `<=` of float64), so that every row goes the same way, also at a threshold. Sums are the same up to the order
in which they are added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx_bytes import model, node, rows
from .outputs import OUTPUT_KEY
from .trees import Forest, Trees

ZERO = float(np.float32(1e-35))
"""What LightGBM takes for zero, on both sides of it."""

_AT_MOST, _BELOW = 0, 1  # modes of a node: <= and <


def to_onnx(forest: Forest) -> bytes:
    """Return the bytes of the ONNX model."""
    dtype = forest.trees.value.dtype
    constants: dict[str, NDArray[Any]] = {"base": forest.base.astype(dtype)}
    nodes: list[bytes] = []
    given = "features"
    if forest.zero_missing:
        given = _without_zeros(forest, nodes, constants)
    attributes = _ensemble(forest.trees, inclusive=forest.inclusive, targets=len(forest.base))
    nodes += [
        node("TreeEnsemble", [given], ["sums"], attributes, domain="ai.onnx.ml"),
        node("Add", ["sums", "base"], ["raw"]),
    ]
    outputs = _answer(forest, nodes, constants)
    return model(
        nodes=nodes,
        constants=constants,
        inputs=[rows("features", dtype.name, forest.features)],
        outputs=outputs,
        metadata={OUTPUT_KEY: "probabilities" if forest.classes else "values"},
    )


def _without_zeros(forest: Forest, nodes: list[bytes], constants: dict[str, NDArray[Any]]) -> str:
    """Make NaN of whatever counts as zero, in the features where that means missing."""
    limits = np.full(forest.features, -1.0)
    limits[list(forest.zero_missing)] = ZERO
    constants |= {"zero": limits, "nan": np.array(np.nan)}
    nodes += [
        node("Abs", ["features"], ["size"]),
        node("LessOrEqual", ["size", "zero"], ["is_zero"]),
        node("Where", ["is_zero", "nan", "features"], ["present"]),
    ]
    return "present"


def _answer(forest: Forest, nodes: list[bytes], constants: dict[str, NDArray[Any]]) -> list[bytes]:
    """Append what turns `raw` into the outputs, and return those."""
    dtype = forest.trees.value.dtype
    if forest.link == "sigmoid":
        constants["scale"] = np.array(forest.scale, dtype=dtype)
        nodes.append(node("Mul", ["raw", "scale"], ["scaled"]))
    if not forest.classes:
        kind, given = {
            "identity": ("Identity", "raw"),
            "exp": ("Exp", "raw"),
            "sigmoid": ("Sigmoid", "scaled"),
        }[forest.link]
        nodes.append(node(kind, [given], ["value"]))
        return [rows("value", dtype.name, len(forest.base))]
    if forest.link == "softmax":
        columns = len(forest.base)
        nodes.append(node("Softmax", ["raw"], ["probabilities"], {"axis": 1}))
    else:
        columns = 2
        constants["one"] = np.array(1, dtype=dtype)
        nodes += [
            node("Sigmoid", ["scaled"], ["second"]),
            node("Sub", ["one", "second"], ["first"]),
            node("Concat", ["first", "second"], ["probabilities"], {"axis": 1}),
        ]
    nodes.append(node("ArgMax", ["probabilities"], ["label"], {"axis": 1, "keepdims": 0}))
    return [rows("label", "int64", None), rows("probabilities", dtype.name, columns)]


def _ensemble(trees: Trees, *, inclusive: bool, targets: int) -> dict[str, int | NDArray[Any]]:
    """The attributes of a TreeEnsemble; nodes and leaves are counted apart there."""
    trees = _split_roots(trees)
    inner = trees.left >= 0
    place = np.where(inner, np.cumsum(inner), np.cumsum(~inner)) - 1
    left, right = trees.left[inner], trees.right[inner]
    return {
        "aggregate_function": 1,  # the sum
        "post_transform": 0,
        "n_targets": targets,
        "tree_roots": place[trees.roots],
        "nodes_featureids": trees.feature[inner],
        "nodes_splits": trees.value[inner],
        "nodes_modes": np.full(len(left), _AT_MOST if inclusive else _BELOW, dtype=np.uint8),
        "nodes_truenodeids": place[left],
        "nodes_falsenodeids": place[right],
        "nodes_trueleafs": (~inner[left]).astype(np.int64),
        "nodes_falseleafs": (~inner[right]).astype(np.int64),
        "nodes_missing_value_tracks_true": trees.missing_left[inner].astype(np.int64),
        "leaf_targetids": trees.targets[_tree_of(trees)][~inner],
        "leaf_weights": trees.value[~inner],
    }


def _split_roots(trees: Trees) -> Trees:
    """A tree that is one leaf gets a node above it, whose sides lead to two such leaves: ONNX begins with a node."""
    lone = np.flatnonzero(trees.left[trees.roots] < 0)
    if not len(lone):
        return trees
    leaves, count, size = trees.roots[lone], len(lone), len(trees.left)
    above, twins = size + np.arange(count), size + count + np.arange(count)
    roots = trees.roots.copy()
    roots[lone] = above
    none = np.full(count, -1, dtype=np.int64)
    zeros = np.zeros(2 * count, dtype=np.int64)
    return Trees(
        left=np.concatenate([trees.left, leaves, none]),
        right=np.concatenate([trees.right, twins, none]),
        feature=np.concatenate([trees.feature, zeros]),
        value=np.concatenate([trees.value, np.zeros(count, dtype=trees.value.dtype), trees.value[leaves]]),
        missing_left=np.concatenate([trees.missing_left, zeros.astype(np.bool_)]),
        roots=roots,
        targets=trees.targets,
    )


def _tree_of(trees: Trees) -> NDArray[np.int64]:
    """Which tree each node is of."""
    found = np.zeros(len(trees.left), dtype=np.int64)
    frontier, tree = trees.roots, np.arange(len(trees.roots))
    while len(frontier):
        found[frontier] = tree
        inner = trees.left[frontier] >= 0
        parents, tree = frontier[inner], np.concatenate([tree[inner]] * 2)
        frontier = np.concatenate([trees.left[parents], trees.right[parents]])
    return found
