"""XGBoost models as XGBoost saves them, JSON or UBJSON, read in Python and made a `Forest`.

    {"learner": {"objective": {"name"}, "learner_model_param": {…}, "attributes": {…},
                 "gradient_booster": {"name": "gbtree" | "dart", "model": {"trees": […], "tree_info": […]}}}}

Objectives are an allow-list, since each is a meaning of the numbers: a sigmoid of two classes, a softmax, a power or
the numbers themselves. If training stopped early (`best_iteration`), the trees up to there answer, as XGBoost's
scikit-learn classes do; a plain `Booster.predict` would ask all of them. Dropped trees' weights (DART) are multiplied
into the leaves.

Left out, and refused in words: gblinear, categorical splits, trees with several values a leaf, XGBoost's old binary
format and pickles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .data import Data
from .errors import ArtifactRefused
from .inspected import Inspected
from .trees import MAX_BYTES, MAX_TARGETS, Forest, Trees, grow
from .ubjson import read_ubjson

MAX_NUMBERS = 12_000_000
"""What bounds the memory that they take when they are read (up to 32 bytes each); in JSON a comma counts as one."""

OBJECTIVES: Mapping[str, tuple[str, bool]] = {
    "binary:logistic": ("sigmoid", True),
    "multi:softprob": ("softmax", True),
    "multi:softmax": ("softmax", True),
    "reg:logistic": ("sigmoid", False),
    "reg:squarederror": ("identity", False),
    "reg:squaredlogerror": ("identity", False),
    "reg:absoluteerror": ("identity", False),
    "reg:pseudohubererror": ("identity", False),
    "reg:quantileerror": ("identity", False),
    "rank:pairwise": ("identity", False),
    "rank:ndcg": ("identity", False),
    "rank:map": ("identity", False),
    "count:poisson": ("exp", False),
    "reg:gamma": ("exp", False),
    "reg:tweedie": ("exp", False),
}
"""Of each objective: what turns its sums into an answer, and whether that is probabilities of classes."""

_FIELDS = ("left_children", "right_children", "split_indices", "split_conditions", "default_left")


class _Param(msgspec.Struct):
    num_feature: str
    num_class: str = "0"
    num_target: str = "1"
    base_score: str = "5E-1"


class _Objective(msgspec.Struct):
    name: str


class _TreeParam(msgspec.Struct):
    size_leaf_vector: str = "1"


class _Tree(msgspec.Struct):
    tree_param: _TreeParam
    left_children: list[int]
    right_children: list[int]
    split_indices: list[int]
    split_conditions: list[float]
    default_left: list[int | bool]
    split_type: list[int] = []
    categories: list[int] = []


class _BoosterParam(msgspec.Struct):
    num_parallel_tree: str = "1"


class _Model(msgspec.Struct):
    gbtree_model_param: _BoosterParam
    trees: list[_Tree]
    tree_info: list[int]


class _Nested(msgspec.Struct):
    model: _Model


class _Booster(msgspec.Struct):
    name: str
    model: _Model | None = None
    gbtree: _Nested | None = None
    weight_drop: list[float] = []


class _Learner(msgspec.Struct):
    learner_model_param: _Param
    objective: _Objective
    gradient_booster: _Booster
    attributes: dict[str, str] = {}
    feature_names: list[str] = []


class _Document(msgspec.Struct):
    learner: _Learner
    version: list[int] = []


def inspect_xgboost(data: Data) -> Inspected:
    """Read what an XGBoost file is. Raises `ArtifactRefused`."""
    document = _document(data)
    forest, used = _forest(document.learner)
    learner = document.learner
    return Inspected(
        format="xgboost",
        runtimes=("onnx",),
        signature=forest.signature,
        details={
            "producer": f"xgboost {'.'.join(map(str, document.version))}".strip(),
            "objective": learner.objective.name,
            "trees": len(forest.trees.roots),
            "nodes": len(forest.trees.left),
            **({"feature_names": learner.feature_names} if learner.feature_names else {}),
            **({} if used is None else {"best_iteration": used}),
        },
    )


def read_xgboost(data: Data) -> Forest:
    """Read an XGBoost file as a forest. Raises `ArtifactRefused`."""
    return _forest(_document(data).learner)[0]


def _document(data: Data) -> _Document:
    if len(data) > MAX_BYTES:
        raise ArtifactRefused(f"the file has {len(data):,} bytes; XGBoost files of up to {MAX_BYTES:,} are served")
    if data[:1] != b"{":
        raise ArtifactRefused(
            "this is no XGBoost model in JSON or UBJSON; save it with Booster.save_model('model.ubj'), or .xgb.json"
        )
    is_json = bytes(data[1:2]) in b'" \t\r\n'
    try:
        if not is_json:
            value = read_ubjson(data)
            if (count := _kept(value)) > MAX_NUMBERS:
                raise ArtifactRefused(f"the model has {count:,} numbers; at most {MAX_NUMBERS:,} are served")
            return msgspec.convert(_plain(value), _Document)
        if _count(data, b",") > MAX_NUMBERS:
            raise ArtifactRefused(f"the JSON has more than {MAX_NUMBERS:,} numbers; save the model as UBJSON (*.ubj)")
        return msgspec.json.decode(data, type=_Document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactRefused(f"the file is not a readable XGBoost model: {str(error)[:200]}") from error


def _kept(value: Any) -> int:
    """How many numbers of arrays `_plain` would make objects of."""
    if isinstance(value, dict):
        return sum(_kept(one) for name, one in value.items() if name not in _UNUSED)
    return value.size if isinstance(value, np.ndarray) else sum(map(_kept, value)) if isinstance(value, list) else 0


def _plain(value: Any) -> Any:
    """UBJSON's arrays as lists, in the few places where the model has such."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items() if name not in _UNUSED}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, list) else value


