"""LightGBM models in LightGBM's own text, read in Python and made a `Forest`.

    tree · name=value lines · Tree=0 · name=value lines · … · end of trees · (importances, parameters: not read)

Where a row goes is LightGBM's rule: at most the threshold, in double precision; what counts as missing is said at each
node (nothing, then NaN is 0; NaN; or zero and NaN). The saved file ends at the best iteration by itself.

Left out, and refused in words: categorical splits, linear trees, `multiclassova`, transformed regressions (`sqrt`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import Data
from .errors import ArtifactRefused
from .inspected import Inspected
from .trees import MAX_BYTES, MAX_TARGETS, MAX_TREES, Forest, Trees, check_features, grow

MAX_LINE, MAX_LINES, MAX_LEAVES = 4_000_000, 1_000_000, 100_000

OBJECTIVES: Mapping[str, tuple[str, bool]] = {
    "binary": ("sigmoid", True),
    "multiclass": ("softmax", True),
    "regression": ("identity", False),
    "regression_l1": ("identity", False),
    "huber": ("identity", False),
    "fair": ("identity", False),
    "quantile": ("identity", False),
    "mape": ("identity", False),
    "lambdarank": ("identity", False),
    "rank_xendcg": ("identity", False),
    "cross_entropy": ("sigmoid", False),
    "poisson": ("exp", False),
    "gamma": ("exp", False),
    "tweedie": ("exp", False),
}
"""Of each objective: what turns its sums into an answer, and whether that is probabilities of classes."""

_NONE, _ZERO, _NAN = 0, 1, 2  # kinds of missing values

Block = Mapping[str, str]


def inspect_lightgbm(data: Data) -> Inspected:
    """Read what a LightGBM file is. Raises `ArtifactRefused`."""
    header, trees = _blocks(data)
    forest = _forest(header, trees)
    names = header.get("feature_names", "").split(" ")
    return Inspected(
        format="lightgbm",
        runtimes=("onnx",),
        signature=forest.signature,
        details={
            "producer": f"lightgbm text {header.get('version', '')[:20]}".strip(),
            "objective": header["objective"],
            "trees": len(forest.trees.roots),
            "nodes": len(forest.trees.left),
            **({"feature_names": names} if len(names) == forest.features else {}),
        },
    )


def read_lightgbm(data: Data) -> Forest:
    """Read a LightGBM file as a forest. Raises `ArtifactRefused`."""
    return _forest(*_blocks(data))


def _blocks(data: Data) -> tuple[Block, Sequence[Block]]:
    """The lines of the file as `name=value`, those of the header and those of each tree."""
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
    return header, trees


def _lines(data: Data) -> Iterator[str]:
    for number, match in enumerate(re.finditer(rb"([^\n]*)\n", data)):
        if number > MAX_LINES or match.end() - match.start() > MAX_LINE:
            raise ArtifactRefused(f"the file has more than {MAX_LINES:,} lines, or one of more than {MAX_LINE:,} bytes")
        try:
            yield bytes(match.group(1)).decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise ArtifactRefused(f"line {number + 1} is not UTF-8 text") from error


def _forest(header: Block, blocks: Sequence[Block]) -> Forest:
    words = header.get("objective", "").split()
    name = words[0] if words else "(none: the model was trained with a function of your own)"
    if name not in OBJECTIVES or "sqrt" in words[1:]:
        raise ArtifactRefused(
            f"the objective {' '.join(words)[:60] or name!r} is not served; served are {', '.join(OBJECTIVES)}"
        )
    link, classes = OBJECTIVES[name]
    features, targets = _whole(header, "max_feature_idx") + 1, _whole(header, "num_tree_per_iteration")
    if not 1 <= targets <= MAX_TARGETS or (targets > 1) != (link == "softmax") or len(blocks) % targets:
        raise ArtifactRefused(f"{len(blocks)} trees for {targets} outputs do not fit the objective {name!r}")
    share = len(blocks) // targets if "average_output" in header else 1
    check_features(features)
    parts, kinds = [], np.zeros((3, features), dtype=np.bool_)
    for number, block in enumerate(blocks):
        parts.append(_part(block, number, number % targets, share, kinds))
    trees = grow(parts, features)
    mixed = np.flatnonzero(kinds[_ZERO] & (kinds[_NONE] | kinds[_NAN]))
    if len(mixed):
        raise ArtifactRefused(f"zero is missing at one node of feature {mixed[0]} and a number at another")
    return Forest(
        trees=trees,
        features=features,
        inclusive=True,
        base=np.zeros(targets),
        link=link,
        classes=classes,
        scale=_sigmoid(words) if name == "binary" else 1.0,
        zero_missing=tuple(int(one) for one in np.flatnonzero(kinds[_ZERO])),
    )


def _part(block: Block, number: int, target: int, share: int, kinds: NDArray[np.bool_]) -> Trees:
    """One tree. Marks in `kinds` which features count what as missing."""
    if _whole(block, "num_cat", "0") or _whole(block, "is_linear", "0"):
        raise ArtifactRefused(
            f"tree {number} splits by categories or has linear leaves, which is not served; "
            "encode categories as numbers before training, and train with linear_tree=false"
        )
    leaves = _whole(block, "num_leaves")
    if not 1 <= leaves <= MAX_LEAVES:
        raise ArtifactRefused(f"tree {number} has {leaves:,} leaves; 1 to {MAX_LEAVES:,} are served")
    inner = leaves - 1
    value = _numbers(block, "leaf_value", leaves, float) / share
    if inner:
        decision = _numbers(block, "decision_type", inner, int)
        feature = _numbers(block, "split_feature", inner, int)
        threshold = _numbers(block, "threshold", inner, float)
        left, right = (_children(block, name, inner, number) for name in ("left_child", "right_child"))
    else:
        decision = feature = left = right = np.zeros(0, dtype=np.int64)
        threshold = np.zeros(0)
    missing = decision >> 2
    if ((decision & 1) != 0).any() or ((missing < _NONE) | (missing > _NAN)).any():
        raise ArtifactRefused(f"tree {number} has a node whose decision_type is not that of a number")
    inside = (feature >= 0) & (feature < kinds.shape[1])  # others are refused when the tree is grown
    kinds[missing[inside], feature[inside]] = True
    none = np.full(leaves, -1, dtype=np.int64)
    return Trees(
        left=np.concatenate([left, none]),
        right=np.concatenate([right, none]),
        feature=np.concatenate([feature, np.zeros(leaves, dtype=np.int64)]),
        value=np.concatenate([threshold, value]),
        missing_left=np.concatenate(
            [np.where(missing == _NONE, threshold >= 0, (decision & 2) != 0), np.zeros(leaves, dtype=np.bool_)]
        ),
        roots=np.zeros(1, dtype=np.int64),
        targets=np.array([target], dtype=np.int64),
    )


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
