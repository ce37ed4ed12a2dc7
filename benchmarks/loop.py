"""The loop in numbers: from upload to registered, AWS calls, from the first bad answer to the roll-back, latency.

    python -m benchmarks.loop [--uploads 10] [--undoings 5] [--seconds 5]

A whole local cloud runs the project's own assembly with the endpoints of `examples/digits`. Four things are measured:

1. Real milliseconds from the S3 PUT to the answer of the write that registers the version, for a model that no
   endpoint serves, and the AWS calls that `register_model` made for it.
2. AWS calls of one idle tick of the driver, for each endpoint, with one version registered and with fifty. The fifty
   are of another runtime: they are registered, and refused a rollout.
3. The broken version v3 meets steady traffic (`RATE` requests a virtual second, time stepped by `STEP_S`): requests,
   virtual seconds and driver ticks from its first bad answer until the alias is back at 100 % on the stable revision.
4. Percentiles of a signed prediction through the gateway, from `wrk` on the same machine, at 1 and at 16 connections.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from torch import nn

from benchmarks.calls import Call, Watch, watching
from benchmarks.load import need_wrk, post
from benchmarks.report import save
from examples.digits.train import FILES, Version, held_out, train
from perch.aws.functions import Functions
from perch.aws.registry import Registry
from perch.export.torch_export import export_state_dict
from perch.local.cloud import KEY, REGION, CloudOptions, LocalCloud
from perch.local.deploy.synthesis import synthesize

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "examples" / "digits" / "perch.toml"
ENDPOINTS = 2
TICK_S = 600.0
RATE, STEP_S = 10, 2.0
REGISTER, DRIVE = "perch-register-model", "perch-drive-rollouts"
PATIENCE = 2000  # steps of anything, before it counts as stuck
WRITES = ("PutItem", "TransactWriteItems", "UpdateItem")


class Bench:
    """A deployed local cloud, and what is done with it."""

    def __init__(self, cloud: LocalCloud, watch: Watch, assembly: Path) -> None:
        deployed = cloud.deploy(assembly)
        self.cloud, self.watch = cloud, watch
        self.registry = Registry(cloud.client("dynamodb"), deployed.output("perch-store", "RegistryTable"))
        self.functions = Functions(cloud.client("lambda"))
        self.s3, self.bucket = cloud.client("s3"), deployed.output("perch-store", "StoreBucket")
        self.rows = itertools.cycle(held_out().features.tolist())
        address = urlsplit(cloud.gateway_url)
        self.connection = HTTPConnection(address.hostname or "", address.port, timeout=60)

    def upload(self, model: str, version: str, trained: Version = "v2") -> float:
        """Put a version into the store; return when the PUT began."""
        return self.put(f"models/{model}/{version}/{FILES['onnx']}", train("onnx", trained))

    def put(self, key: str, data: bytes) -> float:
        """Put a file into the store; return when that began."""
        began = time.perf_counter()
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        return began

    def signed(self, body: bytes) -> tuple[str, dict[str, str]]:
        """Return the URL of a prediction and the headers that make the body a signed request."""
        url = f"{self.cloud.gateway_url}/models/digits/predict"
        request = AWSRequest("POST", url, data=body, headers={"Content-Type": "application/json"})
        SigV4Auth(Credentials(KEY, KEY), "execute-api", REGION).add_auth(request)
        return url, {**dict(request.headers.items()), "Host": urlsplit(url).netloc}

    def predict(self) -> bool:
        """Ask for one prediction; return whether it was answered with one."""
        url, headers = self.signed(body := body_of(next(self.rows)))
        self.connection.request("POST", urlsplit(url).path, body=body, headers=headers)
        answer = self.connection.getresponse()
        answer.read()
        return answer.status == 200

    def pass_time(self, until: Callable[[], bool], seconds: float = 20.0) -> None:
        """Step time until something holds."""
        for _ in range(PATIENCE):
            if until():
                return
            self.cloud.advance(seconds)
        raise RuntimeError("what the benchmark waits for does not happen")

    def stable(self, version: str) -> bool:
        """Whether digits rests on a version."""
        state = self.registry.endpoint("digits")
        pointer = state.stable.pointer if state.stable else None
        return pointer is not None and pointer.version == version and state.rollout is None


def body_of(row: list[float]) -> bytes:
    """Return the body that asks for the prediction of one row."""
    return json.dumps({"features": [row]}).encode()


@cache
def of_torch() -> bytes:
    """A file that torch alone loads: on an endpoint of ONNX it is registered and refused a rollout."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        export_state_dict(nn.Sequential(nn.Linear(64, 10)), path, output="logits")
        return path.read_bytes()


def by_operation(calls: list[Call]) -> dict[str, int]:
    """Count calls by service and operation."""
    return dict(Counter(f"{call.service} {call.operation}" for call in calls))


def registrations(bench: Bench, uploads: int) -> dict[str, Any]:
    """Measure uploads of a model that no endpoint serves; the first one meets a cold function and is told apart."""
    found = []
    for number in range(uploads + 1):
        bench.watch.take(REGISTER)
        began = bench.upload("unserved", f"v{number}")
        for _ in range(PATIENCE):
            time.sleep(0.005)
            if bench.watch.invocations[REGISTER] and bench.registry.version("unserved", f"v{number}"):
                break
        bench.cloud.machinery.wait_idle()
        calls, _ = bench.watch.take(REGISTER)
        written = min(call.at for call in calls if call.operation in WRITES)
        found.append(((written - began) * 1000, calls))
    (cold_ms, _), *warm = found
    times = sorted(ms for ms, _ in warm)
    return {
        "uploads": uploads,
        "cold_ms": round(cold_ms, 1),
        "median_ms": round(statistics.median(times), 1),
        "fastest_ms": round(times[0], 1),
        "slowest_ms": round(times[-1], 1),
        "aws_calls": sorted({len(calls) for _, calls in warm}),
        "aws_calls_of_one": by_operation(warm[-1][1]),
    }


