"""Make sure that an estimator can be made and asked: what a prediction would take at its word is looked at.

    every estimator   names of attributes, number of features, classes, and what follows of its place in the model
    `_CHECKS`         one row a class whose prediction trusts its arrays, allocates what they say, or calls by name:
                      `sklearn_ensembles`, `sklearn_transformers`, `sklearn_trees`, `sklearn_native`

NumPy looks at shapes itself and raises; a class without a row here needs no more than that. SciPy's sparse matrices and
scikit-learn's compiled code do not look, so whatever becomes an index of theirs is compared with what it leads into.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .errors import ArtifactRefused
from .sklearn_ensembles import (
    check_bagging,
    check_boosting_by_weight,
    check_calibrated,
    check_calibrated_one,
    check_interpolation,
    check_pipeline,
    check_selected,
    check_several_outputs,
    check_side_by_side,
    check_stacking,
    check_voting,
)
from .sklearn_made import Made, check_classes, counts, estimators, is_array, says
from .sklearn_native import check_kernel, check_neighbours
from .sklearn_transformers import (
    check_encoder,
    check_function,
    check_nearest_imputer,
    check_polynomial,
    check_target_encoder,
    check_words,
)
from .sklearn_trees import LONE, SklearnTree, check_binned, check_boosted, check_forest, check_lone
from .trees import MAX_FEATURES


def check(model: Made) -> None:
    """Make sure that a model can be made and asked. Raises `ArtifactRefused`."""
    if model.role in ("transformer", "vectorizer", "part"):
        raise ArtifactRefused(f"{model.with_article} predicts nothing; save the pipeline that it is part of")
    for one in reversed([*estimators(model)]):  # what is inside comes first, so that whoever has it may look at it
        _check_estimator(one)
    last = model.last
    if last.role in ("transformer", "vectorizer", "part"):
        raise ArtifactRefused("a pipeline is transformers and one estimator behind them; this one is not")
    if "classifier" in last.role and last.classes.dtype.kind == "f":
        raise ArtifactRefused(f"the classes of the {last.short} are fractions; train with whole numbers or texts")


def _check_estimator(model: Made) -> None:
    for name, value in model.attributes.items():
        if not re.fullmatch(r"(?!__)[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            raise ArtifactRefused(f"{model.with_article} has an attribute called {name[:60]!r}")
        if isinstance(value, SklearnTree) and (name != "tree_" or not model.name.startswith(LONE)):
            raise ArtifactRefused(f"{model.with_article} has a tree as its {name[:60]}")
    own = _CHECKS.get(model.short, _nothing_more)
    if model.role in ("pipeline", "part", "vectorizer"):
        own(model, 0)
    elif model.short in _ASKING:
        own(model, 0)
        _check_fitted(model)
    else:
        if model.attributes.get("n_features_in_") is None:
            raise _unfit(model)
        own(model, _check_fitted(model))


def _nothing_more(model: Made, features: int) -> None:
    """What predicts by NumPy alone."""


def _check_fitted(model: Made) -> int:
    """Return how many features an estimator takes."""
    features = model.features
    if features is None or not 1 <= features <= MAX_FEATURES:
        raise _unfit(model)
    if "classifier" in model.role:
        check_classes(model)
    return features


def _unfit(model: Made) -> ArtifactRefused:
    return ArtifactRefused(f"the {model.short} is not fitted, or takes no number of features from 1 to {MAX_FEATURES}")


def _dummy(model: Made, _: int) -> None:
    said = model.attributes
    if not counts(said.get("n_outputs_"), 1):
        raise ArtifactRefused(f"the {model.short} has several outputs, which is not served")
    if "classifier" not in model.role:
        if not isinstance(said.get("constant_"), np.ndarray) or said["constant_"].size != 1:
            raise ArtifactRefused(f"the {model.short} has no number to answer")
    elif not says(said.get("_strategy"), "prior", "most_frequent", "uniform") or not is_array(
        said.get("class_prior_"), np.float64, (len(model.classes),)
    ):
        raise ArtifactRefused(f"the {model.short} answers in a way that is not served")


_Check = Callable[[Made, int], None]
_ASKING = frozenset({"VotingClassifier", "VotingRegressor", "StackingClassifier", "StackingRegressor", "FeatureUnion",
                     "MultiOutputRegressor", "CalibratedClassifierCV", "SelectFromModel"})  # fmt: skip
"""What may leave it to the estimators inside how many features there are, so that those are looked at first."""

_LISTED: Sequence[tuple[str, _Check]] = (
    ("AdaBoostClassifier AdaBoostRegressor", check_boosting_by_weight),
    ("BaggingClassifier BaggingRegressor", check_bagging),
    ("CalibratedClassifierCV", check_calibrated),
    ("_CalibratedClassifier", check_calibrated_one),
    ("ColumnTransformer FeatureUnion", check_side_by_side),
    ("CountVectorizer TfidfVectorizer", check_words),
    ("DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor", check_lone),
    ("DummyClassifier DummyRegressor", _dummy),
    ("ExtraTreesClassifier ExtraTreesRegressor RandomForestClassifier RandomForestRegressor", check_forest),
    ("FunctionTransformer", check_function),
    ("GradientBoostingClassifier GradientBoostingRegressor", check_boosted),
    ("HistGradientBoostingClassifier HistGradientBoostingRegressor", check_binned),
    ("IsotonicRegression", check_interpolation),
    ("KNNImputer", check_nearest_imputer),
    ("KNeighborsClassifier KNeighborsRegressor", check_neighbours),
    ("MultiOutputRegressor", check_several_outputs),
    ("NuSVC NuSVR SVC SVR", check_kernel),
    ("OneHotEncoder OrdinalEncoder", check_encoder),
    ("Pipeline", check_pipeline),
    ("PolynomialFeatures", check_polynomial),
    ("SelectFromModel", check_selected),
    ("StackingClassifier StackingRegressor", check_stacking),
    ("TargetEncoder", check_target_encoder),
    ("VotingClassifier VotingRegressor", check_voting),
)

_CHECKS: Mapping[str, _Check] = {name: one for names, one in _LISTED for name in names.split()}
"""By the short name of a class, what is looked at beside what every estimator has."""
