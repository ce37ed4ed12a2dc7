"""LightGBM models in LightGBM's own text, read in Python and made a `Forest`.

    tree · name=value lines · Tree=0 · name=value lines · … · end of trees · importances · parameters · names

Where a row goes is LightGBM's rule: at most the threshold, in double precision; what counts as missing is said at each
node (nothing, then NaN is 0; NaN; or zero and NaN). Categories that a node names go left; all others, what is missing
and what is no category (-1 and below) go right (`lightgbm_categories`). The saved file ends at the best iteration by
itself. A model that was trained with a function of the user's own has no objective: its sums are the answer, as they
are LightGBM's. Leaves may be linear functions (`linear_tree`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Columns
from .data import Data
from .errors import ArtifactRefused
from .inspected import Inspected
from .lightgbm_categories import FEATURES, NAMES, names_of, pairs
from .trees import MAX_BYTES, MAX_MEMBERS, MAX_TARGETS, MAX_TREES, Forest, Trees, check_features, grow

MAX_LINE, MAX_LINES, MAX_LEAVES = 4_000_000, 1_000_000, 100_000

OBJECTIVES: Mapping[str, tuple[str, bool]] = {
    "binary": ("sigmoid", True),
    "multiclass": ("softmax", True),
    "multiclassova": ("sigmoid", True),
    "regression": ("identity", False),
    "regression_l1": ("identity", False),
    "huber": ("identity", False),
    "fair": ("identity", False),
    "quantile": ("identity", False),
    "mape": ("identity", False),
    "lambdarank": ("identity", False),
    "rank_xendcg": ("identity", False),
    "cross_entropy": ("sigmoid", False),
    "cross_entropy_lambda": ("softplus", False),
    "poisson": ("exp", False),
    "gamma": ("exp", False),
    "tweedie": ("exp", False),
}
"""Of each objective: what turns its sums into an answer, and whether that is probabilities of classes."""

ZERO = float(np.float32(1e-35))
"""What LightGBM takes for zero, on both sides of it; thresholds there are moved to where all of it goes one way."""
_BELOW_ZERO = float(np.nextafter(-ZERO, -1))

FIRST_CATEGORY = float(np.nextafter(-1, 0))
"""A category is a number without what follows the point: -0.5 is 0."""

_NONE, _ZERO, _NAN = 0, 1, 2  # kinds of missing values

Block = Mapping[str, str]


def inspect_lightgbm(data: Data) -> Inspected:
    """Read what a LightGBM file is. Raises `ArtifactRefused`."""
    header, trees, end = _blocks(data)
    forest = _forest(header, trees, end)
    return Inspected(
        format="lightgbm",
        runtimes=("onnx",),
        signature=forest.signature,
        details={
            "producer": f"lightgbm text {header.get('version', '')[:20]}".strip(),
            "objective": header.get("objective", "a function of its author's own"),
            "trees": len(forest.trees.roots),
            "nodes": len(forest.trees.left),
            **({"feature_names": list(forest.columns.names)} if forest.columns.names else {}),
        },
    )


def read_lightgbm(data: Data) -> Forest:
    """Read a LightGBM file as a forest. Raises `ArtifactRefused`."""
    return _forest(*_blocks(data))


def _blocks(data: Data) -> tuple[Block, Sequence[Block], Sequence[str]]:
    """The lines of the file as `name=value`, those of the header and those of each tree, and the lines behind them."""
    if len(data) > MAX_BYTES:
        raise ArtifactRefused(f"the file has {len(data):,} bytes; LightGBM files of up to {MAX_BYTES:,} are served")
    lines = _lines(data)
    if next(lines, None) != "tree":
        raise ArtifactRefused("this is no LightGBM model in text; save it with Booster.save_model('model.lgb')")
    header: dict[str, str] = {}
    trees: list[dict[str, str]] = []
    for line in lines:
        if line == "end of trees":
            break
        name, equals, value = line.partition("=")
        if name == "Tree":
            trees.append({})
            if len(trees) > MAX_TREES:
                raise ArtifactRefused(f"the model has more than {MAX_TREES} trees")
            continue
        block = trees[-1] if trees else header
        if name in block:
            raise ArtifactRefused(f"{name[:60]!r} is there twice in one part of the file")
        if line:
            block[name] = value if equals else ""
    else:
        raise ArtifactRefused("the file is cut short: it has no line that says 'end of trees'")
    return header, trees, [line for line in lines if line.startswith((NAMES, FEATURES))]


def _lines(data: Data) -> Iterator[str]:
    for number, match in enumerate(re.finditer(rb"([^\n]*)\n", data)):
        if number > MAX_LINES or match.end() - match.start() > MAX_LINE:
            raise ArtifactRefused(f"the file has more than {MAX_LINES:,} lines, or one of more than {MAX_LINE:,} bytes")
        try:
            yield bytes(match.group(1)).decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise ArtifactRefused(f"line {number + 1} is not UTF-8 text") from error


def _forest(header: Block, blocks: Sequence[Block], end: Sequence[str]) -> Forest:
    words = header.get("objective", "").split()
    name = words[0] if words else ""
    if words and name not in OBJECTIVES:
        raise ArtifactRefused(
            f"the objective {' '.join(words)[:60]!r} is not served; served are {', '.join(OBJECTIVES)}"
        )
    link, classes = OBJECTIVES[name] if words else ("identity", False)
    if "sqrt" in words[1:] and link == "identity":
        link = "square"
    features, targets = _whole(header, "max_feature_idx") + 1, _whole(header, "num_tree_per_iteration")
    fits = targets > 1 if name in ("multiclass", "multiclassova") else targets == 1 or not name
    if not 1 <= targets <= MAX_TARGETS or not fits or len(blocks) % targets:
        raise ArtifactRefused(f"{len(blocks)} trees for {targets} outputs do not fit the objective {name!r}")
    share = len(blocks) // targets if "average_output" in header else 1
    check_features(features)
    parts, kinds = [], np.zeros((3, features), dtype=np.bool_)
    room = MAX_MEMBERS
    for number, block in enumerate(blocks):
        parts.append(_part(block, number, number % targets, share, kinds, room))
        room -= len(parts[-1].members)
    trees = grow(parts, features)
    mixed = np.flatnonzero(kinds[_ZERO] & (kinds[_NONE] | kinds[_NAN]))
    if len(mixed):
        raise ArtifactRefused(f"zero is missing at one node of feature {mixed[0]} and a number at another")
    return Forest(
        trees=trees,
        columns=Columns(
            count=features,
            dtype=np.dtype(np.float64),
            names=names if len(names := tuple(header.get("feature_names", "").split(" "))) == features else (),
            categories=names_of(end, header.get("feature_infos", ""), features),
        ),
        inclusive=True,
        base=np.zeros(targets),
        link=link,
        classes=classes,
        scale=_sigmoid(words) if classes and link == "sigmoid" else 1.0,
        zero_missing=tuple(int(one) for one in np.flatnonzero(kinds[_ZERO])),
        zero=ZERO,
        first_category=FIRST_CATEGORY,
    )


def _part(block: Block, number: int, target: int, share: int, kinds: NDArray[np.bool_], room: int) -> Trees:
    """One tree of at most `room` categories. Marks in `kinds` which features count what as missing."""
    leaves = _whole(block, "num_leaves")
    if not 1 <= leaves <= MAX_LEAVES:
        raise ArtifactRefused(f"tree {number} has {leaves:,} leaves; 1 to {MAX_LEAVES:,} are served")
    inner = leaves - 1
    value = _numbers(block, "leaf_value", leaves, float) / share
    value, functions = _linear(block, value, share) if _whole(block, "is_linear", "0") else (value, {})
    if inner:
        decision = _numbers(block, "decision_type", inner, int)
        feature = _numbers(block, "split_feature", inner, int)
        threshold = _numbers(block, "threshold", inner, float)
        left, right = (_children(block, name, inner, number) for name in ("left_child", "right_child"))
    else:
        decision = feature = left = right = np.zeros(0, dtype=np.int64)
        threshold = np.zeros(0)
    missing, chosen = decision >> 2, (decision & 1) != 0
    numbers = threshold[chosen]  # of sets
    if ((missing < _NONE) | (missing > _NAN)).any():
        raise ArtifactRefused(f"tree {number} has a node whose decision_type is none")
    inside = (feature >= 0) & (feature < kinds.shape[1]) & ~chosen  # others are refused when the tree is grown
    kinds[missing[inside], feature[inside]] = True
    threshold = np.where(np.abs(threshold) <= ZERO, np.where(threshold < 0, _BELOW_ZERO, ZERO), threshold)
    missing_left = np.where(missing == _NONE, threshold >= 0, (decision & 2) != 0) & ~chosen
    none = np.full(leaves, -1, dtype=np.int64)
    return Trees(
        left=np.concatenate([left, none]),
        right=np.concatenate([right, none]),
        feature=np.concatenate([feature, np.zeros(leaves, dtype=np.int64)]),
        value=np.concatenate([threshold, value]),
        missing_left=np.concatenate([missing_left, np.zeros(leaves, dtype=np.bool_)]),
        roots=np.zeros(1, dtype=np.int64),
        targets=np.array([target], dtype=np.int64),
        members=_members(block, np.flatnonzero(chosen), numbers, number, room),
        **functions,
    )


def _linear(block: Block, value: NDArray[Any], share: int) -> tuple[NDArray[Any], dict[str, Any]]:
    """The values of a tree's leaves, and the linear functions of those that have any."""
    leaves, inner = len(value), len(value) - 1
    sizes = _numbers(block, "num_features", leaves, int)
    if ((sizes < 0) | (sizes > MAX_LEAVES)).any() or (count := int(sizes.sum())) > MAX_LEAVES:
        raise ArtifactRefused(f"the leaves of a tree have more than {MAX_LEAVES:,} factors, or fewer than none")
    constants = _numbers(block, "leaf_const", leaves, float) / share
    value = np.where(sizes > 0, value, constants)
    if not count:
        return value, {}
    # The lists of all leaves, which LightGBM parts by one more space.
    lists = {name: " ".join(block.get(name, "").split()) for name in ("leaf_features", "leaf_coeff")}
    owners = inner + np.repeat(np.arange(leaves), sizes)
    return value, {
        "terms": np.stack([owners, _numbers(lists, "leaf_features", count, int)], axis=1),
        "factors": _numbers(lists, "leaf_coeff", count, float) / share,
        "constants": np.concatenate([np.zeros(inner), constants]),
    }


