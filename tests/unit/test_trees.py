"""Trees answer as the library that grew them answers, and nothing that is no tree is let through."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from functools import cache
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
from perch.artifacts.trees import MAX_DEPTH
from perch.artifacts.trees_onnx import to_onnx
from perch.artifacts.ubjson import read_ubjson
from perch.artifacts.xgboost_file import read_xgboost
from perch.predictor.runtimes.trees import load_lightgbm, load_xgboost
from tests.unit.damage import damaged, spoilt

ROWS, FEATURES = 300, 4

XGBOOST: dict[str, dict[str, Any]] = {
    "binary": {"objective": "binary:logistic"},
    "classes": {"objective": "multi:softprob", "num_class": 3},
    "forests": {"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 3, "subsample": 0.5},
    "numbers": {"objective": "reg:squarederror"},
    "share": {"objective": "reg:logistic"},
    "counts": {"objective": "count:poisson"},
    "dart": {"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.5},
    "stumps": {"objective": "reg:absoluteerror", "max_depth": 1, "gamma": 1e9},
    "raw": {"objective": "binary:logitraw"},
    "hinge": {"objective": "binary:hinge"},
    "hazards": {"objective": "survival:cox"},
    "quantiles": {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]},
    "several": {"objective": "reg:squarederror"},
    "vectors": {"objective": "reg:squarederror", "multi_strategy": "multi_output_tree"},
    "tags": {"objective": "binary:logistic", "multi_strategy": "multi_output_tree"},
    "dart of classes": {"objective": "multi:softmax", "num_class": 3, "booster": "dart", "rate_drop": 0.5},
    "own": {"objective": lambda sums, rows: (sums - rows.get_label(), np.ones_like(sums))},
    "line": {"objective": "binary:logistic", "booster": "gblinear"},
    "lines of classes": {"objective": "multi:softprob", "num_class": 3, "booster": "gblinear"},
}
LIGHTGBM: dict[str, dict[str, Any]] = {
    "binary": {"objective": "binary"},
    "steep": {"objective": "binary", "sigmoid": 2.5},
    "classes": {"objective": "multiclass", "num_class": 3},
    "numbers": {"objective": "regression"},
    "counts": {"objective": "poisson"},
    "share": {"objective": "cross_entropy"},
    "dart": {"objective": "binary", "boosting": "dart"},
    "forest": {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    "zeros": {"objective": "binary", "zero_as_missing": True},
    "nothing missing": {"objective": "binary", "use_missing": False},
    "stumps": {"objective": "regression", "min_data_in_leaf": 10_000},
    "classes apart": {"objective": "multiclassova", "num_class": 3, "sigmoid": 2.0},
    "forest of classes": {
        "objective": "multiclass",
        "num_class": 3,
        "boosting": "rf",
        "bagging_freq": 1,
        "bagging_fraction": 0.5,
    },
    "roots": {"objective": "regression", "reg_sqrt": True},
    "odds": {"objective": "cross_entropy_lambda"},
    "ranks": {"objective": "lambdarank"},
    "ranks at random": {"objective": "rank_xendcg"},
    "own": {"objective": lambda sums, rows: (sums - rows.get_label(), np.ones_like(sums))},
    "lines": {"objective": "regression", "linear_tree": True, "linear_lambda": 0.1},
    "lines of classes": {"objective": "multiclass", "num_class": 3, "linear_tree": True},
    "own classes": {
        "objective": lambda sums, rows: (sums - np.eye(3)[rows.get_label().astype(int)], np.ones_like(sums)),
        "num_class": 3,
    },
}
RANKS = ("ranks", "ranks at random")


def samples() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows on a coarse grid, so that many lie on thresholds, with gaps; and a number for each."""
    random = np.random.default_rng(7)
    rows = random.normal(size=(ROWS, FEATURES)).astype(np.float32).round(1)
    rows[random.random(rows.shape) < 0.1] = np.nan
    return rows, np.nan_to_num(rows[:, 0]) * 2 - np.nan_to_num(rows[:, 1])


