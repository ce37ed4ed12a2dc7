"""One structured log line a request; CloudWatch reads the metrics out of it (embedded metric format).

`_aws` names the metrics and where they count: for the endpoint, for this revision of the endpoint and, while an
experiment runs, for this variant (what the client did wrong is not the variant's). The rest of the
line is for people and for whatever reads the log downstream. A probe is logged without `_aws`: it is not traffic.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

from .encode import encode

_METRICS = [
    {
        "Namespace": "Perch",
        "Dimensions": [["Endpoint"], ["Endpoint", "Revision"]],
        "Metrics": [
            {"Name": "Requests", "Unit": "Count"},
            {"Name": "Failures", "Unit": "Count"},
            {"Name": "ClientErrors", "Unit": "Count"},
            {"Name": "Latency", "Unit": "Milliseconds"},
        ],
    }
]

_OF_VARIANT = [
    *_METRICS,
    {
        "Namespace": "Perch",
        "Dimensions": [["Endpoint", "Variant"]],
        "Metrics": [
            {"Name": "Requests", "Unit": "Count"},
            {"Name": "Failures", "Unit": "Count"},
            {"Name": "Latency", "Unit": "Milliseconds"},
        ],
    },
]

MAX_PREDICTIONS = 20
"""Predictions of one request that the line repeats; `rows` says how many there were."""


def write(line: dict[str, Any]) -> None:
    """Print one line of JSON."""
    sys.stdout.write(encode(line) + "\n")


def with_metrics(
    line: dict[str, Any], *, endpoint: str, revision: str, status: int, ms: float, at: int, variant: str | None = None
) -> dict[str, Any]:
    """Add the metrics of one request to its line; `at` is the request's time in ms since 1970.

    `variant` is "<experiment>/<variant>" while an experiment runs.
    """
    return {
        "_aws": {"Timestamp": at, "CloudWatchMetrics": _OF_VARIANT if variant else _METRICS},
        **({"Variant": variant} if variant else {}),
        "Endpoint": endpoint,
        "Revision": revision,
        "Requests": 1,
        "Failures": 1 if status >= 500 else 0,
        "ClientErrors": 1 if 400 <= status < 500 else 0,
        "Latency": ms,
        **line,
    }


def write_failure(event: str, error: BaseException, **fields: Any) -> None:
    """Print where something raised; clients are told only what."""
    trace = "".join(traceback.format_exception(error))[-8000:]
    text = trace.encode("utf-8", "replace").decode()  # a message may hold characters that JSON cannot
    write({"level": "ERROR", "event": event, **fields, "trace": text})
