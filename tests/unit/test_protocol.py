"""The Open Inference Protocol in the predictor, and MLflow's way of asking: every answer and every refusal."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from perch.predictor.body import MAX_BODY, MAX_MEMBERS
from perch.predictor.handler import Handler, make_handler
from perch.predictor.operations import MAX_ANSWER
from perch.predictor.tensors import KINDS
from tests.clients.models import mirror
from tests.unit.test_predictor import CONTEXT, environment, lines, make, pointer
from tests.unit.test_variants import SPLIT, USERS
from tests.unit.test_variants import make as make_variants

__all__ = ["lines"]  # the fixture

V2 = "/v2/models/table"
INFER = f"{V2}/infer"
HEADER = "inference-header-content-length"
ROW = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 0, 0]}
WHOLE = json.dumps({"inputs": [ROW]}).encode()


def http(path: str, body: Any = None, *, method: str | None = None, **headers: Any) -> dict[str, Any]:
    """An event as HTTP API makes it: text for JSON, base64 for bytes; an underscore in a header is a hyphen."""
    raw = isinstance(body, bytes)
    text = (
        base64.b64encode(body).decode() if raw else body if body is None or isinstance(body, str) else json.dumps(body)
    )
    return {
        "version": "2.0",
        "rawPath": path,
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
        "requestContext": {
            "http": {"method": method or ("GET" if body is None else "POST"), "path": path},
            "stage": "$default",
            "timeEpoch": 1_767_225_600_000,
        },
        "body": text,
        "isBase64Encoded": raw,
    }


def ask(handler: Handler, *args: Any, **headers: Any) -> tuple[int, Any]:
    """Status and parsed body of one request."""
    answer = handler(http(*args, **headers), CONTEXT)
    json.dumps(answer)  # Lambda's runtime will
    assert answer["headers"]["content-type"] == "application/json"
    return answer["statusCode"], json.loads(answer["body"])


def ask_binary(handler: Handler, *args: Any, **headers: Any) -> tuple[dict[str, Any], bytes]:
    """JSON and bytes of an answer that has both."""
    answer = handler(http(*args, **headers), CONTEXT)
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, True)
    assert answer["headers"]["content-type"] == "application/octet-stream"
    data, size = base64.b64decode(answer["body"]), int(answer["headers"][HEADER])
    return json.loads(data[:size]), data[size:]


def columns_model() -> bytes:
    """Two named columns, a number and a text; whole years and whether the town is Bern."""
    nodes = [
        helper.make_node("Cast", ["age"], ["years"], to=TensorProto.INT64),
        helper.make_node("Squeeze", ["years", "axis"], ["label"]),
        helper.make_node("Identity", ["town"], ["home"]),
    ]
    graph = helper.make_graph(
        nodes,
        "columns",
        [
            helper.make_tensor_value_info("age", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("town", TensorProto.STRING, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("home", TensorProto.STRING, ["n", 1]),
        ],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()
    return data


@pytest.fixture(scope="module")
def handler() -> Handler:
    """A handler of the model of `test_predictor`: three features, three scores."""
    return make()


@pytest.fixture(scope="module")
def many() -> Handler:
    """A handler of a model that gives back an input of every datatype."""
    return make(mirror())


@pytest.fixture(scope="module")
def columns() -> Handler:
    """A handler of a model whose inputs are columns."""
    return make(columns_model())


# What a model says of itself.


def test_metadata_are_the_signature(handler: Handler) -> None:
    """The same under the version's path."""
    expected = {
        "name": "table",
        "versions": ["v1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert ask(handler, V2) == ask(handler, f"{V2}/versions/v1") == (200, expected)


def test_a_zipmap_is_described_and_answered_as_the_matrix_that_it_is() -> None:
    """A list of maps has no word in the protocol; the classes are the columns, in their order."""
    rows = np.eye(3, dtype=np.float32)
    handler = make(to_onnx(LogisticRegression().fit(rows, [0, 1, 2]), rows[:1]).SerializeToString())
    label, scores = ask(handler, V2)[1]["outputs"]
    assert (label["datatype"], label["shape"]) == ("INT64", [-1])
    assert (scores["datatype"], scores["shape"]) == ("FP32", [-1, 3])
    name = ask(handler, V2)[1]["inputs"][0]["name"]
    _, answer = ask(handler, INFER, {"inputs": [{**ROW, "name": name}]})
    assert [output["shape"] for output in answer["outputs"]] == [[1], [1, 3]]


@pytest.mark.parametrize(
    "path", [f"{V2}/ready", f"{V2}/versions/v1/ready", "/v2/health/ready", "/v2/health/live", "/ping"]
)
def test_a_revision_with_a_model_is_live_and_ready(handler: Handler, path: str) -> None:
    """Also where it is alone with its clients."""
    assert ask(handler, path)[0] == 200


def test_a_revision_without_a_model_is_live_and_not_ready() -> None:
    """503 with the reason, in the protocol's shape; also for every version."""
    handler = make_handler(runtime="onnx", environ=environment(None), fetch=lambda *_: b"")
    for path in (V2, f"{V2}/ready", f"{V2}/versions/v1", f"{V2}/versions/v1/ready", "/v2/health/ready"):
        status, body = ask(handler, path)
        assert (status, list(body)) == (503, ["error"])
        assert "no model has been deployed" in body["error"]
    assert ask(handler, INFER, {"inputs": [ROW]})[0] == 503
    assert ask(handler, "/ping")[0] == 503
    assert ask(handler, "/v2/health/live") == (200, {"live": True})
    [index] = ask(handler, "/v2/repository/index", "", method="POST")[1]
    assert (index["state"], "no model" in index["reason"]) == ("UNAVAILABLE", True)


def test_a_server_of_one_endpoint_says_who_it_is(handler: Handler) -> None:
    """At the root of a Function URL or a container."""
    assert ask(handler, "/v2")[1]["extensions"] == ["binary_tensor_data"]
    assert ask(handler, "/v2/models") == (200, {"models": ["table"]})
    assert ask(handler, "/version")[0] == 200
    assert ask(handler, "/v2/repository/index", "", method="POST") == (
        200,
        [{"name": "table", "version": "v1", "state": "READY", "reason": ""}],
    )


def test_another_version_is_a_404_that_names_what_is_served(handler: Handler) -> None:
    """For every path under it."""
    for path, body in ((f"{V2}/versions/v2/infer", {"inputs": [ROW]}), (f"{V2}/versions/v2", None)):
        assert ask(handler, path, body) == (404, {"error": "version 'v2' is not served by this revision; v1 is"})


@pytest.mark.parametrize(
    "path", ["/models/other/invocations", "/v2/models/other/infer", "/prod/models/other/invocations"]
)
def test_another_endpoints_path_is_not_answered(handler: Handler, path: str) -> None:
    """Although it ends as one of ours does."""
    assert ask(handler, path, {"instances": [[1, 0, 0]]})[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", INFER, 405), ("POST", V2, 405), ("DELETE", f"{V2}/ready", 405), ("GET", f"{V2}/stats", 404)],
)
def test_other_paths_and_methods_are_refused_in_the_protocols_shape(
    handler: Handler, method: str, path: str, status: int
) -> None:
    """One sentence, nothing beside it."""
    found, body = ask(handler, path, "{}", method=method)
    assert (found, list(body)) == (status, ["error"])


# Infer: JSON.


@pytest.mark.parametrize("path", [INFER, f"{V2}/versions/v1/infer", f"/prod{INFER}"])
def test_rows_are_answered_with_the_models_own_outputs(handler: Handler, path: str) -> None:
    """Names, datatypes and shapes as the model has them; id and the client's own parameters come back."""
    asked = {"id": "a-7", "parameters": {"tag": "x", "binary_data_output": False}, "inputs": [ROW]}
    status, body = ask(handler, path, asked)
    assert status == 200
    assert list(body) == ["model_name", "model_version", "id", "parameters", "outputs"]
    assert (body["model_name"], body["model_version"], body["id"]) == ("table", "v1", "a-7")
    assert body["parameters"] == {"tag": "x"}
    [output] = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("scores", "FP32", [1, 3])
    assert np.allclose(np.exp(output["data"]), [0.1, 0.8, 0.1], atol=1e-6)


def test_headers_say_which_revision_answered(handler: Handler) -> None:
    """The body is the protocol's."""
    headers = handler(http(INFER, {"inputs": [ROW]}), CONTEXT)["headers"]
    assert (headers["x-perch-revision"], headers["x-request-id"]) == ("7", "request-1")


@pytest.mark.parametrize("datatype", sorted(KINDS))
def test_every_datatype_goes_through_a_model(many: Handler, datatype: str) -> None:
    """In JSON and in bytes, beside all others; one output is asked for."""
    data = {name: [1, 0] for name in KINDS} | {"BOOL": [True, False], "BYTES": ["Zürich", ""]}
    inputs = [{"name": name, "shape": [1, 2], "datatype": name, "data": values} for name, values in data.items()]
    wanted = [{"name": f"{datatype}_back"}]
    _, body = ask(many, INFER, {"inputs": inputs, "outputs": wanted})
    assert [output["name"] for output in body["outputs"]] == [f"{datatype}_back"]
    assert body["outputs"][0]["data"] == data[datatype]
    wanted = [{"name": f"{datatype}_back", "parameters": {"binary_data": True}}]
    told, tail = ask_binary(many, INFER, {"inputs": inputs, "outputs": wanted})
    assert told["outputs"][0]["parameters"] == {"binary_data_size": len(tail)}
    if datatype == "BYTES":
        assert tail == b"\7\0\0\0Z\xc3\xbcrich\0\0\0\0"
    else:
        assert np.frombuffer(tail, dtype=KINDS[datatype].dtype).tolist() == data[datatype]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("", "the request has no body"),
        ("{", "the body is not JSON"),
        ('{"inputs": [{"name": "x", "shape": [1], "data": [NaN]}]}', "NaN and Infinity are not JSON"),
        ("[]", "the request: expected object, got array"),
        ({}, "the request: object missing required field inputs"),
        ({"inputs": {}}, "inputs: expected array, got object"),
        ({"inputs": []}, "input 'x' is missing; the model takes 'x' (FP32 [-1, 3])"),
        ({"inputs": [{**ROW, "name": 1}]}, "inputs[0].name: expected str, got int"),
        ({"inputs": [{**ROW, "shape": "3"}]}, "inputs[0].shape: expected array, got str"),
        ({"inputs": [{**ROW, "shape": [1, 2.5]}]}, "inputs[0].shape[1]: expected int, got float"),
        ({"inputs": [{**ROW, "data": 3}]}, "inputs[0].data: expected array | null, got int"),
        ({"inputs": [{**ROW, "name": "y"}]}, "there is no input 'y'; the model takes 'x' (FP32 [-1, 3])"),
        ({"inputs": [ROW, ROW]}, "input 'x' is there twice"),
        ({"inputs": [{**ROW, "datatype": "FP64"}]}, "input 'x' is FP64; the model takes FP32 there"),
        ({"inputs": [{**ROW, "datatype": "BF16"}]}, "BF16 is not served"),
        ({"inputs": [{**ROW, "shape": [3]}]}, "input 'x' has shape [3]; the model takes [-1, 3]"),
        ({"inputs": [{**ROW, "shape": [0, 3], "data": []}]}, "input 'x' has shape [0, 3]"),
        ({"inputs": [{**ROW, "shape": [-1, 3]}]}, "input 'x' has shape [-1, 3]"),
        ({"inputs": [{**ROW, "shape": [2**70, 3]}]}, "input 'x' has 3 elements"),
        ({"inputs": [{**ROW, "shape": [1, 4]}]}, "input 'x' has shape [1, 4]; the model takes [-1, 3]"),
        ({"inputs": [{**ROW, "data": [1, 2]}]}, "input 'x' has 2 elements; its shape [1, 3] has 3"),
        ({"inputs": [{**ROW, "data": [1, 2, "3"]}]}, "element 3 of input 'x' is '3', which is no FP32"),
        ({"inputs": [{**ROW, "data": None}]}, "input 'x' has no data and no binary_data_size"),
        ({"inputs": [{**ROW, "parameters": {"binary_data_size": 0}}]}, "it can have one of them"),
        ({"inputs": [{**ROW, "parameters": {"shared_memory_region": "r"}}]}, "shared_memory_region, which is not"),
        ({"inputs": [ROW], "outputs": [{"name": "y"}]}, "there is no output 'y'; the model gives 'scores'"),
        ({"inputs": [ROW], "outputs": [{"name": "scores"}] * 2}, "output 'scores' is asked for twice"),
        ({"inputs": [ROW], "parameters": {"binary_data_output": 1}}, "binary_data_output of the request is true or"),
        (
            {"inputs": [ROW], "outputs": [{"name": "scores", "parameters": {"classification": 2}}]},
            "output 'scores' has parameter classification, which is not served",
        ),
    ],
)  # fmt: skip
def test_a_request_at_fault_is_a_400_that_names_the_field(handler: Handler, body: Any, sentence: str) -> None:
    """In the protocol's shape: one sentence."""
    status, answer = ask(handler, INFER, body)
    assert (status, list(answer)) == (400, ["error"])
    assert sentence in answer["error"]


def test_a_model_that_raises_is_a_500_with_the_request_and_no_trace(
    handler: Handler, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """The log has the trace; the request counts as a failure."""
    lines()
    status, body = ask(handler, INFER, {"inputs": [{**ROW, "data": [4, 0, 0]}]})
    assert (status, list(body)) == (500, ["error"])
    assert "the model raised InvalidArgument" in body["error"]
    assert body["error"].endswith("(request request-1)")
    assert "Traceback" not in body["error"]
    failure, line = lines()
    assert (failure["event"], line["Failures"], line["rows"]) == ("predictor.model_raised", 1, 1)


def test_a_model_that_answers_nan_is_a_500(handler: Handler) -> None:
    """As for predict."""
    status, body = ask(handler, INFER, {"inputs": [{**ROW, "data": [3, 0, 0]}]})
    assert status == 500
    assert "NaN or infinity" in body["error"]


def test_the_log_line_and_the_metrics_are_those_of_a_prediction(
    handler: Handler, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """The judge compares predictions, however they were asked for."""
    ask(handler, INFER, {"inputs": [ROW]})
    lines()
    ask(handler, INFER, {"inputs": [{**ROW, "shape": [2, 3], "data": [[2, 0, 0], [1, 0, 0]]}]})
    [line] = lines()
    assert (line["Prediction"], line["predictions"], line["rows"], line["status"]) == (2, [2, 1], 2, 200)


def test_a_share_of_requests_is_captured_as_rows(lines: Callable[[], list[dict[str, Any]]]) -> None:
    """So that they can be replayed as any other."""
    from tests.unit.test_predictor import MODEL, pointer

    environ = {**environment(pointer(MODEL)), "PERCH_CAPTURE": "1"}
    handler = make_handler(runtime="onnx", environ=environ, fetch=lambda *_: MODEL)
    lines()
    ask(handler, INFER, {"inputs": [ROW]})
    captured, _ = lines()
    assert (captured["event"], captured["features"], captured["predictions"]) == (
        "predictor.captured",
        [[1, 0, 0]],
        [1],
    )


def test_users_of_an_experiment_get_their_variant_and_a_version_in_the_path_gets_its_own() -> None:
    """The header names the variant, the body the version."""
    handler = make_variants()
    assert ask(handler, V2)[1]["versions"] == ["v1", "v2"]
    double = {**ROW, "datatype": "FP64"}
    for user in USERS[:9]:
        own = {"champion": ROW, "challenger": double}[SPLIT.variant_of(user)]
        answer = handler(http(INFER, {"inputs": [own]}, x_perch_user=user), CONTEXT)
        assert answer["statusCode"] == 200
        assert answer["headers"]["x-perch-variant"] == SPLIT.variant_of(user)
        for version, row in (("v1", ROW), ("v2", double)):
            path = f"{V2}/versions/{version}/infer"
            assert ask(handler, path, {"inputs": [row]}, x_perch_user=user)[1]["model_version"] == version


# Infer: bytes.


def with_bytes(document: dict[str, Any], *tails: bytes) -> tuple[bytes, dict[str, str]]:
    """A body of JSON and bytes, and the header that says where they meet."""
    head = json.dumps(document).encode()
    return head + b"".join(tails), {HEADER: str(len(head))}


def test_tensors_may_come_in_bytes_and_beside_tensors_in_json(many: Handler) -> None:
    """The bytes stand in the order of the inputs."""
    data = {name: np.array([[1, 0]], dtype=kind.dtype).tobytes() for name, kind in KINDS.items() if name != "BYTES"}
    data["BYTES"] = b"\1\0\0\0a\0\0\0\0"
    inputs: list[dict[str, Any]] = [
        {"name": name, "shape": [1, 2], "datatype": name, "parameters": {"binary_data_size": len(tail)}}
        for name, tail in data.items()
    ]
    inputs.insert(1, {"name": "INT64", "shape": [1, 2], "datatype": "INT64", "data": [5, 6]})
    del inputs[[one["name"] for one in inputs].index("INT64", 2)]
    tails = [tail for name, tail in data.items() if name != "INT64"]
    body, headers = with_bytes({"inputs": inputs, "parameters": {"binary_data_output": True}}, *tails)
    told, tail = ask_binary(many, INFER, body, **headers)
    at = 0
    for output in told["outputs"]:
        size = output["parameters"]["binary_data_size"]
        name = output["name"].removesuffix("_back")
        expected = np.array([5, 6], dtype=np.int64).tobytes() if name == "INT64" else data[name]
        assert tail[at : at + size] == expected
        at += size
    assert at == len(tail)


def test_one_output_in_json_may_stand_beside_one_in_bytes(columns: Handler) -> None:
    """The word about one output goes before the word about all."""
    inputs = [
        {"name": "age", "shape": [1, 1], "datatype": "FP32", "data": [41]},
        {"name": "town", "shape": [1, 1], "datatype": "BYTES", "data": ["Bern"]},
    ]
    wanted = [{"name": "home", "parameters": {"binary_data": False}}, {"name": "label"}]
    told, tail = ask_binary(
        columns, INFER, {"inputs": inputs, "outputs": wanted, "parameters": {"binary_data_output": True}}
    )
    assert told["outputs"][0]["data"] == ["Bern"]
    assert struct.unpack("<q", tail) == (41,)


def test_a_body_of_bytes_alone_is_the_only_input(handler: Handler) -> None:
    """Its length says how many rows there are."""
    told, tail = ask_binary(handler, INFER, np.float32([[1, 0, 0], [0, 0, 0]]).tobytes(), **{HEADER: "0"})
    assert told["outputs"][0]["shape"] == [2, 3]
    assert len(tail) == 24


@pytest.mark.parametrize(
    ("header", "parameters", "tail", "sentence"),
    [
        ("x", {}, b"", "Inference-Header-Content-Length is 'x'"),
        ("-1", {}, b"", "Inference-Header-Content-Length is '-1'"),
        ("²", {}, b"", "Inference-Header-Content-Length is '\\xb2'"),
        ("999999", {}, b"", "Inference-Header-Content-Length is '999999'"),
        ("9" * 5000, {}, b"", "Inference-Header-Content-Length is '999"),
        (None, {"binary_data_size": 12}, b"", "binary_data_size of input 'x' is 12; 0 bytes are left in the body"),
        (None, {"binary_data_size": -1}, b"", "binary_data_size of input 'x' is -1"),
        (None, {"binary_data_size": True}, b"1", "binary_data_size of input 'x' is True"),
        (None, {"binary_data_size": 4}, b"1234", "input 'x' has 4 bytes of data; FP32 of shape [1, 3] takes 12"),
        (None, {"binary_data_size": 12}, b"1" * 13, "1 bytes at the end of the body belong to no input"),
        (None, {"binary_data_size": 12}, struct.pack("<3f", 1, 2, np.inf), "element 3 of input 'x' is inf"),
    ],
)
def test_bytes_that_do_not_fit_are_refused_in_words(
    handler: Handler, header: str | None, parameters: dict[str, Any], tail: bytes, sentence: str
) -> None:
    """400, and which number is wrong."""
    row = {name: value for name, value in ROW.items() if name != "data"}
    body, headers = with_bytes({"inputs": [{**row, "parameters": parameters}]}, tail)
    status, answer = ask(handler, INFER, body, **(headers if header is None else {HEADER: header}))
    assert (status, sentence in answer["error"]) == (400, True), answer


# Bodies.


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
        ("gzip", lambda data: gzip.compress(b"") * (MAX_MEMBERS - 1) + gzip.compress(data)),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, wbits=-15)),
        ("identity", lambda data: data),
    ],
)
@pytest.mark.parametrize("path", [INFER, "/models/table/predict", "/models/table/invocations"])
def test_a_compressed_body_is_unpacked(handler: Handler, path: str, encoding: str, compress: Any) -> None:
    """For every way of asking."""
    body = {INFER: {"inputs": [ROW]}, "/models/table/predict": {"features": [[1, 0, 0]]}}.get(
        path, {"instances": [[1, 0, 0]]}
    )
    assert ask(handler, path, compress(json.dumps(body).encode()), content_encoding=encoding)[0] == 200


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"no gzip", 400),
        ("deflate", b"no deflate", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-3], 400),
        ("br", b"{}", 415),
        ("gzip", gzip.compress(b" " * 50_000_000, mtime=0), 413),
        ("gzip", gzip.compress(b" " * MAX_BODY, mtime=0) * 3, 413),
        ("gzip", gzip.compress(b"", mtime=0) * MAX_MEMBERS + gzip.compress(WHOLE, mtime=0), 400),
        ("deflate", zlib.compress(b" " * (MAX_BODY + 1)), 413),
    ],
)
def test_what_cannot_be_unpacked_or_is_too_large_is_refused(
    handler: Handler, encoding: str, body: bytes, status: int
) -> None:
    """It is bounded while it is unpacked."""
    assert ask(handler, INFER, body, content_encoding=encoding)[0] == status


