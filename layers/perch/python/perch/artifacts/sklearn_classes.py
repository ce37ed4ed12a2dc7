"""The allow-list of scikit-learn's estimators: those whose prediction cannot leave the arrays that it is given.

Listed are estimators that predict by NumPy's own checked operations, and decision trees and their forests, which follow
child numbers without looking: `SklearnTree` looks instead, at every node. Not listed: what hands arrays to native code
that trusts them (support vector machines with kernels, neighbours, boosting), what builds sparse matrices (encoders),
and what calls functions.

An estimator here is a `Made`: the name of its class and its attributes. What is checked of those is what a prediction
would otherwise take at its word: sizes that memory is allocated for, and trees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from .errors import ArtifactRefused
from .signature import Signature, Tensor
from .trees import MAX_FEATURES, Trees, grow

MAX_CLASSES = 10_000
MAX_STEPS = 50

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

_LISTED = {
    "classifier with probabilities": """
        sklearn.discriminant_analysis.LinearDiscriminantAnalysis
        sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis
        sklearn.ensemble._forest.ExtraTreesClassifier
        sklearn.ensemble._forest.RandomForestClassifier
        sklearn.linear_model._logistic.LogisticRegression
        sklearn.linear_model._logistic.LogisticRegressionCV
        sklearn.naive_bayes.BernoulliNB
        sklearn.naive_bayes.ComplementNB
        sklearn.naive_bayes.GaussianNB
        sklearn.naive_bayes.MultinomialNB
        sklearn.neural_network._multilayer_perceptron.MLPClassifier
        sklearn.tree._classes.DecisionTreeClassifier
        sklearn.tree._classes.ExtraTreeClassifier
    """,
    "classifier": """
        sklearn.linear_model._perceptron.Perceptron
        sklearn.linear_model._ridge.RidgeClassifier
        sklearn.linear_model._stochastic_gradient.SGDClassifier
        sklearn.svm._classes.LinearSVC
    """,
    "regressor": """
        sklearn.ensemble._forest.ExtraTreesRegressor
        sklearn.ensemble._forest.RandomForestRegressor
        sklearn.linear_model._base.LinearRegression
        sklearn.linear_model._bayes.BayesianRidge
        sklearn.linear_model._coordinate_descent.ElasticNet
        sklearn.linear_model._coordinate_descent.ElasticNetCV
        sklearn.linear_model._coordinate_descent.Lasso
        sklearn.linear_model._coordinate_descent.LassoCV
        sklearn.linear_model._huber.HuberRegressor
        sklearn.linear_model._ridge.Ridge
        sklearn.linear_model._stochastic_gradient.SGDRegressor
        sklearn.neural_network._multilayer_perceptron.MLPRegressor
        sklearn.svm._classes.LinearSVR
        sklearn.tree._classes.DecisionTreeRegressor
        sklearn.tree._classes.ExtraTreeRegressor
    """,
    "transformer": """
        sklearn.decomposition._pca.PCA
        sklearn.preprocessing._data.MaxAbsScaler
        sklearn.preprocessing._data.MinMaxScaler
        sklearn.preprocessing._data.Normalizer
        sklearn.preprocessing._data.RobustScaler
        sklearn.preprocessing._data.StandardScaler
    """,
    "part": "sklearn.preprocessing._label.LabelBinarizer",
    "pipeline": "sklearn.pipeline.Pipeline",
}

CLASSES: Mapping[str, str] = {name: role for role, names in _LISTED.items() for name in names.split()}
"""What each allowed class is: a classifier, with probabilities or without, a regressor, a transformer, …"""

_TEMPLATES = frozenset({"estimator", "estimator_"})
"""What the trees of a forest were cloned from: never fitted, and never asked."""

_TREES = ("sklearn.tree._classes.", "sklearn.ensemble._forest.")


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
        if type(features) is not int or not _counts(outputs, 1) or type(state["max_depth"]) is not int:
            raise ArtifactRefused(f"{where} is a tree of several outputs, which is not served")
        if not _is(classes, np.int64, (1,)) or not 1 <= classes[0] <= MAX_CLASSES:
            raise ArtifactRefused(f"{where} has a tree of no number of classes")
        count = len(nodes) if _is(nodes, NODES, None) and nodes.ndim == 1 else 0
        if (
            not count
            or not _counts(state["node_count"], count)
            or not _is(values, np.float64, (count, 1, int(classes[0])))
        ):
            raise ArtifactRefused(f"{where} has a tree whose nodes and values differ in number or type")
        return cls(features=features, classes=classes, depth=state["max_depth"], nodes=nodes, values=values)

    def check(self, features: int) -> None:
        """Prove that no row of so many features leaves the tree. Raises `ArtifactRefused`."""
        if self.features != features:
            raise ArtifactRefused(f"a tree was made for {self.features} features; its estimator takes {features}")
        nodes = self.nodes
        part = Trees(
            left=nodes["left_child"],
            right=nodes["right_child"],
            feature=nodes["feature"],
            value=nodes["threshold"],
            missing_left=nodes["missing_go_to_left"] != 0,
            roots=np.zeros(1, dtype=np.int64),
            targets=np.zeros(1, dtype=np.int64),
        )
        grow([part], features)
        if not np.isfinite(self.values).all():
            raise ArtifactRefused("a tree has a leaf that is not finite")


@dataclass(frozen=True, kw_only=True)
class Made:
    """An estimator to be made: its class, one of `CLASSES`, and its attributes as plain values."""

    name: str
    attributes: Mapping[str, Any]

    @property
    def role(self) -> str:
        """What it is."""
        return CLASSES[self.name]

    @property
    def short(self) -> str:
        """The class without its module."""
        return self.name.rpartition(".")[2]

    @property
    def steps(self) -> list[Made]:
        """The estimators of a pipeline, one after the other; itself, if it is none."""
        if self.role != "pipeline":
            return [self]
        return [step[1] for step in self.attributes["steps"]]


def check(model: Made) -> None:
    """Make sure that a model can be made and asked. Raises `ArtifactRefused`."""
    if model.role == "pipeline":
        _check_pipeline(model)
    elif model.role in ("transformer", "part"):
        raise ArtifactRefused(f"a {model.short} predicts nothing; save the pipeline that it is part of")
    for one in _estimators(model, nested=False):
        _check_estimator(one)
    last = model.steps[-1]
    if "classifier" in last.role and last.attributes["classes_"].dtype.kind == "f":
        raise ArtifactRefused(f"the classes of the {last.short} are fractions; train with whole numbers or texts")


def signature_of(model: Made) -> tuple[Signature, dict[str, Any]]:
    """Return the signature of a checked model, and facts for people."""
    steps = model.steps
    last, features = steps[-1], steps[0].attributes["n_features_in_"]
    inputs = (Tensor(name="features", datatype="FP64", shape=(-1, features)),)
    outputs = [Tensor(name="value", datatype="FP64", shape=(-1, -1))]
    names = steps[0].attributes.get("feature_names_in_")
    details: dict[str, Any] = {
        "estimator": " → ".join(step.short for step in steps),
        "trained_with": f"scikit-learn {str(last.attributes.get('_sklearn_version'))[:20]}",
        **({"feature_names": [str(name) for name in names]} if _is_list(names) else {}),
    }
    if last.role != "regressor":
        classes = last.attributes["classes_"]
        label = "INT64" if classes.dtype.kind in "iub" else "BYTES"
        outputs = [Tensor(name="label", datatype=label, shape=(-1,))]
        details["classes"] = [str(one) for one in classes[:20]]
        if gives_probabilities(last):
            outputs.append(Tensor(name="probabilities", datatype="FP64", shape=(-1, len(classes))))
    return Signature(inputs=inputs, outputs=tuple(outputs)), details


def gives_probabilities(model: Made) -> bool:
    """Whether a classifier has `predict_proba`."""
    if model.short == "SGDClassifier":
        return str(model.attributes.get("loss")) in ("log_loss", "modified_huber")
    return model.role == "classifier with probabilities"


def _check_pipeline(model: Made) -> None:
    steps = model.attributes.get("steps")
    if not isinstance(steps, list) or not 1 <= len(steps) <= MAX_STEPS:
        raise ArtifactRefused(f"the pipeline has no steps, or more than {MAX_STEPS}")
    for step in steps:
        if (
            not isinstance(step, tuple)
            or len(step) != 2
            or not isinstance(step[0], str)
            or not isinstance(step[1], Made)
        ):
            raise ArtifactRefused("a step of the pipeline is no name with an estimator")
        if step[1].role in ("pipeline", "part"):
            raise ArtifactRefused(f"a {step[1].short} inside of a pipeline is not served")
    *before, last = model.steps
    if any(step.role != "transformer" for step in before) or last.role == "transformer":
        raise ArtifactRefused("a pipeline is transformers and one estimator behind them; this one is not")


def _estimators(value: Any, *, nested: bool) -> Iterator[Made]:
    """Every estimator in a model."""
    if isinstance(value, Made):
        if value.role == "pipeline" and nested:
            raise ArtifactRefused("a pipeline inside of an estimator is not served")
        yield value
        value = {name: one for name, one in value.attributes.items() if name not in _TEMPLATES}
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype.kind == "O"):
        for one in value:
            yield from _estimators(one, nested=True)


def _check_estimator(model: Made) -> None:
    for name in model.attributes:
        if not re.fullmatch(r"(?!__)[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            raise ArtifactRefused(f"a {model.short} has an attribute called {name[:60]!r}")
    if model.role in ("pipeline", "part"):
        return
    features = model.attributes.get("n_features_in_")
    if type(features) is not int or not 1 <= features <= MAX_FEATURES:
        raise ArtifactRefused(
            f"the {model.short} is not fitted, or takes no number of features from 1 to {MAX_FEATURES}"
        )
    if "classifier" in model.role:
        _check_classes(model)
    if model.name.startswith(_TREES) and not _counts(model.attributes.get("n_outputs_"), 1):
        raise ArtifactRefused(f"the {model.short} has several outputs, which is not served")
    _check_trees(model, features)


def _check_classes(model: Made) -> None:
    classes = model.attributes.get("classes_")
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or not 1 <= len(classes) <= MAX_CLASSES:
        raise ArtifactRefused(f"the {model.short} has no list of 1 to {MAX_CLASSES} classes")
    if classes.dtype.kind == "O" and not all(isinstance(one, str) for one in classes):
        raise ArtifactRefused(f"the classes of the {model.short} are neither numbers nor texts")
    if not _counts(model.attributes.get("n_classes_", len(classes)), len(classes)):
        raise ArtifactRefused(f"the {model.short} counts its classes differently in two places")


def _check_trees(model: Made, features: int) -> None:
    """A tree is only where an estimator of trees keeps it, and fits to it."""
    own = model.attributes.get("tree_")
    for name, value in model.attributes.items():
        if isinstance(value, SklearnTree) and (name != "tree_" or not model.name.startswith(_TREES[0])):
            raise ArtifactRefused(f"a {model.short} has a tree as its {name[:60]}")
    if model.name.startswith(_TREES[0]):
        if not isinstance(own, SklearnTree):
            raise ArtifactRefused(f"a {model.short} has no tree")
        own.check(features)
        width = len(model.attributes["classes_"]) if "classifier" in model.role else 1
        if own.classes[0] != width:
            raise ArtifactRefused(f"a tree has values for {own.classes[0]} classes; its estimator has {width}")
    elif model.name.startswith(_TREES[1]):
        _check_forest(model, features)


def _check_forest(model: Made, features: int) -> None:
    trees = model.attributes.get("estimators_")
    if not isinstance(trees, list) or not trees:
        raise ArtifactRefused(f"the {model.short} has no trees")
    for tree in trees:
        if not isinstance(tree, Made) or not tree.name.startswith(_TREES[0]):
            raise ArtifactRefused(f"the {model.short} has something else than trees")
        if not _counts(tree.attributes.get("n_features_in_"), features) or ("classifier" in tree.role) != (
            "classifier" in model.role
        ):
            raise ArtifactRefused(f"the {model.short} has a tree that does not fit to it")


def _counts(value: Any, number: int) -> bool:
    """Whether a value is just this whole number, whatever else may stand there (an array compares with many)."""
    return isinstance(value, int | np.integer) and int(value) == number


def _is_list(value: Any) -> TypeGuard[NDArray[Any]]:
    return isinstance(value, np.ndarray) and value.ndim == 1


def _is(value: Any, dtype: Any, shape: tuple[int, ...] | None) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype and shape in (None, value.shape)
