"""A skops file answers as the estimator that was saved, and holds nothing but numbers and names of an allow-list."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.impute import SimpleImputer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, SplineTransformer, StandardScaler

from perch.artifacts import ArtifactRefused, inspect
from perch.artifacts.npy import read_npy
from perch.predictor.runtimes.sklearn import load_skops
from tests.unit.damage import damaged
from tests.unit.sklearn_models import FEATURES, fitted, samples, saved


@cache
def lone() -> bytes:
    """A file of a class whose attributes are all read."""
    return saved(fitted(LogisticRegression()))


@cache
def forest() -> bytes:
    """A file with trees."""
    return saved(fitted(RandomForestClassifier(n_estimators=2, max_depth=2, random_state=0)))


@pytest.mark.parametrize(
    "estimator",
    [
        KNeighborsClassifier(metric=np.dot),
        KernelRidge(),
        GradientBoostingClassifier(n_estimators=2, init=LogisticRegression()),
        HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]),
        make_pipeline(FunctionTransformer(np.abs), LogisticRegression()),
        make_pipeline(SelectFromModel(LogisticRegression(), importance_getter="coef_"), LogisticRegression()),
        make_pipeline(SimpleImputer(), StandardScaler(), SplineTransformer(), Ridge()),
    ],
    ids=lambda one: str(one)[:40],
)
def test_what_is_not_on_the_list_is_refused_with_a_way_out(estimator: Any) -> None:
    """Estimators that trust their arrays, and what calls functions."""
    with pytest.raises(ArtifactRefused, match="not served"):
        inspect("m.skops", saved(fitted(estimator)))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (StandardScaler().fit(samples()[0]), "predicts nothing"),
        (LogisticRegression(), "not fitted"),
        ({"a": 1}, "no estimator"),
        (print, "not served"),
    ],
)
def test_what_cannot_be_asked_is_refused(model: Any, words: str) -> None:
    """A scaler alone, an estimator without a fit, something else."""
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.skops", saved(model))


def test_a_scaler_that_was_told_not_to_copy_leaves_the_request_as_it_was() -> None:
    """Whoever reads the request next (another variant, the capture) reads what the user sent."""
    model = fitted(make_pipeline(StandardScaler(copy=False), LogisticRegression()))
    rows = samples()[0].copy()
    first, second = (load_skops(saved(model)).run(rows) for _ in range(2))
    assert np.array_equal(rows, samples()[0])
    assert np.array_equal(first[1], second[1])
    assert np.array_equal(first[1], model.predict_proba(samples()[0].copy()))


# -- crafted files --------------------------------------------------------------------------------------------------


def rewritten(change: Callable[[str, bytes], bytes], data: bytes | None = None) -> bytes:
    """A file with other members."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data or forest())) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return made.getvalue()


def with_nodes(change: Callable[[NDArray[Any]], None]) -> bytes:
    """The forest, with nodes that were written by hand."""

    def member(name: str, data: bytes) -> bytes:
        if b"left_child" not in data or not name.endswith(".npy"):
            return data
        nodes = np.load(io.BytesIO(data))
        change(nodes)
        buffer = io.BytesIO()
        np.save(buffer, nodes)
        return buffer.getvalue()

    return rewritten(member)


def put(field: str, value: float) -> Callable[[NDArray[Any]], None]:
    """A change of the root."""

    def change(nodes: NDArray[Any]) -> None:
        nodes[field][0] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("left_child", 0), "two ways"),
        (put("left_child", 10**9), "outside"),
        (put("left_child", -7), "outside"),
        (put("right_child", 1), "two ways"),
        (put("right_child", -1), "one child"),
        (put("feature", 4), "feature 4 of 4"),
        (put("feature", -2), "feature -2 of 4"),
        (put("threshold", np.nan), "threshold"),
    ],
)
def test_a_crafted_tree_is_refused(change: Callable[[NDArray[Any]], None], words: str) -> None:
    """scikit-learn itself would follow it out of the array, or for ever."""
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.skops", with_nodes(change))


def schema(change: Callable[[dict[str, Any]], None], data: bytes | None = None) -> bytes:
    """A file with another schema."""

    def member(name: str, data: bytes) -> bytes:
        if name != "schema.json":
            return data
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return rewritten(member, data)


