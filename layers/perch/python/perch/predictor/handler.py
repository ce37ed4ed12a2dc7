"""The predictor's Lambda handler: made once at import, which is Lambda's init phase, and then fast.

    event ─► routes ─► variants (which model) ─► decode ─► infer ─► answer ─► one log line (`journal`)

The same model answers in three ways: `POST /models/{endpoint}/predict` (ours), `POST /v2/models/{endpoint}/infer` (Open
Inference Protocol) and `POST …/invocations` (MLflow's scoring server). 400, 413, 415: the request is at fault; 500: the
model raised; 503: there is no model to run, and why. `operations` has what the other routes tell. A request is named by
Lambda's id, and beside it by the client's own (`identity`).

A request makes no AWS call (law 7). Its trace is one log line (`telemetry`) and, for a share of them, a second one
with what was asked (`capture`). A probe or a replay, which the control side sends by qualified invoke, is answered
alike, by the model itself and never from the cache, and neither counted nor captured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import capture, telemetry
from .errors import ModelUnavailable, PredictionFailed, RequestRefused
from .fetch import fetch_artifact
from .identity import client_id
from .journal import NO_TRAFFIC, Journal, Noted
from .loading import Fetch, Served
from .operations import Revision, refusal, respond
from .restore import after_restore
from .routes import INFERENCE, Routes, is_protocols
from .variants import VARIANT, Choice, Variants, load_variants

if TYPE_CHECKING:
    from .cache import Cache

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


def make_handler(*, runtime: str, environ: Mapping[str, str] | None = None, fetch: Fetch = fetch_artifact) -> Handler:
    """Load the model that the environment points at and return the handler that serves it.

    Args:
        runtime: one of `RUNTIMES` (`perch.domain.formats`).
        environ: environment variables (contracts.md); the process's own by default.
        fetch: reads the artifact from the store.

    Raises:
        ArtifactUnreachable: the store did not answer; the init fails, and Lambda begins again.
        ValueError: PERCH_CAPTURE is no share, or PERCH_CACHE does not describe a cache.
    """
    variables = os.environ if environ is None else environ
    endpoint = variables.get("PERCH_ENDPOINT", "")
    cache = _cache(variables)
    journal = Journal(
        endpoint=endpoint,
        share=capture.read_share(variables),
        salt=f"{variables.get('PERCH_STORE', '')}/{endpoint}",
    )
    variants, reason = _load(runtime, variables, fetch)
    about = Revision(endpoint=endpoint, runtime=runtime, variants=variants, reason=reason)
    routes = Routes(endpoint, about.versions)
    cold = True

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        nonlocal cold
        started = time.perf_counter()
        request_id: str = context.aws_request_id
        revision: str = context.function_version
        asked = event.get("requestContext") or {}
        stage, named = asked.get("stage"), client_id(event)
        at = asked.get("timeEpoch") or int(time.time() * 1000)
        memo = None if cache is None or stage in NO_TRAFFIC else cache.memo(revision, at / 1000, fresh=cold)
        served, choice = variants.champion if variants else None, None
        warms = stage not in NO_TRAFFIC  # a question of health, or a driver's knock, leaves the first request to others
        try:
            route = routes.find(event)
            if variants is not None and route.operation in INFERENCE:
                warms = True
                served, choice = variants.choose(event, request_id, route.version)
            outcome = about.answer(route, event, served, request_id, memo)
        except RequestRefused as refused:
            outcome = refusal(refused.status, str(refused), allow=refused.allow, bare=is_protocols(event))
        except PredictionFailed as failed:
            outcome = refusal(500, str(failed), rows=failed.rows, bare=is_protocols(event))
        names = _names(served, choice)
        raw = isinstance(event.get("body"), bytes)  # so it was not Lambda that brought it
        outcome, answer = respond(
            outcome, names=names, revision=revision, request_id=request_id, client_id=named, raw=raw
        )
        if choice is not None:
            answer["headers"][VARIANT] = choice.name
        ms = (time.perf_counter() - started) * 1000
        journal.write(Noted(event, request_id, named, revision, names, choice, outcome, ms, at, cold), stage)
        cold = cold and not warms
        return answer

    def begin_again() -> None:
        nonlocal cold
        cold = True

    after_restore(begin_again)
    return handler


def _cache(environ: Mapping[str, str]) -> Cache | None:
    if not environ.get("PERCH_CACHE"):
        return None
    from .cache import read_cache  # noqa: PLC0415 - most endpoints have none

    return read_cache(environ)


def _load(runtime: str, environ: Mapping[str, str], fetch: Fetch) -> tuple[Variants | None, str]:
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


def _names(served: Served | None, choice: Choice | None) -> dict[str, str]:
    names = {"model": served.pointer.model, "version": served.pointer.version} if served else {}
    return {**names, "variant": choice.name} if choice else names