def _members(
    block: Block, nodes: NDArray[np.int64], numbers: NDArray[np.float64], number: int, room: int
) -> NDArray[np.int64]:
    count = _whole(block, "num_cat", "0")
    if not count and not len(nodes):
        return np.zeros((0, 2), dtype=np.int64)
    boundaries = _numbers(block, "cat_boundaries", count + 1, int)
    size = int(boundaries[-1])
    words = _numbers(block, "cat_threshold", size, int)
    if ((words < 0) | (words >= 2**32)).any() or int(np.bitwise_count(words).sum()) > room:
        raise ArtifactRefused(
            f"tree {number} has words of no 32 bits, or the model more than {MAX_MEMBERS:,} categories"
        )
    return pairs(nodes, numbers, boundaries, words, number)


def _children(block: Block, name: str, inner: int, number: int) -> NDArray[np.int64]:
    """Children as positions; the file counts leaves from -1 downwards, here they follow the inner nodes."""
    given = _numbers(block, name, inner, int)
    if (given < -(inner + 1)).any() or (given >= inner).any():
        raise ArtifactRefused(f"tree {number} has a child outside of its {inner} nodes and {inner + 1} leaves")
    return np.where(given < 0, inner + ~given, given)


def _numbers(block: Block, name: str, count: int, kind: type[int | float]) -> NDArray[Any]:
    try:
        text = block[name]
        if text.count(" ") != count - 1:
            raise ArtifactRefused(f"{name} has {text.count(' ') + 1} numbers where {count} have to be")
        return np.array([kind(one) for one in text.split(" ")], dtype=kind)
    except (KeyError, ValueError, OverflowError) as error:
        raise ArtifactRefused(f"{name} is missing, or has something that is no number") from error


def _whole(block: Block, name: str, default: str = "") -> int:
    text = block.get(name, default)
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ArtifactRefused(f"{name} is {text[:40]!r} where a whole number has to be")
    return int(text)


def _sigmoid(words: list[str]) -> float:
    said = next((word.removeprefix("sigmoid:") for word in words if word.startswith("sigmoid:")), "1")
    if not re.fullmatch(r"[0-9.]{1,20}(e-?[0-9]{1,2})?", said) or not 0 < float(said) < 1e6:
        raise ArtifactRefused(f"the objective's sigmoid is {said[:40]!r}, which is no number above 0")
    return float(said)
