"""Make sure that an estimator can be made and asked: what a prediction would take at its word is looked at.

    every estimator   names of attributes, number of features, classes, and what follows of its place in the model
    `_CHECKS`         one row a class whose prediction trusts its arrays, allocates what they say, or calls by name

NumPy looks at shapes itself and raises; a class without a row here needs no more than that. SciPy's sparse matrices and
scikit-learn's compiled code do not look, so whatever becomes an index of theirs is compared with what it leads into.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import ArtifactRefused
from .sklearn_made import Made, counts, estimators, finite, is_array, is_list, parts_of, says
from .sklearn_trees import (
    LONE,
    MAX_CLASSES,
    SklearnTree,
    check_binned,
    check_boosted,
    check_forest,
    check_lone,
)
from .trees import MAX_FEATURES

MAX_STEPS, MAX_NEIGHBOURS, MAX_DEGREE, MAX_WORDS = 50, 1_000_000, 10, 10
"""Of a pipeline; of points; of a polynomial; in an n-gram."""

_TOKENS = (r"(?u)\b\w\w+\b", r"(?u)\b\w+\b", r"\b\w+\b", r"\b\w\w+\b", r"\w+", r"\w{1,}", r"\w{2,}", r"\S+")
"""Patterns of words that take time in proportion to the text; another might take for ever."""

_KERNELS = ("linear", "poly", "rbf", "sigmoid")
_METRICS = ("euclidean", "manhattan", "chebyshev", "minkowski", "cosine", "l1", "l2", "cityblock")
_UNKNOWN = ("error", "ignore", "infrequent_if_exist", "warn", "use_encoded_value")


def check(model: Made) -> None:
    """Make sure that a model can be made and asked. Raises `ArtifactRefused`."""
    if model.role in ("transformer", "vectorizer", "part"):
        raise ArtifactRefused(f"a {model.short} predicts nothing; save the pipeline that it is part of")
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
            raise ArtifactRefused(f"a {model.short} has an attribute called {name[:60]!r}")
        if isinstance(value, SklearnTree) and (name != "tree_" or not model.name.startswith(LONE)):
            raise ArtifactRefused(f"a {model.short} has a tree as its {name[:60]}")
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
        _check_classes(model)
    return features


def _unfit(model: Made) -> ArtifactRefused:
    return ArtifactRefused(f"the {model.short} is not fitted, or takes no number of features from 1 to {MAX_FEATURES}")


def _check_classes(model: Made) -> None:
    classes = model.attributes.get("classes_")
    if not is_list(classes) or not 1 <= len(classes) <= MAX_CLASSES:
        raise ArtifactRefused(f"the {model.short} has no list of 1 to {MAX_CLASSES} classes")
    if classes.dtype.kind == "O" and not all(isinstance(one, str) for one in classes):
        raise ArtifactRefused(f"the classes of the {model.short} are neither numbers nor texts")
    if not counts(model.attributes.get("n_classes_", len(classes)), len(classes)):
        raise ArtifactRefused(f"the {model.short} counts its classes differently in two places")


# -- what estimators are put together from --------------------------------------------------------------------------


def _pipeline(model: Made, _: int) -> None:
    steps = model.attributes.get("steps")
    if not isinstance(steps, list) or not 1 <= len(steps) <= MAX_STEPS:
        raise ArtifactRefused(f"the pipeline has no steps, or more than {MAX_STEPS}")
    for step in steps:
        if not isinstance(step, tuple) or len(step) != 2 or not isinstance(step[0], str):
            raise ArtifactRefused("a step of the pipeline is no name with an estimator")
        if not isinstance(step[1], Made) and not says(step[1], None, "passthrough"):
            raise ArtifactRefused("a step of the pipeline is no name with an estimator")
        if isinstance(step[1], Made) and step[1].role == "part":
            raise ArtifactRefused(f"a {step[1].short} inside of a pipeline is not served")
    if not isinstance(steps[-1][1], Made):
        raise ArtifactRefused("a pipeline is transformers and one estimator behind them; this one is not")
    if any(not _transforms(step) for step in model.steps[:-1]):
        raise ArtifactRefused("a pipeline is transformers and one estimator behind them; this one is not")


def _transforms(model: Made) -> bool:
    """Whether it gives a matrix for the next."""
    if model.role == "pipeline":
        steps = model.attributes.get("steps")
        return isinstance(steps, list) and bool(steps) and isinstance(steps[-1][1], Made) and _transforms(steps[-1][1])
    return model.role in ("transformer", "vectorizer")


def _side_by_side(model: Made, _: int) -> None:
    parts = parts_of(model)
    if len(parts) > MAX_STEPS * 20:
        raise ArtifactRefused(f"the {model.short} has more than {MAX_STEPS * 20} parts")
    for part in parts:
        if part.estimator is not None and not _transforms(part.estimator):
            raise ArtifactRefused(f"part {part.name[:60]!r} of the {model.short} is no transformer")
    weights = model.attributes.get("transformer_weights")
    if weights is not None and not (isinstance(weights, dict) and all(map(finite, weights.values()))):
        raise ArtifactRefused(f"the {model.short} has weights that are no numbers")


def _members(model: Made, role: str) -> list[Made]:
    """The estimators of an ensemble, all of one role."""
    found = model.attributes.get("estimators_")
    if isinstance(found, np.ndarray):
        found = found.tolist()
    members = [one for one in found if not says(one, "drop")] if isinstance(found, list) else []
    if not members or any(not isinstance(one, Made) for one in members):
        raise ArtifactRefused(f"the {model.short} has no estimators")
    for one in members:
        if _transforms(one) or one.role == "part" or (one.role != "pipeline" and role not in one.role):
            raise ArtifactRefused(f"the {model.short} has a {one.short} inside, which does not fit to it")
        if one.role == "pipeline":
            _pipeline(one, 0)
            if role not in one.last.role:
                raise ArtifactRefused(f"the {model.short} has a {one.last.short} inside, which does not fit to it")
    return members


def _weights(model: Made, members: Sequence[Made]) -> None:
    weights = model.attributes.get("weights")
    if isinstance(weights, np.ndarray):
        weights = weights.tolist()
    if weights is not None and not (
        isinstance(weights, list) and len(weights) == len(members) and all(map(finite, weights))
    ):
        raise ArtifactRefused(f"the {model.short} has other weights than one number for each estimator that it kept")


def _voting(model: Made, _: int) -> None:
    role = "classifier" if "classifier" in model.role else "regressor"
    members = _members(model, role)
    _weights(model, members)
    if role == "regressor":
        return
    if not says(model.attributes.get("voting"), "hard", "soft"):
        raise ArtifactRefused(f"the {model.short} votes neither hard nor soft")
    _check_classes(model)
    for one in members:
        classes = one.last.attributes.get("classes_")
        if (
            not is_list(classes)
            or classes.dtype.kind not in "iub"
            or not ((classes >= 0) & (classes < len(model.classes))).all()
        ):
            raise ArtifactRefused(f"the {model.short} has a {one.short} whose classes are not its own")


def _stacking(model: Made, _: int) -> None:
    members = _members(model, "classifier" if "classifier" in model.role else "regressor")
    methods = model.attributes.get("stack_method_")
    if (
        not isinstance(methods, list)
        or len(methods) != len(members)
        or any(not says(one, "predict", "predict_proba", "decision_function") for one in methods)
    ):
        raise ArtifactRefused(f"the {model.short} asks its estimators for something that is no prediction")
    final = model.attributes.get("final_estimator_")
    if not isinstance(final, Made) or model.role.partition(" ")[0] not in final.role:
        raise ArtifactRefused(f"the {model.short} has no estimator behind the others that fits to it")


def _bagging(model: Made, features: int) -> None:
    members = _members(model, "classifier" if "classifier" in model.role else "regressor")
    chosen = model.attributes.get("estimators_features_")
    if not isinstance(chosen, list) or len(chosen) != len(members):
        raise ArtifactRefused(f"the {model.short} does not say which features each estimator takes")
    if not counts(model.attributes.get("n_estimators"), len(members)):
        raise ArtifactRefused(f"the {model.short} counts its estimators differently in two places")
    for one in chosen:
        if not is_list(one) or one.dtype.kind not in "iu" or not ((one >= 0) & (one < features)).all():
            raise ArtifactRefused(f"the {model.short} takes a feature that no row has")


def _boosting_by_weight(model: Made, _: int) -> None:
    members = _members(model, "classifier" if "classifier" in model.role else "regressor")
    weights = model.attributes.get("estimator_weights_")
    if not is_list(weights) or weights.dtype.kind != "f" or len(weights) < len(members):
        raise ArtifactRefused(f"the {model.short} has other weights than one for each estimator")


def _each(model: Made, _: int) -> None:
    _members(model, "regressor")


def _calibrated(model: Made, _: int) -> None:
    found = model.attributes.get("calibrated_classifiers_")
    if not isinstance(found, list) or not found:
        raise ArtifactRefused(f"the {model.short} has no classifiers")
    for one in found:
        if not isinstance(one, Made) or one.short != "_CalibratedClassifier":
            raise ArtifactRefused(f"the {model.short} has something else than calibrated classifiers")


def _calibrated_one(model: Made, _: int) -> None:
    inner, calibrators = model.attributes.get("estimator"), model.attributes.get("calibrators")
    if not isinstance(inner, Made) or _transforms(inner) or inner.role == "part":
        raise ArtifactRefused("a calibrated classifier has no classifier inside")
    if inner.role == "pipeline":
        _pipeline(inner, 0)
    if "classifier" not in inner.last.role:
        raise ArtifactRefused("a calibrated classifier has no classifier inside")
    if not says(model.attributes.get("method"), "sigmoid", "isotonic") or not isinstance(calibrators, list):
        raise ArtifactRefused("a classifier is calibrated in a way that is not served; sigmoid and isotonic are")
    if any(not isinstance(one, Made) or one.role != "part" for one in calibrators):
        raise ArtifactRefused("a classifier is calibrated by something that is not served")


def _selected(model: Made, _: int) -> None:
    if not isinstance(model.attributes.get("estimator_"), Made):
        raise ArtifactRefused(f"the {model.short} has no estimator")
    if not says(model.attributes.get("importance_getter", "auto"), "auto"):
        raise ArtifactRefused(f"the {model.short} asks for an attribute by name, which is not served")


# -- what encodes ---------------------------------------------------------------------------------------------------


def _encoder(model: Made, features: int) -> None:
    categories = model.attributes.get("categories_")
    if not isinstance(categories, list) or len(categories) != features:
        raise ArtifactRefused(f"the {model.short} has no list of categories for each of its {features} columns")
    for one in categories:
        _check_categories(model, one)
    if sum(map(len, categories)) > MAX_FEATURES:
        raise ArtifactRefused(f"the {model.short} has more than {MAX_FEATURES:,} categories")
    if not says(model.attributes.get("handle_unknown", "error"), *_UNKNOWN):
        raise ArtifactRefused(f"the {model.short} does what nobody knows with a category that it does not know")
    _check_type(model)
    grouped = _check_infrequent(model, [len(one) for one in categories])
    dropped = model.attributes.get("_drop_idx_after_grouping")
    if dropped is None:
        return
    if not is_list(dropped) or len(dropped) != features:
        raise ArtifactRefused(f"the {model.short} drops other than one category a column")
    for place, size in zip(dropped.tolist(), grouped, strict=True):
        if place is not None and not (type(place) is int and 0 <= place < size):
            raise ArtifactRefused(f"the {model.short} drops a category that is none")


def _target_encoder(model: Made, features: int) -> None:
    """Its answer is memory that nothing has written to, until each encoding fills a column."""
    _encoder(model, features)
    found, classes = model.attributes.get("encodings_"), model.attributes.get("classes_")
    several = says(model.attributes.get("target_type_"), "multiclass")
    if several and not (is_list(classes) and 1 <= len(classes) <= MAX_CLASSES):
        raise ArtifactRefused(f"the {model.short} has no list of 1 to {MAX_CLASSES} classes")
    wanted = features * (len(classes) if several and classes is not None else 1)
    if not isinstance(found, list) or len(found) != wanted or not all(map(is_list, found)):
        raise ArtifactRefused(f"the {model.short} has other than {wanted} lists of numbers for its categories")


def _check_categories(model: Made, known: Any) -> None:
    """Of numbers native code trusts that they ascend; of anything else Python makes a dict."""
    if not is_list(known) or not len(known) or known.dtype.kind not in "OUifub":
        raise ArtifactRefused(f"the {model.short} has categories that are no list of numbers or texts")
    if known.dtype.kind == "O":
        said = [one for one in known if one is not None and one == one]  # noqa: PLR0124 - NaN is a gap
        if not (all(isinstance(one, str) for one in said) or all(isinstance(one, int | float) for one in said)):
            raise ArtifactRefused(f"the {model.short} has categories of a column that are neither numbers nor texts")
    elif known.dtype.kind != "U":
        numbers = known[:-1] if known.dtype.kind == "f" and np.isnan(known[-1]) else known
        if not np.isfinite(numbers).all() or not (numbers[1:] > numbers[:-1]).all():
            raise ArtifactRefused(f"the {model.short} has numbers as categories that do not ascend")


def _check_infrequent(model: Made, sizes: Sequence[int]) -> list[int]:
    """How many categories are left of each column when rare ones are one."""
    enabled = model.attributes.get("_infrequent_enabled", False)
    if enabled is False:
        return list(sizes)
    rare, maps = model.attributes.get("_infrequent_indices"), model.attributes.get("_default_to_infrequent_mappings")
    if enabled is not True or not isinstance(rare, list) or not isinstance(maps, list):
        raise ArtifactRefused(f"the {model.short} does not say which categories are rare")
    if not len(rare) == len(maps) == len(sizes):
        raise ArtifactRefused(f"the {model.short} does not say of each column which categories are rare")
    found = []
    for size, few, mapping in zip(sizes, rare, maps, strict=True):
        if few is None and mapping is None:
            found.append(size)
            continue
        if not is_list(few) or few.dtype.kind != "i" or not 1 <= len(few) <= size:
            raise ArtifactRefused(f"the {model.short} has rare categories that are none")
        left = size - len(few) + 1
        if not ((few >= 0) & (few < size)).all() or not (few[1:] > few[:-1]).all():
            raise ArtifactRefused(f"the {model.short} has rare categories that are none")
        if not is_array(mapping, np.int64, (size,)) or not ((mapping >= 0) & (mapping < left)).all():
            raise ArtifactRefused(f"the {model.short} makes categories of rare ones that are none")
        found.append(left)
    return found


def _words(model: Made, _: int) -> None:
    _check_tokens(model)
    said = model.attributes
    grams, stop, known = said.get("ngram_range"), said.get("stop_words"), said.get("vocabulary_")
    sizes = grams if isinstance(grams, tuple) and len(grams) == 2 else (0,)
    if not all(type(one) is int and 1 <= one <= MAX_WORDS for one in sizes):
        raise ArtifactRefused(f"the {model.short} puts together other than 1 to {MAX_WORDS} words")
    if not (says(stop, None, "english") or (isinstance(stop, list) and all(isinstance(one, str) for one in stop))):
        raise ArtifactRefused(f"the {model.short} leaves out words that are no list of texts")
    if not isinstance(known, dict) or not 1 <= len(known) <= MAX_FEATURES:
        raise ArtifactRefused(f"the {model.short} is not fitted, or knows more than {MAX_FEATURES:,} words")
    places = list(known.values())
    if any(not isinstance(one, int | np.integer) for one in places) or sorted(map(int, places)) != [*range(len(known))]:
        raise ArtifactRefused(f"the {model.short} has words whose numbers are not 0, 1, 2, …, each once")
    weigher = said.get("_tfidf")
    if model.short == "TfidfVectorizer" and not (isinstance(weigher, Made) and weigher.short == "TfidfTransformer"):
        raise ArtifactRefused(f"the {model.short} has nothing to weigh words by")


def _check_tokens(model: Made) -> None:
    """How it takes a text apart: in one of a few ways, and by no function of its own."""
    said = model.attributes
    if not says(said.get("input", "content"), "content"):
        raise ArtifactRefused(f"the {model.short} reads files, which is not served")
    if said.get("tokenizer") is not None or said.get("preprocessor") is not None:
        raise ArtifactRefused(f"the {model.short} calls a function of its own, which is not served")
    taken = says(said.get("analyzer"), "word", "char", "char_wb")
    if not taken or not says(said.get("strip_accents"), None, "ascii", "unicode"):
        raise ArtifactRefused(f"the {model.short} takes texts apart in a way that is not served")
    if said.get("analyzer") == "word" and not says(said.get("token_pattern"), *_TOKENS):
        raise ArtifactRefused(
            f"the {model.short} finds words by the pattern {str(said.get('token_pattern'))[:60]!r}; served are "
            + ", ".join(_TOKENS)
        )
    _check_type(model)


def _check_type(model: Made) -> None:
    """SciPy's sparse matrices hold numbers."""
    kind = model.attributes.get("dtype", np.dtype(np.float64))
    if not isinstance(kind, np.dtype) or kind.kind not in "fiub" or kind.itemsize > 8 or kind == np.float16:
        raise ArtifactRefused(f"the {model.short} makes something else than numbers")


