"""A pickle of an estimator is read by its names, never run, and loaded with the same names only."""

from __future__ import annotations

import io
import os
import pickle
from functools import cache, partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from perch.app.declared import with_signature
from perch.artifacts import ArtifactRefused, Signature, Tensor, inspect
from perch.domain.errors import Invalid
from perch.predictor.runtimes.joblib import load_joblib
from tests.unit.damage import damaged

ROWS = np.random.default_rng(2).uniform(0, 3, size=(50, 4)).round(0)
CLASSES = (ROWS[:, 0] > 1).astype(int)

ESTIMATORS = [
    LogisticRegression(),
    SVC(probability=True),
    KNeighborsClassifier(),
    RandomForestClassifier(n_estimators=3),
    GradientBoostingClassifier(n_estimators=3),
    HistGradientBoostingClassifier(max_iter=3),
    SGDClassifier(loss="log_loss"),
    MLPClassifier((3,), max_iter=5),
    make_pipeline(ColumnTransformer([("one", OneHotEncoder(), [0]), ("two", StandardScaler(), [1, 2, 3])]), SVC()),
]


class Trap:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """What a loader would call."""
        return os.system, (f"touch {self.path}",)


@cache
def saved(number: int, how: str) -> tuple[Any, bytes]:
    """A fitted estimator and its file."""
    model = ESTIMATORS[number].fit(ROWS, CLASSES)
    if how == "pickle":
        return model, pickle.dumps(model)
    buffer = io.BytesIO()
    joblib.dump(model, buffer, protocol=2 if how == "joblib, protocol 2" else None)
    return model, buffer.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["pickle", "joblib", "joblib, protocol 2"])
@pytest.mark.parametrize("number", range(len(ESTIMATORS)))
def test_an_estimator_is_followed_to_its_end_and_answers(number: int, how: str) -> None:
    """Whatever is in it; and it always needs trust."""
    model, data = saved(number, how)
    found = inspect("m.joblib", data)
    assert found.runtimes == ("sklearn",)
    assert "pickle" in found.code
    loaded = load_joblib(memoryview(data))
    np.testing.assert_array_equal(loaded.run(ROWS)[0], model.predict(ROWS))
    assert loaded.features == 4


def test_arrays_of_objects_and_texts_are_followed_too() -> None:
    """They are pickles in the pickle, and numbers of any width."""
    model = LogisticRegression().fit(ROWS, np.array(["no", "yes"], dtype=object)[CLASSES])
    model.extra = [
        np.array(["a", "bcd"]),
        np.zeros((3, 2), order="F"),
        np.array([{"x": 1}, None], dtype=object),
        np.array(1.5),
    ]
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    inspect("m.joblib", buffer.getvalue())
    assert load_joblib(buffer.getvalue()).run(ROWS[:1])[0].tolist() in (["no"], ["yes"])


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("where", ["alone", "nested", "array", "joblib array"])
def test_a_pickle_that_would_run_something_is_refused_and_never_runs(where: str, protocol: int, tmp_path: Path) -> None:
    """Anywhere in it, whoever signed it; and the loader would not import it either."""
    mark = tmp_path / "it-ran"
    trap: Any = Trap(mark)
    if where != "alone":
        model = LogisticRegression().fit(ROWS, CLASSES)
        model.classes_ = np.array([trap], dtype=object) if "array" in where else {"deep": [trap]}
        trap = model
    buffer = io.BytesIO()
    (joblib.dump if where == "joblib array" else pickle.dump)(trap, buffer, protocol=protocol)
    with pytest.raises(ArtifactRefused, match=r"import \w+\.system, which"):
        inspect("m.pkl", buffer.getvalue())
    with pytest.raises(pickle.UnpicklingError, match="not what"):
        load_joblib(buffer.getvalue())
    assert not mark.exists()


@pytest.mark.parametrize("value", [partial(print, 1), Path("x"), getattr, eval, np.load, joblib.load, {"a": np.memmap}])
def test_a_name_that_is_no_estimators_is_refused(value: Any) -> None:
    """Also of NumPy's and joblib's own."""
    with pytest.raises(ArtifactRefused, match=r"no scikit-learn estimator needs|no estimator"):
        inspect("m.pkl", pickle.dumps(value))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x80\x04\x8c\x07sklearn\x8c\x0bbase.os.sys\x93.", "would import"),
        (b"\x80\x04K\x01K\x02\x93.", "no text"),
        (b"\x80\x02csklearn.base\nBaseEstimator\n.tail", "follow the end"),
        (b"\x80\x02Pother\n.", "PERSID is not read"),
        (b"\x80\x02\x82\x01.", "EXT1 is not read"),
        (b"\x80\x02.", "do not fit together"),
        (b"\x80\x02u.", "followed"),
        (b"\x80\x02h\x07.", "followed"),
        (b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x", "followed"),
        (b"\x80\x02", "followed"),
        (b"x\x9c", "compressed"),
        (b"(lp0\n.", "protocol 2"),
        (pickle.dumps({"a": 1}), "no estimator"),
    ],
)
def test_what_cannot_be_followed_is_refused(data: bytes, words: str) -> None:
    """One sentence each, and nothing allocated that is not there."""
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.pkl", data)