def targets(kind: str, sums: NDArray[Any]) -> NDArray[Any]:
    """What a model of this kind learns."""
    if "classes" in kind or "ranks" in kind or kind == "forests":
        return np.asarray(np.digitize(sums, [-1, 1]))
    if kind in ("several", "vectors"):
        return np.stack([sums, -sums], axis=1)
    if kind == "tags":
        return np.stack([sums > 0, sums > 1], axis=1)
    if kind in ("share", "odds"):
        return np.asarray(1 / (1 + np.exp(-sums)))
    if kind in ("numbers", "stumps", "quantiles", "roots", "own", "lines"):
        return sums
    return np.asarray({"counts": np.abs(sums).round(), "hazards": np.abs(sums) + 0.1}.get(kind, sums > 0))


@cache
def boosted(kind: str) -> xgboost.Booster:
    """A model of XGBoost's."""
    rows, sums = samples()
    param = {"max_depth": 4, "nthread": 1, **XGBOOST[kind]}
    own = param.pop("objective") if callable(param["objective"]) else None
    return xgboost.train(param, xgboost.DMatrix(rows, targets(kind, sums)), num_boost_round=12, obj=own)


@cache
def leafwise(kind: str) -> lightgbm.Booster:
    """A model of LightGBM's."""
    rows, sums = samples()
    param = {"verbose": -1, "num_leaves": 15, "num_threads": 1, **LIGHTGBM[kind]}
    group = [ROWS // 3] * 3 if kind in RANKS else None
    given = lightgbm.Dataset(rows.astype(np.float64), targets(kind, sums), group=group)
    return lightgbm.train(param, given, num_boost_round=12)


def answered(outputs: list[Any], wanted: NDArray[Any]) -> NDArray[Any]:
    """Of our outputs, what the library gives."""
    numbers: NDArray[Any] = outputs[-1]
    if wanted.ndim == 1 and numbers.shape[1] > 2:  # the label alone
        return np.asarray(outputs[0])
    return numbers[:, 1] if len(outputs) == 2 and wanted.ndim == 1 else numbers.reshape(wanted.shape)


def thresholds(forest: Any) -> NDArray[Any]:
    """The numbers at which rows part."""
    found: NDArray[Any] = np.unique(forest.trees.value[forest.trees.left >= 0])
    found = found[np.isfinite(found)]
    return found if len(found) else np.zeros(1, dtype=forest.trees.value.dtype)


@pytest.mark.parametrize("form", ["json", "ubj"])
@pytest.mark.parametrize("kind", XGBOOST)
def test_xgboost_is_answered_as_by_xgboost(kind: str, form: str) -> None:
    """In both of its formats, for every kind of objective."""
    rows, _ = samples()
    booster = boosted(kind)
    wanted = booster.predict(xgboost.DMatrix(rows))
    given = answered(load_xgboost(bytes(booster.save_raw(form))).run(rows), wanted)
    np.testing.assert_allclose(given, wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("kind", LIGHTGBM)
def test_lightgbm_is_answered_as_by_lightgbm(kind: str) -> None:
    """In double precision, whatever counts as missing."""
    rows = samples()[0].astype(np.float64)
    booster = leafwise(kind)
    wanted = np.asarray(booster.predict(rows))
    given = answered(load_lightgbm(booster.model_to_string().encode()).run(rows), wanted)
    np.testing.assert_allclose(given, wanted, rtol=1e-12, atol=1e-12)


@given(st.data())
@settings(max_examples=60)
def test_a_row_at_a_threshold_goes_the_librarys_way(data: st.DataObject) -> None:
    """XGBoost's `<` of float32 and LightGBM's `<=` of float64: at a threshold, one bit beside it, and missing."""
    if data.draw(st.booleans()):
        kind = data.draw(st.sampled_from(sorted(XGBOOST)))
        raw = bytes(boosted(kind).save_raw("ubj"))
        model, at = load_xgboost(raw), thresholds(read_xgboost(raw))
        ask: Callable[[Any], Any] = lambda rows: boosted(kind).predict(xgboost.DMatrix(rows))  # noqa: E731
        close = 2e-6
    else:
        kind = data.draw(st.sampled_from(sorted(LIGHTGBM)))
        raw = leafwise(kind).model_to_string().encode()
        model, at = load_lightgbm(raw), thresholds(read_lightgbm(raw))
        ask = leafwise(kind).predict
        close = 1e-12
    edges = st.sampled_from(at.tolist()).map(at.dtype.type)
    value = st.one_of(
        edges,
        edges.map(lambda one: np.nextafter(one, at.dtype.type(np.inf))),
        edges.map(lambda one: np.nextafter(one, at.dtype.type(-np.inf))),
        st.just(at.dtype.type(np.nan)),
        st.sampled_from([at.dtype.type(one) for one in (0.0, -0.0, 1e-35, -1e-35, 1.1e-35)]),
        st.floats(width=32, allow_infinity=False),
    )
    row = np.array([data.draw(st.lists(value, min_size=FEATURES, max_size=FEATURES))], dtype=at.dtype)
    wanted = np.asarray(ask(row))
    np.testing.assert_allclose(answered(model.run(row), wanted), wanted, rtol=close, atol=close)


def test_what_runs_is_valid_onnx() -> None:
    """The bytes that are written without protobuf are what the onnx package reads and checks."""
    for forest in (
        read_xgboost(bytes(boosted("classes").save_raw("json"))),
        read_xgboost(bytes(boosted("stumps").save_raw("json"))),
        read_lightgbm(leafwise("zeros").model_to_string().encode()),
    ):
        model = onnx.load_model_from_string(to_onnx(forest))
        onnx.checker.check_model(model, full_check=True)
        assert inspect("m.onnx", to_onnx(forest)).signature.features == FEATURES


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_model_that_stopped_early_ends_at_its_best_iteration(parallel: int) -> None:
    """As XGBoost's scikit-learn classes answer."""
    rows, sums = samples()
    noisy = np.random.default_rng(3).permutation(targets("classes", sums))
    model = xgboost.XGBClassifier(
        n_estimators=40, max_depth=3, early_stopping_rounds=5, num_parallel_tree=parallel, subsample=0.7, n_jobs=1
    )
    model.fit(rows[:200], noisy[:200], eval_set=[(rows[200:], noisy[200:])], verbose=False)
    data = bytes(model.get_booster().save_raw("ubj"))
    found = inspect("m.ubj", data)
    assert found.details["best_iteration"] == model.best_iteration
    assert found.details["trees"] == (model.best_iteration + 1) * 3 * parallel < 40 * 3 * parallel
    labels, probabilities = load_xgboost(data).run(rows)
    np.testing.assert_allclose(probabilities, model.predict_proba(rows), rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(labels, model.predict(rows))


def test_an_infinite_threshold_parts_what_is_missing_from_what_is_not() -> None:
    """As LightGBM writes it where the gaps of a feature tell and its numbers do not."""
    text = re.sub("tree_sizes=.*\n", "", leafwise("numbers").model_to_string())
    text = re.sub("threshold=[^ ]+", "threshold=inf", text)
    rows = samples()[0].astype(np.float64)
    wanted = np.asarray(lightgbm.Booster(model_str=text).predict(rows))
    assert len(np.unique(wanted)) > 1
    np.testing.assert_allclose(load_lightgbm(text.encode()).run(rows)[0][:, 0], wanted, rtol=1e-12)


def test_a_base_score_may_be_a_number_as_older_versions_wrote_it() -> None:
    """`5E-1` and `[5E-1]` are the same."""
    document = json.loads(bytes(boosted("binary").save_raw("json")))
    param = document["learner"]["learner_model_param"]
    param["base_score"] = json.loads(param["base_score"])[0]
    param["base_score"] = f"{param['base_score']:E}"
    np.testing.assert_allclose(
        read_xgboost(json.dumps(document).encode()).base, read_xgboost(bytes(boosted("binary").save_raw("json"))).base
    )


def test_dropout_is_read_where_each_xgboost_writes_it() -> None:
    """Until 3.3 in a booster of its own, `dart`; since then beside the trees of any booster."""
    older = json.loads(bytes(boosted("dart").save_raw("json")))
    booster = older["learner"]["gradient_booster"]
    if booster["name"] != "dart":  # this is the newer: write what the older would have
        nested = booster["model"]
        booster = {
            "name": "dart",
            "weight_drop": nested.pop("weight_drop"),
            "gbtree": {"name": "gbtree", "model": nested},
        }
    inner = {**booster["gbtree"]["model"], "weight_drop": booster["weight_drop"]}
    newer = {"name": "gbtree", "model": inner}
    rows = np.random.default_rng(3).normal(size=(20, FEATURES)).astype(np.float32)
    wanted = boosted("dart").predict(xgboost.DMatrix(rows))
    for written in (booster, newer):
        document = {**older, "learner": {**older["learner"], "gradient_booster": written}}
        model = load_xgboost(json.dumps(document).encode())
        np.testing.assert_allclose(answered(model.run(rows), wanted), wanted, rtol=2e-6, atol=2e-6)


def test_what_a_later_xgboost_says_of_all_trees_is_not_passed_over() -> None:
    """Dropout was: the answers were others, and nobody was told."""
    document = json.loads(bytes(boosted("numbers").save_raw("json")))
    document["learner"]["gradient_booster"]["model"]["tree_scale"] = [2.0]
    with pytest.raises(ArtifactRefused, match="tree_scale"):
        load_xgboost(json.dumps(document).encode())


def test_a_signature_says_what_goes_in_and_comes_out() -> None:
    """Rows with gaps in; labels and probabilities out, or numbers."""
    classes = inspect("m.ubj", bytes(boosted("classes").save_raw("ubj"))).signature
    assert classes.features == FEATURES
    assert classes.inputs[0].missing
    assert [(one.name, one.shape) for one in classes.outputs] == [("label", (-1,)), ("probabilities", (-1, 3))]
    numbers = inspect("m.lgb", leafwise("numbers").model_to_string().encode()).signature
    assert [(one.name, one.datatype, one.shape) for one in numbers.outputs] == [("value", "FP64", (-1, 1))]


# -- what is no tree ------------------------------------------------------------------------------------------------


def changed(**values: Any) -> bytes:
    """A small XGBoost model with other nodes in its first tree."""
    document = json.loads(bytes(boosted("binary").save_raw("json")))
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    small = {
        "left_children": [1, -1, -1],
        "right_children": [2, -1, -1],
        "split_indices": [0, 0, 0],
        "split_conditions": [0.5, -1, 1],
        "default_left": [0, 0, 0],
        "split_type": [0, 0, 0],
    }
    tree |= small | values
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"left_children": [0, -1, -1]}, "two ways"),
        ({"left_children": [1, 0, -1], "right_children": [2, 2, -1]}, "two ways"),
        ({"left_children": [1, -1, -1], "right_children": [1, -1, -1]}, "two ways"),
        ({"left_children": [3, -1, -1]}, "outside"),
        ({"right_children": [-5, -1, -1]}, "outside"),
        ({"right_children": [-1, -1, -1]}, "one child"),
        ({"left_children": [2**70, -1, -1]}, "64 bits"),
        ({"split_indices": [4, 0, 0]}, "feature 4 of 4"),
        ({"split_indices": [-1, 0, 0]}, "feature -1 of 4"),
        ({"split_conditions": [1e39, 0, 0]}, "threshold"),
        ({"split_conditions": [0.5, 1e300, 0]}, "leaf"),
        ({"split_conditions": [0.5, 0]}, "length"),
        ({"default_left": [1]}, "length"),
        ({"split_type": [1, 0, 0], "categories": [1]}, "fit together"),
        (
            {
                "left_children": [],
                "right_children": [],
                "split_indices": [],
                "split_conditions": [],
                "default_left": [],
            },
            "no nodes",
        ),
        ({"split_conditions": ["a", 0, 0]}, "readable"),
        ({"left_children": [1.5, -1, -1]}, "readable"),
    ],
)
def test_nodes_that_make_no_tree_are_refused(values: dict[str, Any], words: str) -> None:
    """Every node is checked before anything follows it."""
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.xgb.json", changed(**values))


