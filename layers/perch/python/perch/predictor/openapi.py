"""The OpenAPI 3.1 document of the HTTP API: ours, the Open Inference Protocol's, MLflow's.

    of_api         what the deployed API answers, from the declared endpoints (`describe_api` tells it)
    of_predictor   what one predictor answers where it is alone with its clients (a Function URL, a container), with the
                   names, shapes and ranges of the model that it serves

Operations are written once and put together for both. A status stands with an operation if a client can get it there.
What depends on headers (a body in gzip, tensors in bytes, a user of an experiment) is described in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .schemas import (
    Schema,
    any_rows,
    array,
    closed,
    features,
    infer_answer,
    infer_request,
    invocation,
    one_of,
    record,
)
from .server import VERSION

if TYPE_CHECKING:
    from .interface import Interface

_TEXT: Schema = {"type": "string"}
_NAME_OF_VERSION = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
_WORDS = {
    400: "The request is at fault; the sentence names the field.",
    403: "Models are put into service by uploads and rollouts.",
    404: "There is no such path, endpoint or version here.",
    409: "The experiment is not served to all yet.",
    413: "The body or the answer is too large.",
    415: "The body has an encoding other than gzip and deflate.",
    500: "The model failed.",
    503: "There is no model, and why; or ask again.",
}
_OURS: Schema = closed(
    {"error": _TEXT, "request_id": _TEXT, "endpoints": array(_TEXT, 0)}, optional=("request_id", "endpoints")
)
_PROTOCOLS: Schema = closed({"error": _TEXT})


def of_api(endpoints: Sequence[str]) -> dict[str, Any]:
    """Return the document of an HTTP API with these endpoints; their models are not known here."""
    paths: dict[str, Any] = {
        "/models": {"get": _get("list_endpoints", "The declared endpoints", _object("endpoints", "request_id"))},
        "/openapi.json": {"get": _get("document", "This document", {"type": "object"})},
        **_server_paths(),
        "/v2/repository/models/{model}/{action}": {
            "parameters": [_in_path("model", _TEXT), _in_path("action", {"enum": ["load", "unload"]})],
            "post": _operation("load_or_unload", "Not over this API", {}, _PROTOCOLS, 403, 404),
        },
    }
    for name in endpoints:
        paths |= _model_paths(name, None, None)
        paths[f"/experiments/{name}/rewards"] = {"post": _rewards(name)}
    return _document("Perch", paths)


def of_predictor(endpoint: str, versions: Sequence[str], interface: Interface | None) -> dict[str, Any]:
    """Return the document of one predictor; without an interface it serves no model yet."""
    paths: dict[str, Any] = {
        "/openapi.json": {"get": _get("document", "This document", {"type": "object"})},
        **_server_paths(503),
        **_model_paths(endpoint, versions, interface),
        "/invocations": {"post": _invocations("invocations", interface)},
        "/ping": {"get": _get("ping", "Whether it serves (MLflow)", {"type": "object"}, 503)},
        "/health": {"get": _get("health", "Whether it serves (MLflow)", {"type": "object"}, 503)},
        "/version": {"get": _get("version", "Its version (MLflow)", closed({"version": _TEXT}))},
    }
    return _document(endpoint, paths)


def _document(title: str, paths: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": VERSION, "description": (__doc__ or "").partition("\n")[0]},
        "paths": paths,
    }


# -- paths --------------------------------------------------------------------------------------------------------


def _server_paths(*unready: int) -> dict[str, Any]:
    """What the server says of itself; `unready` is what it says when it does not serve, if it ever does."""
    flags = {"live": {"const": True}, "ready": {"const": True}}
    entry = closed({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT}, optional=("version",))
    metadata = closed({"name": _TEXT, "version": _TEXT, "extensions": array(_TEXT, 0)})
    models = closed({"models": array(_TEXT, 0)})
    index = _operation("index", "The models, and whether they serve", {}, _PROTOCOLS)
    index["responses"]["200"] = _answered("The models", array(entry, 0))
    return {
        "/v2": {"get": _get("server", "Server metadata", metadata)},
        "/v2/health/live": {"get": _get("live", "Whether it lives", closed(flags, optional=("ready",)))},
        "/v2/health/ready": {"get": _get("ready", "Whether it serves", closed(flags), *unready, bare=True)},
        "/v2/models": {"get": _get("models", "Names of the models", models)},
        "/v2/repository/index": {"post": index},
    }


def _model_paths(endpoint: str, versions: Sequence[str] | None, interface: Interface | None) -> dict[str, Any]:
    """All paths of one endpoint; without `versions`, of an endpoint whose model is not known."""
    named = {"enum": list(versions)} if versions else _NAME_OF_VERSION
    found: dict[str, Any] = {
        f"/models/{endpoint}": {"get": _get(f"describe_{endpoint}", "What is served", _served(), 503)},
        f"/models/{endpoint}/invocations": {"post": _invocations(f"invocations_{endpoint}", interface)},
    }
    body = _predict_body(interface)
    if body is not None:
        found[f"/models/{endpoint}/predict"] = {
            "post": _prediction(f"predict_{endpoint}", "Predict rows", body, _predicted(), bare=False)
        }
    for prefix, suffix, more in (("", "", []), ("/versions/{version}", "_version", [_in_path("version", named)])):
        base = f"/v2/models/{endpoint}{prefix}"
        parameters = {"parameters": more} if more else {}
        missing = [404] if more else []
        infer = _prediction(
            f"infer_{endpoint}{suffix}",
            "Infer (Open Inference Protocol)",
            infer_request(interface),
            infer_answer(interface.outputs if interface else None),
            *missing,
            bare=True,
        )
        # No schema: the JSON and, behind it, the elements that it announces.
        for content in (infer["requestBody"]["content"], infer["responses"]["200"]["content"]):
            content["application/octet-stream"] = {}
        about = _get(f"metadata_{endpoint}{suffix}", "Model metadata", _metadata(), *missing, 503, bare=True)
        ready = closed({"name": _TEXT, "ready": {"const": True}})
        asked = _get(f"ready_{endpoint}{suffix}", "Whether it serves", ready, *missing, 503, bare=True)
        found |= {
            base: {**parameters, "get": about},
            f"{base}/ready": {**parameters, "get": asked},
            f"{base}/infer": {**parameters, "post": infer},
        }
    return found


def _predict_body(interface: Interface | None) -> Schema | None:
    """What `predict` takes; None of a model that is only asked by the protocol."""
    if interface is None:
        rows = array({"type": "object"}, most=1_000)
        return {
            "type": "object",
            "anyOf": [
                {"properties": {"features": any_rows()}, "required": ["features"]},
                {"properties": {"records": rows}, "required": ["records"]},
            ],
        }
    if interface.matrix is not None:
        return {
            "type": "object",
            "properties": {"features": features(interface.signature)},
            "required": ["features"],
        }
    if not interface.is_columns:
        return None
    rows = array(record(interface.signature), most=1_000)
    return {"type": "object", "properties": {"records": rows}, "required": ["records"]}


def _invocations(identity: str, interface: Interface | None) -> dict[str, Any]:
    body: Schema = {"type": "object"}
    if interface is not None:
        body = invocation(interface.signature, columns=interface.is_columns)
    return _prediction(identity, "Predict (MLflow's scoring server)", body, _predicted(), bare=False)


def _rewards(endpoint: str) -> dict[str, Any]:
    event = {
        "type": "object",
        "properties": {
            "user": {"type": "string", "minLength": 1, "maxLength": 256},
            "reward": {"type": "number", "minimum": 0, "maximum": 1},
            "id": _TEXT,
        },
        "required": ["user", "reward"],
    }
    body = {"type": "object", "properties": {"events": array(event, most=100)}, "required": ["events"]}
    answer = _object("experiment", "new", "known", "request_id")
    found = _operation(
        f"reward_{endpoint}", "What users of an experiment earned", body, _OURS, 400, 404, 409, 413, 415, 503
    )
    found["responses"]["200"] = _answered("Counted", answer)
    return found


# -- answers ------------------------------------------------------------------------------------------------------


def _predicted() -> Schema:
    who = {"model": _TEXT, "version": _TEXT, "variant": _TEXT, "revision": _TEXT}
    numbers = array(array({"type": "number"}, 0), 0)
    told = {"predictions": {}, "probabilities": numbers, "outputs": {"type": "object"}, "request_id": _TEXT}
    found = closed({**who, **told}, optional=("variant", "predictions", "probabilities", "outputs"))
    return found | {"oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}]}


def _served() -> Schema:
    texts = dict.fromkeys(("model", "version", "revision", "endpoint", "runtime", "format", "sha256"), _TEXT)
    more = {"size": {"type": "integer"}, "signature": {"type": "object"}, "experiment": {"type": "object"}}
    return closed({**texts, **more, "request_id": _TEXT}, optional=("experiment",))


def _metadata() -> Schema:
    shape = one_of(array({"type": "integer"}, 0), {"type": "null"})
    tensor = {"name": _TEXT, "datatype": _TEXT, "shape": shape, "missing": {"type": "boolean"}}
    tensors = array(closed(tensor, optional=("missing",)), 0)
    return closed({"name": _TEXT, "versions": array(_TEXT), "platform": _TEXT, "inputs": tensors, "outputs": tensors})


def _object(*required: str) -> Schema:
    return {"type": "object", "required": list(required)}


def _answered(words: str, schema: Schema) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _get(identity: str, summary: str, schema: Schema, *statuses: int, bare: bool = False) -> dict[str, Any]:
    found = _operation(identity, summary, None, _PROTOCOLS if bare else _OURS, *statuses)
    found["responses"]["200"] = _answered(summary, schema)
    return found


def _prediction(
    identity: str, summary: str, body: Schema, answer: Schema, *statuses: int, bare: bool
) -> dict[str, Any]:
    found = _operation(identity, summary, body, _PROTOCOLS if bare else _OURS, 400, *statuses, 413, 415, 500, 503)
    found["responses"]["200"] = _answered("Predicted", answer)
    found["description"] = (
        "The body may be compressed (Content-Encoding: gzip or deflate). x-request-id comes back and is logged; "
        "x-perch-user decides the variant while an experiment runs, and x-perch-variant forces one."
    )
    found["parameters"] = [{"name": name, "in": "header", "schema": _TEXT} for name in ("x-request-id", "x-perch-user")]
    return found


def _operation(identity: str, summary: str, body: Schema | None, error: Schema, *statuses: int) -> dict[str, Any]:
    responses: dict[str, Any] = {str(status): _answered(_WORDS[status], error) for status in statuses}
    found: dict[str, Any] = {"operationId": identity, "summary": summary, "responses": responses}
    if body is not None:
        found["requestBody"] = {"required": bool(body), "content": {"application/json": {"schema": body}}}
    return found


def _in_path(name: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}
