"""Probing: send a revision its golden requests through the predictor's own front door, and compare the answers.

A probe is the HTTP event that API Gateway would send, by qualified invoke, so it exercises decoding, the model and
encoding. Its stage marks it as a probe, which a client cannot forge; the predictor leaves it out of its metrics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perch.app.death import cause_of_death
from perch.artifacts import Signature
from perch.aws.functions import Functions
from perch.aws.registry import Registry
from perch.domain.experiment import Split
from perch.domain.model import ModelVersion, Pointer, Probe

STAGE = "perch-probe"


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """What the probes of one revision showed.

    `passed` of `total` passed (counting those of earlier runs); `failure` says how one did not, None if none failed.
    They are done when one failed or all passed; otherwise time was up. `latency_ms` is the slowest.
    """

    passed: int
    total: int
    failure: str | None = None
    latency_ms: float = 0.0

    @property
    def done(self) -> bool:
        """Whether there is nothing left to send."""
        return self.failure is not None or self.passed >= self.total


@dataclass(frozen=True, kw_only=True)
class Face:
    """A model that a revision shows to its users; `variant` is the name under which an experiment does."""

    model: ModelVersion
    variant: str | None = None


def faces(registry: Registry, pointer: Pointer, experiment: str | None) -> tuple[Face, ...]:
    """Return what a revision must be able to show: its model, or those of all variants of the experiment it carries.

    Raises:
        NotFound: one of them is not registered.
    """
    champion = registry.require_version(pointer.model, pointer.version)
    if experiment is None:
        return (Face(model=champion),)
    split = Split.from_json(experiment)
    found = {name: registry.require_version(p.model, p.version) for name, p in split.challengers.items()}
    return tuple(Face(model=model, variant=name) for name, model in {split.champion: champion, **found}.items())


def probe_revision(
    functions: Functions,
    function: str,
    lambda_version: str,
    shown: Sequence[Face],
    *,
    endpoint: str,
    now: datetime,
    timer: Callable[[], float],
    begin: int = 0,
    budget_s: float = 20.0,
) -> ProbeReport:
    """Send the probes of all models that one version of `function` shows until one fails or time is up.

    At least one is sent. `begin` is how many passed before, `budget_s` how many seconds of `timer` this may take.

    Raises:
        NotReady: Lambda is busy; that says nothing of the model.
    """
    probes = [(face, probe) for face in shown for probe in golden(face.model)]
    started = timer()
    passed, slowest = begin, 0.0
    for number, (face, probe) in enumerate(probes[begin:], start=begin):
        if passed > begin and timer() - started > budget_s:
            break
        began = timer()
        status, answer = functions.ask(
            function,
            lambda_version,
            request_of(endpoint, probe, stage=STAGE, request_id=f"probe-{number}", now=now, variant=face.variant),
        )
        slowest = max(slowest, 1000 * (timer() - began))
        if failure := disagreement(probe, face.model, status, answer):
            which = f"probe {number}" + (f" of variant {face.variant}" if face.variant else "")
            return ProbeReport(
                passed=passed, total=len(probes), failure=f"{which}: {failure}"[:500], latency_ms=slowest
            )
        passed += 1
    return ProbeReport(passed=passed, total=len(probes), latency_ms=slowest)


def knock_of(endpoint: str, *, now: datetime) -> dict[str, Any]:
    """Return a request that asks a revision what it serves: it has to be loaded for that, and nothing else."""
    return http_event(endpoint, (), stage=STAGE, request_id="knock", now=now, path=f"/models/{endpoint}", method="GET")


def golden(model: ModelVersion) -> tuple[Probe, ...]:
    """Return the probes of a model version: the ones that came with it, or some that its signature admits.

    Made ones carry no expected answer: they show that the revision loads the model and answers in the right shape. They
    are made anew each time, the same each time, because those of a wide model would not fit into the registry.
    """
    if model.probes:
        return model.probes
    signature = Signature.from_json(model.signature)
    if not signature.is_matrix:
        return (Probe(inputs=tuple(_made(tensor, signature) for tensor in model.signature["inputs"])),)
    rows = 3 if signature.features <= 4096 else 1
    made = ([float((i + j) % 4) for j in range(signature.features)] for i in range(rows))
    return tuple(Probe(features=(tuple(_in_ranges(row, signature)),)) for row in made)


def _in_ranges(row: list[float], signature: Signature) -> list[float]:
    """A row with each value moved into the range that the model's author declared of it, if any."""
    for name, rule in signature.ranges.rules if signature.ranges else ():
        column = signature.column(name)
        for place in range(len(row)) if column is None else (column,):
            row[place] = float(rule.nearest(row[place]))
    return row


