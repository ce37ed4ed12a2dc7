"""XGBoost models as XGBoost saves them, JSON or UBJSON, read in Python (`xgboost_document`) and made a `Forest`.

Objectives are an allow-list, since each is a meaning of the numbers: a sigmoid of two classes, a softmax, a power or
the numbers themselves. If training stopped early (`best_iteration`), the trees up to there answer, as XGBoost's
scikit-learn classes do; a plain `Booster.predict` would ask all of them. Dropped trees' weights (DART) are multiplied
into the leaves. A tree of leaves with several values becomes one tree an output.

Categories that a node names go right, all others left; what is none (below 0) goes left, what is missing where the node
says (`xgboost_categories`).

A linear booster (gblinear) is weights and one tree that adds nothing.

Left out, and refused in words: leaves of several values as XGBoost wrote them before 3.2, XGBoost's old binary format
and pickles.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .columns import Columns
from .data import Data
from .errors import ArtifactRefused
from .inspected import Inspected
from .trees import MAX_NODES, MAX_TARGETS, Forest, Trees, check_features, grow
from .xgboost_categories import names_of, pairs
from .xgboost_document import Booster, Learner, Model, Tree, read_document


class Objective(NamedTuple):
    """What turns its sums into an answer, what `base_score` is undone by, whether it gives probabilities of classes."""

    link: str
    base: str = "identity"
    classes: bool = False


OBJECTIVES: Mapping[str, Objective] = {
    "binary:logistic": Objective("sigmoid", "sigmoid", classes=True),
    "binary:logitraw": Objective("identity"),
    "binary:hinge": Objective("step"),
    "multi:softprob": Objective("softmax", classes=True),
    "multi:softmax": Objective("softmax", classes=True),
    "reg:logistic": Objective("sigmoid", "sigmoid"),
    "reg:squarederror": Objective("identity"),
    "reg:squaredlogerror": Objective("identity"),
    "reg:absoluteerror": Objective("identity"),
    "reg:pseudohubererror": Objective("identity"),
    "reg:quantileerror": Objective("identity"),
    "rank:pairwise": Objective("identity"),
    "rank:ndcg": Objective("identity"),
    "rank:map": Objective("identity"),
    "count:poisson": Objective("exp", "exp"),
    "reg:gamma": Objective("exp", "exp"),
    "reg:tweedie": Objective("exp", "exp"),
    "survival:cox": Objective("exp", "exp"),
    "survival:aft": Objective("exp", "exp"),
}
"""All objectives of XGBoost 3.2 to 3.4. One of the user's own is saved as that of which it took the place."""


def inspect_xgboost(data: Data) -> Inspected:
    """Read what an XGBoost file is. Raises `ArtifactRefused`."""
    document = read_document(data)
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
    return _forest(read_document(data).learner)[0]


def _forest(learner: Learner) -> tuple[Forest, int | None]:
    """The forest, and the iteration at which it ends if training stopped early."""
    name = learner.objective.name
    if name not in OBJECTIVES:
        raise ArtifactRefused(f"the objective {name[:60]!r} is not served; served are {', '.join(OBJECTIVES)}")
    objective = OBJECTIVES[name]
    param = learner.learner_model_param
    features, count = _whole(param.num_feature), _whole(param.num_class)
    check_features(features)
    several = _whole(param.num_target)
    targets = max(count, several, 1)
    if targets > MAX_TARGETS or (count > 1) != (objective.link == "softmax") or (count > 1 and several > 1):
        raise ArtifactRefused(f"{targets} outputs of objective {name!r} are not served")
    linear = _weights(learner.gradient_booster, features, targets)
    trees, info, weights = _trees(learner.gradient_booster)
    used = _best(learner, trees, targets)
    if used is not None:
        ends = (used + 1) * _each(learner, trees, targets)
        trees, info, weights = trees[:ends], info[:ends], weights[:ends]
    if any(not 0 <= target < targets for target in info):
        raise ArtifactRefused(f"a tree adds to an output outside of the model's {targets}")
    parts = [
        part
        for number, one in enumerate(zip(trees, info, weights, strict=True))
        for part in _parts(*one, number, targets)
    ]
    base = _base(param.base_score, objective.base, targets)
    if linear is not None:
        # XGBoost begins every output of a linear model with the first of its scores.
        parts, base = [_NOTHING], base[0] + linear[-1]
    forest = Forest(
        trees=grow(parts, features),
        columns=Columns(
            count=features,
            dtype=np.dtype(np.float32),
            names=tuple(learner.feature_names),
            categories=names_of(_model(learner.gradient_booster).cats),
            known_only=True,
        ),
        inclusive=False,
        base=base,
        link=objective.link,
        classes=objective.classes and several < 2,  # several yes-or-no answers are no classes
        weights=None if linear is None else linear[:-1],
    )
    return forest, used


