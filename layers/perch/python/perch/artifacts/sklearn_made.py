"""An estimator as a checked file describes it: the name of its class and its attributes, as plain values.

The same values are checked at registration (`sklearn_checks`), tell what a model takes (`sklearn_columns`) and are
built by the predictor (`perch.predictor.runtimes.sklearn`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from .errors import ArtifactRefused
from .sklearn_classes import CLASSES

MAX_CLASSES = 10_000


@dataclass(frozen=True, kw_only=True)
class Made:
    """An estimator to be made: its class, one of `CLASSES`, and its attributes as plain values."""

    name: str
    attributes: Mapping[str, Any]

    @property
    def role(self) -> str:
        """What it is."""
        return CLASSES.get(self.name, "")

    @property
    def short(self) -> str:
        """The class without its module."""
        return self.name.rpartition(".")[2]

    @property
    def with_article(self) -> str:
        """The class with its article, for a sentence."""
        return f"{'an' if self.short[:1] in 'AEIOU' else 'a'} {self.short}"

    @property
    def steps(self) -> list[Made]:
        """The estimators of a pipeline, one after the other; itself, if it is none."""
        if self.role != "pipeline":
            return [self]
        return [step[1] for step in self.attributes["steps"] if isinstance(step[1], Made)]

    @property
    def last(self) -> Made:
        """What predicts: the last step of a pipeline, and so on inside."""
        return self if self.role != "pipeline" else self.steps[-1].last

    @property
    def parts(self) -> list[Part]:
        """What a ColumnTransformer or a FeatureUnion does side by side; without parts that drop columns."""
        return [part for part in parts_of(self) if part.estimator is not None]

    @property
    def classes(self) -> NDArray[Any]:
        """Of a classifier that was checked."""
        found: NDArray[Any] = self.attributes["classes_"]
        return found

    @property
    def features(self) -> int | None:
        """How many columns it takes, None if it does not say."""
        if self.role == "vectorizer":
            return 1
        inner = self.attributes.get("n_features_in_")
        if inner is None and self.role == "pipeline" and self.steps:
            inner = self.steps[0].features
        elif inner is None and self.short == "FeatureUnion" and self.parts:
            inner = self.parts[0].estimator.features if self.parts[0].estimator else None
        elif inner is None and isinstance(self.attributes.get("estimator_"), Made):
            inner = self.attributes["estimator_"].features
        elif inner is None and self.asked:
            inner = self.asked[0].features
        return inner if type(inner) is int else None

    @property
    def asked(self) -> list[Made]:
        """Estimators inside that get the very rows that it gets."""
        if self.short == "CalibratedClassifierCV":
            return [one.attributes["estimator"] for one in self.attributes["calibrated_classifiers_"]]
        if self.short.startswith(("Voting", "Stacking", "MultiOutput")):
            return [one for one in self.attributes["estimators_"] if isinstance(one, Made)]
        return []


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a ColumnTransformer or a FeatureUnion: what it does with which columns.

    `estimator` is None for one that leaves them away. `columns` are positions, or one position for a part that takes a
    flat column (a vectorizer); None: all.
    """

    name: str
    estimator: Made | None
    columns: list[int] | int | None


PASSES_ON = Made(name="sklearn.preprocessing._function_transformer.FunctionTransformer", attributes={})


def parts_of(model: Made) -> list[Part]:
    """Return all parts of a ColumnTransformer or a FeatureUnion. Raises `ArtifactRefused` if they are no such."""
    columns = model.short == "ColumnTransformer"
    given = model.attributes.get("transformers_" if columns else "transformer_list")
    width = model.attributes.get("n_features_in_")
    names = model.attributes.get("feature_names_in_")
    if not isinstance(given, list):
        raise ArtifactRefused(f"the {model.short} has no list of parts")
    found = []
    for one in given:
        if not isinstance(one, tuple) or len(one) != (3 if columns else 2) or not isinstance(one[0], str):
            raise ArtifactRefused(f"the {model.short} has a part that is no name with an estimator")
        chosen = _positions(one[2], width, names, one[0]) if columns else None
        estimator = PASSES_ON if says(one[1], "passthrough") else one[1]
        if says(estimator, "drop") or chosen == []:
            estimator = None
        elif not isinstance(estimator, Made):
            raise ArtifactRefused(f"part {one[0][:60]!r} of the {model.short} is no estimator")
        found.append(Part(name=one[0], estimator=estimator, columns=chosen))
    return found


