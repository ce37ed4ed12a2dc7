"""skops files whose arrays and numbers somebody wrote by hand: valid archives, of models that do not fit together.

Some are changed on purpose (`hostile`, which stand in the table), many at random (`crafted`):

    a model of each class that hands its arrays to native code ─► its file, taken apart
        one array changed (a value, its length, its type), or one node of the schema (a value, another node's place)

A flipped bit of a zip archive seldom gets as far as an engine. These do: what the inspector lets through is loaded and
asked, in a process that may die of it.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC

from tests.hostile import REFUSED, SERVED, Hostile
from tests.unit import sklearn_models as models

CHANGES = int(os.environ.get("PERCH_CRAFTED", "8"))
"""Of each model, in equal parts of its arrays and of its schema."""

_VALUES = (-1, 0, 1, 2, 3, 7, 255, 2**31 - 1, -(2**31), 2**40, 1e308, -1e308, float("nan"), float("inf"), 0.5)
_WORDS = "uniform soft predict precomputed kd_tree brute cosine huber prior drop passthrough"
_PLAIN = ("-1", "0", "1", "3", "1000000000", "1e300", "NaN", "null", "true", "false", *map(json.dumps, _WORDS.split()))
_TYPES = ("<f4", "<f8", "<i4", "<i8", "|u1", "|b1", "<U3")


def good() -> Iterator[tuple[str, bytes]]:
    """Files of models that trust their arrays, each with a name."""
    rows, classes = models.samples()
    kinds = (
        (_named(models.CLASSIFIERS, _NATIVE), rows, classes),
        (_named(models.REGRESSORS, _NATIVE), rows, classes * 1.5 + 0.1),
        (_named(models.PIPELINES, ("Polynomial", "KBins", "ColumnTransformer", "SelectKBest")), rows, classes),
        (models.WHOLE_NUMBERS, rows.astype(int), classes),
        (_named(models.GAPPED, ("Imputer",)), models.gapped(), classes),
        (list(models.FRAMED.values()), models.frame(), classes % 2),
    )
    for all_of, known, labels in kinds:
        for one in all_of:
            yield " ".join(str(one).split())[:90], models.saved(models.fitted(one, known, labels))


_NATIVE = ("SV", "Neighbors", "Tree", "Forest", "Boosting", "Calibrated", "Voting", "Stacking", "Bagging", "Boost")


def _named(all_of: list[Any], wanted: tuple[str, ...]) -> list[Any]:
    """Those of some kinds, one of each class."""
    found = {type(one): one for one in all_of if type(one).__name__.startswith("Pipeline")}
    kept = [one for one in all_of if any(name in str(one) for name in wanted) and type(one) not in found]
    lone = list({type(one): one for one in kept}.values())
    return lone + [one for one in all_of if type(one) in found and any(name in str(one) for name in wanted)]


def crafted(data: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """A good file, changed in one place each time."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    arrays = sorted(name for name in members if name.endswith(".npy"))
    schema = json.loads(members["schema.json"])
    for number in range(CHANGES):
        if number % 2 and arrays:
            name = chance.choice(arrays)
            told, array = _other_array(np.load(io.BytesIO(members[name])), chance)
            yield f"{number}: {told}", _archive({**members, name: _npy(array)})
        else:
            told, document = _other_schema(copy.deepcopy(schema), chance)
            yield f"{number}: {told}", _archive({**members, "schema.json": json.dumps(document).encode()})


def _other_array(array: NDArray[Any], chance: random.Random) -> tuple[str, NDArray[Any]]:
    change = chance.choice(_CHANGES)
    with np.errstate(all="ignore"):
        return f"{change.__name__} of {array.dtype.str} {array.shape}", change(array.copy(), chance)


def _value(array: NDArray[Any], chance: random.Random) -> NDArray[Any]:
    if not array.size or array.dtype.kind == "U":
        return array
    flat = array.reshape(-1)
    place = chance.randrange(flat.size)
    part = flat[chance.choice(array.dtype.names)] if array.dtype.names else flat
    part[place] = np.array(chance.choice(_VALUES)).astype(part.dtype)
    return flat.reshape(array.shape)


def _length(array: NDArray[Any], chance: random.Random) -> NDArray[Any]:
    if not array.ndim:
        return np.repeat(array, 2)
    size = chance.choice((0, 1, len(array) - 1, len(array) + 1, 2 * len(array)))
    return np.resize(array, (max(size, 0), *array.shape[1:]))


def _type(array: NDArray[Any], chance: random.Random) -> NDArray[Any]:
    return array if array.dtype.names else array.astype(chance.choice(_TYPES))


