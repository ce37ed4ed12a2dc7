"""The Invoke operation: hands the payload to the data plane and words its answer as Lambda does.

RequestResponse goes to the injected `Invoker` and waits, Event to the `AsyncInvoker` (202), DryRun only looks whether
the function is there (204). Moto's own callers (SNS, streams, log subscriptions) are led the same way.

Left out: response streaming, client context, tenancy, and durable functions.
"""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import unquote

from moto.awslambda import models, responses
from moto.awslambda_simple import models as simple

from perch.local.patches import Patches
from perch.local.ports import AsyncInvoker, Invoker, Refused
from perch.local.strict.functions import MotoFunctions
from perch.local.strict.lambda_errors import LambdaError
from perch.local.strict.settings import current

MAX_SYNC = 6 * 1024 * 1024
MAX_ASYNC = 1024 * 1024


def _invoker() -> Invoker:
    invoker = current().invoker
    if invoker is None:
        raise LambdaError(
            "ServiceException",
            "No invoker is running here: this is the control plane alone. Start the local cloud (perch up), or give "
            "StrictSettings an invoker.",
            500,
        )
    return invoker


def _async_invoker() -> AsyncInvoker:
    invoker = current().async_invoker
    if invoker is None:
        raise LambdaError(
            "ServiceException",
            "No asynchronous invoker is running here: give StrictSettings an async_invoker.",
            500,
        )
    return invoker


def _check_payload(payload: bytes, limit: int) -> None:
    if len(payload) > limit:
        raise LambdaError(
            "RequestTooLargeException",
            f"Request must be smaller than {limit} bytes for the InvokeFunction operation",
            413,
        )
    if not payload:
        return
    try:
        json.loads(payload)
    except ValueError as error:
        raise LambdaError(
            "InvalidRequestContentException", f"Could not parse request body into json: {error}", 400
        ) from None


def _body(self: Any) -> bytes:
    body = self.body
    return body.encode() if isinstance(body, str) else bytes(body or b"")


def _invoke_response(self: Any) -> Any:
    function = unquote(self.path.rsplit("/", 2)[-2])
    qualifier = self._get_param("Qualifier") or self.querystring.get("Qualifier", [None])[0]
    kind = self.headers.get("X-Amz-Invocation-Type", "RequestResponse")
    payload = _body(self)
    try:
        if kind == "DryRun":
            MotoFunctions(self.current_account, self.region).find(function, qualifier)
            return 204, {"status": "204"}, b""
        if kind == "Event":
            _check_payload(payload, MAX_ASYNC)
            request_id = _async_invoker().enqueue(function, payload, qualifier=qualifier)
            return 202, {"status": "202", "x-amzn-RequestId": request_id}, b""
        _check_payload(payload, MAX_SYNC)
        answer = _invoker().invoke(function, payload, qualifier=qualifier)
    except Refused as refused:
        raise LambdaError.of(refused) from None
    headers = {
        "content-type": "application/json",
        "x-amzn-RequestId": answer.request_id,
        "X-Amz-Executed-Version": answer.executed_version,
    }
    if answer.error:
        headers["X-Amz-Function-Error"] = answer.error
    if self.headers.get("X-Amz-Log-Type") == "Tail":
        headers["X-Amz-Log-Result"] = base64.b64encode(answer.log_tail.encode()[-4096:]).decode()
    return 200, headers, answer.payload


def _invoke_async_response(self: Any) -> Any:
    parts = [part for part in self.path.split("/") if part]
    function = unquote(parts[-2])
    try:
        _async_invoker().enqueue(function, _body(self))
    except Refused as refused:
        raise LambdaError.of(refused) from None
    return 202, {"status": 202}, "{}"


def _invoke_of_backend(
    self: Any,  # noqa: ARG001 - moto's signature
    function_name: str,
    qualifier: str | None,
    body: Any,
    headers: Any,  # noqa: ARG001
    response_headers: Any,
) -> bytes:
    payload = body.encode() if isinstance(body, str) else bytes(body or b"{}")
    try:
        answer = _invoker().invoke(function_name, payload, qualifier=qualifier)
    except Refused as refused:
        raise LambdaError.of(refused) from None
    if answer.error:
        response_headers["x-amz-function-error"] = answer.error
    return answer.payload


def _invoke_of_function(self: Any, body: str, request_headers: Any, response_headers: Any) -> bytes:
    qualifier = None if str(self.version) == "$LATEST" else str(self.version)
    return _invoke_of_backend(None, self.function_name, qualifier, body, request_headers, response_headers)


def install(patches: Patches) -> None:
    """Lead every invocation to the injected data plane."""
    patches.set_all(responses.LambdaResponse, {"invoke": _invoke_response, "invoke_async": _invoke_async_response})
    patches.set(models.LambdaBackend, "invoke", _invoke_of_backend)
    patches.set(simple.LambdaSimpleBackend, "invoke", _invoke_of_backend)
    patches.set(models.LambdaFunction, "invoke", _invoke_of_function)