def test_an_answer_that_lambda_would_not_pass_on_is_a_413() -> None:
    """There it would be an error of the function, and count against the model."""
    handler = make(mirror("BYTES", columns=1))
    text = '"' * (MAX_ANSWER // 4 + 1)  # four characters each, inside JSON inside JSON
    body = json.dumps({"inputs": [{"name": "BYTES", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]})
    status, answer = ask(handler, INFER, body)
    assert (status, answer["error"]) == (
        413,
        "the answer is over 6,000,000 bytes; ask for fewer rows or outputs at once",
    )


# Records, and MLflow.

PEOPLE = [{"age": 41, "town": "Bern"}, {"age": 7, "town": "Zürich"}]


def test_records_are_predicted_by_the_names_of_their_columns(columns: Handler) -> None:
    """The answer is that of any prediction."""
    status, body = ask(columns, "/models/table/predict", {"records": PEOPLE})
    assert (status, body["predictions"], body["version"]) == (200, [41, 7], "v1")


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["town", "age"], "data": [["Bern", 41], ["Zürich", 7]], "index": [0, 1]}},
        {"dataframe_records": PEOPLE},
        {"instances": PEOPLE},
        {"inputs": {"age": [41, 7], "town": ["Bern", "Zürich"]}},
        {"inputs": {"age": [[41], [7]], "town": [["Bern"], ["Zürich"]]}},
    ],
)
@pytest.mark.parametrize("path", ["/models/table/invocations", "/invocations"])
def test_mlflows_four_envelopes_are_read(columns: Handler, path: str, body: Any) -> None:
    """Each names the columns in its own way."""
    status, answer = ask(columns, path, body)
    assert (status, answer.get("predictions")) == (200, [41, 7]), answer


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 0, 0], [2, 0, 0]]}},
        {"dataframe_split": {"data": [[1, 0, 0], [2, 0, 0]]}},
        {"dataframe_records": [{"a": 1, "b": 0, "c": 0}, {"a": 2, "b": 0, "c": 0}]},
        {"instances": [[1, 0, 0], [2, 0, 0]]},
        {"inputs": [[1, 0, 0], [2, 0, 0]]},
        {"inputs": {"x": [[1, 0, 0], [2, 0, 0]]}},
    ],
)
def test_a_model_of_rows_takes_them_in_mlflows_envelopes_too(handler: Handler, body: Any) -> None:
    """Columns without names of their own count by their place."""
    assert ask(handler, "/models/table/invocations", body)[1]["predictions"] == [1, 2]


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("predict", {"features": [[1]]}, 'the body has no "records"'),
        ("predict", {"records": []}, "at least one"),
        ("predict", {"records": [[1, 2]]}, "a list of objects"),
        ("predict", {"records": [{"age": 1}]}, "row 1 of records has no 'town'"),
        (
            "predict",
            {"records": [*PEOPLE, {**PEOPLE[0], "a": 1}]},
            "row 3 of records has 'a', which the model does not take",
        ),
        ("predict", {"records": [PEOPLE[0], {"age": "x", "town": "y"}]}, "element 2 of input 'age' is 'x'"),
        ("predict", {"records": [PEOPLE[0], {"age": [1], "town": "y"}]}, "'age' in row 2 of records is a list"),
        ("predict", {"records": PEOPLE * 501}, "the request has 1,002 rows"),
        ("invocations", {}, "nothing to predict"),
        ("invocations", {"instances": [], "inputs": []}, "instances and inputs"),
        ("invocations", {"dataframe_split": [[1]]}, "dataframe_split is"),
        ("invocations", {"dataframe_split": {"columns": ["age", "age"], "data": []}}, "different names"),
        ("invocations", {"dataframe_split": {"columns": ["age"], "data": [[1, 2]]}}, "row 1 of dataframe_split"),
        ("invocations", {"inputs": {"age": [1, 2], "town": ["a"]}}, "dimension 'batch'"),
        ("invocations", {"inputs": {"agee": [1]}}, "there is no input 'agee'"),
        ("invocations", {"inputs": [1]}, "each needs its name: age, town"),
    ],
)
def test_records_at_fault_are_refused_in_words(columns: Handler, path: str, body: Any, sentence: str) -> None:
    """400, with the row and the column."""
    status, answer = ask(columns, f"/models/table/{path}", body)
    assert status == 400
    assert sentence in answer["error"]