@pytest.mark.parametrize(
    "name",
    [
        "sklearn.utils._testing.assert_run_python_script_without_output",
        "sklearn.utils._testing.TempMemmap",
        "sklearn.datasets._base.load_files",
        "sklearn.datasets._base.Bunch",
        "sklearn.base.__builtins__",
        "sklearn.base.clone",
        "scipy.sparse._matrix_io.save_npz",
        "scipy.sparse._matrix_io.load_npz",
    ],
)
def test_what_a_library_has_besides_its_classes_is_refused(name: str) -> None:
    """Helpers of scikit-learn's tests run programs, and SciPy writes files."""
    module, _, last = name.rpartition(".")
    data = b"\x80\x02c" + f"{module}\n{last}\n".encode() + b"."
    with pytest.raises(ArtifactRefused, match="no scikit-learn estimator needs"):
        inspect("m.joblib", data)
    with pytest.raises(pickle.UnpicklingError, match="not what"):
        load_joblib(data)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lightgbm.sklearn.LGBMClassifier", "booster_.save_model"),
        ("xgboost.sklearn.XGBClassifier", r"save_model\('model\.ubj'\)"),
        ("catboost.core.CatBoostClassifier", "format='onnx'"),
    ],
)
def test_another_librarys_model_is_refused_with_the_way_in_which_it_is_served(name: str, words: str) -> None:
    """People save everything with joblib."""
    module, _, last = name.rpartition(".")
    with pytest.raises(ArtifactRefused, match=words):
        inspect("m.joblib", b"\x80\x02c" + f"{module}\n{last}\n".encode() + b".")


def test_an_estimator_among_other_things_is_no_estimator() -> None:
    """A dict of a model and its columns, as people save them; told in words, and not as a bug."""
    with pytest.raises(Invalid, match=r"holds a dict, .* save the estimator by itself"):
        load_joblib(pickle.dumps({"model": LogisticRegression().fit(ROWS, CLASSES), "columns": ["a"]}))


def test_a_class_of_another_library_is_not_reached_through_scikit_learn() -> None:
    """It imports `Path`, for example."""
    with pytest.raises(pickle.UnpicklingError, match="another library's"):
        load_joblib(b"\x80\x02csklearn.utils.discovery\nPath\n.")


def test_a_pickle_that_doubles_itself_takes_no_time() -> None:
    """Tuples of themselves, forty deep, as the key of a dict: nothing here hashes or walks them."""
    data = b"\x80\x02K\x01q\x00" + b"h\x00h\x00\x86q\x00" * 40 + b"}h\x00K\x01s."
    with pytest.raises(ArtifactRefused, match="no estimator"):
        inspect("m.pkl", data)


@given(st.data())
@settings(max_examples=100)
def test_a_damaged_file_is_refused_or_followed(data: st.DataObject) -> None:
    """A byte that flipped anywhere, or an end that is missing."""
    raw = data.draw(damaged(saved(3, "joblib")[1]))
    try:
        assert inspect("m.joblib", raw).code
    except ArtifactRefused as refused:
        assert len(refused.reason) > 10  # noqa: PT017 - a sentence


# -- what the manifest declares ---------------------------------------------------------------------------------------

SIGNATURE = Signature(
    inputs=(Tensor(name="features", datatype="FP64", shape=(-1, 4)),),
    outputs=(Tensor(name="label", datatype="INT64", shape=(-1,)),),
)


def test_the_manifest_says_what_a_pickle_takes() -> None:
    """And nothing else's signature is taken from there."""
    found = inspect("m.joblib", saved(0, "joblib")[1])
    assert with_signature(found, {"signature": SIGNATURE.to_json()}).signature == SIGNATURE


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (None, "declare it in perch.json"),
        ([], "looks like"),
        ({"inputs": []}, "looks like"),
        ({"inputs": [], "outputs": []}, "no input"),
        ({"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 0]}], "outputs": []}, "neither"),
        ({"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 1.5]}], "outputs": []}, "neither"),
        (
            {
                "inputs": [{"name": "x", "datatype": "PICKLE", "shape": [-1, 2]}],
                "outputs": [SIGNATURE.outputs[0].to_json()],
            },
            "PICKLE",
        ),
    ],
)
def test_a_signature_that_says_nothing_is_refused(declared: Any, words: str) -> None:
    """In words that show how one looks."""
    found = inspect("m.joblib", saved(0, "joblib")[1])
    with pytest.raises((Invalid, ArtifactRefused), match=words):
        with_signature(found, {} if declared is None else {"signature": declared})
