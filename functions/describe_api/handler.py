"""What the API offers: `GET /models` lists the declared endpoints, and every unknown route is a 404 that names them.

It reads the settings that were deployed with it, so it makes no AWS call, and it knows what is declared, not what is
served: for that, ask the endpoint itself (`GET /models/{endpoint}`).
"""

import json
from importlib.resources import files
from typing import Any

from perch.domain.policy import EndpointPolicy, load_settings

_ENDPOINTS = load_settings(files("perch_settings").joinpath("endpoints.json").read_text("utf-8")).endpoints


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer an HTTP API request (payload format 2.0)."""
    asked = event.get("requestContext", {}).get("http", {})
    method, path = str(asked.get("method", "")), str(asked.get("path", ""))
    if method == "GET" and path == "/models":
        return _answer(200, {"endpoints": [_described(endpoint) for endpoint in _ENDPOINTS]}, context)
    names = ", ".join(endpoint.name for endpoint in _ENDPOINTS) or "none is declared in perch.toml"
    sentence = (
        f"there is no {method} {path[:200]}; GET /models, GET /models/{{endpoint}}, POST /models/{{endpoint}}/predict "
        f"and POST /experiments/{{endpoint}}/rewards are answered, for endpoint: {names}"
    )
    return _answer(404, {"error": sentence, "endpoints": [endpoint.name for endpoint in _ENDPOINTS]}, context)


def _described(endpoint: EndpointPolicy) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "model": endpoint.model,
        "runtime": endpoint.runtime,
        "memory_mb": endpoint.memory_mb,
        "describe": f"/models/{endpoint.name}",
        "predict": f"/models/{endpoint.name}/predict",
        "rewards": f"/experiments/{endpoint.name}/rewards",
    }


def _answer(status: int, body: dict[str, Any], context: Any) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps({**body, "request_id": context.aws_request_id}),
    }