def _function(model: Made, _: int) -> None:
    if model.attributes.get("func") is not None or model.attributes.get("inverse_func") is not None:
        raise ArtifactRefused("a FunctionTransformer that calls a function is not served")


def _polynomial(model: Made, features: int) -> None:
    degree = model.attributes.get("degree")
    ends: tuple[Any, ...] = degree if isinstance(degree, tuple) and len(degree) == 2 else (0, degree)
    if not all(type(one) is int and 0 <= one <= MAX_DEGREE for one in ends):
        raise ArtifactRefused(f"the {model.short} has a degree that is none from 0 to {MAX_DEGREE}")
    if math.comb(features + ends[1], ends[1]) > MAX_FEATURES:
        raise ArtifactRefused(f"the {model.short} makes more than {MAX_FEATURES:,} features")


def _nearest_imputer(model: Made, _: int) -> None:
    if not says(model.attributes.get("metric"), "nan_euclidean") or not says(
        model.attributes.get("weights"), "uniform", "distance"
    ):
        raise ArtifactRefused(f"the {model.short} measures by a function of its own, which is not served")


def _interpolation(model: Made, _: int) -> None:
    x, y = model.attributes.get("X_thresholds_"), model.attributes.get("y_thresholds_")
    if not is_list(x) or not is_list(y) or not len(x) == len(y) >= 1 or x.dtype.kind != "f" or y.dtype.kind != "f":
        raise ArtifactRefused("a calibration has no points to interpolate between")
    if not says(model.attributes.get("out_of_bounds"), "clip", "nan", "raise"):
        raise ArtifactRefused("a calibration does what nobody knows outside of its points")


