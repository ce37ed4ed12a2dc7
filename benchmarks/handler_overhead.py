"""What the predictor's handler adds to a bare model call, for one row of 64 features.

    python -m benchmarks.handler_overhead

Four things are timed, interleaved so that a busy machine is unfair to none: the bare `session.run`; a plain handler
that a person would write with the json module and no checks, metrics or log line; our whole handler (event in, answer
out, log line printed to /dev/null); and our handler refusing a request. Medians and 99th percentiles are printed and
saved to benchmarks/results/handler_overhead.json with machine, versions and command.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.report import save
from examples.digits.train import held_out, train
from perch.domain.model import Pointer
from perch.predictor.handler import make_handler

ROUNDS, CALLS = 60, 200


def main() -> None:
    """Time, print, save."""
    load = os.getloadavg()
    data = train("onnx", "v2")
    event = _event({"features": [held_out().features[0].tolist()]})
    wrong = _event({"features": [held_out().features[0].tolist()[:-1]]})
    context = SimpleNamespace(aws_request_id="c6af9ac6-7b61-11e6-9a41-93e8deadbeef", function_version="7")
    session = _session(data)
    row = held_out().features[:1]
    cases: dict[str, Callable[[], Any]] = {
        "bare session.run": lambda: session.run(None, {"X": row}),
        "plain handler (json module)": _call(_plain(session), event, context),
        "perch handler": _call(_perch(data), event, context),
        "perch handler, refusing": _call(_perch(data), wrong, context),
    }
    timings: dict[str, list[float]] = {name: [] for name in cases}
    real = sys.stdout
    with Path(os.devnull).open("w") as devnull:
        sys.stdout = devnull
        try:
            for _ in range(ROUNDS):
                for name, call in cases.items():
                    timings[name] += _timed(call)
        finally:
            sys.stdout = real
    bare = statistics.median(timings["bare session.run"])
    results = {
        name: {
            "median_us": round(statistics.median(values), 2),
            "p99_us": round(float(np.quantile(values, 0.99)), 2),
            "added_us": round(statistics.median(values) - bare, 2),
        }
        for name, values in timings.items()
    }
    for name, found in results.items():
        median, p99, added = found.values()
        print(f"{name:30} median {median:7.2f} µs   p99 {p99:7.2f} µs   added {added:6.2f} µs")
    workload = f"digits v2 (MLP 64-100-10), 1 row of 64 features, {ROUNDS} rounds of {CALLS} calls of each"
    save(
        "handler_overhead",
        {"workload": workload, "results": results},
        packages=("onnxruntime", "numpy", "msgspec"),
        load=load,
    )


def _timed(call: Callable[[], Any]) -> list[float]:
    for _ in range(10):
        call()
    found = []
    for _ in range(CALLS):
        started = time.perf_counter_ns()
        call()
        found.append((time.perf_counter_ns() - started) / 1000)
    return found


def _session(data: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _perch(data: bytes) -> Any:
    pointer = Pointer(
        model="digits",
        version="v2",
        key="models/digits/v2/model.onnx",
        version_id="1",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        format="onnx",
    )
    environ = {"PERCH_ENDPOINT": "digits", "PERCH_STORE": "store", "PERCH_POINTER": pointer.to_json()}
    return make_handler(runtime="onnx", environ=environ, fetch=lambda *_: data)


def _plain(session: Any) -> Any:
    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        rows = np.array(json.loads(event["body"])["features"], dtype=np.float32)
        labels, probabilities = session.run(None, {"X": rows})
        body = {
            "predictions": labels.tolist(),
            "probabilities": probabilities.tolist(),
            "request_id": context.aws_request_id,
        }
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}

    return handler


def _call(handler: Any, event: dict[str, Any], context: Any) -> Callable[[], Any]:
    return lambda: handler(event, context)


def _event(body: dict[str, Any]) -> dict[str, Any]:
    path = "/models/digits/predict"
    return {
        "version": "2.0",
        "routeKey": f"POST {path}",
        "rawPath": path,
        "requestContext": {
            "http": {"method": "POST", "path": path},
            "stage": "$default",
            "timeEpoch": 1_767_225_600_000,
        },
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }


if __name__ == "__main__":
    main()