def test_a_tree_may_be_deep_and_not_deeper() -> None:
    """A chain of as many nodes as are allowed still runs; one more is refused."""
    for depth in (MAX_DEPTH, MAX_DEPTH + 1):
        inner, leaf = range(depth), depth
        data = changed(
            left_children=[*(node + 1 for node in inner), -1, *[-1] * depth],
            right_children=[*(leaf + 1 + node for node in inner), -1, *[-1] * depth],
            **{
                name: [0] * (2 * depth + 1)
                for name in ("split_indices", "split_conditions", "default_left", "split_type")
            },
        )
        if depth == MAX_DEPTH:
            assert np.isfinite(load_xgboost(data).run(np.zeros((1, FEATURES), dtype=np.float32))[1]).all()
        else:
            with pytest.raises(ArtifactRefused, match="deeper"):
                inspect("m.xgb.json", data)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("objective", "name"), "binary:fringe", "objective"),
        (("objective", "name"), "multi:softprob", "not served"),
        (("gradient_booster", "name"), "gbforest", "booster"),
        (("gradient_booster", "name"), "gblinear", "0 finite or infinite weights"),
        (("learner_model_param", "num_feature"), "1000000000", "features"),
        (("learner_model_param", "num_class"), "1000000000", "not served"),
        (("learner_model_param", "base_score"), "NaN", "base_score"),
        (("learner_model_param", "base_score"), "[0.5, 0.5, 0.5]", "base_score"),
        (("learner_model_param", "base_score"), "1", "base_score"),
        (("attributes", "best_iteration"), "99", "best_iteration"),
        (("gradient_booster", "model", "tree_info"), [9] * 12, "outside"),
        (("gradient_booster", "model", "tree_info"), [0], "length"),
    ],
)
def test_what_the_header_says_is_checked(path: tuple[str, ...], value: Any, words: str) -> None:
    """Sizes, objectives and boosters by an allow-list."""
    document = json.loads(bytes(boosted("binary").save_raw("json")))
    place = document["learner"]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.xgb.json", json.dumps(document).encode())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("objective=binary sigmoid:1", "objective=multiclassova", "objective"),
        ("objective=binary sigmoid:1", "objective=binaries", "objective"),
        ("objective=binary sigmoid:1", "objective=binary sigmoid:0", "sigmoid"),
        ("max_feature_idx=3", "max_feature_idx=999999999", "features"),
        ("num_tree_per_iteration=1", "num_tree_per_iteration=3", "outputs"),
        ("is_linear=0", "is_linear=1", "num_features is missing"),
        ("num_cat=0", "num_cat=2", "cat_boundaries"),
        ("decision_type=[0-9]+", "decision_type=11", "cat_boundaries"),
        ("num_leaves=[0-9]+", "num_leaves=1000000000", "whole number"),
        ("num_leaves=[0-9]+", "num_leaves=100000000", "leaves"),
        ("num_leaves=[0-9]+", "num_leaves=16", "numbers"),
        ("left_child=", "left_child=7 ", "numbers"),
        ("end of trees", "", "cut short"),
        ("tree\n", "forest\n", "no LightGBM"),
        ("split_feature=[0-9]+", "split_feature=-2", "feature"),
    ],
)
def test_a_lightgbm_text_is_checked_as_well(old: str, new: str, words: str) -> None:
    """Its lines, their lengths and every number."""
    text = spoilt(leafwise("binary").model_to_string(), old, new)
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.lgb", text.encode())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("num_features=[0-9]+", "num_features=99", "numbers where"),
        ("num_features=[0-9]+", "num_features=-1", "factors"),
        ("num_features=[0-9]+", "num_features=9000000000000000000", "factors"),
        ("leaf_features=[0-9]+", "leaf_features=4", "feature 4 of 4"),
        ("leaf_features=[0-9]+", "leaf_features=-1", "feature -1 of 4"),
        ("leaf_coeff=[^ ]+", "leaf_coeff=inf", "no finite number"),
        ("leaf_const=[^ ]+", "leaf_const=nan", "no finite number"),
    ],
)
def test_linear_leaves_that_are_none_are_refused(old: str, new: str, words: str) -> None:
    """Their lists, features and factors."""
    head, _, second = leafwise("lines").model_to_string().partition("Tree=1")  # the first has constants alone
    assert re.search(r"leaf_features=[0-9]", second)
    second = spoilt(second, old, new)
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.lgb", f"{head}Tree=1{second}".encode())


