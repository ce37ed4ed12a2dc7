"""The prediction cache, declared ranges and the API's own document, over HTTP on a whole local cloud."""

import json
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from perch.artifacts.ranges import declare
from tests.local.tiny_models import onnx_model
from tests.local.whole import synthesize_trial, trial

pytestmark = pytest.mark.slow

SETTINGS = """
name = "perch"
[api]
auth = "none"

[endpoints.kept]
runtime = "onnx"
[endpoints.kept.cache]
ttl = "5 minutes"
size_mb = 8
[endpoints.kept.rollout]
strategy = "direct"
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A cloud whose one endpoint remembers for five minutes, and whose model takes ages from 0 to 130."""
    assembly = synthesize_trial(tmp_path_factory.mktemp("assembly"), text=SETTINGS)
    with trial(assembly, tmp_path_factory.mktemp("cloud")) as found:
        document = {"features": ["age", "b", "c", "d"], "inputs": {"age": {"min": 0, "max": 130}}}
        found.put("models/kept/v1/model.onnx", declare(onnx_model(1), document))
        found.wait(lambda: bool(found.stable("kept")), "kept")
        yield found


@pytest.fixture
def ask(cloud):
    """Send a request; return status, headers and the body as JSON."""
    connection = HTTPConnection(urlsplit(cloud.cloud.gateway_url).netloc, timeout=60)

    def send(method, path, document=None):
        body = None if document is None else json.dumps(document)
        connection.request(method, path, body=body, headers={"content-type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(answer.read())

    yield send
    connection.close()


def test_the_same_question_is_answered_from_memory_until_it_is_too_old(cloud, ask):
    """However it is spelled, in whichever protocol; each answer says where it comes from, and hits are counted."""
    row, again = {"features": [[41, 1, 2, 3]]}, {"features": [41.0, 1, 2, 3.0]}
    v2 = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [41, 1, 2, 3]}]}
    path, infer = "/models/kept/predict", "/v2/models/kept/infer"
    ask("POST", path, {"features": [[1, 1, 1, 1]]})  # the first of a process always runs the model
    asked = [ask("POST", path, row), ask("POST", path, again), ask("POST", infer, v2)]
    cloud.cloud.advance(301)
    asked.append(ask("POST", path, row))
    told = [headers.get("x-perch-cache") for _, headers, _ in asked]
    events = cloud.client("logs").filter_log_events(logGroupName="/aws/lambda/perch-kept")["events"]
    lines = [json.loads(event["message"]) for event in events if '"predictor.answered"' in event["message"]]
    logged = [line.get("cache") for line in lines]

    assert [status for status, _, _ in asked] == [200] * 4
    assert told == ["miss", "hit", "hit", "miss"]
    assert logged[-4:] == told
    assert asked[0][2]["predictions"] == asked[1][2]["predictions"]
    dimensions = {"Endpoint": "kept", "Revision": asked[0][2]["revision"]}
    assert cloud.counted("CacheHits", dimensions, namespace="Perch") == 2


def test_a_value_outside_of_its_range_is_refused_by_name(ask):
    """The client's fault, in words: which row, which field, which limit."""
    status, _, answer = ask("POST", "/models/kept/predict", {"features": [[41, 1, 2, 3], [200, 1, 2, 3]]})

    assert status == 400
    assert all(word in answer["error"] for word in ("age", "200", "130"))


def test_the_api_describes_itself(ask):
    """An OpenAPI document that names the endpoint's routes."""
    status, headers, document = ask("GET", "/openapi.json")

    assert (status, headers["content-type"]) == (200, "application/json")
    assert document["openapi"].startswith("3.1")
    assert {"/models/kept/predict", "/v2/models/kept/infer"} <= document["paths"].keys()
