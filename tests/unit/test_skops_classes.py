"""Every class on the allow-list answers, to the last bit, as scikit-learn itself does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from perch.artifacts import ArtifactRefused, inspect
from perch.artifacts.sklearn_classes import CLASSES, READ
from perch.artifacts.sklearn_made import estimators
from perch.artifacts.skops_file import read_skops
from perch.predictor.interface import interface_of
from perch.predictor.runtimes.sklearn import SklearnModel, load_skops
from tests.unit import sklearn_models as models

ENDS = st.sampled_from([0.0, 1.0, 2.5, 4.0, -1.0, 1e9])
NUMBERS = st.floats(-1e3, 1e3) | st.floats(0, 4) | ENDS
NAN = float("nan")


def rows_of(element: st.SearchStrategy[float]) -> st.SearchStrategy[NDArray[np.float64]]:
    """A few rows."""
    row = st.lists(element, min_size=models.FEATURES, max_size=models.FEATURES)
    return st.lists(row, min_size=1, max_size=3).map(np.array)


def listed() -> Iterator[tuple[str, Any, Any, Any, st.SearchStrategy[Any]]]:
    """Every estimator: its name, itself, what it is trained on, and the rows that it is asked."""
    rows, classes = models.samples()
    kinds: list[tuple[str, list[Any], Any, Any, st.SearchStrategy[float]]] = [
        ("class", models.CLASSIFIERS, rows, classes, NUMBERS),
        ("two classes", models.CLASSIFIERS, rows, classes > 0, NUMBERS),
        ("number", models.REGRESSORS, rows, classes * 1.5 + 0.1, NUMBERS),
        ("numbers", models.OF_SEVERAL, rows, np.stack([classes, rows[:, 0]], axis=1), NUMBERS),
        ("pipeline", models.PIPELINES, rows, classes, st.floats(0, 4)),
        ("categories", models.WHOLE_NUMBERS, rows.astype(int), classes, st.sampled_from([0.0, 1.0, 2.0, 3.0])),
        ("gaps", models.GAPPED, models.gapped(), classes, NUMBERS | st.just(NAN)),
    ]
    for kind, all_of, known, labels, element in kinds:
        for place, one in enumerate(all_of):
            yield f"{kind} {place} {str(one)[:40]}", one, known, labels, rows_of(element)


CASES = {name: case for name, *case in listed()}


@cache
def trained(name: str) -> tuple[Any, bytes, SklearnModel]:
    """A model, its file, and the model that was loaded from it."""
    one, rows, labels, _ = CASES[name]
    model = models.fitted(clone(one), rows, labels)
    data = models.saved(model)
    return model, data, load_skops(data)


@cache
def framed(name: str) -> tuple[Any, bytes]:
    """A pipeline of named columns, and its file."""
    classes = models.samples()[1]
    labels = classes * 1.5 if name == "numbers from texts" else np.array(["no", "yes"])[classes % 2]
    model = models.fitted(models.FRAMED[name], models.frame(), labels)
    return model, models.saved(model)


def same(model: Any, asked: Any, outputs: list[Any]) -> None:
    """What was answered is what scikit-learn answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = np.asarray(model.predict(asked))
        np.testing.assert_array_equal(outputs[0].reshape(labels.shape), labels)
        assert hasattr(model, "predict_proba") == (len(outputs) == 2)
        if len(outputs) == 2:
            np.testing.assert_array_equal(outputs[1], model.predict_proba(asked))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_each_class_answers_as_scikit_learn_does(name: str) -> None:
    """Bit by bit, on the rows that it was trained on and on any others; a scaler of no copies spoils neither."""
    model, data, loaded = trained(name)
    found = inspect("m.skops", data)
    assert found.signature == loaded.signature
    assert (found.runtimes, found.code, found.signature.features) == (("sklearn",), "", models.FEATURES)
    same(model, CASES[name][1], loaded.run(np.asarray(CASES[name][1], dtype=np.float64)))

    @given(CASES[name][3])
    @settings(max_examples=4)
    def any_rows(rows: NDArray[np.float64]) -> None:
        try:
            outputs = loaded.run(rows)
        except ValueError:
            with pytest.raises(ValueError, match=r"\w"):
                model.predict(rows)
            return
        same(model, rows, outputs)

    any_rows()
    if name.startswith("gaps"):
        assert found.signature.inputs[0].missing


@pytest.mark.parametrize("name", models.FRAMED)
@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_of_named_columns_answers_as_of_a_data_frame(name: str) -> None:
    """Numbers and texts mixed, gaps among them; one row of zeros is something that it can answer."""
    frame, (model, data) = models.frame(), framed(name)
    found, loaded = inspect("m.skops", data), load_skops(data)
    assert found.signature == loaded.signature
    assert {tensor.shape for tensor in found.signature.inputs} == {(-1, 1)}
    assert "unused" not in {tensor.name for tensor in found.signature.inputs}
    same(model, frame, loaded.run_named(models.inputs_of(frame, loaded.signature)))
    for place in (0, 4, 11):
        one = frame.iloc[[place]]
        same(model, one, loaded.run_named(models.inputs_of(one, loaded.signature)))
    assert len(loaded.run_named(interface_of(loaded.signature).zeros())[0]) == 1


