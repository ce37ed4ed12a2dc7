"""The predictor's Lambda handler: made once at import, which is Lambda's init phase, and then fast.

    POST /models/{endpoint}/predict   200 the answer · 400, 413 the request is at fault · 500 the model raised
    GET  /models/{endpoint}           200 what is served
    both                              503 there is no model to run, and why

While an experiment runs on the endpoint, `variants` says which of its models answers.

A request makes no AWS call (law 7). Its answer is one JSON body, its trace one log line (`telemetry`) and, for a share
of them, a second one with what was asked (`capture`). A probe or a replay, which the control side sends by qualified
invoke, is answered alike, and neither counted nor captured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from . import capture, telemetry
from .decode import decode
from .encode import encode
from .errors import ModelUnavailable, RequestRefused, UnusableAnswer
from .fetch import fetch_artifact
from .loading import Fetch, Runtime, Served, first_line
from .prediction import as_number
from .variants import VARIANT, Choice, Variants, load_variants

PROBE_STAGE, REPLAY_STAGE = "perch-probe", "perch-replay"
"""`requestContext.stage` of a probe and of a replay; API Gateway sets it for all others, so that no client can."""

_NO_TRAFFIC: Mapping[str | None, str] = {PROBE_STAGE: "predictor.probed", REPLAY_STAGE: "predictor.replayed"}

_HEADERS = {"content-type": "application/json"}

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


class Outcome(NamedTuple):
    """What one request came to; `error` is the sentence of the body if any, `features` the rows that were predicted."""

    status: int
    body: dict[str, Any]
    rows: int = 0
    error: str | None = None
    headers: Mapping[str, str] = _HEADERS
    features: Any = None


def make_handler(
    *, runtime: Runtime, environ: Mapping[str, str] | None = None, fetch: Fetch = fetch_artifact
) -> Handler:
    """Load the model that the environment points at and return the handler that serves it.

    Args:
        runtime: `onnx` or `torch`.
        environ: environment variables (contracts.md); the process's own by default.
        fetch: reads the artifact from the store.

    Raises:
        ArtifactUnreachable: the store did not answer; the init fails, and Lambda begins again.
        ValueError: PERCH_CAPTURE is no share.
    """
    variables = os.environ if environ is None else environ
    endpoint = variables.get("PERCH_ENDPOINT", "")
    base = f"/models/{endpoint}"
    share = capture.read_share(variables)
    variants, reason = _load(runtime, variables, fetch)
    cold = True

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        nonlocal cold
        started = time.perf_counter()
        request_id: str = context.aws_request_id
        revision: str = context.function_version
        served, choice = variants.champion if variants else None, None
        try:
            wanted = _route(event, base)
            if variants is None:
                outcome = _refusal(503, reason)
            elif wanted == "POST":
                served, choice = variants.choose(event, request_id)
                outcome = _predict(served, event, request_id)
            else:
                outcome = Outcome(200, _description(variants, endpoint, runtime))
        except RequestRefused as refused:
            outcome = _refusal(refused.status, str(refused), allow=refused.allow)
        status, body, rows, error, headers, features = outcome
        names, headers = _names(served, choice), _headers(headers, choice)
        if error is None:
            body = {**names, "revision": revision, **body}
        body["request_id"] = request_id
        answer = {
            "statusCode": status,
            "headers": headers,
            "body": encode(body),
        }
        ms = (time.perf_counter() - started) * 1000
        line: dict[str, Any] = {
            "level": "ERROR" if status >= 500 else "INFO",
            "event": "predictor.answered",
            "request_id": request_id,
            **names,
            **({"sticky": choice.sticky} if choice else {}),
            "status": status,
            "rows": rows,
        }
        if error is not None:
            line["error"] = error
        elif rows:
            line["predictions"] = body["predictions"][: telemetry.MAX_PREDICTIONS]
        asked = event.get("requestContext") or {}
        if (uncounted := _NO_TRAFFIC.get(asked.get("stage"))) is not None:
            line["event"] = uncounted
            line["latency_ms"] = ms
            line["revision"] = revision
        else:
            at = asked.get("timeEpoch") or int(time.time() * 1000)
            line = telemetry.with_metrics(
                line,
                endpoint=endpoint,
                revision=revision,
                variant=_dimension(choice),
                status=status,
                ms=ms,
                at=at,
                cold=cold,
                prediction=as_number(body["predictions"]) if rows and error is None else None,
            )
            if features is not None and share and capture.wanted(request_id, share):
                telemetry.write_text(
                    capture.captured(
                        request_id=request_id,
                        names=names,
                        revision=revision,
                        body_size=len(event["body"]),
                        features=features,
                        answer=body,
                        ms=ms,
                        at=at,
                    )
                )
        cold = False
        telemetry.write(line)
        return answer

    return handler


def _load(runtime: Runtime, environ: Mapping[str, str], fetch: Fetch) -> tuple[Variants | None, str]:
    """The model (all of them in an experiment), or why there is none; a log line says which and how long it took."""
    started = time.perf_counter()
    try:
        variants = load_variants(runtime, environ, fetch)
    except ModelUnavailable as error:
        telemetry.write({"level": "WARNING", "event": "predictor.unavailable", "reason": str(error)})
        if error.__cause__ is not None:
            telemetry.write_failure("predictor.load_failed", error.__cause__)
        return None, str(error)
    for name, served in variants.served.items():
        pointer = served.pointer
        telemetry.write(
            {
                "level": "INFO",
                "event": "predictor.loaded",
                "model": pointer.model,
                "version": pointer.version,
                **({"variant": name} if name else {}),
                "sha256": pointer.sha256,
                "bytes": pointer.size,
                "load_ms": (time.perf_counter() - started) * 1000,
            }
        )
    return variants, ""


def _route(event: dict[str, Any], base: str) -> str:
    """The method, sure to be the one that its path takes; a named stage may come before the path.

    Raises:
        RequestRefused: 404 for another path, 405 for another method.
    """
    try:
        http = event["requestContext"]["http"]
        method, path = http["method"], http["path"]
    except (KeyError, TypeError) as error:
        raise RequestRefused(400, "the event is not an HTTP API request (payload format 2.0)") from error
    if path.endswith(f"{base}/predict"):
        wanted = "POST"
    elif path.endswith(base):
        wanted = "GET"
    else:
        raise RequestRefused(404, f"there is no {path[:100]!a} here; POST {base}/predict and GET {base} are answered")
    if method != wanted:
        raise RequestRefused(405, f"{base}{'/predict' if wanted == 'POST' else ''} takes {wanted}", allow=wanted)
    return wanted


def _predict(served: Served, event: dict[str, Any], request_id: str) -> Outcome:
    model = served.model
    rows = decode(event, model.features, model.dtype)
    count = len(rows)
    try:
        predictions, probabilities = served.reading.read(model.run(rows), count)
    except UnusableAnswer as error:
        return _refusal(500, str(error), count)
    except Exception as error:  # noqa: BLE001 - whatever a model raises is an answer of 500, not a crash
        telemetry.write_failure("predictor.model_raised", error, request_id=request_id)
        return _refusal(500, f"the model raised {type(error).__name__}: {first_line(error)}", count)
    body = {"predictions": predictions}
    if probabilities is not None:
        body["probabilities"] = probabilities
    return Outcome(200, body, count, features=rows)


def _names(served: Served | None, choice: Choice | None) -> dict[str, str]:
    names = {"model": served.pointer.model, "version": served.pointer.version} if served else {}
    return {**names, "variant": choice.name} if choice else names


def _dimension(choice: Choice | None) -> str | None:
    return choice.dimension if choice else None


def _headers(headers: Mapping[str, str], choice: Choice | None) -> Mapping[str, str]:
    return {**headers, VARIANT: choice.name} if choice else headers


def _description(variants: Variants, endpoint: str, runtime: str) -> dict[str, Any]:
    served = variants.champion
    pointer = served.pointer
    return {
        "endpoint": endpoint,
        "runtime": runtime,
        "format": pointer.format,
        "sha256": pointer.sha256,
        "size": pointer.size,
        "signature": served.model.signature.to_json(),
        **variants.describe(),
    }


def _refusal(status: int, sentence: str, rows: int = 0, *, allow: str | None = None) -> Outcome:
    headers = {**_HEADERS, "allow": allow} if allow else _HEADERS
    return Outcome(status, {"error": sentence}, rows, sentence, headers)
