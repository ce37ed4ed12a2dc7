"""Splits by categories go the library's way for every number and every name that a request can bring."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perch.artifacts import ArtifactRefused, inspect
from perch.artifacts.lightgbm_file import read_lightgbm
from perch.artifacts.trees import Forest
from perch.artifacts.trees_onnx import to_onnx
from perch.artifacts.xgboost_file import read_xgboost
from perch.export import to_onnx as exported_to_onnx
from perch.predictor.handler import make_handler
from perch.predictor.interface import interface_of
from perch.predictor.runtimes.trees import TreesModel, load_lightgbm, load_xgboost
from tests.unit.damage import damaged, spoilt
from tests.unit.test_predictor import ask, environment, event, pointer

ROWS, MANY, FEW = 400, 70, 3
"""Rows; categories of the second feature, and of the third. The first and the fourth are numbers."""

XGBOOST: dict[str, dict[str, Any]] = {
    "sets": {"max_cat_to_onehot": 1},
    "one against all": {"max_cat_to_onehot": 100},
    "forests": {"max_cat_to_onehot": 4, "num_parallel_tree": 2, "subsample": 0.5},
    "dart": {"booster": "dart", "rate_drop": 0.5},
}
LIGHTGBM: dict[str, dict[str, Any]] = {
    "sets": {},
    "one against all": {"max_cat_to_onehot": 100},
    "zeros": {"zero_as_missing": True},
    "nothing missing": {"use_missing": False},
    "forest": {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
}


def samples() -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Rows with categories and gaps, and what they mean."""
    random = np.random.default_rng(11)
    rows = random.normal(size=(ROWS, 4)).astype(np.float32).round(1)
    rows[:, 1], rows[:, 2] = random.integers(0, MANY, ROWS), random.integers(0, FEW, ROWS)
    rows[random.random(rows.shape) < 0.1] = np.nan
    return rows, (np.isin(rows[:, 1] % 7, [1, 3]) ^ (rows[:, 2] == 1)) | (rows[:, 0] > 1.5)


@cache
def boosted(kind: str) -> xgboost.Booster:
    """A model of XGBoost's."""
    rows, labels = samples()
    param = {"objective": "binary:logistic", "max_depth": 5, "nthread": 1, **XGBOOST[kind]}
    given = xgboost.DMatrix(rows, labels, feature_types=["q", "c", "c", "q"], enable_categorical=True)
    return xgboost.train(param, given, num_boost_round=8)


@cache
def leafwise(kind: str) -> lightgbm.Booster:
    """A model of LightGBM's."""
    rows, labels = samples()
    loose = {"min_data_per_group": 2, "cat_smooth": 1, "min_data_in_leaf": 2}
    param = {"objective": "binary", "verbose": -1, "num_threads": 1, **loose, **LIGHTGBM[kind]}
    given = lightgbm.Dataset(rows.astype(np.float64), labels, categorical_feature=[1, 2])
    return lightgbm.train(param, given, num_boost_round=8)


@cache
def loaded(library: str, kind: str) -> tuple[TreesModel, Forest, Callable[[Any], Any], float]:
    """Our model, its forest, the library's answer, and how close they have to be."""
    if library == "xgboost":
        raw = bytes(boosted(kind).save_raw("ubj"))
        return load_xgboost(raw), read_xgboost(raw), boosted(kind).inplace_predict, 2e-6
    raw = leafwise(kind).model_to_string().encode()
    return load_lightgbm(raw), read_lightgbm(raw), leafwise(kind).predict, 1e-12


KINDS = [("xgboost", kind) for kind in XGBOOST] + [("lightgbm", kind) for kind in LIGHTGBM]


@pytest.mark.parametrize(("library", "kind"), KINDS)
def test_rows_of_training_are_answered_as_by_the_library(library: str, kind: str) -> None:
    """Sets of many categories and of one, with gaps."""
    model, forest, predict, close = loaded(library, kind)
    assert len(forest.trees.members) > 10
    rows = samples()[0].astype(model.dtype)
    np.testing.assert_allclose(model.run(rows)[1][:, 1], predict(rows), rtol=close, atol=close)


