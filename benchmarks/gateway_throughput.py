"""Throughput and latency of the local gateway: HTTP in, a real handler on a real runtime client, HTTP out.

    python -m benchmarks.gateway_throughput [--seconds 8] [--rounds 3] [--connections 64]

Two routes are measured in turn, several times each, because a machine is rarely quiet: `floor` ends in a handler that
does nothing, `onnx` in Perch's own predictor (`functions/predict_onnx`) with a small network, 64 -> 64 -> 10. Both go
the whole way: gateway, event, data plane, Runtime API, worker process, log lines, metrics. The load comes from `wrk`,
on the same machine, so it takes its share of the cores. Every round also says what a request cost in processor time,
in the process of the gateway and in the workers together, which tells a busy machine from slow code. The best and the
median round are printed and saved with machine, versions and command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import boto3
import numpy as np
from moto.server import ThreadedMotoServer
from onnx import TensorProto, helper, numpy_helper

from benchmarks.load import need_wrk, post
from benchmarks.report import save
from perch.domain.model import Pointer
from perch.local.clock import VirtualClock
from perch.local.compute import DataPlane
from perch.local.gateway import Gateway
from perch.local.metrics.store import MetricStore
from perch.local.ports import FunctionVersion, Route, Target

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2

FLOOR = """
def handler(event, context):
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": "{}"}
"""


class Bench:
    """The functions and routes of the benchmark."""

    generation = 1

    def __init__(self, code: Mapping[str, Path], environment: Mapping[str, str]) -> None:
        self._targets = {
            name: Target(
                function=FunctionVersion(
                    name=name,
                    version="1",
                    arn=f"arn:aws:lambda:us-east-1:123456789012:function:{name}:1",
                    handler="handler.handler",
                    code=folder,
                    layers=(ROOT / "layers" / "perch",),
                    environment=environment,
                    memory_mb=1024,
                    timeout_s=10,
                ),
                resource=f"{name}:live",
                via_alias=True,
            )
            for name, folder in code.items()
        }
        self._routes = tuple(
            Route(
                route_key=f"POST /models/{name}/predict",
                method="POST",
                path=f"/models/{name}/predict",
                function=f"arn:aws:lambda:us-east-1:123456789012:function:{name}:live",
            )
            for name in self._targets
        )

    def resolve(self, function: str, qualifier: str | None = None) -> Target:  # noqa: ARG002 - the port's signature
        """Find a function by the name before the alias in its ARN."""
        return self._targets[function.rsplit(":", 2)[-2]]

    def routes(self) -> tuple[Route, ...]:
        """Return one route a function."""
        return self._routes


class Logs:
    """Counts lines."""

    lines = 0

    def write(self, group: str, stream: str, at: datetime, line: str) -> None:  # noqa: ARG002 - the port's signature
        """Count one line."""
        self.lines += 1


def model_bytes() -> bytes:
    """Return a perceptron with random weights, 64 inputs and 10 classes, as ONNX."""
    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in {"w1": (64, 64), "b1": (64,), "w2": (64, 10), "b2": (10,)}.items()
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
            helper.make_node("Relu", ["h"], ["a"]),
            helper.make_node("Gemm", ["a", "w2", "b2"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def store_model(endpoint: str) -> dict[str, str]:
    """Put the model into a bucket and return the predictor's environment."""
    session = boto3.Session("test", "test", region_name="us-east-1")
    s3 = session.client("s3", endpoint_url=endpoint)
    s3.create_bucket(Bucket="store")
    s3.put_bucket_versioning(Bucket="store", VersioningConfiguration={"Status": "Enabled"})
    data, key = model_bytes(), "models/bench/v1/model.onnx"
    put = s3.put_object(Bucket="store", Key=key, Body=data)
    pointer = Pointer(
        model="bench",
        version="v1",
        key=key,
        version_id=put["VersionId"],
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        format="onnx",
    )
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "PERCH_ENDPOINT": "onnx",
        "PERCH_STORE": "store",
        "PERCH_POINTER": pointer.to_json(),
    }


def processor_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that processes have used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    """Return all descendants of a process."""
    own = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [*own, *(grandchild for child in own for grandchild in children_of(child))]


def summary(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the best round and the median of each number."""
    best = max(rounds, key=lambda one: one["requests_s"])
    return {"best": best, "median": {key: statistics.median(one[key] for one in rounds) for key in best}}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    need_wrk()
    load = os.getloadavg()

    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    clock = VirtualClock(datetime.now(UTC))
    clock.run()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "handler.py").write_text(FLOOR)
        body = json.dumps({"features": [[round(0.1 * i, 1) for i in range(64)]]}).encode()
        code = {"floor": folder, "onnx": ROOT / "functions" / "predict_onnx"}
        bench = Bench(code, store_model(f"http://localhost:{port}"))
        plane = DataPlane(bench, clock, MetricStore(), Logs(), max_workers=WORKERS)
        plane.start()
        gateway = Gateway(plane, bench, clock)
        try:
            url = gateway.start()

            def load_route(route: str, seconds: int) -> dict[str, float]:
                target, headers = f"{url}/models/{route}/predict", {"Content-Type": "application/json"}
                return post(target, body, headers, seconds=seconds, connections=options.connections)

            rounds: dict[str, list[dict[str, float]]] = {"floor": [], "onnx": []}
            for route in rounds:
                load_route(route, 1)  # start and warm the workers
            for _ in range(options.rounds):
                for route, results in rounds.items():
                    workers = children_of(os.getpid())
                    before = processor_seconds([os.getpid()]), processor_seconds(workers)
                    found = load_route(route, options.seconds)
                    after = processor_seconds([os.getpid()]), processor_seconds(workers)
                    found["gateway_us"], found["workers_us"] = (
                        round((end - start) / found["requests"] * 1e6) for start, end in zip(before, after, strict=True)
                    )
                    results.append(found)
                    print(f"{route:6} " + "  ".join(f"{key} {value:g}" for key, value in found.items()))
        finally:
            gateway.stop()
            plane.stop()
            clock.stop()
            moto.stop()

    routes = {route: summary(results) for route, results in rounds.items()}
    for route, result in routes.items():
        for which, numbers in result.items():
            print(f"{route:6} {which:7}" + "  ".join(f"{key} {value:g}" for key, value in numbers.items()))
    save(
        "gateway_throughput",
        {"workers": WORKERS, "connections": options.connections, "routes": routes},
        packages=("awslambdaric", "httptools", "msgspec", "numpy", "onnxruntime", "uvloop"),
        load=load,
    )


if __name__ == "__main__":
    main()
