"""What the predictor's handler adds to a bare model call, for one row of 64 features and for 64 rows of 784.

    python -m benchmarks.handler_overhead

Timed in turns, so that a busy machine is unfair to none: the bare `session.run`; plain handlers that a person would
write with the json module or with orjson, and no checks, metrics or log line; and our whole handler (event in, answer
out, log line printed to /dev/null) asked in our own way, in the Open Inference Protocol with JSON and with bytes,
capturing every request, and refusing one. Of 64 rows only the protocol is compared, with a plain orjson handler of the
same protocol. Medians and 99th percentiles are printed and saved to benchmarks/results/handler_overhead.json with
machine, versions and command.
"""

from __future__ import annotations

import base64
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
import orjson
from onnx import TensorProto, helper, numpy_helper

from benchmarks.report import save
from examples.digits.train import held_out, train
from perch.domain.model import Pointer
from perch.predictor.handler import make_handler

ROUNDS, CALLS = 60, 200
PREDICT, INFER = "/models/digits/predict", "/v2/models/digits/infer"


def main() -> None:
    """Time, print, save."""
    load = os.getloadavg()
    real = sys.stdout
    with Path(os.devnull).open("w") as devnull:
        sys.stdout = devnull
        try:
            found = {
                "1 row of 64": _results(_small(), ROUNDS, CALLS),
                "64 rows of 784": _results(_large(), ROUNDS, CALLS // 10),
            }
        finally:
            sys.stdout = real
    for size, results in found.items():
        print(size)
        for name, row in results.items():
            median, p99, added, ratio = row.values()
            print(f"  {name:35} median {median:8.2f} µs  p99 {p99:8.2f}  added {added:8.2f}  ratio {ratio:.2f}")
    workload = (
        f"digits v2 (MLP 64-100-10), 1 row of 64 features, {ROUNDS} rounds of {CALLS} calls of each; "
        f"a 784-10 linear model, 64 rows of 784, {ROUNDS} rounds of {CALLS // 10}"
    )
    save(
        "handler_overhead",
        {"workload": workload, "results": found},
        packages=("onnxruntime", "numpy", "msgspec", "orjson"),
        load=load,
    )


def _small() -> dict[str, Callable[[], Any]]:
    """One row of 64 features; the bare call first."""
    data, row = train("onnx", "v2"), held_out().features[:1]
    session, ours = _session(data), _perch(data)
    asked = _event({"features": row.tolist()})
    v2 = {"name": "X", "shape": [1, 64], "datatype": "FP32"}
    return {
        "bare session.run": lambda: session.run(None, {"X": row}),
        "plain handler, json module": _call(_plain(session, json.loads, json.dumps), asked),
        "plain handler, orjson": _call(_plain(session, orjson.loads, orjson.dumps), asked),
        "perch": _call(ours, asked),
        "perch, capturing every request": _call(_perch(data, PERCH_CAPTURE="1"), asked),
        "perch, protocol, JSON": _call(ours, _event({"inputs": [{**v2, "data": row.ravel().tolist()}]}, INFER)),
        "perch, protocol, bytes in and out": _call(ours, _in_bytes(v2, row)),
        "perch, refusing": _call(ours, _event({"features": [row[0, :-1].tolist()]})),
    }


def _large() -> dict[str, Callable[[], Any]]:
    """64 rows of 784 features; the bare call first."""
    rows = np.random.default_rng(0).random((64, 784), dtype=np.float32)
    data = _linear(784, 10)
    session, ours = _session(data), _perch(data)
    v2 = {"name": "X", "shape": [64, 784], "datatype": "FP32"}
    flat = _event({"inputs": [{**v2, "data": rows.ravel().tolist()}]}, INFER)
    nested = _event({"inputs": [{**v2, "data": rows.tolist()}]}, INFER)
    return {
        "bare session.run": lambda: session.run(None, {"X": rows}),
        "plain protocol handler, json module": _call(_plain_protocol(session, json.loads, json.dumps), flat),
        "plain protocol handler, orjson": _call(_plain_protocol(session, orjson.loads, orjson.dumps), flat),
        "perch, protocol, JSON, flat": _call(ours, flat),
        "perch, protocol, JSON, nested": _call(ours, nested),
        "perch, protocol, bytes in and out": _call(ours, _in_bytes(v2, rows)),
        "perch, features": _call(ours, _event({"features": rows.tolist()})),
    }


def _results(cases: dict[str, Callable[[], Any]], rounds: int, calls: int) -> dict[str, dict[str, float]]:
    timings: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
            timings[name] += _timed(call, calls)
    medians = {name: statistics.median(values) for name, values in timings.items()}
    bare = next(iter(medians.values()))
    plain = next(median for name, median in medians.items() if name.endswith("orjson"))
    return {
        name: {
            "median_us": round(medians[name], 2),
            "p99_us": round(float(np.quantile(values, 0.99)), 2),
            "added_us": round(medians[name] - bare, 2),
            "ratio_to_plain_orjson": round(medians[name] / plain, 3),
        }
        for name, values in timings.items()
    }


def _timed(call: Callable[[], Any], calls: int) -> list[float]:
    for _ in range(3):
        call()
    found = []
    for _ in range(calls):
        started = time.perf_counter_ns()
        call()
        found.append((time.perf_counter_ns() - started) / 1000)
    return found


def _session(data: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _linear(features: int, classes: int) -> bytes:
    """A model of one matrix product, so that nearly all of the time is the handler's."""
    weights = np.random.default_rng(1).random((features, classes), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "w"], ["scores"])],
        "linear",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", features])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def _perch(data: bytes, **more: str) -> Any:
    pointer = Pointer(
        model="digits",
        version="v2",
        key="models/digits/v2/model.onnx",
        version_id="1",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        format="onnx",
    )
    environ = {"PERCH_ENDPOINT": "digits", "PERCH_STORE": "store", "PERCH_POINTER": pointer.to_json(), **more}
    return make_handler(runtime="onnx", environ=environ, fetch=lambda *_: data)


