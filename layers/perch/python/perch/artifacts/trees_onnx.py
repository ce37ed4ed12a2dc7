"""A forest as an ONNX model: one TreeEnsemble, and the few operators that turn its sums into an answer.

    features, or one input a column ─► [names to codes] ─► [zeros to NaN] ─► [sets of categories as columns]
      ─► TreeEnsemble [─► linear leaves] ─► + base ─► sigmoid, softmax, exp … ─► label, probabilities | value

Comparisons are made in the type and with the operator of the library that grew the trees (XGBoost: `<` of float32;
LightGBM: `<=` of float64), so that every row goes the same way, also at a threshold. Sums are the same up to the order
in which they are added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .category_sets import append_columns, without_sets
from .columns import encode
from .linear_leaves import append_leaves, numbered
from .onnx_bytes import element, model, node, rows
from .outputs import OUTPUT_KEY
from .signature import Tensor
from .trees import Forest, Trees

_AT_MOST, _BELOW = 0, 1  # modes of a node: <= and <


def to_onnx(forest: Forest) -> bytes:
    """Return the bytes of the ONNX model."""
    dtype, trees, targets = forest.columns.dtype, forest.trees, len(forest.base)
    constants: dict[str, NDArray[Any]] = {"/base": forest.base.astype(dtype)}
    nodes: list[bytes] = []
    rows = given = encode(forest.columns, nodes, constants)
    if forest.zero_missing:
        given = _without_zeros(forest, given, nodes, constants)
    if len(trees.members):
        trees, sets = without_sets(trees, forest.features)
        given = append_columns(sets, given, forest.first_category, dtype, nodes, constants)
    linear = len(trees.terms) > 0
    asked = numbered(trees) if linear else trees
    attributes = _ensemble(
        asked, inclusive=forest.inclusive, targets=int(asked.targets.max()) + 1 if linear else targets
    )
    nodes.append(node("TreeEnsemble", [given], ["/leaves" if linear else "/sums"], attributes, domain="ai.onnx.ml"))
    if linear:
        append_leaves(trees, rows, forest.features, targets, nodes, constants)
    sums = "/sums" if forest.weights is None else _linear(forest.weights, rows, nodes, constants)
    nodes.append(node("Add", [sums, "/base"], ["/raw"]))
    _answer(forest, nodes, constants)
    signature = forest.signature
    return model(
        nodes=nodes,
        constants=constants,
        inputs=[_declared(tensor) for tensor in signature.inputs],
        outputs=[_declared(tensor) for tensor in signature.outputs],
        metadata={OUTPUT_KEY: "probabilities" if forest.classes else "values"},
    )


_ELEMENTS = {"FP32": "float32", "FP64": "float64", "INT64": "int64", "BYTES": "object"}


def _declared(tensor: Tensor) -> bytes:
    """A tensor of the signature as ONNX says it."""
    _, *columns = tensor.shape or ()
    return rows(tensor.name, _ELEMENTS[tensor.datatype], columns[0] if columns else None)


def _linear(weights: NDArray[Any], given: str, nodes: list[bytes], constants: dict[str, NDArray[Any]]) -> str:
    """Add what each feature weighs; one that is missing weighs nothing."""
    constants |= {"/weights": weights, "/no weight": np.array(0, dtype=weights.dtype)}
    nodes += [
        node("IsNaN", [given], ["/weighs nothing"]),
        node("Where", ["/weighs nothing", "/no weight", given], ["/weighed"]),
        node("MatMul", ["/weighed", "/weights"], ["/line"]),
        node("Add", ["/sums", "/line"], ["/sums and line"]),
    ]
    return "/sums and line"


def _without_zeros(forest: Forest, given: str, nodes: list[bytes], constants: dict[str, NDArray[Any]]) -> str:
    """Make NaN of whatever counts as zero, in the features where that means missing."""
    limits = np.full(forest.features, -1.0)
    limits[list(forest.zero_missing)] = forest.zero
    constants |= {"/zero": limits, "/nan": np.array(np.nan)}
    nodes += [
        node("Abs", [given], ["/size"]),
        node("LessOrEqual", ["/size", "/zero"], ["/is zero"]),
        node("Where", ["/is zero", "/nan", given], ["/present"]),
    ]
    return "/present"


def _answer(forest: Forest, nodes: list[bytes], constants: dict[str, NDArray[Any]]) -> None:
    """Append what turns `/raw` into the outputs."""
    dtype = forest.columns.dtype
    raw = "/raw"
    if forest.link == "sigmoid" and forest.scale != 1:
        constants["/scale"] = np.array(forest.scale, dtype=dtype)
        nodes.append(node("Mul", [raw, "/scale"], ["/scaled"]))
        raw = "/scaled"
    if not forest.classes:
        constants["/nothing"] = np.array(0, dtype=dtype)
        nodes += _numbers(forest.link, raw, dtype)
        return
    if forest.link == "softmax":
        nodes.append(node("Softmax", [raw], ["probabilities"], {"axis": 1}))
    elif len(forest.base) > 1:
        nodes.append(node("Sigmoid", [raw], ["probabilities"]))
    else:
        constants["/one"] = np.array(1, dtype=dtype)
        nodes += [
            node("Sigmoid", [raw], ["/second"]),
            node("Sub", ["/one", "/second"], ["/first"]),
            node("Concat", ["/first", "/second"], ["probabilities"], {"axis": 1}),
        ]
    nodes.append(node("ArgMax", ["probabilities"], ["label"], {"axis": 1, "keepdims": 0}))


def _numbers(link: str, raw: str, dtype: np.dtype[Any]) -> list[bytes]:
    """What turns sums into numbers."""
    if link == "step":
        return [
            node("Greater", [raw, "/nothing"], ["/is above"]),
            node("Cast", ["/is above"], ["value"], {"to": element(dtype)}),
        ]
    if link == "square":
        return [node("Abs", [raw], ["/without sign"]), node("Mul", [raw, "/without sign"], ["value"])]
    kinds = {"identity": "Identity", "exp": "Exp", "sigmoid": "Sigmoid", "softplus": "Softplus"}
    return [node(kinds[link], [raw], ["value"])]


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
