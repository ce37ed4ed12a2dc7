"""The predictor's handler from event to answer: its laws, every refusal, its log line. ONNX models, no AWS."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import runpy
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import perch.predictor.loading
from perch.domain.formats import formats_of
from perch.domain.model import Pointer
from perch.predictor import fetch as fetching
from perch.predictor.body import MAX_BODY
from perch.predictor.decode import MAX_ROWS, decode
from perch.predictor.encode import encode
from perch.predictor.errors import RequestRefused
from perch.predictor.handler import Handler, make_handler

CONTEXT = SimpleNamespace(aws_request_id="request-1", function_version="7")
PREDICT = "/models/table/predict"


def onnx_model(kind: int = TensorProto.FLOAT) -> bytes:
    """Three features; the first picks a row of a table of four, so that 4 and more raise."""
    table = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [np.nan] * 3], dtype=np.float32))
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["picked"], axis=1),
        helper.make_node("Cast", ["picked"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["scores"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info("x", kind, ["n", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array(0), "first")],
    )
    opsets = [helper.make_opsetid("", 18)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return data


MODEL = onnx_model()


def pointer(data: bytes, **changes: Any) -> Pointer:
    """A pointer to these bytes."""
    values = {
        "model": "table",
        "version": "v1",
        "key": "models/table/v1/model.onnx",
        "version_id": "s3-1",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "format": "onnx",
    }
    return Pointer(**{**values, **changes})


def environment(found: Pointer | None) -> dict[str, str]:
    """The variables of a revision that serves this pointer."""
    names = {"PERCH_ENDPOINT": "table", "PERCH_STORE": "store"}
    return names if found is None else {**names, "PERCH_POINTER": found.to_json()}


def make(data: bytes = MODEL, *, stored: bytes | None = None, **changes: Any) -> Handler:
    """A handler that serves `data`; `stored` is what the store gives instead."""
    given_bytes = data if stored is None else stored
    return make_handler(runtime="onnx", environ=environment(pointer(data, **changes)), fetch=lambda *_: given_bytes)


def event(body: Any = None, *, method: str = "POST", path: str = PREDICT, **changes: Any) -> dict[str, Any]:
    """An HTTP API event; a body that is not text becomes JSON."""
    text = body if body is None or isinstance(body, str) else json.dumps(body)
    return {
        "version": "2.0",
        "rawPath": path,
        "requestContext": {
            "http": {"method": method, "path": path},
            "stage": "$default",
            "timeEpoch": 1_767_225_600_000,
        },
        "body": text,
        "isBase64Encoded": False,
        **changes,
    }


def ask(handler: Handler, asked: dict[str, Any]) -> tuple[int, Any]:
    """Status and parsed body of one request."""
    answer = handler(asked, CONTEXT)
    assert answer["headers"]["content-type"] == "application/json"
    json.dumps(answer)  # Lambda's runtime will
    return answer["statusCode"], json.loads(answer["body"])


@pytest.fixture
def handler() -> Handler:
    """A handler that serves the table."""
    return make()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """The log lines since last asked."""
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_rows_are_answered_with_predictions_probabilities_and_who_made_them(handler: Handler) -> None:
    """The whole answer, as contracts.md writes it."""
    status, body = ask(handler, event({"features": [[0, 0, 0], [2.5, 9, 9]]}))
    assert status == 200
    assert list(body) == ["model", "version", "revision", "predictions", "probabilities", "request_id"]
    assert (body["model"], body["version"], body["revision"], body["request_id"]) == ("table", "v1", "7", "request-1")
    assert body["predictions"] == [0, 2]
    assert np.allclose(body["probabilities"], [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], atol=1e-6)


def test_one_row_may_come_without_its_outer_brackets(handler: Handler) -> None:
    """A single row is the most common request."""
    assert ask(handler, event({"features": [1, 0, 0]}))[1]["predictions"] == [1]


def test_a_body_in_base64_is_decoded(handler: Handler) -> None:
    """HTTP API encodes bodies without a text content type."""
    body = base64.b64encode(b'{"features":[[1,0,0]]}').decode()
    assert ask(handler, event(body, isBase64Encoded=True))[1]["predictions"] == [1]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (None, 'the request has no body; send {"features": [[…], …]}'),
        ("", 'the request has no body; send {"features": [[…], …]}'),
        ("{", "the body is not JSON: input data was truncated"),
        ("features=1", "the body is not JSON: invalid character (byte 5)"),
        ('{"features": [[NaN, 1, 2]]}', "(NaN and Infinity are not JSON numbers)"),
        ('{"features": [[1, -Infinity, 2]]}', "(NaN and Infinity are not JSON numbers)"),
        ('{"features": [[1e999, 1, 2]]}', "the body is not JSON: number out of range"),
        ("[" * 100_000, "the body is not JSON: it is nested too deep"),
        ('"\ud800"', "the body is not JSON"),
        ([[1, 2, 3]], 'the body is not a JSON object; send {"features": [[…], …]}'),
        ("null", "the body is not a JSON object"),
        ('"features"', "the body is not a JSON object"),
        ({"rows": []}, 'the body has no "features"'),
        ({"features": None}, '"features" is null'),
        ({"features": {"a": 1}}, '"features" is an object'),
        ({"features": "1,2,3"}, '"features" is a string'),
        ({"features": 3}, '"features" is a single number'),
        ({"features": []}, '"features" is empty'),
        ({"features": [[]]}, "expected 3 features, got 0 in row 1"),
        ({"features": [1, 2]}, "expected 3 features, got 2 in row 1"),
        ({"features": [[1, 2, 3], [1, 2]]}, "expected 3 features, got 2 in row 2"),
        ({"features": [[1, 2, 3, 4], [1, 2, 3, 4]]}, "expected 3 features, got 4 in row 1"),
        ({"features": [[1, 2, None]]}, "feature 3 in row 1 is null; a feature is a number"),
        ({"features": [[1, "2", 3]]}, "feature 2 in row 1 is a string; a feature is a number"),
        ({"features": [["1", "2", "3"]]}, "feature 1 in row 1 is a string; a feature is a number"),
        ({"features": [[1, 2, {}]]}, "feature 3 in row 1 is an object"),
        ({"features": [[[1, 2, 3]]]}, "feature 1 in row 1 is a list; features are rows of numbers, two levels deep"),
        ({"features": [[1, 2, 3], 4]}, "row 2 is a single number; a row is a list of 3 numbers"),
        ({"features": [[1, 2, 3], None]}, "row 2 is null; a row is a list of 3 numbers"),
        ({"features": [1, [2], 3]}, "feature 2 in row 1 is a list"),
        ({"features": [[1, 2, 1e300]]}, "feature 3 in row 1 is 1e+300, which is no float32 number"),
        ({"features": [[1, 2, 10**400]]}, "feature 3 in row 1 is inf, which is no float32 number"),
        ({"features": [[1, 2**70, "3"]]}, "feature 3 in row 1 is a string"),
        ({"features": [[0, 0, 0]] * (MAX_ROWS + 1)}, "the request has 1,001 rows; at most 1,000 are taken at once"),
    ],
)
def test_a_request_at_fault_is_a_400_that_says_what_is_wrong(handler: Handler, body: Any, sentence: str) -> None:
    """Each sentence names the row, the feature and what would be right."""
    status, answer = ask(handler, event(body))
    assert status == 400
    assert sentence in answer["error"]
    assert list(answer) == ["error", "request_id"]


def test_a_body_that_is_marked_as_base64_and_is_not_is_a_400(handler: Handler) -> None:
    """Neither wrong padding nor letters outside ASCII raise."""
    for body in ("abcde", "é"):
        assert ask(handler, event(body, isBase64Encoded=True)) == (
            400,
            {"error": "the body is marked as base64 and is not", "request_id": "request-1"},
        )


@pytest.mark.parametrize("size", [MAX_BODY + 1, 7_000_000])
def test_a_body_over_the_limit_is_a_413_in_any_coat(handler: Handler, size: int) -> None:
    """Plain, in base64, and as fewer characters of more bytes."""
    plain = '{"features":"' + "x" * (size - 15) + '"}'
    wide = '{"features":"' + "é" * (size // 2) + '"}'
    for asked in (event(plain), event(base64.b64encode(plain.encode()).decode(), isBase64Encoded=True), event(wide)):
        status, body = ask(handler, asked)
        assert (status, body["error"]) == (413, "the body is over 5,000,000 bytes; send fewer rows at once")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"features": [["a" * 100_000] + [1] * 2_000]}, "feature 1 in row 1 is a string"),
        ({"features": ["a" * 100_000] + [1] * 2_000}, "feature 1 in row 1 is a string"),
        ({"features": [[1] * 100_000, [1]]}, "expected 3 features, got 100000 in row 1"),
        ({"features": [[1, 1, 1], json.loads("[" * 200 + "]" * 200)]}, "feature 1 in row 2 is a list"),
        ({"features": [[]] * 100_000}, "the request has 100,000 rows"),
        ({"features": [{"a": 1}] * 25_000}, "feature 1 in row 1 is an object"),
        ({"features": [10**4_000, *[1] * 2_000]}, "expected 3 features, got 2001 in row 1"),
        ({"other": [[1]] * 50_000, "features": [[1, 1]]}, "expected 3 features, got 2 in row 1"),
    ],
)
def test_a_request_takes_memory_in_proportion_to_its_body(body: Any, sentence: str) -> None:
    """No body of any shape is blown up; a predictor that is killed for memory counts against its revision."""
    text = json.dumps(body)
    tracemalloc.start()
    try:
        with pytest.raises(RequestRefused, match=re.escape(sentence)) as refused:
            decode({"body": text}, 3, np.dtype(np.float32))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.status == 400
    assert peak < 1_000_000 + 40 * len(text)


def test_the_largest_request_is_answered(handler: Handler) -> None:
    """A thousand rows in a body of just five megabytes."""
    text = json.dumps({"features": [[1, 0, 0]] * MAX_ROWS}).ljust(MAX_BODY)
    status, body = ask(handler, event(text))
    assert status == 200
    assert body["predictions"] == [1] * MAX_ROWS


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", PREDICT, 405, "POST"),
        ("PUT", PREDICT, 405, "POST"),
        ("POST", "/models/table", 405, "GET"),
        ("POST", "/models/other/predict", 404, None),
        ("GET", "/", 404, None),
        ("GET", "/\ud800", 404, None),
    ],
)
def test_other_paths_and_methods_are_refused(
    handler: Handler, method: str, path: str, status: int, allow: str | None
) -> None:
    """404 names what there is, 405 says which method the path takes."""
    answer = handler(event({}, method=method, path=path), CONTEXT)
    assert (answer["statusCode"], answer["headers"].get("allow")) == (status, allow)
    assert "/models/table" in json.loads(answer["body"])["error"]


def test_a_stage_before_the_path_changes_nothing(handler: Handler) -> None:
    """A named stage of an HTTP API is part of the path."""
    assert ask(handler, event({"features": [0, 0, 0]}, path=f"/prod{PREDICT}"))[0] == 200


@pytest.mark.parametrize("asked", [{}, {"requestContext": None}, {"requestContext": {"http": "x"}}, {"Records": []}])
def test_an_event_that_is_no_http_request_is_a_400(handler: Handler, asked: dict[str, Any]) -> None:
    """Somebody invoked the function by hand."""
    assert "payload format 2.0" in ask(handler, asked)[1]["error"]


def test_a_get_tells_what_is_served(handler: Handler) -> None:
    """Model, version, revision, digest and signature."""
    status, body = ask(handler, event(method="GET", path="/models/table"))
    assert status == 200
    assert (body["model"], body["version"], body["revision"], body["runtime"]) == ("table", "v1", "7", "onnx")
    assert body["sha256"] == hashlib.sha256(MODEL).hexdigest()
    assert body["signature"]["features"] == 3


def test_a_model_that_raises_is_a_500_without_a_stack_trace(
    handler: Handler, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """The client reads what was raised, the log where; the next request is answered again."""
    lines()
    status, body = ask(handler, event({"features": [[4, 0, 0]]}))
    assert status == 500
    assert body["error"].startswith("the model raised InvalidArgument: ")
    assert "Traceback" not in body["error"]
    failure, line = lines()
    assert (failure["event"], failure["request_id"]) == ("predictor.model_raised", "request-1")
    assert "Traceback" in failure["trace"]
    assert (line["level"], line["Failures"], line["error"]) == ("ERROR", 1, body["error"])
    assert ask(handler, event({"features": [[0, 0, 0]]}))[0] == 200


def test_a_model_that_answers_nan_is_a_500(handler: Handler) -> None:
    """NaN is no answer, and JSON has no word for it."""
    status, body = ask(handler, event({"features": [[0, 0, 0], [3, 0, 0]]}))
    assert (status, body["error"]) == (500, "the model answered NaN or infinity for row 2")


def test_whole_numbers_are_asked_of_a_model_that_takes_whole_numbers() -> None:
    """A feature is never rounded or wrapped on its way in."""
    handler = make(onnx_model(TensorProto.INT8))
    assert ask(handler, event({"features": [[1.0, 0, 127]]}))[1]["predictions"] == [1]
    for value in (0.5, 128, -129, 1e300, 2**63, 2**70, -(10**400)):
        status, body = ask(handler, event({"features": [[0, 0, value]]}))
        assert status == 400
        assert "feature 3 in row 1 is" in body["error"]
        assert "no int8 number" in body["error"]


def test_a_whole_number_of_any_length_is_a_feature(handler: Handler) -> None:
    """JSON knows no 64 bits; what a float32 can hold is taken."""
    for row in ([1, 0, 2**70], [1, -(2**64), True], [1, 0.5, 10**30]):
        assert ask(handler, event({"features": [row]}))[1]["predictions"] == [1]


def test_what_a_model_gave_is_encoded_as_exact_numbers() -> None:
    """Arrays and numpy's numbers in any place; a float32 is the double that it is."""
    given_document = {"array": np.array([[0.1]], dtype=np.float32), "number": np.int8(3), "labels": ["a", np.str_("b")]}
    assert json.loads(encode(given_document)) == {
        "array": [[float(np.float32(0.1))]],
        "number": 3,
        "labels": ["a", "b"],
    }
    with pytest.raises(TypeError, match="object does not go into JSON"):
        encode(object())


