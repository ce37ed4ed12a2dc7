"""`GET /models` and the 404 that names the endpoints."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from perch.cli.context import Context, Options
from perch.predictor.server import VERSION

HANDLER = Path(__file__).parents[2] / "functions" / "describe_api" / "handler.py"
CONTEXT = SimpleNamespace(aws_request_id="request-1")


def load(folder: Path, monkeypatch: pytest.MonkeyPatch, *endpoints: dict[str, Any]) -> ModuleType:
    """Import the function as Lambda does, with a settings layer that declares these endpoints."""
    package = folder / "perch_settings"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "endpoints.json").write_text(json.dumps({"name": "perch", "endpoints": endpoints}))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "perch_settings", raising=False)
    spec = importlib.util.spec_from_file_location("describe_api_handler", HANDLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(module: ModuleType, method: str, path: str) -> tuple[int, Any]:
    """Status and body of one request."""
    answer = module.handler({"requestContext": {"http": {"method": method, "path": path}}}, CONTEXT)
    return answer["statusCode"], json.loads(answer["body"])


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function, with two endpoints."""
    return load(
        tmp_path,
        monkeypatch,
        {"name": "digits", "model": "digits", "runtime": "onnx"},
        {"name": "deep", "model": "digits-torch", "runtime": "torch"},
    )


def test_get_models_lists_the_declared_endpoints(api: ModuleType) -> None:
    """Each with the model that it serves and where to ask."""
    status, body = ask(api, "GET", "/models")
    assert status == 200
    assert body["request_id"] == "request-1"
    assert body["endpoints"][1] == {
        "name": "deep",
        "model": "digits-torch",
        "runtime": "torch",
        "memory_mb": 1024,
        "max_artifact_mb": 200,
        "way_back_s": 86_400,
        "describe": "/models/deep",
        "predict": "/models/deep/predict",
        "rewards": "/experiments/deep/rewards",
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/models/nobody/predict"),
        ("GET", "/"),
        ("GET", "/models/x"),
        ("GET", "/x/models"),
        ("GET", "/models/"),
    ],
)
def test_every_other_route_is_a_404_that_names_the_endpoints(api: ModuleType, method: str, path: str) -> None:
    """An unknown model is the most common mistake."""
    status, body = ask(api, method, path)
    assert (status, body["endpoints"]) == (404, ["digits", "deep"])
    assert body["error"].startswith(f"there is no {method} {path}; ")
    assert body["error"].endswith("for endpoint: digits, deep")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/models", "GET"),
        ("DELETE", "/v2/models", "GET"),
        ("GET", "/v2/repository/index", "POST"),
        ("GET", "/v2/repository/models/digits/load", "POST"),
    ],
)
def test_a_path_that_is_answered_says_which_method_it_takes(
    api: ModuleType, method: str, path: str, allowed: str
) -> None:
    """405 with Allow, as HTTP has it."""
    answer = api.handler({"requestContext": {"http": {"method": method, "path": path}}}, CONTEXT)
    assert (answer["statusCode"], answer["headers"]["allow"]) == (405, allowed)
    assert json.loads(answer["body"])["error"] == f"{path} takes {allowed}"


def test_the_document_describes_every_endpoint(api: ModuleType) -> None:
    """OpenAPI 3.1, with the paths of each endpoint and those of all."""
    status, document = ask(api, "GET", "/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")
    for path in ("/models/digits/predict", "/v2/models/deep/infer", "/experiments/deep/rewards", "/v2/health/live"):
        assert path in document["paths"]


def test_a_deployment_without_endpoints_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty perch.toml is a beginning, not an error."""
    api = load(tmp_path, monkeypatch)
    assert ask(api, "GET", "/models")[1]["endpoints"] == []
    assert "none is declared in perch.toml" in ask(api, "GET", "/x")[1]["error"]


def test_an_event_that_is_no_http_request_is_answered_too(api: ModuleType) -> None:
    """Somebody invoked the function by hand."""
    assert api.handler({}, CONTEXT)["statusCode"] == 404


def test_the_server_speaks_the_open_inference_protocol(api: ModuleType) -> None:
    """Who it is, that it lives, and which models are declared; the bodies are the protocol's and nothing more."""
    assert ask(api, "GET", "/v2") == (
        200,
        {"name": "perch", "version": VERSION, "extensions": ["binary_tensor_data"]},
    )
    assert ask(api, "GET", "/v2/health/live") == (200, {"live": True})
    assert ask(api, "GET", "/v2/health/ready") == (200, {"live": True, "ready": True})
    assert ask(api, "GET", "/v2/models") == (200, {"models": ["digits", "deep"]})


def test_the_repository_index_says_what_is_declared_and_where_to_ask(api: ModuleType) -> None:
    """It makes no AWS call, so it does not know what is served, and says so."""
    status, index = ask(api, "POST", "/v2/repository/index")
    assert status == 200
    assert [(one["name"], one["state"]) for one in index] == [("digits", "UNKNOWN"), ("deep", "UNKNOWN")]
    assert "GET /v2/models/deep/ready" in index[1]["reason"]


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_models_are_not_loaded_over_the_api(api: ModuleType, verb: str) -> None:
    """A rollout does that; 403, in the protocol's shape."""
    status, body = ask(api, "POST", f"/v2/repository/models/digits/{verb}")
    assert (status, list(body)) == (403, ["error"])


def test_an_unknown_path_of_the_protocol_is_an_error_in_its_shape(api: ModuleType) -> None:
    """One sentence, which names the endpoints."""
    status, body = ask(api, "POST", "/v2/models/nobody/infer")
    assert (status, list(body)) == (404, ["error"])
    assert body["error"].endswith("for endpoint: digits, deep")


def test_the_version_that_is_told_is_the_projects() -> None:
    """A layer holds no metadata of packages, so it is written down twice."""
    project = tomllib.loads((HANDLER.parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


@pytest.mark.parametrize(
    ("declared", "told"),
    [({"rollout": {"way_back_s": 60}, "max_artifact_mb": 90}, (60, 90)), ({}, (86_400, 200))],
)
def test_commands_go_by_what_was_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: dict[str, Any], told: tuple[int, int]
) -> None:
    """`perch rollouts start` by the way back of a version that served, `perch push` by the largest file."""
    endpoint = {"name": "digits", "model": "digits", "runtime": "onnx", **declared}
    api = load(tmp_path, monkeypatch, endpoint)

    class Lambda:
        exceptions = SimpleNamespace(ResourceNotFoundException=KeyError)

        def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803 - boto3's names
            assert FunctionName == "perch-describe-api"
            return {"Payload": io.BytesIO(json.dumps(api.handler(json.loads(Payload), CONTEXT)).encode())}

    monkeypatch.setattr(Context, "clients", SimpleNamespace(lambda_=Lambda()))

    found = Context(Options(name="perch")).settings.endpoint("digits")
    assert (found.rollout.way_back_s, found.max_artifact_mb) == told
