"""Where a model takes missing values, null (in bytes NaN) is one; everywhere else it is refused as before."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from perch.artifacts.signature import Range, Ranges, Signature, Tensor
from perch.predictor.decode import decode
from perch.predictor.errors import RequestRefused
from perch.predictor.interface import interface_of
from perch.predictor.records import decode_invocation, decode_records
from perch.predictor.tensors import from_bytes, from_json

F32 = np.dtype(np.float32)
NAN = float("nan")


def asked(features: Any, *, missing: bool = True) -> Any:
    """The rows of a request for two features."""
    return decode({"body": json.dumps({"features": features})}, 2, F32, missing=missing)


@pytest.mark.parametrize(
    ("features", "rows"),
    [
        ([[1, None], [None, 2.5]], [[1, NAN], [NAN, 2.5]]),
        ([None, None], [[NAN, NAN]]),
        ([None, True], [[NAN, 1]]),
        ([[1, 2]], [[1, 2]]),
        ([[2**70, None]], [[2.0**70, NAN]]),
    ],
)
def test_null_is_nan(features: Any, rows: Any) -> None:
    """In rows, in one row, and beside any number."""
    np.testing.assert_array_equal(asked(features), np.array(rows, dtype=np.float32))


@pytest.mark.parametrize(
    "features", [[[1e39, None]], [[None, 10**400]], [["x", None]], [[None]], [None], [[None, [1]]]]
)
def test_whatever_else_is_wrong_is_still_refused(features: Any) -> None:
    """Infinite, no number, or too few."""
    with pytest.raises(RequestRefused):
        asked(features)


def test_null_is_refused_where_nothing_may_be_missing() -> None:
    """The model would not know what to do with it."""
    with pytest.raises(RequestRefused, match="feature 2 in row 1"):
        asked([[1, None]], missing=False)
    with pytest.raises(RequestRefused, match="null"):
        from_json("x", "FP32", [2], [1, None])
    with pytest.raises(RequestRefused, match="finite"):
        from_bytes("x", "FP32", [1], memoryview(np.array([NAN], dtype=F32).tobytes()))


def test_the_protocol_takes_both_spellings() -> None:
    """As null in JSON, nested or flat; NaN in bytes; and infinity in neither."""
    wanted = np.array([[1, NAN]], dtype=F32)
    np.testing.assert_array_equal(from_json("x", "FP32", [1, 2], [1, None], missing=True), wanted)
    np.testing.assert_array_equal(from_json("x", "FP32", [1, 2], [[1, None]], missing=True), wanted)
    np.testing.assert_array_equal(from_bytes("x", "FP32", [1, 2], memoryview(wanted.tobytes()), missing=True), wanted)
    with pytest.raises(RequestRefused, match="element 2"):
        from_bytes("x", "FP32", [2], memoryview(np.array([NAN, np.inf], dtype=F32).tobytes()), missing=True)


def test_a_data_frame_may_have_gaps() -> None:
    """As pandas writes NaN."""
    signature = Signature(
        inputs=(Tensor(name="features", datatype="FP32", shape=(-1, 2), missing=True),),
        outputs=(Tensor(name="value", datatype="FP32", shape=(-1, 1)),),
    )
    assert Signature.from_json(signature.to_json()) == signature
    body = json.dumps({"dataframe_split": {"columns": ["a", "b"], "data": [[1, None]]}})
    rows = decode_invocation(body, interface_of(signature), F32)["features"]
    np.testing.assert_array_equal(rows, np.array([[1, NAN]], dtype=F32))


def test_a_text_may_be_missing_too() -> None:
    """As null, where the model takes it; it breaks no rule of values."""
    signature = Signature(
        inputs=(Tensor(name="town", datatype="BYTES", shape=(-1, 1), missing=True),),
        outputs=(Tensor(name="value", datatype="FP64", shape=(-1, 1)),),
        ranges=Ranges(rules=(("town", Range(values=("Bern", "None"))),)),
    )
    interface = interface_of(signature)
    found = decode_records(json.dumps({"records": [{"town": "Bern"}, {"town": None}]}), interface)
    assert found["town"].tolist() == [["Bern"], [None]]
    assert interface.limits is not None
    interface.limits.check(found)
    with pytest.raises(RequestRefused, match="'town' in row 1 is 'Chur'"):
        interface.limits.check({"town": np.array([["Chur"]], dtype=np.object_)})
    with pytest.raises(RequestRefused, match="element 2 of input 'town' is 5"):
        from_json("town", "BYTES", [2], ["Bern", 5], missing=True)
    with pytest.raises(RequestRefused, match="null"):
        from_json("town", "BYTES", [2], ["Bern", None])
    assert interface.zeros()["town"].tolist() == [["Bern"]]
