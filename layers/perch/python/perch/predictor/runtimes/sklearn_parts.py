"""What is made anew of an estimator's checked attributes, because its own form in the file is not read.

Search trees, losses, bins and interpolations are native state or code; all of them follow from what was read. So does
what tells how wide an answer is, which is computed rather than believed.
"""

# ruff: noqa: SLF001 - private attributes of scikit-learn's are what this is about

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

NAMED: Mapping[str, frozenset[str]] = {"ColumnTransformer": frozenset({"feature_names_in_"})}
"""Names that are kept although rows come without: for the export, which calls its inputs by them."""


def _loss(estimator: Any) -> None:
    estimator._loss = estimator._get_loss(sample_weight=None)


def _base_loss(estimator: Any) -> None:
    estimator._base_loss = estimator._get_loss()


def _binned(estimator: Any) -> None:
    from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper  # noqa: PLC0415 - here only if needed

    _loss(estimator)
    width = estimator.n_features_in_
    estimator._preprocessor = None
    estimator._bin_mapper = _BinMapper()
    estimator._bin_mapper.is_categorical_ = np.zeros(width, dtype=np.uint8)
    estimator._bin_mapper.bin_thresholds_ = [None] * width


def _kernel(estimator: Any) -> None:
    """LIBSVM's bindings take no arrays that cannot be written to."""
    for name in ("support_", "support_vectors_", "_n_support", "_dual_coef_", "_intercept_", "_probA", "_probB"):
        estimator.__dict__[name] = np.array(estimator.__dict__[name], order="C")
    estimator._effective_probability = estimator.probability is True
    estimator.intercept_, estimator.dual_coef_ = estimator._intercept_, estimator._dual_coef_
    if len(getattr(estimator, "classes_", ())) == 2:  # scikit-learn shows those of two classes the other way round
        estimator.intercept_, estimator.dual_coef_ = -estimator._intercept_, -estimator._dual_coef_


def _neighbours(estimator: Any) -> None:
    estimator._tree = None
    estimator._fit_X = np.array(estimator._fit_X, order="C")
    if estimator._fit_method != "brute":
        kind = {"kd_tree": "KDTree", "ball_tree": "BallTree"}[estimator._fit_method]
        metric = {"metric": estimator.effective_metric_, **estimator.effective_metric_params_}
        estimator._tree = getattr(import_module("sklearn.neighbors"), kind)(
            estimator._fit_X, estimator.leaf_size, **{key: one for key, one in metric.items() if one is not None}
        )


def _one_hot(estimator: Any) -> None:
    estimator._n_features_outs = estimator._compute_n_features_outs()


def _ordinal(estimator: Any) -> None:
    """Which code of each column is that of NaN."""
    last = [(place, known, known[-1]) for place, known in enumerate(estimator.categories_)]
    estimator._missing_indices = {
        place: len(known) - 1 for place, known, one in last if isinstance(one, float) and np.isnan(one)
    }


def _polynomial(estimator: Any) -> None:
    degree = estimator.degree
    least, most = degree if isinstance(degree, tuple) else (0, degree)
    estimator._min_degree, estimator._max_degree = least, most
    said = {"n_features": estimator.n_features_in_, "max_degree": most, "include_bias": estimator.include_bias}
    said["interaction_only"] = estimator.interaction_only
    estimator.n_output_features_ = estimator._num_combinations(min_degree=least, **said)
    estimator._n_out_full = estimator._num_combinations(min_degree=0, **said)


def _interpolation(estimator: Any) -> None:
    estimator._build_f(estimator.X_thresholds_, estimator.y_thresholds_)


def _grown_from(estimator: Any) -> None:
    """Asked what it takes, an ensemble asks the estimator that its own were cloned from."""
    estimator.estimator = estimator.estimators_[0]


def _not_sparse(estimator: Any) -> None:
    estimator.sparse_output_ = False


def _selected_by(estimator: Any) -> None:
    estimator.estimator = estimator.estimator_


def _named(estimator: Any) -> None:
    estimator.estimators = [(str(place), one) for place, one in enumerate(estimator.estimators_)]


def _columns(estimator: Any) -> None:
    estimator.transformers = [
        (name, "drop" if one is None else one, chosen) for name, one, chosen in estimator.transformers_
    ]
    estimator.transformers_ = [one for one in estimator.transformers if one[1] != "drop"]


FINISHED: Mapping[str, Callable[[Any], None]] = {
    "AdaBoostClassifier": _grown_from,
    "AdaBoostRegressor": _grown_from,
    "BaggingClassifier": _grown_from,
    "BaggingRegressor": _grown_from,
    "ColumnTransformer": _columns,
    "DummyClassifier": _not_sparse,
    "ExtraTreesClassifier": _grown_from,
    "ExtraTreesRegressor": _grown_from,
    "GammaRegressor": _base_loss,
    "GradientBoostingClassifier": _loss,
    "GradientBoostingRegressor": _loss,
    "HistGradientBoostingClassifier": _binned,
    "HistGradientBoostingRegressor": _binned,
    "IsotonicRegression": _interpolation,
    "KNeighborsClassifier": _neighbours,
    "KNeighborsRegressor": _neighbours,
    "MultiOutputRegressor": _grown_from,
    "NuSVC": _kernel,
    "NuSVR": _kernel,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "PoissonRegressor": _base_loss,
    "PolynomialFeatures": _polynomial,
    "RandomForestClassifier": _grown_from,
    "RandomForestRegressor": _grown_from,
    "SVC": _kernel,
    "SVR": _kernel,
    "SelectFromModel": _selected_by,
    "StackingClassifier": _named,
    "StackingRegressor": _named,
    "TweedieRegressor": _base_loss,
    "VotingClassifier": _named,
    "VotingRegressor": _named,
}
"""By the short name of a class, what is done once its attributes are set."""