def _positions(chosen: Any, width: Any, names: Any, part: str) -> list[int] | int:
    """Columns as positions, however they were chosen: by names, numbers, a mask or a slice."""
    if type(width) is not int:
        raise ArtifactRefused("the ColumnTransformer is not fitted")
    known = [str(name) for name in names] if is_list(names) else []
    if isinstance(chosen, slice):
        return _sliced(chosen, width, known, part)
    listed = [chosen] if isinstance(chosen, str) or type(chosen) is int else _plain(chosen)
    if listed is None:
        raise ArtifactRefused(f"part {part[:60]!r} of the ColumnTransformer does not say which columns it takes")
    if listed and all(type(one) is bool for one in listed):
        listed = [place for place, one in enumerate(listed) if one] if len(listed) == width else [width]
    found = [_position(one, width, known, part) for one in listed]
    return found[0] if isinstance(chosen, str) or type(chosen) is int else found


def _plain(chosen: Any) -> list[Any] | None:
    if is_list(chosen):
        chosen = chosen.tolist()
    return list(chosen) if isinstance(chosen, list | tuple) else None


def _position(one: Any, width: int, names: Sequence[str], part: str) -> int:
    if isinstance(one, str) and one in names:
        return names.index(one)
    if type(one) is int and -width <= one < width:
        return one % width
    raise ArtifactRefused(f"part {part[:60]!r} of the ColumnTransformer takes column {str(one)[:60]!r}, which is none")


def _sliced(chosen: slice, width: int, names: Sequence[str], part: str) -> list[int]:
    """As pandas slices: by numbers without the end, by names with it."""
    if any(isinstance(end, str) for end in (chosen.start, chosen.stop)):
        first = 0 if chosen.start is None else _position(chosen.start, width, names, part)
        last = width - 1 if chosen.stop is None else _position(chosen.stop, width, names, part)
        return list(range(width))[first : last + 1]
    return list(range(width))[chosen]


def estimators(value: Any) -> Iterator[Made]:
    """Every estimator in a model that a prediction may reach."""
    if isinstance(value, Made):
        yield value
        if value.short in ("ColumnTransformer", "FeatureUnion"):  # a part of no columns was never fitted
            value = [part.estimator for part in value.parts]
        else:
            value = list(value.attributes.values())
    elif isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype.kind == "O"):
        for one in value:
            yield from estimators(one)


def check_classes(model: Made) -> None:
    """Make sure that a classifier has a list of classes. Raises `ArtifactRefused`."""
    classes = model.attributes.get("classes_")
    if not is_list(classes) or not 1 <= len(classes) <= MAX_CLASSES:
        raise ArtifactRefused(f"the {model.short} has no list of 1 to {MAX_CLASSES} classes")
    if classes.dtype.kind == "O" and not all(isinstance(one, str) for one in classes):
        raise ArtifactRefused(f"the classes of the {model.short} are neither numbers nor texts")
    if not counts(model.attributes.get("n_classes_", len(classes)), len(classes)):
        raise ArtifactRefused(f"the {model.short} counts its classes differently in two places")


def counts(value: Any, number: int) -> bool:
    """Whether a value is just this whole number, whatever else may stand there (an array compares with many)."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) == number


def says(value: Any, *allowed: str | None) -> bool:
    """Whether a value is one of a few texts, or None where that is one of them."""
    return (value is None or isinstance(value, str)) and value in allowed


def is_list(value: Any) -> TypeGuard[NDArray[Any]]:
    """Whether a value is an array of one dimension."""
    return isinstance(value, np.ndarray) and value.ndim == 1


def is_array(value: Any, dtype: Any, shape: tuple[int, ...] | None) -> TypeGuard[NDArray[Any]]:
    """Whether a value is an array of this very type and shape (None: any)."""
    return isinstance(value, np.ndarray) and value.dtype == dtype and shape in (None, value.shape)


def finite(value: Any) -> bool:
    """Whether a value is one finite number."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))
