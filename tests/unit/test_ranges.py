"""Ranges of inputs: what an author may declare, that it travels in the artifact, and what is refused by it in words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from perch.app.probe import golden, request_of
from perch.artifacts import ArtifactRefused, Signature, Tensor, inspect
from perch.artifacts.ranges import RANGES_KEY, declare, parse_ranges, read_ranges
from perch.domain.codec import dump, load
from perch.domain.model import ModelVersion
from perch.predictor.errors import RequestRefused
from perch.predictor.handler import Handler
from perch.predictor.limits import limits_of
from tests.unit.test_predictor import CONTEXT, MODEL, event, make, pointer
from tests.unit.test_protocol import INFER, ROW, columns_model, http

MATRIX = Signature(inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 3)),), outputs=())
NAMED = {
    "features": ["state", "age", "income"],
    "inputs": {"state": {"values": [0, 1, 2]}, "age": {"min": 0, "max": 130}},
}


def refused(handler: Handler, asked: dict[str, Any]) -> str:
    """The sentence of a 400."""
    answer = handler(asked, CONTEXT)
    assert answer["statusCode"] == 400
    sentence: str = json.loads(answer["body"])["error"]
    return sentence


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ([0, 150, 0], "'age' in row 2 is 150.0; 0 to 130 is taken"),
        ([0, -1, 0], "'age' in row 2 is -1.0; 0 to 130 is taken"),
        ([0.5, 1, 0], "'state' in row 2 is 0.5; 0, 1, 2 are taken"),
    ],
)
def test_a_value_outside_of_its_range_is_refused_with_field_row_and_limit(row: list[float], sentence: str) -> None:
    """However it was asked."""
    handler = make(declare(MODEL, NAMED))
    rows = [[1, 2, 3], row]
    ways = [
        event({"features": rows}),
        http(INFER, {"inputs": [{**ROW, "shape": [2, 3], "data": rows}]}),
        http("/models/table/invocations", {"instances": rows}),
    ]
    assert [refused(handler, one) for one in ways] == [sentence] * 3
    assert handler(event({"features": [[2, 130, 1e30]]}), CONTEXT)["statusCode"] == 200


def test_columns_may_be_named_by_number_and_all_at_once() -> None:
    """From 1, as everything that Perch counts in a request; the input's own name is about each column."""
    handler = make(declare(MODEL, {"inputs": {"x": {"max": 3}, "2": {"min": 0.1}}}))
    assert (
        refused(handler, event({"features": [0, 0.05, 0]}))
        == "column 2 in row 1 is 0.05000000074505806; at least 0.1 is taken"
    )
    assert refused(handler, event({"features": [0, 1, 4]})) == "'x' in row 1 is 4.0; at most 3 is taken"
    assert handler(event({"features": [0, 0.1, 3]}), CONTEXT)["statusCode"] == 200  # as single precision has it


def test_a_limit_is_told_to_its_last_digit() -> None:
    """The number after it is too many, and nobody could tell from six digits."""
    handler = make(declare(MODEL, {"inputs": {"1": {"min": -1234567, "max": 1234567}}}))
    assert refused(handler, event({"features": [1234568, 1, 0]})).endswith("; -1234567 to 1234567 is taken")


def test_named_columns_and_texts_have_ranges_too() -> None:
    """A columns model names its own."""
    handler = make(declare(columns_model(), {"inputs": {"age": {"min": 18}, "town": {"values": ["Bern", "Chur"]}}}))

    def asked(age: float, town: str) -> dict[str, Any]:
        return event({"records": [{"age": age, "town": town}]})

    assert refused(handler, asked(17, "Bern")) == "'age' in row 1 is 17.0; at least 18 is taken"
    assert refused(handler, asked(18, "Genf")) == "'town' in row 1 is 'Genf'; 'Bern', 'Chur' are taken"
    assert handler(asked(18, "Chur"), CONTEXT)["statusCode"] == 200


def test_probes_that_are_made_lie_in_the_ranges() -> None:
    """Or a model with a minimum would never get into service."""
    for data, document in (
        (MODEL, {"inputs": {"1": {"min": 0.5, "max": 1.5}, "2": {"values": [7, 9]}}}),
        (columns_model(), {"inputs": {"age": {"min": 18}, "town": {"values": ["Bern"]}}}),
    ):
        declared = declare(data, document)
        inspected = inspect("model.onnx", declared)
        version = ModelVersion(
            pointer=pointer(declared), number=1, runtimes=("onnx",), registered_at=datetime.now(UTC),
            created_by="a test", signature=inspected.signature.to_json(),
        )  # fmt: skip
        handler = make(declared)
        for probe in golden(version):
            asked = request_of("table", probe, stage="perch-probe", request_id="p", now=datetime.now(UTC))
            assert handler(asked, CONTEXT)["statusCode"] == 200


