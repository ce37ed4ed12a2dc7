"""Who asked: the client's id of a request, its user, and who answered, on every path."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from perch.predictor.handler import Handler, make_handler
from tests.unit.test_predictor import CONTEXT, MODEL, environment, event, handler, lines, pointer
from tests.unit.test_protocol import INFER, ROW, http

__all__ = ["handler", "lines"]  # fixtures

Lines = Callable[[], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/models/table/predict", {"features": [1, 0, 0]}, 200),
        ("/models/table/predict", {"features": [9, 0, 0]}, 500),
        ("/models/table/predict", {}, 400),
        ("/models/table/nothing", {}, 404),
        (INFER, {"inputs": [ROW]}, 200),
        (INFER, {"inputs": []}, 400),
        ("/v2/models/table", None, 200),
        ("/v2/health/live", None, 200),
    ],
)
def test_a_clients_id_comes_back_and_is_logged_beside_lambdas(
    handler: Handler, lines: Lines, path: str, body: Any, status: int
) -> None:
    """Whatever the answer; without one, Lambda's stands in its place."""
    answer = handler(http(path, body, x_request_id="order-4711"), CONTEXT)
    assert (answer["statusCode"], answer["headers"]["x-request-id"]) == (status, "order-4711")
    assert answer["headers"]["x-perch-request-id"] == "request-1"
    line = lines()[-1]
    assert (line["request_id"], line["client_request_id"]) == ("request-1", "order-4711")
    assert "_aws" in line
    answer = handler(http(path, body), CONTEXT)
    assert answer["headers"]["x-request-id"] == "request-1"
    assert "x-perch-request-id" not in answer["headers"]


@pytest.mark.parametrize("given", ["", " ", "a b", "a\nb", "ä", "x" * 129, "\x7f"])
def test_an_id_that_is_not_well_formed_is_as_if_it_were_not_there(handler: Handler, lines: Lines, given: str) -> None:
    """No header and no log line can be forged with it."""
    answer = handler(http("/models/table/predict", {"features": [1, 0, 0]}, x_request_id=given), CONTEXT)
    assert answer["headers"]["x-request-id"] == "request-1"
    assert "client_request_id" not in lines()[-1]


def test_the_protocols_id_is_logged_as_well(handler: Handler, lines: Lines) -> None:
    """It goes back in the body, as the protocol says; a header's comes before it in the line."""
    handler(http(INFER, {"inputs": [ROW], "id": "four"}), CONTEXT)
    handler(http(INFER, {"inputs": [ROW], "id": "four"}, x_request_id="five"), CONTEXT)
    handler(http(INFER, {"inputs": [ROW], "id": "no id"}), CONTEXT)
    assert [line.get("client_request_id") for line in lines()[-3:]] == ["four", "five", None]


def test_every_answer_of_the_protocol_says_in_headers_who_gave_it(handler: Handler) -> None:
    """Its bodies hold what the protocol says and nothing more; ours say it in the body."""
    for path, body in ((INFER, {"inputs": [ROW]}), (INFER, {"inputs": []}), ("/v2/models/table/ready", None)):
        headers = handler(http(path, body), CONTEXT)["headers"]
        assert (headers["x-perch-version"], headers["x-perch-revision"]) == ("v1", "7")
    body = json.loads(handler(event({"features": [1, 0, 0]}), CONTEXT)["body"])
    assert (body["version"], body["revision"], body["request_id"]) == ("v1", "7", "request-1")


def test_a_user_is_never_written_down(handler: Handler, lines: Lines) -> None:
    """Without capture nothing stands for him; with it a pseudonym, the same for the same user, another elsewhere."""

    def told(endpoint: str, user: str, **more: str) -> list[dict[str, Any]]:
        environ = {**environment(pointer(MODEL)), **more, "PERCH_ENDPOINT": endpoint}
        asked = http(f"/models/{endpoint}/predict", {"features": [1, 0, 0]}, x_perch_user=user)
        make_handler(runtime="onnx", environ=environ, fetch=lambda *_: MODEL)(asked, CONTEXT)
        found = lines()
        assert user not in json.dumps(found)
        return found

    assert not any("user" in line for line in told("table", "anna@example.org"))
    captured = [
        next(line["user"] for line in told(endpoint, user, PERCH_CAPTURE="1") if "user" in line)
        for endpoint, user in (
            ("table", "anna@example.org"),
            ("table", "anna@example.org"),
            ("table", "bert"),
            ("other", "bert"),
        )
    ]
    assert captured[0] == captured[1]
    assert len(set(captured)) == 3


def test_a_captured_line_says_that_its_answer_was_remembered(lines: Lines) -> None:
    """Its latency is not the model's."""
    environ = {
        **environment(pointer(MODEL)), "PERCH_CAPTURE": "1", "PERCH_CACHE": '{"ttl_s": 60, "size_mb": 1}',
    }  # fmt: skip
    remembering = make_handler(runtime="onnx", environ=environ, fetch=lambda *_: MODEL)
    for _ in range(2):
        remembering(event({"features": [1, 0, 0]}), CONTEXT)
    found = [line for line in lines() if line["event"] == "predictor.captured"]
    assert [line["cache"] for line in found] == ["miss", "hit"]


def test_a_predictor_without_a_model_answers_with_the_clients_id_too() -> None:
    """503, and which request it was."""
    answer = make_handler(runtime="onnx", environ=environment(None))(
        http("/models/table/predict", {"features": [1]}, x_request_id="mine"), CONTEXT
    )
    assert (answer["statusCode"], answer["headers"]["x-request-id"]) == (503, "mine")