def attribute(name: str, node: Any) -> Callable[[dict[str, Any]], None]:
    """Puts a node where an attribute is."""

    def change(document: dict[str, Any]) -> None:
        document["content"]["content"][name] = node

    return change


def plain(value: Any) -> dict[str, Any]:
    """A node of a plain value."""
    return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(value)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (attribute("x", {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"}), "os.system"),
        (attribute("x", {"__class__": "system", "__module__": "os", "__loader__": "TypeNode"}), "os.system"),
        (attribute("x", {"__class__": "Popen", "__module__": "subprocess", "__loader__": "ObjectNode"}), "Popen"),
        (
            attribute("x", {"__class__": "dict", "__module__": "os", "__loader__": "DictNode", "content": {}}),
            "plain dict",
        ),
        (
            attribute("x", {"__class__": "t", "__module__": "os", "__loader__": "TupleNode", "content": []}),
            "plain tuple",
        ),
        (
            attribute("x", {"__class__": "float64", "__module__": "os", "__loader__": "NdArrayNode", "type": "numpy"}),
            "not in",
        ),
        (attribute("x", plain({"a": 1})), "single value"),
        (attribute("x", 5), "no node"),
        (attribute("__class__", plain(1)), "attribute called"),
        (attribute("n_features_in_", plain(10**9)), "not fitted"),
    ],
)
def test_a_crafted_schema_is_refused(change: Callable[[dict[str, Any]], None], words: str) -> None:
    """Whatever it names, nothing of it is imported."""
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.skops", schema(change, lone()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (attribute("n_features_in_", plain(3)), "does not fit"),
        (attribute("n_classes_", plain(10**9)), "counts its classes"),
        (attribute("estimators_", plain(1)), "no trees"),
    ],
)
def test_a_forest_that_does_not_fit_together_is_refused(change: Callable[[dict[str, Any]], None], words: str) -> None:
    """Its trees are followed without a look."""
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.skops", schema(change))


def test_what_no_prediction_needs_is_not_read() -> None:
    """Of a forest neither what it was grown from nor what somebody put there."""
    function = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"}

    def change(document: dict[str, Any]) -> None:
        document["content"]["content"].update(dict.fromkeys(("estimator", "predict", "x"), function))

    data = schema(change)
    assert inspect("m.skops", data).format == "skops"
    made = load_skops(data)
    assert not {"x", "predict"} & vars(made.estimator).keys()
    assert np.array_equal(made.run(samples()[0])[1], load_skops(forest()).run(samples()[0])[1])


def listed(*items: Any) -> dict[str, Any]:
    """A node of an array of objects."""
    shape = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": [plain(len(items))]}
    node = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode", "type": "json"}
    return node | {"content": list(items), "shape": shape}


def beside(array: NDArray[Any], change: Callable[[dict[str, Any], Any], None], data: bytes | None = None) -> bytes:
    """A file with one array more, and a schema in which its node stands somewhere."""
    node = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode", "type": "numpy"}
    made = io.BytesIO(schema(lambda document: change(document["content"]["content"], node | {"file": "z.npy"}), data))
    body = io.BytesIO()
    np.save(body, array)
    with zipfile.ZipFile(made, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z.npy", body.getvalue())
    return made.getvalue()


def _tree(model: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = model["estimators_"]["content"][0]["content"]["content"]["tree_"]
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda model, array: model.__setitem__("n_classes_", array),
        lambda model, array: model["estimators_"]["content"][0]["content"]["content"].update(n_features_in_=array),
        lambda model, array: model["estimators_"]["content"][0]["content"]["content"].update(n_outputs_=array),
        lambda model, array: _tree(model)["content"]["content"].update(node_count=array),
        lambda model, array: _tree(model)["__reduce__"]["args"]["content"].__setitem__(2, array),
        lambda model, array: model.update(estimators_=listed(plain(1)) | {"shape": array}),
        lambda model, array: model["estimators_"].update(
            content=[model["estimators_"]["content"][0], model["estimators_"]["content"][0]]
        ),
    ],
    ids=["classes", "features", "outputs", "nodes", "arguments", "shape", "one tree twice"],
)
def test_what_stands_where_a_number_has_to_be_is_refused_in_words(change: Callable[[Any, Any], None]) -> None:
    """An array there compares as many things, and a tree that is named again is work for nothing."""
    with pytest.raises(ArtifactRefused):
        inspect("m.skops", beside(np.array([2, 2]), change))


