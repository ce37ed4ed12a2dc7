"""The deployed HTTP API as its users meet it: what it answers, and what it says to requests that it cannot serve."""

from __future__ import annotations

import json

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from tests.local.tiny_models import ORDINARY, TOO_MUCH
from tests.local.whole import trial

pytestmark = pytest.mark.slow
ALPHA = "/models/alpha/predict"
ONE = json.dumps({"features": [ORDINARY]}).encode()


@pytest.fixture(scope="module")
def whole(trial_assembly, tmp_path_factory):
    """A cloud where alpha serves its first version, and the others have none yet."""
    with trial(trial_assembly, tmp_path_factory.mktemp("cloud")) as found:
        found.upload("alpha", 1, version="v1")
        found.wait(lambda: bool(found.stable("alpha")), "alpha")
        yield found


BAD = {
    "no body": (b"", 400, "no body"),
    "a body that is not JSON": (b"{features: 1}", 400, "not JSON"),
    "a body that is not UTF-8": (b'{"features": [[\xff]]}', 400, "not JSON"),
    "a body without features": (b'{"rows": []}', 400, '"features"'),
    "too few features": (b'{"features": [[1, 2]]}', 400, "expected 4 features, got 2 in row 1"),
    "rows of different lengths": (b'{"features": [[1, 2, 3, 4], [1]]}', 400, "expected 4 features, got 1 in row 2"),
    "a feature that is a word": (b'{"features": [[1, 2, 3, "x"]]}', 400, "feature 4 in row 1 is a string"),
    "NaN": (b'{"features": [[1, 2, 3, NaN]]}', 400, "NaN"),
    "infinity": (b'{"features": [[1, 2, 3, 1e999]]}', 400, "JSON"),
    "more than fits a float": (b'{"features": [[1, 2, 3, 1e300]]}', 400, "feature 4 in row 1"),
    "7 MB": (json.dumps({"features": [ORDINARY] * 350_000}).encode(), 413, "Request Entity Too Large"),
    "5.5 MB": (b'{"features": [[1, 2, 3, 4]], "pad": "' + b"x" * 5_500_000 + b'"}', 413, "5,000,000 bytes"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_is_refused_in_words_and_disturbs_nothing(whole, what):
    """The right status, a sentence that says what is wrong, and the next request is served."""
    body, status, words = BAD[what]
    answer = whole.request("POST", ALPHA, body)
    after = whole.predict("alpha")

    assert answer.status == status
    assert words in answer.error
    assert "Traceback" not in json.dumps(answer.body)
    assert (after.status, after.body["predictions"]) == (200, [1])


def test_bad_requests_are_no_failures_of_the_model(whole):
    """They count as client errors, so that nobody's typing mistakes roll a version back."""
    failures, mistakes = (whole.counted(name, {"Endpoint": "alpha"}, "Perch") for name in ("Failures", "ClientErrors"))
    whole.request("POST", ALPHA, b"nonsense")
    whole.pass_time(1)

    assert whole.counted("ClientErrors", {"Endpoint": "alpha"}, "Perch") == mistakes + 1
    assert whole.counted("Failures", {"Endpoint": "alpha"}, "Perch") == failures


def test_an_answer_names_who_gave_it(whole):
    """Model, version, revision and request id beside one prediction and its probabilities a row."""
    answer = whole.predict("alpha", [ORDINARY, TOO_MUCH])

    assert answer.status == 200
    assert (answer.body["model"], answer.body["version"]) == ("alpha", "v1")
    assert answer.body["revision"] == whole.state("alpha").stable.lambda_version
    assert len(answer.body["predictions"]) == len(answer.body["probabilities"]) == 2
    assert [round(sum(row), 3) for row in answer.body["probabilities"]] == [1, 1]
    assert answer.body["request_id"]


def test_a_body_without_a_content_type_is_read_all_the_same(whole):
    """API Gateway hands it to the function in base64."""
    assert whole.request("POST", ALPHA, ONE, json_body=False).body["predictions"] == [1]


def test_one_row_may_come_without_the_outer_list(whole):
    """The same answer as for a list of one row."""
    bare = whole.request("POST", ALPHA, json.dumps({"features": ORDINARY}).encode())

    assert bare.body["predictions"] == whole.predict("alpha").body["predictions"]


@pytest.mark.parametrize(("method", "path"), [("POST", "/models/gamma/predict"), ("GET", "/models/beta")])
def test_an_endpoint_without_a_model_says_so(whole, method, path):
    """503, and what to do about it."""
    answer = whole.request(method, path, ONE if method == "POST" else None)

    assert answer.status == 503
    assert "no model has been deployed" in answer.error


def test_what_there_is_can_be_asked(whole):
    """GET /models lists the declared endpoints, GET /models/{endpoint} says what one serves."""
    listed = whole.request("GET", "/models")
    alpha = whole.request("GET", "/models/alpha")

    assert [(e["name"], e["runtime"]) for e in listed.body["endpoints"]] == [
        ("alpha", "onnx"), ("beta", "torch"), ("gamma", "onnx"),
    ]  # fmt: skip
    assert (alpha.status, alpha.body["version"]) == (200, "v1")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/models/nosuch/predict"), ("GET", "/models/nosuch"), ("DELETE", "/models/alpha"), ("GET", "/")],
)
def test_what_is_not_there_is_a_404_that_names_what_is(whole, method, path):
    """For an unknown model, an unknown path and a method that no route has."""
    answer = whole.request(method, path)

    assert answer.status == 404
    assert "alpha, beta, gamma" in answer.error


@pytest.mark.parametrize(("method", "path"), [("POST", ALPHA), ("GET", "/models"), ("GET", "/models/nosuch")])
def test_an_unsigned_request_is_refused(whole, method, path):
    """The API's auth is iam, for every route; a signature over other bytes is none either."""
    assert whole.request(method, path, ONE if method == "POST" else None, signed=False).status == 403
    assert whole.predict("alpha").status == 200


def test_a_client_cannot_pass_for_a_probe(whole):
    """Probes are left out of the metrics; a request that claims to be one is counted like any other."""
    before = whole.counted("Requests", {"Endpoint": "alpha"}, "Perch")
    body = json.dumps({"features": [ORDINARY], "requestContext": {"stage": "perch-probe"}}).encode()
    assert whole.request("POST", ALPHA + "?stage=perch-probe", body).status == 200
    whole.pass_time(1)

    assert whole.counted("Requests", {"Endpoint": "alpha"}, "Perch") == before + 1


def test_a_request_makes_no_call_to_aws(whole, monkeypatch):
    """Not one, once the execution environment is up (law 7)."""
    whole.predict("alpha")
    calls, serve = [], DomainDispatcherApplication.__call__

    def watched(application, environ, start_response):
        calls.append(environ["HTTP_HOST"])
        return serve(application, environ, start_response)

    monkeypatch.setattr(DomainDispatcherApplication, "__call__", watched)
    statuses = [whole.predict("alpha").status for _ in range(10)]

    assert statuses == [200] * 10
    assert calls == []
    whole.client("sts").get_caller_identity()
    assert calls  # an AWS call would have been seen
