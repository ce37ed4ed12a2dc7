"""The Open Inference Protocol over HTTP: gateway, routes, base64 and back, with the API's authorization off."""

from __future__ import annotations

import gzip
import json
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.clients.models import TYPES
from tests.clients.run import SETTINGS, serve
from tests.local.tiny_models import ORDINARY
from tests.local.whole import synthesize_trial, trial

pytestmark = pytest.mark.slow
HEADER = "inference-header-content-length"
ROW = {"name": "x", "shape": [1, 4], "datatype": "FP32"}
INFER = "/v2/models/rows/infer"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A cloud that serves rows of features and a model of thirteen inputs."""
    assembly = synthesize_trial(tmp_path_factory.mktemp("assembly"), text=SETTINGS)
    with trial(assembly, tmp_path_factory.mktemp("cloud")) as found:
        serve(found)
        yield found


@pytest.fixture
def ask(cloud):
    """Send a request exactly as given, no header added; return status, headers and body."""
    connection = HTTPConnection(urlsplit(cloud.cloud.gateway_url).netloc, timeout=60)

    def send(method, path, body=None, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=named)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    yield send
    connection.close()


def in_bytes(row, **more):
    """A body of JSON with one row in bytes behind it, and the length of the JSON."""
    head = json.dumps({"inputs": [{**ROW, "parameters": {"binary_data_size": 16}}], **more}).encode()
    return head + np.array(row, dtype="<f4").tobytes(), str(len(head))


def test_json_goes_in_and_out_as_text(ask):
    """The media type is the one that clients compare with."""
    body = json.dumps({"id": "7", "inputs": [{**ROW, "data": ORDINARY}]})
    status, headers, answer = ask("POST", INFER, body, content_type="application/json")
    found = json.loads(answer)

    assert (status, headers["content-type"]) == (200, "application/json")
    assert (found["model_name"], found["model_version"], found["id"]) == ("rows", "v1", "7")
    assert np.argmax(found["outputs"][0]["data"]) == 1


@pytest.mark.parametrize(
    "kind", [{}, {"content_type": "application/octet-stream"}, {"content_type": "application/json"}]
)
@pytest.mark.parametrize("packed", [False, True])
def test_bytes_go_in_and_out_as_they_are(ask, kind, packed):
    """Whatever the client calls them, with no Content-Type at all, and compressed."""
    body, size = in_bytes([1e-42, 2, -3, 0.1], parameters={"binary_data_output": True})
    more = {"content_encoding": "gzip"} if packed else {}
    sent = gzip.compress(body) if packed else body
    status, headers, answer = ask("POST", INFER, sent, inference_header_content_length=size, **kind, **more)
    assert status == 200, answer
    assert headers["content-type"] == "application/octet-stream"
    head = int(headers[HEADER])
    [output] = json.loads(answer[:head])["outputs"]

    assert output["parameters"]["binary_data_size"] == len(answer) - head == 12
    assert np.frombuffer(answer[head:], dtype="<f4").argmax() == 1


def test_a_model_of_many_inputs_passed_its_probes_and_serves(cloud, ask):
    """Its rollout was probed in the protocol, because it takes no rows of features."""
    assert cloud.stable("mirror") == "v1"
    status, _, answer = ask("GET", "/v2/models/mirror")
    assert (status, len(json.loads(answer)["inputs"])) == (200, len(TYPES))
    status, _, answer = ask("POST", "/models/mirror/predict", '{"features": [[1]]}', content_type="application/json")
    assert (status, b"/infer" in answer) == (400, True)


def test_health_checks_of_both_kinds_of_models_pass(cloud):
    """An hour of probes: none fails."""
    cloud.pass_time(3600)
    for endpoint in ("rows", "mirror"):
        dimensions = {"Endpoint": endpoint, "Role": "stable"}
        assert cloud.counted("ProbeFailures", dimensions, "Perch") == 0
        seen = cloud.client("cloudwatch").list_metrics(Namespace="Perch", MetricName="ProbeLatency")["Metrics"]
        assert {"Name": "Endpoint", "Value": endpoint} in [one for metric in seen for one in metric["Dimensions"]]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2", 200),
        ("/v2/health/live", 200),
        ("/v2/health/ready", 200),
        ("/v2/models", 200),
        ("/v2/models/rows", 200),
        ("/v2/models/rows/ready", 200),
        ("/v2/models/rows/versions/v1", 200),
        ("/v2/models/rows/versions/v1/ready", 200),
        ("/v2/models/rows/versions/v2", 404),
        ("/v2/models/rows/infer", 405),
        ("/v2/models/rows/", 404),
        ("/v2/models/nothing/ready", 503),
        ("/v2/models/nothing/versions/1", 503),
        ("/v2/models/nosuch/ready", 404),
        ("/v2/nosuch", 404),
    ],
)
def test_every_path_leads_to_whoever_knows(ask, path, status):
    """Errors have the protocol's shape, wherever they come from."""
    found, headers, answer = ask("GET", path)
    assert (found, headers["content-type"]) == (status, "application/json"), answer
    if status >= 400:
        assert list(json.loads(answer)) == ["error"]


def test_the_index_is_asked_with_an_empty_body(ask):
    """As clients do."""
    status, _, answer = ask("POST", "/v2/repository/index")
    assert (status, [one["name"] for one in json.loads(answer)]) == (200, ["rows", "mirror", "nothing"])


def test_mlflows_clients_are_answered(ask):
    """A data frame in its split form."""
    frame = {"dataframe_split": {"columns": list("abcd"), "data": [ORDINARY, ORDINARY]}}
    status, _, answer = ask("POST", "/models/rows/invocations", json.dumps(frame), content_type="application/json")
    assert (status, json.loads(answer)["predictions"]) == (200, [1, 1])


def test_requests_in_the_protocol_count_as_any_other(cloud, ask):
    """A wrong one is the client's error, and no failure of the model."""
    named = {"Endpoint": "rows"}
    before = [cloud.counted(name, named, "Perch") for name in ("Requests", "ClientErrors", "Failures")]
    ask("POST", INFER, json.dumps({"inputs": [{**ROW, "data": ORDINARY}]}), content_type="application/json")
    ask("POST", INFER, json.dumps({"inputs": [{**ROW, "data": [1]}]}), content_type="application/json")
    cloud.pass_time(1)

    after = [cloud.counted(name, named, "Perch") for name in ("Requests", "ClientErrors", "Failures")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 1, 0]
