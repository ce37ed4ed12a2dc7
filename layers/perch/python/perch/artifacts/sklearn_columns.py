"""What a scikit-learn model takes and gives, told from its estimators: a matrix of numbers, or columns by name.

    Pipeline ─► the first step ─► ColumnTransformer: each part tells of its columns ─► one input a column, by its name
                               └► anything else: one matrix, unless some column holds texts

A column holds texts if an encoder, an imputer or a vectorizer at its beginning was trained on texts. A value of it may
be missing if what comes first fills gaps in, or knows them, or if everything passes them on to an estimator that does.
An encoder that refuses categories that it does not know makes its categories the values of the column, so that a
request with another is refused by name, and a probe is made of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .ranges import MAX_VALUES
from .signature import Range, Ranges, Signature, Tensor
from .sklearn_made import Made, is_list

MAX_LISTED = 5_000
"""Values of all columns together that go into a signature."""

_FILLS = frozenset({"SimpleImputer", "KNNImputer"})
_PASSES = frozenset({"StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "QuantileTransformer",
                     "PowerTransformer", "FunctionTransformer"})  # fmt: skip
_KNOWS = frozenset({"HistGradientBoostingClassifier", "HistGradientBoostingRegressor", "DecisionTreeClassifier",
                    "DecisionTreeRegressor", "RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier",
                    "ExtraTreesRegressor", "DummyClassifier", "DummyRegressor"})  # fmt: skip
"""Of gaps: who fills them in, who passes them on, and who predicts with them."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one column may hold.

    Attributes:
        text: texts; otherwise numbers.
        boxed: numbers that were trained on as objects, among texts, and have to come so.
        missing: whether a value may be missing.
        null: what stands for a missing text: NaN, or None if it was trained so.
        values: all that it knows, if it refuses others.
    """

    text: bool = False
    boxed: bool = False
    missing: bool = False
    null: float | None = math.nan
    values: tuple[Any, ...] | None = None

    def __and__(self, other: Column) -> Column:
        """What two that look at the same column both take."""
        both = self.values if other.values is None else other.values
        if self.values is not None and other.values is not None:
            both = tuple(one for one in self.values if one in other.values)
        return Column(
            text=self.text or other.text,
            boxed=self.boxed or other.boxed,
            missing=self.missing and other.missing,
            null=None if self.null is None or other.null is None else self.null,
            values=both,
        )


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a model that is asked by their names.

    `names` and `columns` are of those that it looks at, `places` where they stand among `every` one. A model of one
    text a row (`lone`) takes it flat.
    """

    every: tuple[str, ...]
    names: tuple[str, ...]
    columns: tuple[Column, ...]
    places: tuple[int, ...]
    lone: bool


def columns_of(model: Made) -> Columns | None:
    """Return the columns of a checked model, None if it takes a matrix of numbers."""
    width = model.features or 0
    looked_at = _taken([model], width)
    chosen = _front(model, "ColumnTransformer")
    named = chosen is not None and is_list(chosen.attributes.get("feature_names_in_"))
    if not named and not any(one and (one.text or one.boxed) for one in looked_at):
        return None
    names = _names(model, width)
    places = tuple(place for place, one in enumerate(looked_at) if one is not None)
    return Columns(
        every=tuple(names),
        names=tuple(names[place] for place in places),
        columns=tuple(one for one in looked_at if one is not None),
        places=places,
        lone=_front(model, "CountVectorizer", "TfidfVectorizer") is not None,
    )


def signature_of(model: Made) -> tuple[Signature, dict[str, Any]]:
    """Return the signature of a checked model, and facts for people."""
    last, columns = model.last, columns_of(model)
    outputs = [Tensor(name="value", datatype="FP64", shape=(-1, -1))]
    names = _names(model, 0)
    details: dict[str, Any] = {
        "estimator": " → ".join(_told(model)),
        "trained_with": f"scikit-learn {str(last.attributes.get('_sklearn_version'))[:20]}",
        **({"feature_names": names} if names else {}),
    }
    if "classifier" in last.role:
        classes = last.classes
        label = "INT64" if classes.dtype.kind in "iub" else "BYTES"
        outputs = [Tensor(name="label", datatype=label, shape=(-1,))]
        details["classes"] = [str(one) for one in classes[:20]]
        if gives_probabilities(model):
            outputs.append(Tensor(name="probabilities", datatype="FP64", shape=(-1, len(classes))))
    inputs = _inputs(model, columns)
    return Signature(inputs=inputs, outputs=tuple(outputs), ranges=ranges_of(model)), details