@given(st.data())
@settings(max_examples=200)
def test_any_number_as_a_category_goes_the_librarys_way(data: st.DataObject) -> None:
    """Codes that no node names, negative ones, those beyond any set, halves, zeros of both signs, and gaps."""
    model, _, predict, close = loaded(*data.draw(st.sampled_from(KINDS)))
    strange = [-0.0, -0.5, -0.999, -1.0, -1.5, 2.7, MANY - 1, MANY, MANY + 0.5, 95, 96, 127, 128, 2.0**22, 2.0**24, 1e9]
    category = st.one_of(
        st.integers(0, MANY + 3).map(float),
        st.sampled_from([*strange, -1e9, 3e9, 1e30, -1e30, float("nan")]),
        st.floats(width=32, allow_infinity=False),
    )
    number = st.one_of(st.sampled_from([0.0, 0.1, -0.1, float("nan")]), st.floats(-3, 3, width=32))
    row = [data.draw(one) for one in (number, category, category, number)]
    rows = np.array([row], dtype=model.dtype)
    np.testing.assert_allclose(model.run(rows)[1][:, 1], predict(rows), rtol=close, atol=close)


def test_what_runs_is_valid_onnx_and_as_large_as_its_trees() -> None:
    """Sets inside of sets do not multiply: a node stays one node."""
    for library in ("xgboost", "lightgbm"):
        _, forest, _, _ = loaded(library, "sets")
        model = onnx.load_model_from_string(to_onnx(forest))
        onnx.checker.check_model(model, full_check=True)
        [trees] = [node for node in model.graph.node if node.op_type == "TreeEnsemble"]
        [features] = [one.ints for one in trees.attribute if one.name == "nodes_featureids"]
        assert len(features) == np.count_nonzero(forest.trees.left >= 0)


def test_many_rows_are_run_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And answered as at once."""
    model, _, predict, _ = loaded("lightgbm", "sets")
    monkeypatch.setattr(model, "_most", 7)
    rows = samples()[0].astype(np.float64)
    labels, probabilities = model.run(rows)
    np.testing.assert_allclose(probabilities[:, 1], predict(rows), rtol=1e-12)
    np.testing.assert_array_equal(labels, probabilities[:, 1] > 0.5)


# -- names ----------------------------------------------------------------------------------------------------------

TOWNS = ["Bern", "Chur", "Genf", "Olten"]


def names(values: list[Any]) -> dict[str, Any]:
    """Categories as XGBoost 3.1 and later writes them."""
    if all(isinstance(value, int) for value in values):
        return {"type": 15, "values": values}
    text = "".join(values).encode()
    return {"offsets": np.cumsum([0, *map(len, values)]).tolist(), "values": list(text)}


def named_xgboost(of_second: list[Any], of_third: list[Any]) -> bytes:
    """A model of XGBoost's that was trained on a frame."""
    document = json.loads(bytes(boosted("sets").save_raw("json")))
    learner = document["learner"]
    learner["feature_names"] = ["age", "town", "plan", "income"]
    nothing: dict[str, Any] = {"offsets": [], "values": []}
    encoded = [names(values) if values else nothing for values in ([], of_second, of_third, [])]
    learner["gradient_booster"]["model"]["cats"] = {"enc": encoded, "feature_segments": [], "sorted_idx": []}
    return json.dumps(document).encode()


def named_lightgbm(of_second: list[Any], of_third: list[Any]) -> bytes:
    """A model of LightGBM's that was trained on a frame."""
    text = leafwise("sets").model_to_string().replace("Column_0 Column_1 Column_2 Column_3", "age town plan income")
    return text.replace("pandas_categorical:null", f"pandas_categorical:{json.dumps([of_second, of_third])}").encode()