def test_columns_say_what_they_take() -> None:
    """Numbers, texts, gaps, and the only values that an encoder knows."""
    said: dict[str, Any] = {}
    for name in ("the usual", "categories that are refused", "a gap among categories"):
        signature = inspect("m.skops", framed(name)[1]).signature
        said[name] = [(one.name, one.datatype, one.missing) for one in signature.inputs]
        rules = signature.ranges.to_json()["inputs"] if signature.ranges else {}
        said[f"values of {name}"] = [(key, rule["values"]) for key, rule in rules.items()]
    assert said == {
        "the usual": [
            ("age", "FP64", True),
            ("income", "FP64", True),
            ("town", "BYTES", True),
            ("plan", "BYTES", True),
        ],
        "values of the usual": [],
        "categories that are refused": [("age", "FP64", True), ("plan", "BYTES", False), ("vip", "FP64", False)],
        "values of categories that are refused": [("plan", ["a", "b"]), ("vip", [0.0, 1.0])],
        "a gap among categories": [("town", "BYTES", True)],
        "values of a gap among categories": [("town", ["Bern", "Chur", "Zug"])],
    }


@pytest.mark.filterwarnings("ignore")
def test_texts_alone_and_mixed_columns_without_names_are_asked_by_made_up_names() -> None:
    """As `perch export` calls them."""
    texts, labels = ["good day", "bad day", "good night", "bad luck"], [1, 0, 1, 0]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)
    loaded = load_skops(models.saved(model))
    assert [(one.name, one.datatype) for one in loaded.signature.inputs] == [("text", "BYTES")]
    same(model, texts, loaded.run_named({"text": np.array(texts, dtype=object).reshape(-1, 1)}))

    rows = np.array([[1.0, "a", 3], [2.0, "b", 4], [3.0, "a", 3], [4.0, "b", 4]], dtype=object)
    parts = ColumnTransformer([("n", StandardScaler(), [0]), ("t", OneHotEncoder(), [1, 2])])
    model = make_pipeline(parts, LogisticRegression()).fit(rows, labels)
    loaded = load_skops(models.saved(model))
    assert [(one.name, one.datatype) for one in loaded.signature.inputs] == [
        ("x1", "FP64"),
        ("x2", "BYTES"),
        ("x3", "FP64"),
    ]
    columns = {f"x{place + 1}": rows[:, [place]] for place in range(3)}
    same(
        model, rows, loaded.run_named({**columns, "x1": columns["x1"].astype(float), "x3": columns["x3"].astype(float)})
    )


def test_every_class_of_the_allow_list_is_tried() -> None:
    """Nothing is on it that was not seen to work."""
    tried: set[str] = set()
    for name in CASES:
        tried |= {one.name for one in estimators(read_skops(trained(name)[1]))}
    for name in models.FRAMED:
        tried |= {one.name for one in estimators(read_skops(framed(name)[1]))}
    assert CLASSES.keys() == tried
    assert {name.rpartition(".")[2] for name in CLASSES} >= READ.keys()


@pytest.mark.filterwarnings("ignore")
def test_what_is_read_of_a_class_is_there() -> None:
    """No name in the table of attributes is one that scikit-learn does not have (any more)."""
    had: dict[str, set[str]] = {}
    for name in CASES:
        model, data, _ = trained(name)
        made, own = read_skops(data), getattr(model, "best_estimator_", model)
        if made.short in READ:
            had.setdefault(made.short, set()).update(one for one in READ[made.short] if hasattr(own, one))
    general = {"_sklearn_version", "feature_names_in_", "classes_", "n_classes_"}
    unlike = {"quantile", "alpha", "power", "_label_encoder", "outputs_2d_", "link", "probability"}
    unlike |= {"break_ties", "decision_function_shape", "constant"}
    assert len(had) > 30
    assert not {short: left for short, names in had.items() if (left := READ[short] - names - general - unlike)}


@pytest.mark.parametrize(
    ("datatype", "labels"), [("BYTES", np.array(["low", "mid", "high"])), ("INT64", np.array([False, True, True]))]
)
def test_labels_are_texts_or_whole_numbers(datatype: str, labels: NDArray[Any]) -> None:
    """As the answer's reader takes them, also of a model put together of others."""
    for one in (models.CLASSIFIERS[0], models.CLASSIFIERS[34], models.CLASSIFIERS[36]):
        model = models.fitted(clone(one), labels=labels[models.samples()[1]])
        loaded = load_skops(models.saved(model))
        assert loaded.signature.outputs[0].datatype == datatype
        assert loaded.run(models.samples()[0])[0].tolist() == model.predict(models.samples()[0]).tolist()


def test_a_search_is_what_it_found() -> None:
    """Its results, folds and candidates are not even read."""
    model = models.fitted(models.CLASSIFIERS[-1])
    assert inspect("m.skops", models.saved(model)).details["estimator"] == "StandardScaler → SVC"


@pytest.mark.filterwarnings("ignore")
def test_sparse_rows_in_training_are_refused_where_native_code_keeps_them() -> None:
    """With the way out."""
    model = make_pipeline(OneHotEncoder(), SVC()).fit(models.samples()[0].astype(int), models.samples()[1])
    with pytest.raises(ArtifactRefused, match="sparse_output=False"):
        inspect("m.skops", models.saved(model))