@pytest.mark.parametrize(("child", "words"), [("left_child", "two ways"), ("right_child", "two ways")])
def test_a_cycle_in_a_lightgbm_tree_is_refused(child: str, words: str) -> None:
    """A node that is its own child."""
    lines = leafwise("binary").model_to_string().split("\n")
    at = next(number for number, line in enumerate(lines) if line.startswith(child))
    lines[at] = f"{child}=0 {lines[at].split(' ', 1)[1]}"
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.lgb", "\n".join(lines).encode())


@given(st.data())
@settings(max_examples=120)
def test_a_damaged_file_is_refused_or_still_answers(data: st.DataObject) -> None:
    """A flipped, cut or doubled byte anywhere: either a sentence, or a model that runs."""
    raw, name = data.draw(
        st.sampled_from(
            [
                (bytes(boosted("binary").save_raw("ubj")), "m.ubj"),
                (bytes(boosted("binary").save_raw("json")), "m.xgb.json"),
                (leafwise("binary").model_to_string().encode(), "m.lgb"),
            ]
        )
    )
    bad = data.draw(damaged(raw))
    try:
        features = inspect(name, bad).signature.features
    except ArtifactRefused as refused:
        assert len(refused.reason) > 10  # noqa: PT017 - a sentence
        return
    load = load_lightgbm if name == "m.lgb" else load_xgboost
    model = load(bad)
    assert len(model.run(np.zeros((1, features), dtype=model.dtype))) >= 1