def many(values: list[str]) -> list[str]:
    """As many names as the second feature has categories."""
    return [*values, *(f"town {number}" for number in range(len(values), MANY))]


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_texts_are_encoded_as_in_training(library: str) -> None:
    """Each feature is an input, and a name is its code."""
    write, load = (named_xgboost, load_xgboost) if library == "xgboost" else (named_lightgbm, load_lightgbm)
    towns, plans = many(TOWNS), ["basic", "plus", "pro"]
    data = write(towns, plans)
    found = inspect("m.ubj" if library == "xgboost" else "m.lgb", data).signature
    number = "FP32" if library == "xgboost" else "FP64"
    assert [(one.name, one.datatype, one.shape, one.missing) for one in found.inputs] == [
        ("age", number, (-1, 1), True),
        ("town", "BYTES", (-1, 1), True),
        ("plan", "BYTES", (-1, 1), True),
        ("income", number, (-1, 1), True),
    ]
    plain, _, predict, close = loaded(library, "sets")
    rows = samples()[0].astype(plain.dtype)
    text = {1: towns, 2: plans}
    inputs = {
        one.name: np.array(
            [[None if np.isnan(code) else text[at][int(code)]] for code in rows[:, at]]
            if at in text
            else rows[:, [at]],
            dtype=object if at in text else plain.dtype,
        )
        for at, one in enumerate(found.inputs)
    }
    model = load(data)
    assert model.signature == found
    np.testing.assert_allclose(model.run_named(inputs)[1][:, 1], predict(rows), rtol=close, atol=close)
    forest = (read_xgboost if library == "xgboost" else read_lightgbm)(data)
    np.testing.assert_array_equal(forest.columns.codes(inputs), rows)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_numbers_that_are_names_are_encoded_too_and_rows_stay_rows(library: str) -> None:
    """A frame's column of the categories 100, 107, 114 … is asked by those numbers."""
    write, load = (named_xgboost, load_xgboost) if library == "xgboost" else (named_lightgbm, load_lightgbm)
    codes = [100 + 7 * number for number in range(MANY)]
    model = load(write(codes, [30, 20, 10]))
    assert model.signature.features == 4
    plain, _, predict, close = loaded(library, "sets")
    rows = samples()[0].astype(plain.dtype)
    given = rows.copy()
    given[:, 1], given[:, 2] = 100 + 7 * rows[:, 1], 30 - 10 * rows[:, 2]
    np.testing.assert_allclose(model.run(given)[1][:, 1], predict(rows), rtol=close, atol=close)


def test_a_name_that_is_not_known_is_missing_for_lightgbm() -> None:
    """As when it predicts from a frame."""
    model = load_lightgbm(named_lightgbm(many(TOWNS), ["basic", "plus", "pro"]))
    one = {"age": [[0.5]], "town": [["Rom"]], "plan": [["plus"]], "income": [[1.0]]}
    given = {name: np.array(value, dtype=object if name in ("town", "plan") else float) for name, value in one.items()}
    wanted = leafwise("sets").predict(np.array([[0.5, np.nan, 1, 1]]))
    np.testing.assert_allclose(model.run_named(given)[1][:, 1], wanted, rtol=1e-12)


def test_a_request_brings_names_and_null() -> None:
    """Through the handler: texts, null for what is missing, and 400 for a name that XGBoost would not take."""
    for data, kind in (
        (named_xgboost(many(TOWNS), ["basic", "plus", "pro"]), "xgboost"),
        (named_lightgbm(many(TOWNS), ["basic", "plus", "pro"]), "lightgbm"),
    ):
        handler = make_handler(
            runtime="onnx", environ=environment(pointer(data, format=kind)), fetch=lambda *_, data=data: data
        )
        known = {"age": 1.5, "town": "Chur", "plan": "pro", "income": None}
        for record, said in ((known, 200), (known | {"town": None}, 200), (known | {"town": "Rom"}, 0)):
            status, answer = ask(handler, event({"records": [record]}))
            assert status == (said or (400 if kind == "xgboost" else 200)), answer
            assert status == 200 or "'Rom'; 'Bern', 'Chur'" in answer["error"]
        status, answer = ask(handler, event({"records": [known | {"town": 3}]}))
        assert status == 400


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_an_export_takes_names_too(library: str, tmp_path: Path) -> None:
    """And is compared with the library on names, codes that no node has, and gaps."""
    write = named_xgboost if library == "xgboost" else named_lightgbm
    for plans in (["basic", "plus", "pro"], [30, 20, 10]):
        for towns in (many(TOWNS), list(range(100, 100 + MANY))):
            path = tmp_path / ("model.xgb.json" if library == "xgboost" else "model.lgb")
            path.write_bytes(write(towns, plans))
            exported = exported_to_onnx(path)
            assert exported.report.passed, exported.report.reason
            assert exported.report.rows_off == 0


