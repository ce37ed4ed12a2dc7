"""Leaves that are linear functions of the row, as LightGBM's `linear_tree` grows them, in ONNX.

    ensemble ─► of each tree, which leaf ─► its constant + factor · feature + …  (its value, if one of these is missing)

A leaf has a few factors, so each has as many places as the one with most; an empty place multiplies a zero that is put
behind every row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArtifactRefused
from .onnx_bytes import element, node

if TYPE_CHECKING:
    from .trees import Trees

MAX_PLACES = 2_000_000


def check_leaves(trees: Trees) -> None:
    """Make sure that the places of all leaves can be held. Raises `ArtifactRefused`."""
    places = int(np.count_nonzero(trees.left < 0)) * width_of(trees)
    if places > MAX_PLACES:
        raise ArtifactRefused(
            f"the leaves have places for {places:,} factors; at most {MAX_PLACES:,} are served: train fewer trees"
        )


def width_of(trees: Trees) -> int:
    """Return how many factors the leaf with most of them has."""
    return int(np.bincount(trees.terms[:, 0]).max()) if len(trees.terms) else 0


def numbered(trees: Trees) -> Trees:
    """Return trees of which each gives, in an output of its own, the number of the leaf, counted over all trees."""
    leaf = trees.left < 0
    value = np.where(leaf, np.cumsum(leaf) - 1, trees.value).astype(trees.value.dtype)
    return replace(trees, value=value, targets=np.arange(len(trees.roots)))


def append_leaves(
    trees: Trees,
    rows: str,
    features: int,
    targets: int,
    nodes: list[bytes],
    constants: dict[str, NDArray[Any]],
) -> str:
    """Append to an ONNX graph what makes sums of the leaves that the rows reach, and return their name.

    Args:
        trees: grown, with terms. The graph has `/leaves`, what the `numbered` ones give.
        rows: the name of the matrix, as it came.
        features: its columns.
        targets: of the model.
        nodes: of the graph.
        constants: of the graph.
    """
    leaf, width, dtype = trees.left < 0, width_of(trees), trees.value.dtype
    which, factor = _terms_of_leaves(trees, features)
    whole = element(np.dtype(np.int64))
    constants |= {
        "/which": which,
        "/factor": factor,
        "/constant": trees.constants[leaf],
        "/value": trees.value[leaf],
        "/targets": (trees.targets[:, np.newaxis] == np.arange(targets)).astype(dtype),
        "/pads": np.array([0, 0, 0, 1]),
        "/flat": np.array([0, len(trees.roots) * width]),
        "/deep": np.array([0, len(trees.roots), width]),
        "/last": np.array([2]),
    }
    nodes += [
        node("Cast", ["/leaves"], ["/leaf"], {"to": whole}),
        node("Pad", [rows, "/pads"], ["/padded"]),
        node("Gather", ["/which", "/leaf"], ["/which of leaf"]),
        node("Reshape", ["/which of leaf", "/flat"], ["/columns"]),
        node("GatherElements", ["/padded", "/columns"], ["/numbers"], {"axis": 1}),
        node("Reshape", ["/numbers", "/deep"], ["/by leaf"]),
        node("Gather", ["/factor", "/leaf"], ["/factors"]),
        node("Mul", ["/by leaf", "/factors"], ["/products"]),
        node("ReduceSum", ["/products", "/last"], ["/slope"], {"keepdims": 0}),
        node("Gather", ["/constant", "/leaf"], ["/constants"]),
        node("Add", ["/constants", "/slope"], ["/on the line"]),
        node("Gather", ["/value", "/leaf"], ["/values"]),
        node("IsNaN", ["/slope"], ["/has a gap"]),
        node("Where", ["/has a gap", "/values", "/on the line"], ["/of trees"]),
        node("MatMul", ["/of trees", "/targets"], ["/sums"]),
    ]
    return "/sums"


def _terms_of_leaves(trees: Trees, features: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Of each leaf, the columns of its terms and their factors; column `features`, times nothing, fills a row up."""
    leaf, width = trees.left < 0, width_of(trees)
    owner = (np.cumsum(leaf) - 1)[trees.terms[:, 0]]
    order = np.argsort(owner, kind="stable")
    owner = owner[order]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    which = np.full((int(np.count_nonzero(leaf)), width), features, dtype=np.int64)
    factor = np.zeros(which.shape, dtype=trees.value.dtype)
    which[owner, place] = trees.terms[order, 1]
    factor[owner, place] = trees.factors[order]
    return which, factor
