"""Loading 500 MB of weights from the local store: time against a raw ranged read of the same bytes, and peak memory.

    python -m benchmarks.load_weights [--mb 500] [--rounds 5]

A process of its own serves S3 (strict moto, as in the local cloud). Each measurement is a fresh process that has its
imports done: `raw` reads the object in the same ranges, over as many connections, into one buffer, and does nothing
with it; `onnx` and `safetensors` do what a predictor does at init, from the pointer to the first answer. Raw and loaded
take turns. Memory is the process's peak resident size less what it was before, over the size of the file; ONNX is
measured with a function's memory that leaves no room for prepared weights, and with one that does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.report import save

AIM_TIME, AIM_MEMORY = 1.15, 1.2
WIDTH = 2048
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


def main() -> None:
    """Measure and save."""
    reader = argparse.ArgumentParser()
    reader.add_argument("--mb", type=int, default=500)
    reader.add_argument("--rounds", type=int, default=5)
    reader.add_argument("--child", default="")
    asked = reader.parse_args()
    if asked.child:
        print(json.dumps(child(json.loads(asked.child))))
        return
    load = os.getloadavg()
    layers = max(1, round(asked.mb * 1e6 / (4 * WIDTH * WIDTH)))
    found: dict[str, Any] = {"layers": layers, "width": WIDTH, "rounds": asked.rounds}
    with tempfile.TemporaryDirectory() as folder, store() as environ:
        for name, write in {"onnx": write_onnx, "safetensors": write_safetensors}.items():
            path = Path(folder) / "weights"
            write(path, layers)
            found[name] = measure(name, path, environ, asked.rounds)
            print(name, json.dumps(found[name], indent=2))
    save("load_weights", found, packages=("numpy", "onnxruntime", "torch", "moto"), load=load)


def measure(kind: str, path: Path, environ: Mapping[str, str], rounds: int) -> dict[str, Any]:
    """Put a file into the store, and take turns in reading and loading it."""
    data = path.read_bytes()
    pointer = {
        "model": "m", "version": "v1", "key": f"models/m/v1/{kind}", "version_id": put(environ, kind, path),
        "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "format": kind,
    }  # fmt: skip
    size = len(data) / 1e6
    little, plenty = math.ceil(300 + 1.2 * size), math.ceil(300 + 2.2 * size)
    jobs = {"raw": (0, "raw"), "loaded": (little, "load")} | ({"prepared": (plenty, "load")} if kind == "onnx" else {})
    times: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, (memory, what) in jobs.items():
            job = {"what": what, "pointer": pointer, "runtime": "onnx" if kind == "onnx" else "torch"}
            more = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory)} if memory else {}
            times[name].append(run(job, {**environ, **more}))
    raw = statistics.median(one["s"] for one in times["raw"])
    result: dict[str, Any] = {"mb": round(size, 1), "raw": {"s": raw, "mb_s": size / raw}}
    for name in list(jobs)[1:]:
        took = statistics.median(one["s"] for one in times[name])
        ratios = [one["s"] / ours["s"] for one, ours in zip(times[name], times["raw"], strict=True)]
        result[name] = {
            "s": took,
            "times_raw": statistics.median(ratios),
            "times_raw_of_fastest": min(one["s"] for one in times[name]) / min(one["s"] for one in times["raw"]),
            "peak_times_size": max(one["peak"] for one in times[name]) / len(data),
            "fetch_s": statistics.median(one["fetch_s"] for one in times[name]),
            "function_mb": jobs[name][0],
        }
    result["aims"] = {"times_raw": AIM_TIME, "peak_times_size": AIM_MEMORY}
    return result


def run(job: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, float]:
    """Do one thing in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load_weights", "--child", json.dumps(job)]
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(job: Mapping[str, Any]) -> dict[str, float]:
    """Read or load, with all imports done before."""
    import numpy as np

    from perch.domain.model import Pointer
    from perch.predictor.fetch import fetch_artifact
    from perch.predictor.loading import load_served
    from perch.predictor.runtimes import loader_of

    pointer = Pointer(**job["pointer"])
    if job["what"] == "raw":
        before, started = peak(), time.perf_counter()
        read_raw(pointer)
        return {"s": time.perf_counter() - started, "peak": peak() - before}
    loader_of(pointer.format, job["runtime"])
    fetched = 0.0

    def fetch(bucket: str, asked: Pointer) -> Any:
        nonlocal fetched
        began = time.perf_counter()
        found = fetch_artifact(bucket, asked)
        fetched = time.perf_counter() - began
        return found

    environ = {"PERCH_STORE": "store", "PERCH_POINTER": pointer.to_json()}
    before, started = peak(), time.perf_counter()
    served = load_served(job["runtime"], environ, fetch)
    served.model.run(np.ones((1, WIDTH), dtype=np.float32))
    return {"s": time.perf_counter() - started, "peak": peak() - before, "fetch_s": fetched}