def test_inputs_have_to_be_equally_long_where_the_model_says_so(columns: Handler) -> None:
    """Told before the model raises: it is the client's fault."""
    inputs = [
        {"name": "age", "shape": [2, 1], "datatype": "FP32", "data": [41, 7]},
        {"name": "town", "shape": [1, 1], "datatype": "BYTES", "data": ["Bern"]},
    ]
    assert ask(columns, INFER, {"inputs": inputs}) == (
        400,
        {"error": "input 'town' has 1 where input 'age' has 2 (dimension 'batch')"},
    )


def test_a_model_of_other_inputs_says_where_to_ask(many: Handler) -> None:
    """Neither rows nor columns."""
    status, body = ask(many, "/models/table/predict", {"features": [[1]]})
    assert (status, "/infer" in body["error"]) == (400, True)


# Anything at all.

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


def some(*likely: Any) -> st.SearchStrategy[Any]:
    """One of these, or anything."""
    return st.sampled_from(likely) | anything


tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": some("x"),
        "shape": some([1, 3], [2, 3]),
        "datatype": some("FP32", "BYTES"),
        "data": some([1, 0, 0], [[1, 0, 0]]),
        "parameters": some({"binary_data_size": 12}, {}),
    },
)
documents = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=2) | anything},
    optional={
        "id": some("i"),
        "parameters": some({"binary_data_output": True}),
        "outputs": some([{"name": "scores"}], [{"name": "scores", "parameters": {"binary_data": True}}]),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(document=documents | anything, tail=st.binary(max_size=24), header=some("0", "12", None), junk=st.booleans())
def test_no_body_is_ever_a_failure(handler: Handler, document: Any, tail: bytes, header: Any, junk: bool) -> None:
    """Whatever comes is answered, or refused with one sentence; only the model itself can fail."""
    head = b"{" if junk else json.dumps(document).encode()
    headers = {} if header is None else {HEADER: header if isinstance(header, str) else str(len(head))}
    answer = handler(http(INFER, head + tail, **headers), CONTEXT)
    if answer["statusCode"] != 200:
        body = json.loads(answer["body"])
        assert list(body) == ["error"]
        assert answer["statusCode"] == 400 or "the model raised" in body["error"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(envelope=some("dataframe_split", "dataframe_records", "instances", "inputs", "records"), given_body=anything)
def test_no_record_is_ever_a_failure(columns: Handler, handler: Handler, envelope: Any, given_body: Any) -> None:
    """Of either kind of model."""
    for served in (columns, handler):
        for path in ("predict", "invocations"):
            status, body = ask(served, f"/models/table/{path}", {str(envelope): given_body})
            assert status in (200, 400) or "the model " in body["error"]


def test_where_no_lambda_stands_between_bytes_stay_bytes() -> None:
    """A server of our own brings a body as it came, and takes the answer as it is: no base64 in either direction."""
    data = np.array([[1, 0, 0]], dtype="<f4").tobytes()
    tensor = {**{k: v for k, v in ROW.items() if k != "data"}, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    asked = {**http(INFER, head + data, inference_header_content_length=str(len(head))), "isBase64Encoded": False}
    asked["body"] = head + data
    handler = make()
    answer = handler(asked, CONTEXT)
    assert (type(answer["body"]), answer.get("isBase64Encoded", False)) == (bytes, False)
    encoded = handler({**asked, "body": base64.b64encode(head + data).decode(), "isBase64Encoded": True}, CONTEXT)
    assert base64.b64decode(encoded["body"]) == answer["body"]
    assert encoded["headers"] == answer["headers"]


def test_a_log_line_stays_short_however_long_a_prediction_is(lines: Callable[[], list[dict[str, Any]]]) -> None:
    """A model that gives a matrix for each row: the client gets it all, the line says that there was one."""
    handler = make_handler(
        runtime="onnx", environ={**environment(pointer(wide())), "PERCH_CAPTURE": "1"}, fetch=lambda *_: wide()
    )
    lines()
    status, body = ask(
        handler, INFER, {"inputs": [{"name": "x", "shape": [1, 5000], "datatype": "FP32", "data": [0] * 5000}]}
    )
    assert (status, len(body["outputs"][0]["data"])) == (200, 5000)
    assert all(len(json.dumps(line)) < 2000 for line in lines())


def wide() -> bytes:
    """Gives back rows of any width."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "m"])],
    )
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()
    return data