def _model(booster: Booster) -> Model:
    if booster.name not in ("gbtree", "dart", "gblinear"):
        raise ArtifactRefused(f"the booster {booster.name[:60]!r} is not served; gbtree, dart and gblinear are")
    nested = booster.gbtree.model if booster.gbtree is not None else None
    model = nested if booster.name == "dart" else booster.model
    if model is None:
        raise ArtifactRefused("the file is not a readable XGBoost model: it has no trees")
    return model


def _weights(booster: Booster, features: int, targets: int) -> NDArray[np.float32] | None:
    """What each feature weighs for each output, and at last what is added without any; None where there are trees."""
    if booster.name != "gblinear":
        return None
    found = _floats(_model(booster).weights)
    if len(found) != (features + 1) * targets or not np.isfinite(found).all():
        raise ArtifactRefused(f"{features} features and {targets} outputs have {len(found)} finite or infinite weights")
    return found.reshape(features + 1, targets)


_NOTHING = Trees(
    left=np.array([-1]),
    right=np.array([-1]),
    feature=np.array([0]),
    value=np.zeros(1, dtype=np.float32),
    missing_left=np.array([False]),
    roots=np.array([0]),
    targets=np.array([0]),
)
"""A tree that adds nothing, for a model without any."""


def _trees(booster: Booster) -> tuple[Sequence[Tree], Sequence[int], Sequence[float]]:
    """Trees, the output that each adds to, and its weight."""
    model = _model(booster)
    # Dropout was a booster of its own until XGBoost 3.4, where any may do it.
    weights = booster.weight_drop if booster.name == "dart" else model.weight_drop or [1.0] * len(model.trees)
    if not len(model.trees) == len(model.tree_info) == len(weights):
        raise ArtifactRefused("the lists of trees, of their outputs and of their weights differ in length")
    return model.trees, model.tree_info, weights


def _best(learner: Learner, trees: Sequence[Tree], targets: int) -> int | None:
    said = learner.attributes.get("best_iteration")
    if said is None or learner.gradient_booster.name == "gblinear":  # which keeps one set of weights
        return None
    best, each = _whole(said), _each(learner, trees, targets)
    if each < 1 or (best + 1) * each > len(trees):
        raise ArtifactRefused(f"best_iteration is {best}; the model has {len(trees)} trees")
    return best


def _each(learner: Learner, trees: Sequence[Tree], targets: int) -> int:
    """How many trees an iteration adds."""
    parallel = _whole(_model(learner.gradient_booster).gbtree_model_param.num_parallel_tree)
    return parallel * (1 if any(_several(tree) for tree in trees) else targets)


def _several(tree: Tree) -> int:
    """How many values a leaf has, if not one."""
    size = _whole(tree.tree_param.size_leaf_vector)
    return size if size > 1 else 0


