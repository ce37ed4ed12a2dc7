"""What estimators are put together from: pipelines, parts side by side, ensembles, calibration.

They call what is inside by its place, by names of methods and by numbers of columns, so each of these is looked at:
that whoever stands in a place can do what it is asked there, and that the lists are as long as one another.

Each function looks at one estimator, of so many features, and raises `ArtifactRefused`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import ArtifactRefused
from .sklearn_made import Made, check_classes, counts, finite, is_list, parts_of, says

MAX_STEPS, MAX_PARTS = 50, 1_000
"""Of a pipeline; of what stands side by side."""


def check_pipeline(model: Made, _: int) -> None:
    """Transformers, and behind them one estimator or transformer; at most `MAX_STEPS`."""
    steps = model.attributes.get("steps")
    if not isinstance(steps, list) or not 1 <= len(steps) <= MAX_STEPS:
        raise ArtifactRefused(f"the pipeline has no steps, or more than {MAX_STEPS}")
    for step in steps:
        if not isinstance(step, tuple) or len(step) != 2 or not isinstance(step[0], str):
            raise ArtifactRefused("a step of the pipeline is no name with an estimator")
        if not isinstance(step[1], Made) and not says(step[1], None, "passthrough"):
            raise ArtifactRefused("a step of the pipeline is no name with an estimator")
        if isinstance(step[1], Made) and step[1].role == "part":
            raise ArtifactRefused(f"{step[1].with_article} inside of a pipeline is not served")
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


def check_side_by_side(model: Made, _: int) -> None:
    """A ColumnTransformer or a FeatureUnion: parts that transform, with weights that are numbers."""
    parts = parts_of(model)
    if len(parts) > MAX_PARTS:
        raise ArtifactRefused(f"the {model.short} has more than {MAX_PARTS} parts")
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
            raise ArtifactRefused(f"the {model.short} has {one.with_article} inside, which does not fit to it")
        if one.role == "pipeline":
            check_pipeline(one, 0)
            if role not in one.last.role:
                raise ArtifactRefused(f"the {model.short} has {one.last.with_article} inside, which does not fit to it")
    return members


def _weights(model: Made, members: Sequence[Made]) -> None:
    weights = model.attributes.get("weights")
    if isinstance(weights, np.ndarray):
        weights = weights.tolist()
    if weights is not None and not (
        isinstance(weights, list) and len(weights) == len(members) and all(map(finite, weights))
    ):
        raise ArtifactRefused(f"the {model.short} has other weights than one number for each estimator that it kept")


def check_voting(model: Made, _: int) -> None:
    """Votes are counted in an array of so many classes, so a member may only name those."""
    role = "classifier" if "classifier" in model.role else "regressor"
    members = _members(model, role)
    _weights(model, members)
    if role == "regressor":
        return
    if not says(model.attributes.get("voting"), "hard", "soft"):
        raise ArtifactRefused(f"the {model.short} votes neither hard nor soft")
    check_classes(model)
    for one in members:
        classes = one.last.attributes.get("classes_")
        if (
            not is_list(classes)
            or classes.dtype.kind not in "iub"
            or not ((classes >= 0) & (classes < len(model.classes))).all()
        ):
            raise ArtifactRefused(f"the {model.short} has {one.with_article} whose classes are not its own")


def check_stacking(model: Made, _: int) -> None:
    """Methods of the estimators are called by the names that the file gives."""
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


def check_bagging(model: Made, features: int) -> None:
    """Each estimator takes columns by their numbers."""
    members = _members(model, "classifier" if "classifier" in model.role else "regressor")
    chosen = model.attributes.get("estimators_features_")
    if not isinstance(chosen, list) or len(chosen) != len(members):
        raise ArtifactRefused(f"the {model.short} does not say which features each estimator takes")
    if not counts(model.attributes.get("n_estimators"), len(members)):
        raise ArtifactRefused(f"the {model.short} counts its estimators differently in two places")
    for one in chosen:
        if not is_list(one) or one.dtype.kind not in "iu" or not ((one >= 0) & (one < features)).all():
            raise ArtifactRefused(f"the {model.short} takes a feature that no row has")


def check_boosting_by_weight(model: Made, _: int) -> None:
    """AdaBoost: a weight for each estimator."""
    members = _members(model, "classifier" if "classifier" in model.role else "regressor")
    weights = model.attributes.get("estimator_weights_")
    if not is_list(weights) or weights.dtype.kind != "f" or len(weights) < len(members):
        raise ArtifactRefused(f"the {model.short} has other weights than one for each estimator")


def check_several_outputs(model: Made, _: int) -> None:
    """One regressor for each output."""
    _members(model, "regressor")


def check_calibrated(model: Made, _: int) -> None:
    """Classifiers that are calibrated, each of which is looked at by itself."""
    found = model.attributes.get("calibrated_classifiers_")
    if not isinstance(found, list) or not found:
        raise ArtifactRefused(f"the {model.short} has no classifiers")
    for one in found:
        if not isinstance(one, Made) or one.short != "_CalibratedClassifier":
            raise ArtifactRefused(f"the {model.short} has something else than calibrated classifiers")


def check_calibrated_one(model: Made, _: int) -> None:
    """One classifier, and what makes probabilities of its answers."""
    inner, calibrators = model.attributes.get("estimator"), model.attributes.get("calibrators")
    if not isinstance(inner, Made) or _transforms(inner) or inner.role == "part":
        raise ArtifactRefused("a calibrated classifier has no classifier inside")
    if inner.role == "pipeline":
        check_pipeline(inner, 0)
    if "classifier" not in inner.last.role:
        raise ArtifactRefused("a calibrated classifier has no classifier inside")
    if not says(model.attributes.get("method"), "sigmoid", "isotonic") or not isinstance(calibrators, list):
        raise ArtifactRefused("a classifier is calibrated in a way that is not served; sigmoid and isotonic are")
    if any(not isinstance(one, Made) or one.role != "part" for one in calibrators):
        raise ArtifactRefused("a classifier is calibrated by something that is not served")


def check_interpolation(model: Made, _: int) -> None:
    """IsotonicRegression: as many answers as thresholds."""
    x, y = model.attributes.get("X_thresholds_"), model.attributes.get("y_thresholds_")
    if not is_list(x) or not is_list(y) or not len(x) == len(y) >= 1 or x.dtype.kind != "f" or y.dtype.kind != "f":
        raise ArtifactRefused("a calibration has no points to interpolate between")
    if not says(model.attributes.get("out_of_bounds"), "clip", "nan", "raise"):
        raise ArtifactRefused("a calibration does what nobody knows outside of its points")


def check_selected(model: Made, _: int) -> None:
    """SelectFromModel: what says how important features are is an attribute that the file may name."""
    if not isinstance(model.attributes.get("estimator_"), Made):
        raise ArtifactRefused(f"the {model.short} has no estimator")
    if not says(model.attributes.get("importance_getter", "auto"), "auto"):
        raise ArtifactRefused(f"the {model.short} asks for an attribute by name, which is not served")