def test_an_array_of_lists_is_read_as_it_is() -> None:
    """NumPy would take the lists apart."""
    inner = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": [plain(1), plain(2)]}
    data = schema(attribute("extra", listed(inner)), lone())
    assert inspect("m.skops", data).format == "skops"
    assert load_skops(data).estimator.extra.tolist() == [[1, 2]]
    names = beside(np.array("name"), lambda model, array: model.update(feature_names_in_=array), lone())
    assert "feature_names" not in inspect("m.skops", names).details


def test_an_array_that_is_named_often_is_in_memory_once() -> None:
    """Else 200 kB of zeros, named a thousand times, would take 200 GB."""

    def change(model: dict[str, Any], array: Any) -> None:
        model.update({f"extra{i}": array for i in range(400)})

    data = beside(np.zeros(1_000_000), change, lone())
    assert len(data) < 500_000
    tracemalloc.start()
    inspect("m.skops", data)
    assert tracemalloc.get_traced_memory()[1] < 64_000_000
    tracemalloc.stop()


def test_a_schema_that_is_nested_without_end_is_refused() -> None:
    """A list in a list in a list."""
    node: Any = plain(1)
    for _ in range(60):
        node = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": [node]}
    with pytest.raises(ArtifactRefused, match="nested deeper"):
        inspect("m.skops", schema(attribute("x", node), lone()))


def npy(descr: str, shape: str, body: bytes = b"") -> bytes:
    """An array as somebody may write it."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + body


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy("'|O'", "(1,)", b"\x80\x04."), "numbers, booleans and texts"),
        (npy("'<f8'", "(1000000000000,)"), "no sizes|declares"),
        (npy("'<f8'", "(1000000000,)"), "declares"),
        (npy("'<f8'", "(-1,)"), "no sizes"),
        (npy("'<f8'", "(2,)", bytes(15)), "15 bytes"),
        (npy("'<f8'", "(2,)", bytes(17)), "17 bytes"),
        (npy("'<f8'", "[2]", bytes(16)), "not NumPy's"),
        (npy("'<f8'", "(True,)", bytes(8)), "no sizes"),
        (npy("'<U9999999'", "()"), "numbers, booleans and texts"),
        (npy("__import__('os').system('true')", "()"), "cannot be read"),
        (npy("'<f8'", "(" * 900), "cannot be read"),
        (b"\x93NUMPY\x01\0\xff\xff", "no NumPy"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff{}", "4,294,967,295"),
        (b"", "no NumPy"),
    ],
)
def test_a_crafted_array_is_refused(data: bytes, words: str) -> None:
    """No objects, no sizes that the bytes do not have, no code in the header."""
    with pytest.raises(ArtifactRefused, match=words):
        read_npy(data, "x")


@given(st.data())
@settings(max_examples=150)
def test_arrays_come_back_as_numpy_wrote_them(data: st.DataObject) -> None:
    """Of every type and order."""
    dtype = data.draw(st.sampled_from(["<f8", "<f4", "<i8", "|u1", "|b1", "<U5"]))
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
    array = np.zeros(shape, dtype=dtype)
    if array.size:
        array.flat[:] = np.arange(array.size).astype(dtype)
    if data.draw(st.booleans()):
        array = np.asfortranarray(array)
    buffer = io.BytesIO()
    np.save(buffer, array)
    np.testing.assert_array_equal(read_npy(buffer.getvalue(), "x"), array)


@given(st.data())
@settings(max_examples=80)
def test_a_damaged_file_is_refused_or_still_answers(data: st.DataObject) -> None:
    """A byte that flipped anywhere, or an end that is missing."""
    raw = data.draw(damaged(forest()))
    try:
        inspect("m.skops", raw)
    except ArtifactRefused as refused:
        assert len(refused.reason) > 10  # noqa: PT017 - a sentence
        return
    assert len(load_skops(raw).run(np.zeros((1, FEATURES)))) == 2