def _shape(array: NDArray[Any], chance: random.Random) -> NDArray[Any]:
    return chance.choice((array.T, array.reshape(-1), array[..., np.newaxis], np.asfortranarray(array)))


_CHANGES: list[Callable[[NDArray[Any], random.Random], NDArray[Any]]] = [
    _value,
    _value,
    _value,
    _length,
    _type,
    _shape,
]


def _other_schema(document: Any, chance: random.Random) -> tuple[str, Any]:
    """With a plain value changed, an attribute left out, or one node where another was."""
    holders = [*_holders(document)]
    plain = [(holder, key) for holder, key in holders if holder[key].get("__loader__") == "JsonNode"]
    kind = chance.choice(("value", "value", "value", "nothing", "another"))
    if kind == "value" and plain:
        holder, key = chance.choice(plain)
        holder[key]["content"] = chance.choice(_PLAIN)
        return f"{key} is {holder[key]['content']}", document
    holder, key = chance.choice(holders)
    if kind == "nothing":
        del holder[key]
        return f"no {key}", document
    other, place = chance.choice(holders)
    holder[key] = copy.deepcopy(other[place])
    return f"{key} is {place}", document


def _holders(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of the schema where a node stands: its list or dict, and where in that."""
    places = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, one in list(places):
        if isinstance(one, Mapping) and "__loader__" in one and key != "key_types":
            yield node, key
        if key != "key_types":
            yield from _holders(one)


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _archive(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


# -- one change each, that somebody meant ---------------------------------------------------------------------------

READS = "reads other memory, when compiled code takes its word"
WRITES = "writes into other memory, when compiled code takes its word"


def hostile(_: Path) -> Iterator[Hostile]:
    """Files of models that were changed on purpose."""
    for title, (threat, words), build in _meant():
        data = build()
        verdict = REFUSED if words else SERVED
        yield Hostile(
            title=f"skops, {title}", file="model.skops", data=data, threat=threat, words=words, verdict=verdict
        )


def _meant() -> Iterator[tuple[str, tuple[str, str], Callable[[], bytes]]]:
    """Each: what was done, what it would do and what the refusal is about (nothing: it is served), and the file."""
    whole = models.samples()[0].astype(int)
    bins = HistGradientBoostingClassifier(max_iter=1, random_state=0)
    encoder = OneHotEncoder(max_categories=2, sparse_output=False)
    yield "a kernel with more vectors than it has", (READS, "counts its support"), _put(SVC(), _n_support=_at(0, 10**6))
    yield "a kernel with one intercept for three", (READS, "_intercept_"), _put(SVC(), _intercept_=lambda one: one[:1])
    yield "a kernel with half of its coefficients", (READS, "_dual_coef_"), _put(SVC(), _dual_coef_=lambda one: one[:1])
    yield (
        "a kernel of narrower vectors",
        (READS, "vectors_"),
        _put(SVC(), support_vectors_=lambda one: one[:, :2].copy()),
    )
    yield "a kernel under another name", (READS, ""), _put(SVC(), _impl=lambda _: "nu_svr")
    neighbours = KNeighborsClassifier
    yield "a neighbour of class a million", (WRITES, "none of its classes"), _put(neighbours(), _y=_at(0, 10**6))
    yield "more neighbours than points", (READS, "more neighbours"), _put(neighbours(), n_neighbors=lambda _: 10**6)
    yield "a search tree of whatever", (READS, ""), _put(neighbours(), _tree=lambda _: {"idx_array": 10**9})
    yield (
        "boosted trees for more classes than there are",
        (WRITES, "trees a stage"),
        _put(GradientBoostingClassifier(n_estimators=1), estimators_=lambda one: np.concatenate([one, one], axis=1)),
    )
    yield "bins, a node that is its own child", ("never ends", "in two ways"), _put(bins, _predictors=_node("left", 0))
    yield "bins, a child outside of the tree", (READS, "outside"), _put(bins, _predictors=_node("right", 2**31))
    yield "bins, a feature that no row has", (READS, "of 4"), _put(bins, _predictors=_node("feature_idx", 10**9))
    yield (
        "bins, a set of categories that is not there",
        (READS, "by categories"),
        _put(bins, _predictors=_node("is_categorical", 1)),
    )
    yield "bins, as if it were being trained", (READS, ""), _put(bins, _in_fit=lambda _: True)
    yield (
        "an encoder that drops a category that is none",
        (WRITES, "drops"),
        _step(lambda one: setattr(one, "_drop_idx_after_grouping", np.array([9, 0, 0, 0])), encoder, whole),
    )
    yield (
        "an encoder of rare categories outside",
        (WRITES, "rare"),
        _step(
            lambda one: one._default_to_infrequent_mappings[0].__setitem__(0, 10**6),
            encoder,
            whole,
        ),
    )
    yield (
        "an encoder of numbers that do not ascend",
        (WRITES, "ascend"),
        _step(lambda one: one.categories_[0].__setitem__(0, 99), OneHotEncoder(sparse_output=False), whole),
    )
    yield (
        "an encoder wider than it says",
        (WRITES, ""),
        _step(lambda one: setattr(one, "_n_features_outs", [1, 1, 1, 1]), OneHotEncoder(sparse_output=False), whole),
    )
    yield (
        "an encoder that fills no column",
        ("shows what memory held before", "lists of numbers"),
        _step(lambda one: one.encodings_.pop(), TargetEncoder(cv=2), whole),
    )
    yield (
        "a polynomial wider than it is",
        ("shows what memory held before", ""),
        _step(lambda one: setattr(one, "_n_out_full", 10**4), PolynomialFeatures(2)),
    )
    yield (
        "a polynomial of degree a million",
        ("computes for years", "degree"),
        _step(lambda one: setattr(one, "degree", 10**6), PolynomialFeatures(2)),
    )
    yield (
        "a column that is none",
        (READS, "which is none"),
        _step(
            lambda one: setattr(one, "transformers_", [(*one.transformers_[0][:2], [10**6])]),
            ColumnTransformer([("a", StandardScaler(), [0])]),
        ),
    )
    yield (
        "a function of the operating system",
        ("runs a command when it is asked", "which is not served"),
        _step(lambda one: setattr(one, "func", os.system), FunctionTransformer()),
    )
    yield (
        "a selector that asks for an attribute by name",
        ("calls what it names", "by name"),
        _step(lambda one: setattr(one, "importance_getter", "fit.__globals__"), SelectFromModel(LogisticRegression())),
    )
    yield (
        "a stack that asks for a method by name",
        ("calls what it names", "no prediction"),
        _put(StackingClassifier([("a", LogisticRegression())], cv=2), stack_method_=lambda _: ["__reduce__"]),
    )
    yield (
        "a vote for class a billion",
        ("takes gigabytes for a row", "not its own"),
        _put(
            VotingClassifier([("a", LogisticRegression())]),
            estimators_=_classed,
        ),
    )
    yield (
        "a search that found a command",
        ("runs a command", "which is not served"),
        _put(GridSearchCV(LogisticRegression(), {"C": [1]}, cv=2), best_estimator_=lambda _: os.system),
    )
    for title, threat, words, change in (
        ("words that leave the matrix", WRITES, "each once", {"vocabulary_": {"good": 10**9, "day": 0}}),
        ("words by a pattern without end", "takes for ever for one text", "pattern", {"token_pattern": r"(\w+)+$"}),
        ("texts that name files", "opens the file that a request names", "reads files", {"input": "filename"}),
        ("words by a function", "runs a command when it is asked", "which is not served", {"tokenizer": os.system}),
    ):
        yield title, (threat, words), _of_words(change)


def _classed(all_of: Any) -> Any:
    all_of[0].classes_ = np.array([0, 1, 10**9])
    return all_of


def _put(model: Any, *, rows: Any = None, **attributes: Any) -> Callable[[], bytes]:
    def build() -> bytes:
        made = models.fitted(model, rows)
        for name, change in attributes.items():
            setattr(made, name, change(getattr(made, name, None)))
        return models.saved(made)

    return build


def _at(place: Any, value: Any) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = copy.deepcopy(array)
        array[place] = value
        return array

    return change


def _node(field: str, value: Any) -> Callable[[Any], Any]:
    def change(stages: Any) -> Any:
        stages[0][0].nodes[field][0] = value
        return stages

    return change


def _step(change: Callable[[Any], Any], model: Any, rows: Any = None) -> Callable[[], bytes]:
    def build() -> bytes:
        made = models.fitted(make_pipeline(model, SVC()), rows)
        change(made[0])
        return models.saved(made)

    return build


def _of_words(change: Mapping[str, Any]) -> Callable[[], bytes]:
    def build() -> bytes:
        made = make_pipeline(CountVectorizer(), MultinomialNB()).fit(["good day", "bad day"], [0, 1])
        for name, value in change.items():
            setattr(made[0], name, value)
        return models.saved(made)

    return build