def gives_probabilities(model: Made) -> bool:
    """Whether a classifier has `predict_proba`."""
    last = model.last
    if last.short == "SGDClassifier":
        return str(last.attributes.get("loss")) in ("log_loss", "modified_huber")
    if last.short in ("SVC", "NuSVC"):
        return last.attributes.get("probability") is True
    if last.short == "VotingClassifier":
        return last.attributes.get("voting") == "soft"
    if last.short == "StackingClassifier":
        return gives_probabilities(last.attributes["final_estimator_"])
    return last.role == "classifier with probabilities"


def ranges_of(model: Made) -> Ranges | None:
    """Return the values of columns whose encoders refuse others; those of a matrix are called by their numbers."""
    columns, looked_at = columns_of(model), _taken([model], model.features or 0)
    if columns is not None:
        return _rules(zip(columns.names, columns.columns, strict=True))
    return _rules((str(place), one or Column()) for place, one in enumerate(looked_at, start=1))


def _inputs(model: Made, columns: Columns | None) -> tuple[Tensor, ...]:
    """A matrix, or an input a column."""
    if columns is None:
        width = model.features or 0
        missing = all(one.missing for one in _taken([model], width) if one is not None)
        return (Tensor(name="features", datatype="FP64", shape=(-1, width), missing=missing),)
    return tuple(
        Tensor(name=name, datatype="BYTES" if one.text else "FP64", shape=(-1, 1), missing=one.missing)
        for name, one in zip(columns.names, columns.columns, strict=True)
    )


def _rules(columns: Iterable[tuple[str, Column]]) -> Ranges | None:
    """The values of columns that refuse others, as far as they are few enough to be told."""
    found, listed = [], 0
    for name, one in columns:
        known = one.values
        if known is None or not 1 <= len(known) <= MAX_VALUES or listed + len(known) > MAX_LISTED:
            continue
        if one.text and sum(map(len, known)) > 16 * MAX_LISTED:
            continue
        listed += len(known)
        found.append((name, Range(values=known)))
    return Ranges(rules=tuple(found)) if found else None


def _taken(chain: Sequence[Made], width: int) -> list[Column | None]:
    """What each column of the rows may hold that estimators get one after the other; None: nobody looks at it."""
    first, rest = chain[0], list(chain[1:])
    if first.role == "pipeline":
        return _taken([*first.steps, *rest], width)
    if first.short in ("ColumnTransformer", "FeatureUnion"):
        rest = [] if first.attributes.get("sparse_output_") is True else rest  # a sparse matrix has no gaps
        return _merged(
            ((_taken([part.estimator, *rest], _wide(part.columns, width)), part.columns) for part in first.parts
             if part.estimator is not None),
            width,
        )  # fmt: skip
    if first.asked:
        return _merged(((_taken([one, *rest], width), None) for one in first.asked), width)
    return _alone(first, rest, width)


def _alone(first: Made, rest: Sequence[Made], width: int) -> list[Column | None]:
    """What the columns of an estimator that is put together of no others may hold."""
    known = first.attributes.get("categories_") if "Encoder" in first.short else None
    if isinstance(known, list):
        return [_encoded(one, first) for one in known]
    if first.short == "SimpleImputer":
        return _filled(first, rest, width)
    text = first.role == "vectorizer"
    return [Column(text=text, missing=not text and _takes_gaps([first, *rest]))] * width


def _wide(columns: list[int] | int | None, width: int) -> int:
    if columns is None:
        return width
    return 1 if isinstance(columns, int) else len(columns)