def test_more_names_than_a_signature_holds_are_still_known() -> None:
    """The registry keeps a short list; the predictor knows them all."""
    towns = many(TOWNS) + [f"hamlet {number}" for number in range(5_000)]
    data = named_xgboost(towns, ["basic", "plus", "pro"])
    model = load_xgboost(data)
    assert model.signature.ranges is not None
    assert [name for name, _ in model.signature.ranges.rules] == ["plan"]
    assert len(json.dumps(model.signature.to_json())) < 2_000
    handler = make_handler(runtime="onnx", environ=environment(pointer(data, format="xgboost")), fetch=lambda *_: data)
    known = {"age": 1.5, "town": "hamlet 4999", "plan": "pro", "income": None}
    for record, said in ((known, 200), (known | {"town": None}, 200), (known | {"town": "Rom"}, 400)):
        status, answer = ask(handler, event({"records": [known, record]}))
        assert status == said, answer
    assert answer["error"] == "'town' in row 2 is 'Rom', which is no category of it"
    numbers = load_xgboost(named_xgboost(list(range(100_000)), [30, 20, 10]))
    unknown, missing = np.array([[0, 0.5, 30, 0], [0, np.nan, 30, 0]], dtype=np.float32)
    np.testing.assert_array_equal(numbers.run(unknown[np.newaxis])[1], numbers.run(missing[np.newaxis])[1])


def test_a_missing_text_is_no_text() -> None:
    """Not the empty one, where that is a name, and not "None"."""
    towns = many(["", "None", "?"])
    model = load_lightgbm(named_lightgbm(towns, ["a", "b", "c"]))
    for town, code in ((None, np.nan), ("", 0), ("None", 1), ("?", 2), ("??", np.nan), ("rare", np.nan)):
        given = {
            "age": np.zeros((1, 1)),
            "town": np.array([[town]], dtype=object),
            "plan": np.array([["b"]], dtype=object),
            "income": np.ones((1, 1)),
        }
        wanted = leafwise("sets").predict(np.array([[0, code, 1, 1]]))
        np.testing.assert_allclose(model.run_named(given)[1][:, 1], wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: named_xgboost(many(["Zürich"]), ["a", "b", "c"]), "not ASCII"),
        (lambda: named_xgboost(many(["Bern", "Bern"]), ["a", "b", "c"]), "one name for two"),
        (lambda: named_xgboost([], [2**24, 2**24 + 1, 0]), "cannot tell apart"),
        (lambda: named_xgboost(many(TOWNS), []).replace(b'"age"', b'"value"'), "rename"),
        (lambda: named_xgboost(many(TOWNS), []).replace(b'"age"', b'"income"'), "one name to two"),
        (lambda: re.sub(rb'"feature_names": \[.*?\]', b'"feature_names": []', named_xgboost(many(TOWNS), [])), "none"),
        (lambda: named_lightgbm(many(TOWNS), ["a", 1]), "neither all texts nor all numbers"),
        (lambda: named_lightgbm(many(TOWNS), [["a"], ["b"]]), "neither all texts"),
        (lambda: named_lightgbm(TOWNS, ["a", "b", "c"]), "codes in training"),
        (lambda: named_lightgbm(many(TOWNS), ["a", "b", "c"]).replace(b"feature: 1,2]", b"feature: 1]"), "2 columns"),
        (lambda: named_lightgbm(many(TOWNS), ["a", "b", "c"]).replace(b"feature: 1,2]", b"feature: 0,1]"), "codes"),
        (lambda: leafwise("sets").model_to_string().replace("cal:null", "cal:[[").encode(), "cannot be read"),
    ],
)
def test_names_that_say_no_codes_are_refused(data: Callable[[], bytes], words: str) -> None:
    """In a sentence that says what to do."""
    raw = data()
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.lgb" if raw.startswith(b"tree") else "m.xgb.json", raw)