def test_ranges_are_written_into_the_artifact_and_nothing_else_is_changed() -> None:
    """ONNX: one more entry; safetensors: one more word of metadata."""
    declared = declare(MODEL, NAMED)
    before, after = onnx.load_from_string(MODEL), onnx.load_from_string(declared)
    assert [one.key for one in after.metadata_props] == [RANGES_KEY]
    assert after.graph == before.graph
    with pytest.raises(ArtifactRefused, match="already"):
        declare(declared, NAMED)
    layers = json.dumps([{"type": "Linear", "in_features": 3, "out_features": 1}])
    tensors = {"0.weight": np.ones((1, 3), dtype=np.float32), "0.bias": np.zeros(1, dtype=np.float32)}
    data = save(tensors, metadata={"perch.architecture": layers})
    found = inspect("model.safetensors", declare(data, NAMED))
    assert found.signature.ranges == parse_ranges(NAMED, MATRIX)
    assert found.details == inspect("model.safetensors", data).details


def test_a_signature_with_ranges_is_stored_and_read_back() -> None:
    """The registry keeps it as JSON."""
    signature = inspect("model.onnx", declare(MODEL, NAMED)).signature
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature
    assert "ranges" not in inspect("model.onnx", MODEL).signature.to_json()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "perch.ranges is"),
        ({"input": {}}, "perch.ranges is"),
        ({"features": ["a"]}, "has 1 names"),
        ({"features": ["a", "a", "b"]}, "name each column of a matrix once"),
        ({"features": [1, 2, 3]}, "list of names"),
        ({"inputs": []}, "has to be an object"),
        ({"inputs": {"4": {"min": 0}}}, "no input or column"),
        ({"inputs": {"0": {"min": 0}}}, "no input or column"),
        ({"inputs": {"1": {}}}, "has to be"),
        ({"inputs": {"1": {"low": 0}}}, "has to be"),
        ({"inputs": {"1": {"min": "0"}}}, "no FP32 number"),
        ({"inputs": {"1": {"max": True}}}, "no FP32 number"),
        ({"inputs": {"1": {"max": 1e39}}}, "no FP32 number"),
        ({"inputs": {"1": {"min": 2, "max": 1}}}, "above its max"),
        ({"inputs": {"1": {"values": []}}}, "list of 1 to"),
        ({"inputs": {"1": {"values": ["a"]}}}, "no FP32"),
    ],
)
def test_ranges_that_do_not_fit_are_refused_at_registration(document: Any, said: str) -> None:
    """In a sentence; the predictor never sees them."""
    with pytest.raises(ArtifactRefused, match=said):
        declare(MODEL, document)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"inputs": {"1": {"min": NaN}}}'])
def test_ranges_that_are_no_json_are_refused(text: str) -> None:
    """Whatever stands there."""
    with pytest.raises(ArtifactRefused):
        read_ranges({RANGES_KEY: text}, MATRIX)


def test_bounds_of_whole_numbers_have_to_fit_their_type() -> None:
    """-1 is no UINT8."""
    signature = Signature(inputs=(Tensor(name="n", datatype="UINT8", shape=(-1, 1)),), outputs=())
    for bound in (-1, 256, 0.5):
        with pytest.raises(ArtifactRefused, match="no UINT8"):
            parse_ranges({"inputs": {"n": {"min": bound}}}, signature)


VALUES = st.floats(-10, 10, width=32)
RULES = st.fixed_dictionaries(
    {}, optional={"min": VALUES, "max": VALUES, "values": st.lists(VALUES, min_size=1, max_size=3)}
)


@given(
    st.dictionaries(st.sampled_from(["x", "1", "2", "3"]), RULES.filter(bool), min_size=1),
    st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=3),
)
def test_what_is_compared_at_once_is_what_is_compared_one_by_one(rules: dict[str, Any], rows: list[Any]) -> None:
    """Of any ranges and any rows: refused exactly if a value breaks a rule."""
    for rule in rules.values():
        if "min" in rule and "max" in rule and rule["min"] > rule["max"]:
            del rule["min"]
    signature = Signature(inputs=MATRIX.inputs, outputs=(), ranges=parse_ranges({"inputs": rules}, MATRIX))
    limits = limits_of(signature)
    assert limits is not None

    def breaks(value: float, rule: dict[str, Any]) -> bool:
        return (
            value < rule.get("min", value) or value > rule.get("max", value) or value not in rule.get("values", [value])
        )

    bad = any(
        breaks(row[column], rule)
        for row in rows
        for name, rule in rules.items()
        for column in ([int(name) - 1] if name != "x" else range(3))
    )
    try:
        limits.check({"x": np.array(rows, dtype=np.float32)})
    except RequestRefused:
        assert bad
    else:
        assert not bad


def test_what_may_be_missing_is_in_every_range() -> None:
    """A model that takes gaps takes them in a column with a range too."""
    signature = Signature(inputs=MATRIX.inputs, outputs=(), ranges=parse_ranges(NAMED, MATRIX))
    limits = limits_of(signature)
    assert limits is not None
    limits.check({"x": np.full((1, 3), np.nan, dtype=np.float32)})


def test_a_version_without_ranges_is_read_as_before() -> None:
    """Registered by an older release."""
    version = load(ModelVersion, dump(PLAIN))
    assert len(golden(version)) == 3


PLAIN = ModelVersion(
    pointer=pointer(MODEL), number=1, runtimes=("onnx",), registered_at=datetime(2026, 1, 1, tzinfo=UTC),
    created_by="a test", signature=MATRIX.to_json(),
)  # fmt: skip