def _merged(found: Iterable[tuple[list[Column | None], list[int] | int | None]], width: int) -> list[Column | None]:
    """What all that look at a column take of it."""
    all_of: list[Column | None] = [None] * width
    for looked_at, columns in found:
        places = range(width) if columns is None else [columns] if isinstance(columns, int) else columns
        for place, one in zip(places, looked_at, strict=False):
            before = all_of[place]
            all_of[place] = one if before is None else before if one is None else before & one
    return all_of


def _encoded(known: Any, encoder: Made) -> Column:
    """A column that an encoder knows the categories of."""
    listed = known.tolist()
    text = any(isinstance(one, str) for one in listed)
    gaps = [one for one in listed if one is None or one != one]  # noqa: PLR0124 - NaN
    plain = [one for one in listed if one is not None and one == one]  # noqa: PLR0124 - as above
    refuses = encoder.short != "TargetEncoder" and encoder.attributes.get("handle_unknown", "error") == "error"
    return Column(
        text=text,
        boxed=not text and known.dtype.kind == "O",
        missing=bool(gaps) or not refuses,
        null=None if None in gaps else math.nan,
        values=tuple(one if text else float(one) for one in plain) if refuses else None,
    )


def _filled(imputer: Made, rest: Sequence[Made], width: int) -> list[Column | None]:
    """Columns whose gaps are filled in; what comes behind tells more, if it gets the same columns."""
    said = imputer.attributes
    known, gap = said.get("statistics_"), said.get("missing_values")
    text = is_list(known) and known.dtype.kind == "O" and any(isinstance(one, str) for one in known)
    same = is_list(known) and len(known) == width and said.get("indicator_") is None
    if same and known is not None and known.dtype.kind == "f":
        same = not np.isnan(known).any()
    behind = _taken(rest, width) if same and rest else [None] * width
    if len(behind) != width:
        behind = [None] * width
    fills = gap is None or (isinstance(gap, float) and math.isnan(gap))
    return [
        replace(
            one or Column(),
            text=text or bool(one and one.text),
            missing=fills or bool(one and one.missing),
            null=None if gap is None else math.nan,
        )
        for one in behind
    ]


def _takes_gaps(chain: Sequence[Made]) -> bool:
    """Whether rows of numbers may have gaps."""
    for one in chain:
        if one.short in _FILLS:
            gap = one.attributes.get("missing_values", math.nan)
            return isinstance(gap, float) and math.isnan(gap)
        if one.short not in _PASSES:
            return _predicts_with_gaps(one)
    return False


def _predicts_with_gaps(model: Made) -> bool:
    if model.role == "pipeline":
        return _takes_gaps(model.steps)
    if model.asked:
        return all(_takes_gaps([one]) for one in model.asked)
    return model.short in _KNOWS


def _front(model: Made, *short: str) -> Made | None:
    """The first estimator of such a class that gets the rows as they come."""
    if model.short in short:
        return model
    if model.role == "pipeline":
        return _front(model.steps[0], *short) if model.steps else None
    inner = [part.estimator for part in model.parts] if model.short == "FeatureUnion" else model.asked
    return next((found for one in inner if one is not None and (found := _front(one, *short))), None)


def _names(model: Made, width: int) -> list[str]:
    """What the columns are called: as in training, or x1, x2, … of so many."""
    front = _front(model, "ColumnTransformer") or (model.steps[0] if model.steps else model)
    for one in (front, model, *model.asked):
        given = one.attributes.get("feature_names_in_")
        if is_list(given) and len(given) in (width, width or len(given)):
            return [str(name) for name in given]
    if width == 1 and _front(model, "CountVectorizer", "TfidfVectorizer") is not None:
        return ["text"]
    return [f"x{place}" for place in range(1, width + 1)]


def _told(model: Made) -> list[str]:
    """The steps in words."""
    if model.role == "pipeline":
        return [name for step in model.steps for name in _told(step)]
    inner = [part.estimator for part in model.parts] if model.short in ("ColumnTransformer", "FeatureUnion") else []
    told = ", ".join(" → ".join(_told(one)) for one in inner[:8] if one is not None)
    return [f"{model.short} ({told})" if told else model.short]
