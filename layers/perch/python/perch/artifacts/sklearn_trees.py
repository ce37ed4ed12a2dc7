"""scikit-learn's trees: every node is checked, because the code that follows them looks at nothing.

    DecisionTree*, ExtraTree*  ─► RandomForest*, ExtraTrees*   records of `NODES`, in a `SklearnTree`
                               └► GradientBoosting*            a matrix of them: one row a stage, one column a class
    HistGradientBoosting*                                      records of `BINNED_NODES`, in a `TreePredictor`

`trees.grow` proves that nodes are trees and that they ask for features that exist. What is added here is that owners
fit: as many columns of trees as the answer has, as many values a leaf as there are classes. A split that only asks
whether a value is missing has the threshold infinity.

Left out, and refused in words: trees of several outputs, HistGradientBoosting with categories of its own (encode them
before it), GradientBoosting that begins with an estimator of the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArtifactRefused
from .sklearn_made import MAX_CLASSES, Made, counts, finite, is_array, says
from .trees import Trees, grow

NODES = np.dtype(
    {
        "names": [
            "left_child",
            "right_child",
            "feature",
            "threshold",
            "impurity",
            "n_node_samples",
            "weighted_n_node_samples",
            "missing_go_to_left",
        ],
        "formats": ["<i8", "<i8", "<i8", "<f8", "<f8", "<i8", "<f8", "u1"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)
"""A node of a tree as scikit-learn 1.3 and later lay it out."""

BINNED_NODES = np.dtype(
    [
        ("value", "<f8"),
        ("count", "<u4"),
        ("feature_idx", "<i8"),
        ("num_threshold", "<f8"),
        ("missing_go_to_left", "u1"),
        ("left", "<u4"),
        ("right", "<u4"),
        ("gain", "<f8"),
        ("depth", "<u4"),
        ("is_leaf", "u1"),
        ("bin_threshold", "u1"),
        ("is_categorical", "u1"),
        ("bitset_idx", "<u4"),
    ]
)
"""A node of HistGradientBoosting's, packed, as scikit-learn 1.2 and later lay it out."""

RECORDS = (NODES, BINNED_NODES)
LONE = "sklearn.tree._classes."

_LOSSES = {
    "GradientBoostingClassifier": ("log_loss", "exponential"),
    "GradientBoostingRegressor": ("squared_error", "absolute_error", "huber", "quantile"),
    "HistGradientBoostingClassifier": ("log_loss",),
    "HistGradientBoostingRegressor": ("squared_error", "absolute_error", "gamma", "poisson", "quantile"),
}


@dataclass(frozen=True, kw_only=True)
class SklearnTree:
    """What a `sklearn.tree._tree.Tree` is made of, for one output; every node is checked when its owner is."""

    features: int
    classes: NDArray[np.int64]
    depth: int
    nodes: NDArray[Any]
    values: NDArray[np.float64]

    @classmethod
    def read(cls, made: tuple[Any, ...], state: Mapping[str, Any], where: str) -> SklearnTree:
        """Take the arguments and the state that the tree was saved with. Raises `ArtifactRefused`."""
        if len(made) != 3 or state.keys() != {"max_depth", "node_count", "nodes", "values"}:
            raise ArtifactRefused(f"{where} is no tree as scikit-learn 1.3 and later save it")
        features, classes, outputs = made
        nodes, values = state["nodes"], state["values"]
        if type(features) is not int or not counts(outputs, 1) or type(state["max_depth"]) is not int:
            raise ArtifactRefused(f"{where} is a tree of several outputs, which is not served")
        if not is_array(classes, np.int64, (1,)) or not 1 <= classes[0] <= MAX_CLASSES:
            raise ArtifactRefused(f"{where} has a tree of no number of classes")
        count = len(nodes) if is_array(nodes, NODES, None) and nodes.ndim == 1 else 0
        if (
            not count
            or not counts(state["node_count"], count)
            or not is_array(values, np.float64, (count, 1, int(classes[0])))
        ):
            raise ArtifactRefused(f"{where} has a tree whose nodes and values differ in number or type")
        return cls(features=features, classes=classes, depth=state["max_depth"], nodes=nodes, values=values)

    def check(self, features: int) -> None:
        """Prove that no row of so many features leaves the tree. Raises `ArtifactRefused`."""
        if self.features != features:
            raise ArtifactRefused(f"a tree was made for {self.features} features; its estimator takes {features}")
        nodes = self.nodes
        _prove(
            left=nodes["left_child"],
            right=nodes["right_child"],
            feature=nodes["feature"],
            threshold=nodes["threshold"],
            features=features,
        )
        if not np.isfinite(self.values).all():
            raise ArtifactRefused("a tree has a leaf that is not finite")


def check_lone(model: Made, features: int) -> None:
    """A decision tree has one that fits to it. Raises `ArtifactRefused`."""
    _one_output(model)
    own = model.attributes.get("tree_")
    if not isinstance(own, SklearnTree):
        raise ArtifactRefused(f"{model.with_article} has no tree")
    own.check(features)
    width = len(model.classes) if "classifier" in model.role else 1
    if own.classes[0] != width:
        raise ArtifactRefused(f"a tree has values for {own.classes[0]} classes; its estimator has {width}")