def idle_tick(bench: Bench) -> dict[str, Any]:
    """Count the driver's calls in ticks that find nothing to do."""
    found = []
    for _ in range(3):
        bench.watch.take(DRIVE)
        bench.cloud.advance(TICK_S)
        calls, ticks = bench.watch.take(DRIVE)
        found.append((len(calls) / ticks / ENDPOINTS, calls, ticks))
    return {
        "versions": len(bench.registry.versions("digits", limit=1000)),
        "aws_calls_per_endpoint": sorted({calls for calls, _, _ in found}),
        "aws_calls_of_one_tick": {name: n // found[-1][2] for name, n in by_operation(found[-1][1]).items()},
    }


def undoing(bench: Bench, version: str) -> dict[str, float]:
    """Let the broken version meet traffic; measure from its first bad answer until the alias is back."""
    alias, home = "perch-digits", bench.functions.alias("perch-digits").routing
    bench.upload("digits", version, trained="v3")
    bench.pass_time(lambda: bench.functions.alias(alias).routing.other is not None)
    began = bench.cloud.clock.now()
    requests = bad = 0
    first = None
    for _ in range(PATIENCE):
        for _ in range(int(RATE * STEP_S)):
            good = bench.predict()
            if not good and first is None:
                first, requests = bench.cloud.clock.now(), 0
                bench.watch.take(DRIVE)
            requests, bad = requests + 1, bad + (not good)
        bench.cloud.advance(STEP_S)
        if bench.functions.alias(alias).routing == home:
            break
    else:
        raise RuntimeError("the broken version was not taken back")
    back = bench.cloud.clock.now()
    _, ticks = bench.watch.take(DRIVE)
    bench.pass_time(lambda: bench.registry.endpoint("digits").rollout is None)
    decided = [entry for entry in bench.registry.ledger("digits") if entry.kind == "RollbackDecided"][-1]
    assert first is not None  # noqa: S101 - it was taken back for a reason
    return {
        "virtual_s": (back - first).total_seconds(),
        "virtual_s_since_first_traffic": (back - began).total_seconds(),
        "requests": requests,
        "bad": bad,
        "ticks": ticks,
        "by_alarm": "alarm" in decided.reason,
    }


def latency(bench: Bench, seconds: int) -> Iterator[dict[str, float]]:
    """Measure predictions at 1 and at 16 connections."""
    body = body_of(next(bench.rows))
    for connections in (1, 16):
        for length in (1, seconds):  # the first warms up
            url, headers = bench.signed(body)
            found = post(url, body, headers, seconds=length, connections=connections)
        yield {"connections": connections, **found}


def measure(bench: Bench, *, uploads: int, undoings: int, seconds: int) -> dict[str, Any]:
    """Do all of it."""
    cloud = bench.cloud
    cloud.run()
    registered = registrations(bench, uploads)
    cloud.clock.stop()
    print(f"upload to registered   {registered['median_ms']} ms (cold {registered['cold_ms']} ms)")
    print(f"  AWS calls            {registered['aws_calls']} {registered['aws_calls_of_one']}")

    bench.upload("digits", "v2")
    bench.pass_time(lambda: bench.stable("v2"))
    idle = [idle_tick(bench)]
    for number in range(49):
        bench.put(f"models/digits/other-{number}/model.pt", of_torch())
    cloud.machinery.wait_idle()
    bench.pass_time(lambda: bench.registry.endpoint("digits").considered == 50)
    idle.append(idle_tick(bench))
    for one in idle:
        print(
            f"idle tick              {one['aws_calls_per_endpoint']} AWS calls an endpoint, {one['versions']} versions"
        )

    undone = [undoing(bench, f"v3-{number}") for number in range(undoings)]
    for one in undone:
        print("roll-back              " + "  ".join(f"{name} {value:g}" for name, value in one.items()))

    cloud.run()
    latencies = list(latency(bench, seconds))
    for found in latencies:
        print("prediction             " + "  ".join(f"{name} {value:g}" for name, value in found.items()))
    return {
        "registration": registered,
        "idle_tick": idle,
        "roll_back": {
            "traffic": f"{RATE} requests a virtual second, 10% to the candidate, which fails on two scans in five",
            "median": {name: statistics.median(one[name] for one in undone) for name in undone[0]},
            "each": undone,
        },
        "prediction": latencies,
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--uploads", type=int, default=10)
    parser.add_argument("--undoings", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    options = parser.parse_args()
    need_wrk()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assembly = synthesize(ROOT, folder / "cdk.out", environment={"PERCH_SETTINGS": str(SETTINGS)})
        with watching() as watch, LocalCloud.running(CloudOptions(state=folder / "state")) as cloud:
            found = measure(Bench(cloud, watch, assembly), **vars(options))
    packages = ("aws-cdk-lib", "awslambdaric", "boto3", "moto", "msgspec", "onnxruntime")
    save("loop", found, packages=packages, load=load)


if __name__ == "__main__":
    main()
