"""What the predictor's benchmarks share: models, events as API Gateway sends them, and timing in turns.

In turns: every case is called a few times, then the next, round after round, so that a busy machine is unfair to none.
Log lines go to /dev/null, which costs what writing them to a pipe that is read costs, less the reader.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.written_handlers import INFER, PREDICT, Handler
from perch.domain.model import Pointer
from perch.predictor.handler import make_handler

Call = Callable[[], Any]


def session(data: bytes) -> Any:
    """A model on ONNX Runtime, one thread, as the predictor runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def linear(features: int, classes: int) -> bytes:
    """A model of one matrix product, so that nearly all of the time is the handler's."""
    weights = np.random.default_rng(1).random((features, classes), dtype=np.float32)
    return _onnx(
        [helper.make_node("MatMul", ["X", "w"], ["scores"])],
        ["n", features],
        ["n", classes],
        [numpy_helper.from_array(weights, "w")],
    )


def hidden(features: int, units: int, classes: int) -> bytes:
    """A model of two matrix products: it takes its time, and its answers are small."""
    random = np.random.default_rng(1)
    return _onnx(
        [helper.make_node("MatMul", ["X", "v"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["scores"])],
        ["n", features],
        ["n", classes],
        [
            numpy_helper.from_array(random.random((features, units), dtype=np.float32), "v"),
            numpy_helper.from_array(random.random((units, classes), dtype=np.float32), "w"),
        ],
    )


def identity() -> bytes:
    """A model that gives back the tensor that it gets, whatever its size."""
    return _onnx([helper.make_node("Identity", ["X"], ["scores"])], ["n", "m"], ["n", "m"], [])


def _onnx(nodes: list[Any], given: list[Any], gives: list[Any], weights: list[Any]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, gives)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def perch(data: bytes, **more: str) -> Handler:
    """Our handler of a model, with these environment variables."""
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
    with silence():
        return make_handler(runtime="onnx", environ=environ, fetch=lambda *_: data)


def call(handler: Handler, event: dict[str, Any]) -> Call:
    """One request, which has to be answered with what the event expects (200, unless it says another status)."""
    context = SimpleNamespace(
        aws_request_id="c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
        function_version="7",
        function_name="digits",
        memory_limit_in_mb=1024,
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:digits:live",
    )
    wanted = event.pop("expected", 200)
    with silence():
        status = handler(event, context)["statusCode"]
    if status != wanted:
        raise RuntimeError(f"answered {status} instead of {wanted}: not what is to be timed")
    return lambda: handler(event, context)


def event(body: Mapping[str, Any], path: str = PREDICT, **more: Any) -> dict[str, Any]:
    """A POST as an HTTP API sends it (payload format 2.0)."""
    http = {
        "method": "POST",
        "path": path,
        "protocol": "HTTP/1.1",
        "sourceIp": "192.0.2.1",
        "userAgent": "benchmark",
    }
    return {
        "version": "2.0",
        "routeKey": f"POST {path}",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "localhost"},
        "requestContext": {
            "http": http,
            "stage": "$default",
            "requestId": "JKJaXmPLvHcESHA=",
            "timeEpoch": 1_767_225_600_000,
        },
        "body": json.dumps(body),
        "isBase64Encoded": False,
        **more,
    }


def in_bytes(rows: Any, *, raw: bool = False) -> dict[str, Any]:
    """A request of the protocol as tritonclient sends it: the tensor in bytes, and bytes wanted.

    `raw` leaves the body as it came, as a server of our own does; an HTTP API hands it on in base64.
    """
    tensor = {
        "name": "X",
        "shape": list(rows.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": rows.nbytes},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    found = event({}, INFER)
    found["headers"]["inference-header-content-length"] = str(len(head))
    body = head + rows.tobytes()
    return {**found, "body": body if raw else base64.b64encode(body).decode(), "isBase64Encoded": not raw}


def timed(cases: Mapping[str, Call], *, rounds: int, calls: int) -> dict[str, list[float]]:
    """Microseconds of each call, in turns: `calls` of each case in a round, after three that do not count."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    with silence():
        for _ in range(rounds):
            for name, one in cases.items():
                for _ in range(3):
                    one()
                for _ in range(calls):
                    started = time.perf_counter_ns()
                    one()
                    found[name].append((time.perf_counter_ns() - started) / 1000)
    return found


@contextmanager
def silence() -> Iterator[None]:
    """Write standard output to nowhere."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield
