"""The OpenAPI document is what the handlers do: schemathesis asks what it allows, and what it does not.

Each operation of four predictors' documents (a model of rows with ranges, one of named columns, one of any tensors, and
none) and of the deployed API's is asked with values of its schemas and with values that break them. Every answer has to
have a status and a body that the document tells, a request that breaks its schema has to be refused, and nothing may be
a 5xx but what the document says of a predictor without a model.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from werkzeug.wrappers import Request, Response

from perch.artifacts.ranges import declare
from perch.predictor import decode, schemas
from perch.predictor.handler import Handler, make_handler
from tests.clients.models import mirror
from tests.unit.test_predictor import environment, make, onnx_model
from tests.unit.test_protocol import columns_model

CONTEXT = SimpleNamespace(aws_request_id="request-1", function_version="7")
ROOT = Path(__file__).parents[2]

RANGES = {"features": ["state", "age", "income"], "inputs": {"state": {"min": 0, "max": 2}, "age": {"min": 0}}}


def front(find: Callable[[str], Handler]) -> Any:
    """A WSGI application that makes of requests what API Gateway does."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        raw = request.get_data()
        event = {
            "version": "2.0",
            "rawPath": request.path,
            "headers": {name.lower(): value for name, value in request.headers},
            "requestContext": {
                "http": {"method": request.method, "path": request.path},
                "stage": "$default",
                "timeEpoch": 1_767_225_600_000,
            },
            "body": base64.b64encode(raw).decode() if raw else None,
            "isBase64Encoded": bool(raw),
        }
        answer = find(request.path)(event, CONTEXT)
        body = base64.b64decode(answer["body"]) if answer.get("isBase64Encoded") else answer["body"].encode()
        return Response(body, status=answer["statusCode"], headers=answer["headers"])(environ, start_response)

    return app


def schema_of(find: Callable[[str], Handler]) -> Any:
    """The document that a front tells of itself, ready to be asked."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "generation": {"max-examples": 8, "deterministic": True, "no-shrink": True, "database": "none"},
            "phases": {"coverage": {"unexpected-methods": ["DELETE"]}},
            "checks": {"positive_data_acceptance": {"enabled": False}},  # no schema can say that data fit their shape
        }
    )
    return schemathesis.openapi.from_wsgi("/openapi.json", front(find), config=config)


def describe_api() -> Handler:
    """The function behind the API's default route, with one endpoint."""
    spec = importlib.util.spec_from_file_location("describe_api", ROOT / "functions" / "describe_api" / "handler.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    declared = [{"name": "table", "model": "table", "runtime": "onnx"}]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        package = Path(folder) / "perch_settings"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "endpoints.json").write_text(json.dumps({"name": "perch", "endpoints": declared}))
        patch.syspath_prepend(folder)
        patch.delitem(sys.modules, "perch_settings", raising=False)
        spec.loader.exec_module(module)
        patch.delitem(sys.modules, "perch_settings")
    handler: Handler = module.handler
    return handler


HANDLERS = {
    "rows": make(declare(onnx_model(), RANGES)),
    "columns": make(columns_model()),
    "tensors": make(mirror("FP32", "INT8", "BYTES", "BOOL")),
    "none": make_handler(runtime="onnx", environ=environment(None)),
    "api": describe_api(),
}


def routed(path: str) -> Handler:
    """An endpoint's paths lead to its predictor, and all others to describe_api, as the template routes them."""
    of_endpoint = path.startswith(("/models/table/", "/v2/models/table/")) or path.endswith("models/table")
    return HANDLERS["rows" if of_endpoint else "api"]


few = settings(max_examples=8, suppress_health_check=list(HealthCheck))
rows = schema_of(lambda _: HANDLERS["rows"])
columns = schema_of(lambda _: HANDLERS["columns"])
tensors = schema_of(lambda _: HANDLERS["tensors"])
nothing = schema_of(lambda _: HANDLERS["none"])

deployed = schema_of(routed).exclude(path_regex="/experiments/")  # needs a registry; tests/aws asks it


@rows.parametrize()
@few
def test_a_model_of_rows_answers_as_its_document_says(case: Any) -> None:
    """With ranges, which stand in the document."""
    case.call_and_validate()


@columns.parametrize()
@few
def test_a_model_of_named_columns_answers_as_its_document_says(case: Any) -> None:
    """Records, data frames and the protocol."""
    case.call_and_validate()


@tensors.parametrize()
@few
def test_a_model_of_any_tensors_answers_as_its_document_says(case: Any) -> None:
    """Four datatypes."""
    case.call_and_validate()


@nothing.parametrize()
@few
def test_a_predictor_without_a_model_answers_as_its_document_says(case: Any) -> None:
    """With 503, which is its documented answer and a failure in general."""
    case.call_and_validate(excluded_checks=[not_a_server_error])  # 503 is what it is for


@deployed.parametrize()
@few
def test_the_deployed_api_answers_as_its_document_says(case: Any) -> None:
    """It knows the endpoints and not their models."""
    case.call_and_validate()


def test_ranges_of_the_model_stand_in_its_document() -> None:
    """Column by column."""
    document = json.loads(HANDLERS["rows"](get("/openapi.json"), CONTEXT)["body"])
    body = document["paths"]["/models/table/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    row = body["properties"]["features"]["anyOf"][0]
    first = row["prefixItems"][0]["anyOf"][0]
    assert (first["minimum"], first["maximum"], row["maxItems"]) == (0, 2, 3)


def test_the_document_counts_rows_as_the_predictor_does() -> None:
    """It cannot import the number: describe_api has no NumPy."""
    assert schemas.MAX_ROWS == decode.MAX_ROWS


def test_describing_the_api_needs_no_numpy() -> None:
    """describe_api's layers hold the package and the standard library."""
    code = (
        "import sys; sys.modules['numpy'] = sys.modules['msgspec'] = None; "
        "from perch.predictor.openapi import of_api; print(len(of_api(['digits'])['paths']))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 10


def get(path: str) -> dict[str, Any]:
    """A GET as API Gateway sends it."""
    return {"requestContext": {"http": {"method": "GET", "path": path}, "stage": "$default"}, "headers": {}}
