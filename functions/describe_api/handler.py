"""What the API offers: the declared endpoints, the server's part of the Open Inference Protocol, and a 404 in words.

    GET /models · GET /v2 · GET /v2/health/live · GET /v2/health/ready · GET /v2/models · POST /v2/repository/index
    POST /v2/repository/models/{m}/load, …/unload    403: uploads and rollouts put models into service
    GET /openapi.json                                all of the API, as far as it is known without a model
    anything else                                    404 that names the endpoints (405: another method is taken)

It reads the settings that were deployed with it, so it makes no AWS call, and it knows what is declared, not what is
served: for that, ask the endpoint itself (`GET /models/{endpoint}`, `GET /v2/models/{endpoint}/ready`). So the API is
ready when it answers, and the state of a model in the index is UNKNOWN.
"""

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from perch.domain.policy import EndpointPolicy, load_settings
from perch.predictor.openapi import of_api
from perch.predictor.server import live, ready, server_metadata

_SETTINGS = load_settings(files("perch_settings").joinpath("endpoints.json").read_text("utf-8"))
_ENDPOINTS = _SETTINGS.endpoints
_SIGNING = {  # whoever uploads has to know, and whoever asks what is trusted; public keys are no secret
    **({"signing": "required"} if _SETTINGS.signing.required else {}),
    **({"keys": dict(_SETTINGS.signing.keys)} if _SETTINGS.signing.keys else {}),
}
_REPOSITORY = "/v2/repository/"


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer an HTTP API request (payload format 2.0)."""
    asked = event.get("requestContext", {}).get("http", {})
    method, path = str(asked.get("method", "")), str(asked.get("path", ""))
    names = [endpoint.name for endpoint in _ENDPOINTS]
    if path in _ANSWERS:
        wanted, answer = _ANSWERS[path]
        if method == wanted:
            body = answer(names)
            return _answer(200, {**body, "request_id": context.aws_request_id} if path == "/models" else body)
        refused = {"error": f"{path} takes {wanted}"}
        if not path.startswith("/v2"):
            refused["request_id"] = context.aws_request_id
        return _answer(405, refused, allow=wanted)
    if path.startswith(f"{_REPOSITORY}models/") and path.endswith(("/load", "/unload")):
        if method != "POST":
            return _answer(405, {"error": f"{path[:200]} takes POST"}, allow="POST")
        return _answer(403, {"error": "models are put into service by uploads and rollouts, not over this API"})
    sentence = (
        f"there is no {method} {path[:200]}; GET /models, GET /models/{{endpoint}}, POST /models/{{endpoint}}/predict, "
        f"POST /models/{{endpoint}}/invocations, POST /v2/models/{{endpoint}}/infer and "
        f"POST /experiments/{{endpoint}}/rewards are answered, for endpoint: "
        f"{', '.join(names) or 'none is declared in perch.toml'}"
    )
    if path.startswith("/v2/"):
        return _answer(404, {"error": sentence})
    return _answer(404, {"error": sentence, "endpoints": names, "request_id": context.aws_request_id})


def _declared(name: str) -> dict[str, str]:
    return {
        "name": name,
        "state": "UNKNOWN",
        "reason": f"declared; GET /v2/models/{name}/ready tells whether it serves",
    }


def _described(endpoint: EndpointPolicy) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "model": endpoint.model,
        "runtime": endpoint.runtime,
        "memory_mb": endpoint.memory_mb,
        "max_artifact_mb": endpoint.max_artifact_mb,
        "way_back_s": endpoint.rollout.way_back_s,
        "describe": f"/models/{endpoint.name}",
        "predict": f"/models/{endpoint.name}/predict",
        "rewards": f"/experiments/{endpoint.name}/rewards",
        **({"allow": endpoint.allow} if endpoint.allow else {}),
    }


def _answer(status: int, body: Any, **headers: str) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json", **headers},
        "body": json.dumps(body),
    }


_ANSWERS: Mapping[str, tuple[str, Callable[[list[str]], Any]]] = {
    "/models": ("GET", lambda _: {"endpoints": [_described(endpoint) for endpoint in _ENDPOINTS], **_SIGNING}),
    "/openapi.json": ("GET", of_api),
    "/v2": ("GET", lambda _: server_metadata()),
    "/v2/health/live": ("GET", lambda _: live()),
    "/v2/health/ready": ("GET", lambda _: ready()),
    "/v2/models": ("GET", lambda names: {"models": names}),
    f"{_REPOSITORY}index": ("POST", lambda names: [_declared(name) for name in names]),
}
"""By path: the method that it takes, and what is answered, from the endpoints' names."""