_UNUSED = frozenset({"base_weights", "loss_changes", "parents", "sum_hessian"})


def _count(data: Data, wanted: bytes) -> int:
    view = memoryview(data)
    size = 2**20
    return sum(bytes(view[at : at + size]).count(wanted) for at in range(0, len(view), size))


def _forest(learner: _Learner) -> tuple[Forest, int | None]:
    """The forest, and the iteration at which it ends if training stopped early."""
    name = learner.objective.name
    if name not in OBJECTIVES:
        raise ArtifactRefused(f"the objective {name[:60]!r} is not served; served are {', '.join(OBJECTIVES)}")
    link, classes = OBJECTIVES[name]
    param = learner.learner_model_param
    features, count = _whole(param.num_feature), _whole(param.num_class)
    several = _whole(param.num_target)
    targets = max(count, several, 1)
    if targets > MAX_TARGETS or (classes and (several > 1 or (count > 1) != (link == "softmax"))):
        raise ArtifactRefused(f"{targets} outputs of objective {name!r} are not served")
    trees, info, weights = _trees(learner.gradient_booster)
    used = _best(learner, len(trees), targets)
    if used is not None:
        ends = (used + 1) * targets * _whole(_model(learner.gradient_booster).gbtree_model_param.num_parallel_tree)
        trees, info, weights = trees[:ends], info[:ends], weights[:ends]
    if any(not 0 <= target < targets for target in info):
        raise ArtifactRefused(f"a tree adds to an output outside of the model's {targets}")
    parts = [_part(*one, number) for number, one in enumerate(zip(trees, info, weights, strict=True))]
    forest = Forest(
        trees=grow(parts, features),
        features=features,
        inclusive=False,
        base=_base(param.base_score, link, targets),
        link=link,
        classes=classes,
    )
    return forest, used


def _model(booster: _Booster) -> _Model:
    if booster.name not in ("gbtree", "dart"):
        raise ArtifactRefused(f"the booster {booster.name[:60]!r} is not served; gbtree and dart are")
    nested = booster.gbtree.model if booster.gbtree is not None else None
    model = booster.model if booster.name == "gbtree" else nested
    if model is None:
        raise ArtifactRefused("the file is not a readable XGBoost model: it has no trees")
    return model


def _trees(booster: _Booster) -> tuple[Sequence[_Tree], Sequence[int], Sequence[float]]:
    """Trees, the output that each adds to, and its weight."""
    model = _model(booster)
    weights = booster.weight_drop if booster.name == "dart" else [1.0] * len(model.trees)
    if not len(model.trees) == len(model.tree_info) == len(weights):
        raise ArtifactRefused("the lists of trees, of their outputs and of their weights differ in length")
    return model.trees, model.tree_info, weights


def _best(learner: _Learner, trees: int, targets: int) -> int | None:
    said = learner.attributes.get("best_iteration")
    if said is None:
        return None
    parallel = _whole(_model(learner.gradient_booster).gbtree_model_param.num_parallel_tree)
    best = _whole(said)
    if not 1 <= parallel <= trees or (best + 1) * targets * parallel > trees:
        raise ArtifactRefused(f"best_iteration is {best}; the model has {trees} trees")
    return best


def _part(tree: _Tree, target: int, weight: float, number: int) -> Trees:
    if _whole(tree.tree_param.size_leaf_vector) > 1:
        raise ArtifactRefused("trees with several values a leaf are not served; train with one_output_per_tree")
    if tree.categories or any(tree.split_type):
        raise ArtifactRefused(
            f"tree {number} splits by categories, which is not served; encode them as numbers (one-hot) before training"
        )
    if not len(tree.default_left) == len(tree.split_conditions) == len(tree.left_children):
        raise ArtifactRefused(f"tree {number} has no nodes, or its lists of nodes differ in length")
    left, right, feature = (_wholes(getattr(tree, name)) for name in _FIELDS[:3])
    with np.errstate(over="ignore"):  # then it is infinite, and refused as such
        value = np.array(tree.split_conditions, dtype=np.float64).astype(np.float32)
    if weight != 1:
        value = np.where(left < 0, value * np.float32(weight), value)
    return Trees(
        left=left,
        right=right,
        feature=feature,
        value=value,
        missing_left=np.array(tree.default_left, dtype=np.bool_),
        roots=np.zeros(1, dtype=np.int64),
        targets=np.array([target], dtype=np.int64),
    )


def _wholes(numbers: Sequence[int]) -> NDArray[np.int64]:
    try:
        return np.array(numbers, dtype=np.int64)
    except OverflowError as error:
        raise ArtifactRefused("a node has a number of more than 64 bits") from error


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ArtifactRefused(f"{text[:40]!r} is where a whole number has to be")
    return int(text)


def _base(text: str, link: str, targets: int) -> NDArray[np.float32]:
    """What every sum begins with. The file has it as an answer, so the link is undone."""
    try:
        given = json.loads(text)  # a number, or since 3.1 a list of them
        base = np.array(given if isinstance(given, list) else [given], dtype=np.float32)
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactRefused(f"base_score is {text[:40]!r}, which is no number") from error
    if base.ndim != 1 or len(base) not in (1, targets) or not np.isfinite(base).all():
        raise ArtifactRefused(f"base_score is {text[:40]!r}; the model has {targets} outputs")
    with np.errstate(all="ignore"):
        if link == "sigmoid":
            base = -np.log(np.float32(1) / base - np.float32(1))
        elif link == "exp":
            base = np.log(base)
    if not np.isfinite(base).all():
        raise ArtifactRefused(f"base_score is {text[:40]!r}, which the objective cannot have")
    return np.broadcast_to(base, (targets,)).copy()