# -- what native code is given --------------------------------------------------------------------------------------


def _kernel(model: Made, features: int) -> None:
    """LIBSVM reads as many vectors, coefficients and intercepts as these numbers tell it."""
    said = model.attributes
    classes = len(model.classes) if "classifier" in model.role else 2
    vectors, per_class = said.get("support_vectors_"), said.get("_n_support")
    if not says(said.get("kernel"), *_KERNELS) or said.get("_sparse") is not False:
        raise ArtifactRefused(
            f"the {model.short} has a kernel of its own or was trained on sparse rows, which is not served"
        )
    if classes < 2 or not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or not len(vectors):
        raise ArtifactRefused(f"the {model.short} has no support vectors")
    count, pairs = len(vectors), classes * (classes - 1) // 2
    if not is_array(per_class, np.int32, (classes if "classifier" in model.role else 2,)) or (
        (per_class < 0).any() or (int(per_class.sum(dtype=np.int64)) != count and "classifier" in model.role)
    ):
        raise ArtifactRefused(f"the {model.short} counts its support vectors differently in two places")
    wanted: list[tuple[str, Any, tuple[int, ...]]] = [
        ("support_vectors_", np.float64, (count, features)),
        ("support_", np.int32, (count,)),
        ("_dual_coef_", np.float64, (classes - 1, count)),
        ("_intercept_", np.float64, (pairs,)),
    ]
    for name, dtype, shape in wanted:
        if not is_array(said.get(name), dtype, shape):
            raise ArtifactRefused(
                f"the {model.short} has {name} of another type or shape than {dtype.__name__} {shape}"
            )
    sizes = {len(one) if is_array(one, np.float64, None) and one.ndim == 1 else -1 for one in _sigmoids(model)}
    if len(sizes) != 1 or not sizes <= ({0, pairs} if "classifier" in model.role else {0}):
        raise ArtifactRefused(f"the {model.short} has other probabilities than one for each pair of classes")
    if "classifier" in model.role and (said.get("probability") is True) != (sizes == {pairs}):
        raise ArtifactRefused(f"the {model.short} does not say whether it gives probabilities")
    degree = said.get("degree")
    if not all(finite(said.get(name)) for name in ("_gamma", "coef0", "cache_size")):
        raise ArtifactRefused(f"the {model.short} has a parameter that is no number")
    if type(degree) is not int or not 0 <= degree <= 1_000:
        raise ArtifactRefused(f"the {model.short} has a degree that is none")