def _text(dumped: str | bytes) -> str:
    return dumped.decode() if isinstance(dumped, bytes) else dumped


def _plain(session: Any, loads: Callable[[str], Any], dumps: Callable[[Any], Any]) -> Any:
    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        rows = np.array(loads(event["body"])["features"], dtype=np.float32)
        labels, probabilities = session.run(None, {"X": rows})
        body = {
            "predictions": labels.tolist(),
            "probabilities": probabilities.tolist(),
            "request_id": context.aws_request_id,
        }
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": _text(dumps(body))}

    return handler


def _plain_protocol(session: Any, loads: Callable[[str], Any], dumps: Callable[[Any], Any]) -> Any:
    def handler(event: dict[str, Any], _: Any) -> dict[str, Any]:
        [given] = loads(event["body"])["inputs"]
        rows = np.array(given["data"], dtype=np.float32).reshape(given["shape"])
        [scores] = session.run(None, {given["name"]: rows})
        output = {"name": "scores", "datatype": "FP32", "shape": scores.shape, "data": scores.ravel().tolist()}
        body = {"model_name": "digits", "model_version": "v2", "outputs": [output]}
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": _text(dumps(body))}

    return handler


def _call(handler: Any, event: dict[str, Any]) -> Callable[[], Any]:
    context = SimpleNamespace(aws_request_id="c6af9ac6-7b61-11e6-9a41-93e8deadbeef", function_version="7")
    return lambda: handler(event, context)


def _in_bytes(described: dict[str, Any], rows: Any) -> dict[str, Any]:
    """A request of the protocol as tritonclient sends it: the tensor in bytes, and bytes wanted."""
    tensor = {**described, "parameters": {"binary_data_size": rows.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    event = _event({}, INFER)
    event["headers"]["inference-header-content-length"] = str(len(head))
    return {**event, "body": base64.b64encode(head + rows.tobytes()).decode(), "isBase64Encoded": True}


def _event(body: dict[str, Any], path: str = PREDICT) -> dict[str, Any]:
    return {
        "version": "2.0",
        "routeKey": f"POST {path}",
        "rawPath": path,
        "headers": {"content-type": "application/json"},
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