def read_raw(pointer: Any) -> None:
    """The same bytes in the same ranges, by as many connections, into one buffer."""
    import mmap

    from perch.predictor.fetch import CONNECTIONS, PART

    memory = memoryview(mmap.mmap(-1, pointer.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    host = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    path = f"/store/{pointer.key}?versionId={pointer.version_id}"
    begins = iter(range(0, pointer.size, PART))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                begin = next(begins, None)
            if begin is None:
                return
            end = min(begin + PART, pointer.size)
            connection = HTTPConnection(host)
            auth = (
                "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
            )
            connection.request("GET", path, headers={"Range": f"bytes={begin}-{end - 1}", "Authorization": auth})
            answer = connection.getresponse()
            while begin < end and (count := answer.readinto(memory[begin : min(begin + (1 << 20), end)])):
                begin += count
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def peak() -> int:
    """The largest resident size of this program so far, in bytes (what getrusage says begins with its parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def write_onnx(path: Path, layers: int) -> None:
    """A perceptron of square layers."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shape = [None, WIDTH]
    weights = [
        numpy_helper.from_array(rng.standard_normal((WIDTH, WIDTH), dtype=np.float32) / 45, f"w{i}")
        for i in range(layers)
    ]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(layers)]
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i in (0, layers)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def write_safetensors(path: Path, layers: int) -> None:
    """The same in torch."""
    import torch

    from perch.export.torch_export import export_safetensors

    path = path.with_suffix(".safetensors")
    module = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(layers)))
    export_safetensors(module, path)
    path.rename(path.with_suffix(""))


@contextmanager
def store() -> Iterator[dict[str, str]]:
    """A store in a process of its own; gives the variables that lead to it."""
    code = (
        "import sys; from moto.server import ThreadedMotoServer; from perch.local import strict; strict.install(); "
        "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False); server.start(); "
        "print(server.get_host_and_port()[1], flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        environ = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(process.stdout.readline())}"}
        client = s3(environ)
        client.create_bucket(Bucket="store")
        client.put_bucket_versioning(Bucket="store", VersioningConfiguration={"Status": "Enabled"})
        yield environ
    finally:
        process.kill()
        process.wait()


def put(environ: Mapping[str, str], kind: str, path: Path) -> str:
    """Upload a file; return its version."""
    with path.open("rb") as file:
        return str(s3(environ).put_object(Bucket="store", Key=f"models/m/v1/{kind}", Body=file)["VersionId"])


def s3(environ: Mapping[str, str]) -> Any:
    """The store's client."""
    import boto3

    return boto3.client(
        "s3", endpoint_url=environ["AWS_ENDPOINT_URL"], region_name=environ["AWS_REGION"],
        aws_access_key_id="test", aws_secret_access_key="test",  # noqa: S106 - of moto
    )  # fmt: skip


if __name__ == "__main__":
    main()
