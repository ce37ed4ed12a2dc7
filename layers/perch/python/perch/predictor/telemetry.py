"""One structured log line a request; CloudWatch reads the metrics out of it (embedded metric format).

`_aws` names the metrics and where they count: for the endpoint, for this revision of the endpoint and, while an
experiment runs, for this variant (what the client did wrong is not the variant's). The rest of the line is for people
and for whatever reads the log downstream. A probe or a replay is logged without `_aws`: it is not traffic.

The first request that a process answers is slow for a reason that is not the model's, so it is counted apart: it has
ColdStarts and ColdLatency where every other one has Latency. An answer out of the cache is fast, and never a failure,
for a reason that is not the model's either, so it has CachedLatency: were it not apart, a candidate, whose cache is
empty, would look slow and frail beside a stable revision whose cache is full. For the same reason it counts for no
variant. It does count as a request and with its Prediction, which tell what users asked for and were told. CacheHits is
1 or 0, so that its average is the hit rate.

These and Prediction (see `prediction`) count for the revision only, which is where they are compared; every further
series would be billed.
"""

from __future__ import annotations

import itertools
import sys
import traceback
from typing import Any, Literal

import msgspec

from .encode import encode

Found = Literal["hit", "miss"]
"""What came of looking into the prediction cache."""

_UNITS = {
    "Latency": "Milliseconds",
    "ColdLatency": "Milliseconds",
    "CachedLatency": "Milliseconds",
    "Prediction": "None",
}


def _directive(dimensions: list[list[str]], *names: str) -> dict[str, Any]:
    metrics = [{"Name": name, "Unit": _UNITS.get(name, "Count")} for name in names]
    return {"Namespace": "Perch", "Dimensions": dimensions, "Metrics": metrics}


def _directives(*, cold: bool, predicted: bool, variant: bool, cache: Found | None) -> msgspec.Raw:
    """Name the metrics of a line: CloudWatch refuses a whole line that lacks one of those that it names."""
    timed = () if cold or cache == "hit" else ("Latency",)
    own = (
        *(("ColdStarts", "ColdLatency") if cold else ()),
        *(("CacheHits",) if cache else ()),
        *(("CachedLatency",) if cache == "hit" else ()),
        *(("Prediction",) if predicted else ()),
    )
    found = [
        _directive([["Endpoint"], ["Endpoint", "Revision"]], "Requests", "Failures", "ClientErrors", *timed),
        *(
            [_directive([["Endpoint", "Variant"]], "Requests", "Failures", *timed)]
            if variant and cache != "hit"
            else []
        ),
        *([_directive([["Endpoint", "Revision"]], *own)] if own else []),
    ]
    return msgspec.Raw(msgspec.json.encode(found))


_FOUND: tuple[Found | None, ...] = (None, "miss", "hit")
_METRICS = {
    (cold, predicted, variant, cache): _directives(cold=cold, predicted=predicted, variant=variant, cache=cache)
    for cold, predicted, variant in itertools.product((False, True), repeat=3)
    for cache in _FOUND
}
"""Encoded once: by (cold, predicted, variant, cache)."""

MAX_PREDICTIONS = 20
"""Predictions of one request that the line repeats; `rows` says how many there were."""

_MAX_NUMBERS, _MAX_TEXT = 1_000, 10_000
"""Numbers, or characters of texts, of these predictions: a model may give back texts as long as a request's, and Lambda
breaks a line of more than 256 KB into pieces, of which none is the line with its metrics."""


def shown(predictions: Any) -> Any:
    """Return the predictions that a line repeats: the first ones, None if they are so long that they would fill it."""
    some = predictions[:MAX_PREDICTIONS]
    if not isinstance(some, list):
        return None if some.size > _MAX_NUMBERS else some
    if not some or isinstance(some[0], int | float):  # nearly always, and all are alike
        return some
    return some if sum(len(str(one)) for one in some) <= _MAX_TEXT else None


def write(line: dict[str, Any]) -> None:
    """Print one line of JSON."""
    write_text(encode(line))


def write_text(text: str) -> None:
    """Print one line of JSON that is encoded already."""
    sys.stdout.write(text + "\n")


def with_metrics(
    line: dict[str, Any],
    *,
    endpoint: str,
    revision: str,
    status: int,
    ms: float,
    at: int,
    cold: bool,
    prediction: float | None = None,
    variant: str | None = None,
    cache: Found | None = None,
) -> dict[str, Any]:
    """Add the metrics of one request to its line.

    Args:
        line: what the line says already.
        endpoint: name of the endpoint.
        revision: Lambda version.
        status: HTTP status of the answer.
        ms: how long it took, in ms.
        at: the request's time in ms since 1970.
        cold: whether it was the first that this process answered.
        prediction: the number of what was predicted, None if nothing was.
        variant: "<experiment>/<variant>" while an experiment runs.
        cache: whether it was answered from the cache, None if it took no part; a hit is never `cold`.
    """
    directives = _METRICS[cold, prediction is not None, variant is not None, cache]
    measured: dict[str, Any] = {
        "_aws": {"Timestamp": at, "CloudWatchMetrics": directives},
        "Endpoint": endpoint,
        "Revision": revision,
        "Requests": 1,
        "Failures": 1 if status >= 500 else 0,
        "ClientErrors": 1 if 400 <= status < 500 else 0,
    }
    if variant is not None:
        measured["Variant"] = variant
    if cold:
        measured["ColdStarts"] = 1
        measured["ColdLatency"] = ms
    elif cache == "hit":
        measured["CachedLatency"] = ms
    else:
        measured["Latency"] = ms
    if cache is not None:
        measured["CacheHits"] = 1 if cache == "hit" else 0
    if prediction is not None:
        measured["Prediction"] = prediction
    measured.update(line)
    return measured


def write_failure(event: str, error: BaseException, **fields: Any) -> None:
    """Print where something raised; clients are told only what."""
    trace = "".join(traceback.format_exception(error))[-8000:]
    text = trace.encode("utf-8", "replace").decode()  # a message may hold characters that JSON cannot
    write({"level": "ERROR", "event": event, **fields, "trace": text})