def _made(tensor: Mapping[str, Any], signature: Signature) -> Mapping[str, Any]:
    """An input of one row that a signature admits: zeros, false, empty texts (an index has to be in its range)."""
    shape = [max(int(size), 1) for size in tensor["shape"]]
    nothing = {"BOOL": False, "BYTES": ""}.get(tensor["datatype"], 0)
    declared = dict(signature.ranges.rules) if signature.ranges else {}
    if tensor["name"] in declared:
        nothing = declared[tensor["name"]].nearest(nothing)
    return {
        "name": tensor["name"],
        "datatype": tensor["datatype"],
        "shape": shape,
        "data": [nothing] * math.prod(shape),
    }


def unfit(probe: Probe, signature: Signature) -> str | None:
    """Say why a model cannot be asked a probe; None if it can."""
    if not signature.is_matrix:
        names = {str(given.get("name")) for given in probe.inputs}
        if probe.features or names != {tensor.name for tensor in signature.inputs}:
            wanted = ", ".join(tensor.name for tensor in signature.inputs)
            return f"has to give inputs, each with name, datatype, shape and data: {wanted}"
        return None
    widths = {len(row) for row in probe.features}
    if probe.inputs or widths != {signature.features}:
        return f"has rows of {sorted(widths)} features, the model takes {signature.features}"
    if not all(math.isfinite(x) for row in probe.features for x in row):
        return "holds a number that is not finite"
    return None


def disagreement(probe: Probe, model: ModelVersion, status: int, answer: Any) -> str | None:
    """Say how an answer differs from what the probe expects; None if it does not."""
    if status != 200 or not isinstance(answer, dict):
        death = cause_of_death(status, answer)
        said = answer.get("error") if isinstance(answer, dict) else answer
        return f"it died of it ({death})" if death else f"answered {status}: {said}"
    if probe.inputs:
        return _protocols(probe, model, answer)
    if (answer.get("model"), answer.get("version")) != (model.model, model.version):
        return f"answered as {answer.get('model')} {answer.get('version')}, not {model.model} {model.version}"
    predictions = answer.get("predictions")
    if not isinstance(predictions, list) or len(predictions) != len(probe.features):
        got = len(predictions) if isinstance(predictions, list) else "no"
        return f"answered {got} predictions for {len(probe.features)} rows"
    expected: Mapping[str, Any] = probe.expect or {}
    for field, value in expected.items():
        if not _agree(answer.get(field), value, probe.tolerance):
            return f"{field} is {_short(answer.get(field))}, expected {_short(value)}"
    return None


def _protocols(probe: Probe, model: ModelVersion, answer: Mapping[str, Any]) -> str | None:
    """As `disagreement`, of an answer in the Open Inference Protocol."""
    if answer.get("model_version") != model.version:
        return f"answered as version {answer.get('model_version')}, not {model.version}"
    outputs = {given.get("name"): given.get("data") for given in answer.get("outputs") or ()}
    if not outputs:
        return "answered without outputs"
    for name, value in (probe.expect or {}).items():
        if not _agree(outputs.get(name), value, probe.tolerance):
            return f"output {name} is {_short(outputs.get(name))}, expected {_short(value)}"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _agree(got: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, list):
        return (
            isinstance(got, list)
            and len(got) == len(expected)
            and all(_agree(g, e, tolerance) for g, e in zip(got, expected, strict=True))
        )
    if isinstance(expected, (int, float)) and isinstance(got, (int, float)):
        return abs(got - expected) <= tolerance
    return bool(got == expected)


def request_of(
    endpoint: str, probe: Probe, *, stage: str, request_id: str, now: datetime, variant: str | None = None
) -> dict[str, Any]:
    """Return a probe as the HTTP API would send it: `http_event` of what it asks."""
    return http_event(
        endpoint,
        probe.features,
        stage=stage,
        request_id=request_id,
        now=now,
        variant=variant,
        path=f"/v2/models/{endpoint}/infer" if probe.inputs else "",
        body={"inputs": probe.inputs} if probe.inputs else None,
    )


def http_event(
    endpoint: str,
    features: tuple[tuple[float, ...], ...],
    *,
    stage: str,
    request_id: str,
    now: datetime,
    variant: str | None = None,
    path: str = "",
    body: Any = None,
    method: str = "POST",
) -> dict[str, Any]:
    """Return a prediction request as the HTTP API sends it (payload format 2.0), marked by its stage.

    `variant` is the one that must answer; `path`, `body` and `method` are those of a request without rows of features.
    """
    path = path or f"/models/{endpoint}/predict"
    return {
        "version": "2.0",
        "routeKey": f"{method} {path}",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json"} | ({"x-perch-variant": variant} if variant else {}),
        "requestContext": {
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "", "userAgent": stage},
            "requestId": request_id,
            "routeKey": f"{method} {path}",
            "stage": stage,
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "body": json.dumps(body if body is not None else {"features": features}),
        "isBase64Encoded": False,
    }
