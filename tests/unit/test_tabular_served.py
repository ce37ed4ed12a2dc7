"""Every tabular format, from a verified file to the answers of a handler: what the table of formats promises."""

from __future__ import annotations

import io
from collections.abc import Callable

import joblib
import lightgbm
import numpy as np
import pytest
import skops.io
import xgboost
from sklearn.linear_model import LogisticRegression

from perch.artifacts import inspect
from perch.domain.formats import FORMATS
from perch.predictor.handler import make_handler
from perch.predictor.runtimes import loader_of
from tests.unit.test_predictor import ask, environment, event, pointer

ROWS = np.random.default_rng(4).normal(size=(80, 3)).astype(np.float32)
LABELS = (ROWS[:, 0] > 0).astype(int)


def _xgboost() -> bytes:
    return bytes(xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(ROWS, LABELS), 3).save_raw("ubj"))


def _lightgbm() -> bytes:
    grown = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(ROWS, LABELS), 3)
    return str(grown.model_to_string()).encode()


def _skops() -> bytes:
    saved: bytes = skops.io.dumps(LogisticRegression().fit(ROWS, LABELS))
    return saved


def _joblib() -> bytes:
    file = io.BytesIO()
    joblib.dump(LogisticRegression().fit(ROWS, LABELS), file)
    return file.getvalue()


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "xgboost": ("model.ubj", _xgboost),
    "lightgbm": ("model.lgb", _lightgbm),
    "skops": ("model.skops", _skops),
    "joblib": ("model.joblib", _joblib),
}


@pytest.mark.parametrize("name", FILES)
def test_a_runtime_of_the_table_loads_what_the_inspector_read(name: str) -> None:
    """On each runtime that the file says: with the same signature, from memory, with an answer a row."""
    file, build = FILES[name]
    data = build()
    found = inspect(file, data)
    assert (found.format, bool(found.code)) == (name, FORMATS[name].code)
    assert set(found.runtimes) == set(FORMATS[name].loaders)
    for runtime in found.runtimes:
        model = loader_of(name, runtime)(memoryview(data))
        labels, probabilities = model.run(ROWS.astype(model.dtype))
        assert (labels == LABELS).mean() > 0.9
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
        if not FORMATS[name].declared:
            assert model.signature == found.signature


@pytest.mark.parametrize("name", FILES)
def test_a_handler_answers_rows_with_and_without_gaps(name: str) -> None:
    """Null is an answer where the model takes it, and a 400 that names the feature where it does not."""
    file, build = FILES[name]
    data = build()
    runtime = inspect(file, data).runtimes[0]
    environ = environment(pointer(data, format=name, signed_by="a key"))
    handler = make_handler(runtime=runtime, environ=environ, fetch=lambda *_: data)
    status, answer = ask(handler, event({"features": [[0.5, 1, -1], [-0.5, 1, 1]]}))
    assert status == 200, answer
    assert answer["predictions"] == [1, 0]
    status, answer = ask(handler, event({"features": [[0.5, None, 1]]}))
    assert status == (200 if name in ("xgboost", "lightgbm") else 400), answer


def test_a_format_is_loaded_by_nobody_it_does_not_name() -> None:
    """A runtime that has not its engine says so."""
    with pytest.raises(KeyError):
        loader_of("xgboost", "sklearn")