# The log line.


def test_one_log_line_a_request_carries_the_metrics(
    handler: Handler, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """Embedded metric format: namespace, dimensions and values as contracts.md has them."""
    ask(handler, event(method="GET", path="/models/table"))  # the first request is counted apart
    lines()
    ask(handler, event({"features": [[1, 0, 0], [0, 0, 0]]}))
    [line] = lines()
    meta = line["_aws"]
    directive, own = meta["CloudWatchMetrics"]
    assert meta["Timestamp"] == 1_767_225_600_000
    assert directive["Namespace"] == "Perch"
    assert directive["Dimensions"] == [["Endpoint"], ["Endpoint", "Revision"]]
    assert {metric["Name"] for metric in directive["Metrics"]} == {"Requests", "Failures", "ClientErrors", "Latency"}
    assert own["Dimensions"] == [["Endpoint", "Revision"]]
    assert [metric["Name"] for metric in own["Metrics"]] == ["Prediction"]
    assert line["Prediction"] == 1
    assert (line["Endpoint"], line["Revision"]) == ("table", "7")
    assert (line["Requests"], line["Failures"], line["ClientErrors"]) == (1, 0, 0)
    assert line["Latency"] > 0
    assert (line["model"], line["version"], line["status"], line["rows"]) == ("table", "v1", 200, 2)
    assert line["predictions"] == [1, 0]


def test_a_clients_fault_is_counted_as_such(handler: Handler, lines: Callable[[], list[dict[str, Any]]]) -> None:
    """A 4xx is no failure of the revision."""
    lines()
    ask(handler, event("{"))
    [line] = lines()
    assert (line["Requests"], line["Failures"], line["ClientErrors"], line["status"]) == (1, 0, 1, 400)
    assert line["error"].startswith("the body is not JSON")


def test_a_probe_is_answered_and_not_counted(handler: Handler, lines: Callable[[], list[dict[str, Any]]]) -> None:
    """Probes are no traffic: the same answer, a plain log line."""
    asked = event({"features": [[1, 0, 0]]})
    usual = ask(handler, asked)
    asked["requestContext"]["stage"] = "perch-probe"
    lines()
    assert ask(handler, asked) == usual
    [line] = lines()
    assert line["event"] == "predictor.probed"
    assert "_aws" not in line
    assert "Requests" not in line


def test_the_log_line_stays_small(handler: Handler, lines: Callable[[], list[dict[str, Any]]]) -> None:
    """A thousand predictions are counted, twenty are repeated."""
    lines()
    ask(handler, event({"features": [[1, 0, 0]] * MAX_ROWS}))
    [line] = lines()
    assert (line["rows"], len(line["predictions"])) == (1000, 20)


# Law 2: bytes that were not verified are never loaded.


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(MODEL) * 8 - 1))
def test_law_2_unverified_bytes_never_reach_a_loader(monkeypatch: pytest.MonkeyPatch, position: int) -> None:
    """One flipped bit, wherever it is: 503 with the reason, and no loader was given a byte."""
    damaged = bytearray(MODEL)
    damaged[position // 8] ^= 1 << position % 8
    with monkeypatch.context() as patched:
        patched.setattr(perch.predictor.loading, "loader_of", lambda *_: lambda _: pytest.fail("a loader got bytes"))
        status, body = ask(make(stored=bytes(damaged)), event({"features": [[0, 0, 0]]}))
    assert status == 503
    assert "SHA-256" in body["error"]
    assert "not loaded" in body["error"]


def test_law_2_the_runtime_reads_the_format_that_was_inspected() -> None:
    """Bytes marked as onnxruntime's own flatbuffer format are read as ONNX all the same."""
    marked = onnx.load_model_from_string(MODEL)
    marked.ir_version, marked.producer_name = 8, "ORTM"
    data = marked.SerializeToString()
    assert data[4:8] == b"ORTM"
    assert ask(make(data), event({"features": [[1, 0, 0]]}))[1]["predictions"] == [1]


def test_law_2_a_model_in_the_runtimes_own_format_is_not_loaded(tmp_path: Path) -> None:
    """A real flatbuffer, which onnxruntime would take if it were left to guess."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    data = (tmp_path / "model.ort").read_bytes()
    assert data[4:8] == b"ORTM"
    status, body = ask(make(data), event({"features": [[1, 0, 0]]}))
    assert status == 503
    assert "does not load" in body["error"]


@pytest.mark.parametrize(
    ("changes", "stored", "sentence"),
    [
        ({}, MODEL + b"\0", f"the artifact has {len(MODEL) + 1} bytes; {len(MODEL)} were registered"),
        ({}, b"", f"the artifact has 0 bytes; {len(MODEL)} were registered"),
        (
            {"format": "papyrus", "signed_by": "somebody"},
            None,
            f"table v1 is of format papyrus; the onnx runtime loads {', '.join(formats_of('onnx'))}",
        ),
    ],
)
def test_a_revision_whose_artifact_is_not_what_was_registered_answers_503(
    changes: dict[str, Any], stored: bytes | None, sentence: str
) -> None:
    """Both routes give the reason, so that a probe can report it."""
    handler = make(stored=stored, **changes)
    for asked in (event({"features": [[0, 0, 0]]}), event(method="GET", path="/models/table")):
        assert ask(handler, asked) == (503, {"error": sentence, "request_id": "request-1"})


def test_a_verified_artifact_that_does_not_load_answers_503(lines: Callable[[], list[dict[str, Any]]]) -> None:
    """It does not crash; the log holds the trace."""
    status, body = ask(make(b"not a model"), event({"features": [[0, 0, 0]]}))
    assert status == 503
    assert body["error"].startswith("table v1 was verified but does not load: ")
    unavailable, failure, line = lines()
    assert unavailable["event"] == "predictor.unavailable"
    assert "Traceback" in failure["trace"]
    assert (line["Failures"], line["status"]) == (1, 503)


def test_the_placeholder_answers_503_and_says_why() -> None:
    """Before the first model there is no pointer."""
    handler = make_handler(runtime="onnx", environ=environment(None), fetch=lambda *_: pytest.fail("nothing to fetch"))
    for asked in (event({"features": [[0, 0, 0]]}), event(method="GET", path="/models/table")):
        status, body = ask(handler, asked)
        assert (status, body["error"]) == (
            503,
            "no model has been deployed to this endpoint yet; upload one to the model store",
        )


@pytest.mark.parametrize("text", ["{", "[]", "{}", "null", '{"model": 1}'])
def test_a_broken_pointer_answers_503(text: str) -> None:
    """The driver wrote it, so this is a fault of ours; the revision still says so in words."""
    environ = {**environment(None), "PERCH_POINTER": text}
    status, body = ask(make_handler(runtime="onnx", environ=environ), event({"features": [[0, 0, 0]]}))
    assert status == 503
    assert "PERCH_POINTER is not a pointer to a model" in body["error"]


# Law 7: the request path makes no AWS call.


def test_law_7_the_request_path_makes_no_aws_call(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every way to the network and to boto3 closed, every kind of request is answered as before."""

    def closed(*_: Any, **__: Any) -> Any:
        pytest.fail("a request went to the network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, closed)
    monkeypatch.setattr(boto3, "client", closed)
    monkeypatch.setattr(boto3.session.Session, "client", closed)
    monkeypatch.setattr(fetching, "fetch_artifact", closed)
    probe = event({"features": [[0, 0, 0]]})
    probe["requestContext"]["stage"] = "perch-probe"
    asked = [
        event({"features": [[0, 0, 0]]}),
        event({"features": [[4, 0, 0]]}),
        event("{"),
        event(method="GET", path="/models/table"),
        probe,
    ]
    assert [ask(handler, one)[0] for one in asked] == [200, 500, 400, 200, 200]


# Anything at all.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=15,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(features=json_values, raw=st.none() | st.text(max_size=40))
def test_any_body_is_answered_with_a_sentence_or_with_predictions(
    handler: Handler, features: Any, raw: str | None
) -> None:
    """No body raises out of the handler."""
    status, body = ask(handler, event({"features": features} if raw is None else raw))
    assert status in (200, 400, 500)
    assert body["predictions"] if status == 200 else body["error"]
    if status == 500:
        assert "the model" in body["error"]


def test_importing_the_predictor_brings_in_no_sdk_and_no_engine_that_is_not_used() -> None:
    """Cold starts are paid by users: numpy and msgspec, and the engine when a model is loaded."""
    heavy = ("boto3", "botocore", "torch", "onnx", "onnxruntime", "sklearn", "aws_lambda_powertools", "zipfile")
    code = f"import sys, perch.predictor.handler; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("function", ["predict_onnx", "predict_torch"])
def test_each_predictor_function_starts_as_a_placeholder(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployed from the template it has no pointer: it starts, and answers 503."""
    monkeypatch.delenv("PERCH_POINTER", raising=False)
    monkeypatch.setenv("PERCH_ENDPOINT", "table")
    path = Path(__file__).parents[2] / "functions" / function / "handler.py"
    status, body = ask(runpy.run_path(str(path))["handler"], event({"features": [[0, 0, 0]]}))
    assert status == 503
    assert "no model has been deployed" in body["error"]