def check_forest(model: Made, features: int) -> None:
    """A forest has trees of its own kind. Raises `ArtifactRefused`."""
    _one_output(model)
    trees = model.attributes.get("estimators_")
    if not isinstance(trees, list) or not trees:
        raise ArtifactRefused(f"the {model.short} has no trees")
    for tree in trees:
        if not isinstance(tree, Made) or not tree.name.startswith(LONE):
            raise ArtifactRefused(f"the {model.short} has something else than trees")
        if not counts(tree.attributes.get("n_features_in_"), features) or ("classifier" in tree.role) != (
            "classifier" in model.role
        ):
            raise ArtifactRefused(f"the {model.short} has a tree that does not fit to it")
        if "classifier" in model.role and len(tree.attributes.get("classes_", ())) != len(model.classes):
            raise ArtifactRefused(f"the {model.short} has a tree of other classes than its own")


def check_boosted(model: Made, features: int) -> None:
    """Gradient boosting has a matrix of regression trees, one column a class. Raises `ArtifactRefused`."""
    columns = _columns(model)
    trees = model.attributes.get("estimators_")
    if not isinstance(trees, np.ndarray) or trees.dtype.kind != "O" or trees.ndim != 2 or not len(trees):
        raise ArtifactRefused(f"the {model.short} has no matrix of trees")
    if trees.shape[1] != columns:
        raise ArtifactRefused(f"the {model.short} has {trees.shape[1]} trees a stage; its classes need {columns}")
    for tree in trees.flat:
        if not isinstance(tree, Made) or tree.short != "DecisionTreeRegressor":
            raise ArtifactRefused(f"the {model.short} has something else than regression trees")
        if not counts(tree.attributes.get("n_features_in_"), features):
            raise ArtifactRefused(f"the {model.short} has a tree that does not fit to it")
    if not finite(model.attributes.get("learning_rate")):
        raise ArtifactRefused(f"the {model.short} has no learning rate")
    first = model.attributes.get("init_")
    if isinstance(first, str) and first == "zero":
        return
    if not isinstance(first, Made) or not first.short.startswith("Dummy"):
        raise ArtifactRefused(f"the {model.short} begins with an estimator of its own, which is not served")
    if ("classifier" in first.role) != ("classifier" in model.role) or (
        "classifier" in first.role and len(first.classes) != len(model.classes)
    ):
        raise ArtifactRefused(f"the {model.short} begins with something that does not fit to it")


def check_binned(model: Made, features: int) -> None:
    """HistGradientBoosting has lists of trees, one a class, over features without categories."""
    columns = _columns(model)
    if model.attributes.get("is_categorical_") is not None:
        raise ArtifactRefused(
            f"the {model.short} has categories of its own, which are not served; encode them before it (OrdinalEncoder)"
        )
    stages = model.attributes.get("_predictors")
    if not isinstance(stages, list) or not stages:
        raise ArtifactRefused(f"the {model.short} has no trees")
    if not is_array(model.attributes.get("_baseline_prediction"), np.float64, (1, columns)):
        raise ArtifactRefused(f"the {model.short} begins with other than {columns} numbers")
    for stage in stages:
        if not isinstance(stage, list) or len(stage) != columns:
            raise ArtifactRefused(f"the {model.short} has a stage of other than {columns} trees")
        for tree in stage:
            _check_predictor(tree, features)


def _check_predictor(tree: Any, features: int) -> None:
    nodes = tree.attributes.get("nodes") if isinstance(tree, Made) and tree.short == "TreePredictor" else None
    if not is_array(nodes, BINNED_NODES, None) or nodes.ndim != 1 or not len(nodes):
        raise ArtifactRefused("a tree of HistGradientBoosting's has no nodes as scikit-learn 1.2 and later save them")
    if not is_array(tree.attributes.get("raw_left_cat_bitsets"), np.uint32, (0, 8)) or nodes["is_categorical"].any():
        raise ArtifactRefused("a tree of HistGradientBoosting's splits by categories, which is not served")
    leaf = nodes["is_leaf"] != 0
    if not np.isfinite(nodes["value"]).all():
        raise ArtifactRefused("a tree has a leaf that is not finite")
    _prove(
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        feature=nodes["feature_idx"],
        threshold=np.where(leaf, 0, nodes["num_threshold"]),
        features=features,
    )


def _prove(
    *, left: NDArray[Any], right: NDArray[Any], feature: NDArray[Any], threshold: NDArray[Any], features: int
) -> None:
    part = Trees(
        left=left,
        right=right,
        feature=feature,
        value=np.where(np.isposinf(threshold), 0.0, threshold),  # is it missing?
        missing_left=np.zeros(len(left), dtype=np.bool_),  # either way is a child
        roots=np.zeros(1, dtype=np.int64),
        targets=np.zeros(1, dtype=np.int64),
    )
    grow([part], features)


def _one_output(model: Made) -> None:
    if not counts(model.attributes.get("n_outputs_"), 1):
        raise ArtifactRefused(f"the {model.short} has several outputs, which is not served")


def _columns(model: Made) -> int:
    """How many numbers a row's trees add up to: one a class, but one for two classes, and for a regressor."""
    loss = model.attributes.get("loss")
    if not says(loss, *_LOSSES[model.short]):
        raise ArtifactRefused(f"the {model.short} has the loss {str(loss)[:60]!r}, which is not served")
    classes = len(model.classes) if "classifier" in model.role else 1
    columns = 1 if classes <= 2 else classes
    if loss == "exponential" and classes != 2:
        raise ArtifactRefused(f"the {model.short} has the loss 'exponential' for {classes} classes; it is for 2")
    if not counts(model.attributes.get("n_trees_per_iteration_"), columns):
        raise ArtifactRefused(f"the {model.short} counts its trees differently in two places")
    return columns