def _parts(tree: Tree, target: int, weight: float, number: int, targets: int) -> Iterator[Trees]:
    """A tree, or one for each output if its leaves have a value for each."""
    if not len(tree.default_left) == len(tree.split_conditions) == len(tree.left_children) == len(tree.right_children):
        raise ArtifactRefused(f"tree {number} has no nodes, or its lists of nodes differ in length")
    left, right, feature = map(_wholes, (tree.left_children, tree.right_children, tree.split_indices))
    members = pairs(tree.categories, tree.categories_nodes, tree.categories_segments, tree.categories_sizes, number)
    if tree.split_type and not np.array_equal(np.flatnonzero(tree.split_type), np.unique(members[:, 0])):
        raise ArtifactRefused(f"tree {number} has lists of categories that do not fit together")
    value, leaf = _floats(tree.split_conditions), left < 0
    if np.isinf(value[~leaf]).any():
        raise ArtifactRefused(f"a threshold in tree {number} is inf")
    leaves = {target: value[leaf]}
    if size := _several(tree):
        vectors = _vectors(tree, size, right[leaf], number)
        leaves, right = dict(enumerate(vectors.T)), np.where(leaf, -1, right)
        if size != targets or len(left) * size > MAX_NODES:
            raise ArtifactRefused(f"tree {number} has {size} values a leaf; the model has {targets} outputs")
    missing_left = np.array(tree.default_left, dtype=np.bool_)
    chosen = np.zeros(len(left), dtype=np.bool_)
    chosen[members[(members[:, 0] >= 0) & (members[:, 0] < len(left)), 0]] = True  # others are refused by `grow`
    for output, values in leaves.items():
        told = value.copy()
        told[leaf] = values * np.float32(weight) if weight != 1 else values
        yield Trees(
            left=np.where(chosen, right, left),
            right=np.where(chosen, left, right),
            feature=feature,
            value=told,
            missing_left=missing_left ^ chosen,
            roots=np.zeros(1, dtype=np.int64),
            targets=np.array([output], dtype=np.int64),
            members=members,
        )


def _vectors(tree: Tree, size: int, rows: NDArray[np.int64], number: int) -> NDArray[np.float32]:
    """The values of each leaf; which row of them it has, stands in the place of its right child."""
    weights = _floats(tree.leaf_weights)
    if not len(weights):
        raise ArtifactRefused(
            f"tree {number} has several values a leaf, and not where XGBoost 3.2 writes them; load the model there and "
            "save it again, or train with multi_strategy='one_output_per_tree'"
        )
    if len(weights) != len(rows) * size or (rows < 0).any() or (rows >= len(rows)).any():
        raise ArtifactRefused(f"tree {number} has {len(weights)} values for {len(rows)} leaves of {size}")
    found: NDArray[np.float32] = weights.reshape(-1, size)[rows]
    return found


def _floats(numbers: Sequence[float]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # then it is infinite, and refused as such
        return np.array(numbers, dtype=np.float64).astype(np.float32)


def _wholes(numbers: Sequence[int]) -> NDArray[np.int64]:
    try:
        return np.array(numbers, dtype=np.int64)
    except OverflowError as error:
        raise ArtifactRefused("a node has a number of more than 64 bits") from error


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ArtifactRefused(f"{text[:40]!r} is where a whole number has to be")
    return int(text)


def _base(text: str, undone: str, targets: int) -> NDArray[np.float32]:
    """What every sum begins with. The file has it as an answer, so what makes that of a sum is undone."""
    try:
        given = json.loads(text)  # a number, or since 3.1 a list of them
        base = np.array(given if isinstance(given, list) else [given], dtype=np.float32)
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactRefused(f"base_score is {text[:40]!r}, which is no number") from error
    if base.ndim != 1 or len(base) not in (1, targets) or not np.isfinite(base).all():
        raise ArtifactRefused(f"base_score is {text[:40]!r}; the model has {targets} outputs")
    with np.errstate(all="ignore"):
        if undone == "sigmoid":
            base = -np.log(np.float32(1) / base - np.float32(1))
        elif undone == "exp":
            base = np.log(base)
    if not np.isfinite(base).all():
        raise ArtifactRefused(f"base_score is {text[:40]!r}, which the objective cannot have")
    return np.broadcast_to(base, (targets,)).copy()