def _sigmoids(model: Made) -> tuple[Any, Any]:
    return model.attributes.get("_probA"), model.attributes.get("_probB")


def _neighbours(model: Made, features: int) -> None:
    """The search trees are built anew, of these points; native code counts labels in an array of so many classes."""
    said = model.attributes
    points, labels, nearest = said.get("_fit_X"), said.get("_y"), said.get("n_neighbors")
    if not isinstance(points, np.ndarray) or points.ndim != 2 or points.dtype.kind not in "fiu":
        raise ArtifactRefused(f"the {model.short} has no matrix of numbers as its points")
    count = len(points)
    if points.shape[1] != features or not 1 <= count <= MAX_NEIGHBOURS or not np.isfinite(points).all():
        raise ArtifactRefused(f"the {model.short} has points of other than {features} finite numbers")
    if not counts(said.get("n_samples_fit_"), count) or type(nearest) is not int or not 1 <= nearest <= count:
        raise ArtifactRefused(f"the {model.short} asks for more neighbours than there are points")
    if not isinstance(labels, np.ndarray) or len(labels) != count or labels.dtype.kind not in "fiu":
        raise ArtifactRefused(f"the {model.short} has other labels than one for each point")
    if "classifier" in model.role and (
        not is_array(labels, np.int64, (count,))
        or not ((labels >= 0) & (labels < len(model.classes))).all()
        or said.get("outputs_2d_") is not False
    ):
        raise ArtifactRefused(f"the {model.short} has a label that is none of its classes")
    _check_metric(model)