def test_a_list_that_declares_more_than_the_file_has_takes_no_memory() -> None:
    """A billion declared numbers are a sentence, and not an allocation."""
    billion = (10**9).to_bytes(8, "big")
    for lie in (b"[$d#L" + billion, b"[#L" + billion, b"SL" + billion, b"[$L#l" + (2**31 - 1).to_bytes(4, "big")):
        with pytest.raises(ArtifactRefused, match="cut short"):
            read_ubjson(lie)
    with pytest.raises(ArtifactRefused, match="deeper"):
        read_ubjson(b"[" * 1_000)


def test_a_name_that_says_something_else_is_told_how_to_be_called() -> None:
    """`model.json` and `model.txt` are nobody's format; their bytes say whose they could be."""
    for name, data in (
        ("model.json", bytes(boosted("binary").save_raw("json"))),
        ("model.txt", leafwise("binary").model_to_string().encode()),
        ("model.onnx", bytes(boosted("binary").save_raw("ubj"))),
    ):
        with pytest.raises(ArtifactRefused, match=r"rename it: .*\*\.ubj"):
            inspect(name, data)


def test_reading_leaves_the_file_as_it_is() -> None:
    """A view of memory is enough."""
    raw = bytes(boosted("binary").save_raw("ubj"))
    text = leafwise("binary").model_to_string().encode()
    assert copy.copy(read_xgboost(memoryview(raw)).features) == FEATURES
    assert read_lightgbm(memoryview(text)).features == FEATURES


def test_numbers_that_would_become_too_many_objects_are_refused() -> None:
    """A byte each in the file, thirty-two in memory."""
    count = 13_000_000
    learner = b"{L" + (7).to_bytes(8, "big") + b"learner" + b"[$U#L" + count.to_bytes(8, "big") + bytes(count) + b"}"
    with pytest.raises(ArtifactRefused, match="13,000,000 numbers"):
        inspect("m.ubj", learner)