# -- what is no set -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"categories": [2**23]}, "8388608; 0 to 4,194,304"),
        ({"categories": [-1]}, "category -1"),
        ({"categories": [2**70]}, "64 bits"),
        ({"categories_sizes": [2]}, "fit together"),
        ({"categories_sizes": [2**40]}, "fit together"),
        ({"categories_sizes": [0]}, "fit together"),
        ({"categories_segments": [1]}, "fit together"),
        ({"categories_nodes": [1]}, "fit together"),
        ({"categories_nodes": [7], "split_type": []}, "none of its splits"),
        ({"categories_nodes": [1], "split_type": []}, "none of its splits"),
        ({"split_type": [1, 1, 0]}, "fit together"),
    ],
)
def test_categories_that_make_no_set_are_refused(values: dict[str, Any], words: str) -> None:
    """In XGBoost's lists."""
    document = json.loads(bytes(boosted("sets").save_raw("json")))
    small = {
        "left_children": [1, -1, -1],
        "right_children": [2, -1, -1],
        "split_indices": [1, 0, 0],
        "split_conditions": [0.5, -1, 1],
        "default_left": [0, 0, 0],
        "split_type": [1, 0, 0],
        "categories": [3],
        "categories_nodes": [0],
        "categories_segments": [0],
        "categories_sizes": [1],
    }
    document["learner"]["gradient_booster"]["model"]["trees"][0] |= small | values
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.xgb.json", json.dumps(document).encode())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("cat_boundaries=0", "cat_boundaries=1", "fit together"),
        ("cat_boundaries=0 [0-9]+", "cat_boundaries=0 0", "fit together"),
        ("cat_threshold=[0-9]+", "cat_threshold=-1", "32 bits"),
        ("cat_threshold=[0-9]+", "cat_threshold=4294967296", "32 bits"),
        ("cat_threshold=[0-9]+", "cat_threshold=99999999999999999999", "no number"),
        ("cat_threshold=", "cat_threshold=1 ", "numbers"),
        ("threshold=0", "threshold=1", "fit together"),
        ("decision_type=9", "decision_type=8", "fit together"),
        ("decision_type=9", "decision_type=99", "is none"),
        ("num_cat=[0-9]+", "num_cat=999", "cat_boundaries has"),
    ],
)
def test_sets_of_lightgbm_that_are_none_are_refused(old: str, new: str, words: str) -> None:
    """In its words of 32 categories."""
    text = spoilt(leafwise("sets").model_to_string(), old, new)
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.lgb", text.encode())


def test_a_feature_is_a_number_or_a_category() -> None:
    """One that is both has no meaning."""
    document = json.loads(bytes(boosted("sets").save_raw("json")))
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        tree["split_indices"] = [1 if feature == 0 else feature for feature in tree["split_indices"]]
    with pytest.raises(ArtifactRefused, match="a number at one node and a category at another"):
        inspect("m.xgb.json", json.dumps(document).encode())


@given(st.data())
@settings(max_examples=150)
def test_a_damaged_file_with_categories_is_refused_or_still_answers(data: st.DataObject) -> None:
    """A flipped, cut or doubled byte anywhere: either a sentence, or a model that runs."""
    raw, name, load = data.draw(
        st.sampled_from(
            [
                (bytes(boosted("sets").save_raw("ubj")), "m.ubj", load_xgboost),
                (named_xgboost(many(TOWNS), [3, 2, 1]), "m.xgb.json", load_xgboost),
                (named_lightgbm(many(TOWNS), [3, 2, 1]), "m.lgb", load_lightgbm),
            ]
        )
    )
    bad = data.draw(damaged(raw))
    try:
        signature = inspect(name, bad).signature
    except ArtifactRefused as refused:
        assert len(refused.reason) > 10  # noqa: PT017 - a sentence
        return
    model = load(bad)
    assert model.signature == signature
    assert model.run_named(interface_of(signature, model.axes).zeros())[0].shape[0] == 1