def _check_metric(model: Made) -> None:
    said = model.attributes
    if not says(said.get("metric"), *_METRICS) or not says(said.get("effective_metric_"), *_METRICS):
        raise ArtifactRefused(f"the {model.short} measures by {str(said.get('metric'))[:60]!r}, which is not served")
    power = said.get("effective_metric_params_")
    if said.get("metric_params") is not None or not isinstance(power, dict) or power.keys() - {"p", "w"}:
        raise ArtifactRefused(f"the {model.short} measures with parameters that are not served")
    least = 1 if said["effective_metric_"] == "minkowski" else 0
    if power.get("w") is not None or not finite(power.get("p", 2)) or power.get("p", 2) < least:
        raise ArtifactRefused(f"the {model.short} measures with parameters that are not served")
    method, leaf = said.get("_fit_method"), said.get("leaf_size")
    if not says(method, "brute", "kd_tree", "ball_tree") or not says(said.get("weights"), "uniform", "distance"):
        raise ArtifactRefused(f"the {model.short} searches or weighs in a way that is not served")
    if (said["effective_metric_"] == "cosine" and method != "brute") or type(leaf) is not int or leaf < 1:
        raise ArtifactRefused(f"the {model.short} searches or weighs in a way that is not served")


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
    ("AdaBoostClassifier AdaBoostRegressor", _boosting_by_weight),
    ("BaggingClassifier BaggingRegressor", _bagging),
    ("CalibratedClassifierCV", _calibrated),
    ("_CalibratedClassifier", _calibrated_one),
    ("ColumnTransformer FeatureUnion", _side_by_side),
    ("CountVectorizer TfidfVectorizer", _words),
    ("DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor", check_lone),
    ("DummyClassifier DummyRegressor", _dummy),
    ("ExtraTreesClassifier ExtraTreesRegressor RandomForestClassifier RandomForestRegressor", check_forest),
    ("FunctionTransformer", _function),
    ("GradientBoostingClassifier GradientBoostingRegressor", check_boosted),
    ("HistGradientBoostingClassifier HistGradientBoostingRegressor", check_binned),
    ("IsotonicRegression", _interpolation),
    ("KNNImputer", _nearest_imputer),
    ("KNeighborsClassifier KNeighborsRegressor", _neighbours),
    ("MultiOutputRegressor", _each),
    ("NuSVC NuSVR SVC SVR", _kernel),
    ("OneHotEncoder OrdinalEncoder", _encoder),
    ("Pipeline", _pipeline),
    ("PolynomialFeatures", _polynomial),
    ("SelectFromModel", _selected),
    ("StackingClassifier StackingRegressor", _stacking),
    ("TargetEncoder", _target_encoder),
    ("VotingClassifier VotingRegressor", _voting),
)

_CHECKS: Mapping[str, _Check] = {name: one for names, one in _LISTED for name in names.split()}
"""By the short name of a class, what is looked at beside what every estimator has."""
