"""Cold starts: process start to first answer, per runtime, against the least that it could take.

    python -m benchmarks.cold_start [--rounds 15] [--seconds 25]

`perch` is a predictor's own handler in a fresh process, as Lambda's bootstrap imports it: the model is fetched from a
local store (strict moto), verified, loaded and warmed, and one request is answered. `floor` is a bare script in a fresh
process that does one thing after the other: import the engine, read the same model from the same store by a plain GET
of `http.client` (not signed, nothing compared), load it as the engine's own library does, run one row. For
scikit-learn it unpickles, which is the fastest and runs whatever the file says.

Both start the same interpreter and take turns until the rounds or the seconds are over. The clock stops when the
answer's line arrives: what a process does on its way out is nobody's wait. `cpu` is processor time up to there, of all
threads; on a busy machine it tells more than `ms`, but knows nothing of waits that overlap. The aim is a tenth over the
floor.

Also here: what importing each engine takes, less an interpreter that imports nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.load_weights import put, store
from benchmarks.report import save

ROOT = Path(__file__).resolve().parents[1]
AIM = 1.10
FEWEST = 4
"""Rounds that are run however long they take."""

ANSWERED = """
import time
print(time.process_time(), flush=True)
"""

PERCH = """
import sys
sys.path[:0] = [sys.argv[1]]
from types import SimpleNamespace
import handler
body = '{"features": [[' + ", ".join(["0.5"] * 64) + "]]}"
context = {"http": {"method": "POST", "path": "/models/m/predict"}, "stage": "$default", "timeEpoch": 1}
event = {"version": "2.0", "rawPath": "/models/m/predict", "headers": {"content-type": "application/json"},
         "requestContext": context, "body": body, "isBase64Encoded": False}
answer = handler.handler(event, SimpleNamespace(aws_request_id="r", function_version="1"))
assert answer["statusCode"] == 200, answer
"""

READ = """
import sys
from http.client import HTTPConnection
connection = HTTPConnection(sys.argv[1])
connection.request("GET", sys.argv[2], headers={"Authorization": sys.argv[3]})
data = connection.getresponse().read()
"""

FLOORS = {
    "onnx": """
import numpy as np, onnxruntime
{read}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
session.run(None, {{session.get_inputs()[0].name: np.full((1, 64), 0.5, dtype=np.float32)}})
""",
    "torch": """
import numpy as np, torch
from safetensors.torch import load
{read}
tensors = load(data)
with torch.device("meta"):
    module = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
module.load_state_dict(tensors, assign=True)
with torch.inference_mode():
    module(torch.from_numpy(np.full((1, 64), 0.5, dtype=np.float32))).numpy()
""",
    "numpy": """
import numpy as np
from safetensors.numpy import load
{read}
tensors = load(data)
hidden = np.maximum(np.full((1, 64), 0.5, dtype=np.float32) @ tensors["0.weight"].T + tensors["0.bias"], 0)
hidden @ tensors["2.weight"].T + tensors["2.bias"]
""",
    "sklearn": """
import pickle
import numpy as np
{read}
model = pickle.loads(data)
row = np.full((1, 64), 0.5)
model.predict(row), model.predict_proba(row)
""",
}
FORMATS = {"onnx": "onnx", "torch": "safetensors", "numpy": "safetensors", "sklearn": "skops"}
IMPORTS = ("numpy", "onnxruntime", "torch", "sklearn", "msgspec", "boto3", "perch.predictor.handler")


def main() -> None:
    """Measure and save."""
    reader = argparse.ArgumentParser()
    reader.add_argument("--rounds", type=int, default=15)
    reader.add_argument("--seconds", type=float, default=25, help="for each runtime")
    reader.add_argument("--runtimes", default=",".join(FLOORS))
    asked = reader.parse_args()
    load = os.getloadavg()
    found: dict[str, Any] = {"aim": AIM, "runtimes": {}, "left_out": {}}
    with tempfile.TemporaryDirectory() as folder, store() as environ:
        for runtime in asked.runtimes.split(","):
            path = Path(folder) / f"model.{FORMATS[runtime]}"
            try:
                floor = write(runtime, path)
                found["runtimes"][runtime] = measure(runtime, path, floor, environ, asked.rounds, asked.seconds)
            except (ImportError, RuntimeError) as error:
                found["left_out"][runtime] = str(error)[-300:]
            print(runtime, found["runtimes"].get(runtime) or found["left_out"][runtime], flush=True)
    found["imports"] = imports(asked.rounds)
    print(found["imports"])
    save("cold_start", found, packages=("numpy", "onnxruntime", "torch", "scikit-learn", "msgspec", "moto"), load=load)


class Took(NamedTuple):
    """Seconds from a process's start to its answer, and of processor time up to there."""

    wall: float
    cpu: float


def measure(
    runtime: str, path: Path, floor: Path, store_environ: Mapping[str, str], rounds: int, seconds: float
) -> dict[str, Any]:
    """Start Perch and the floor in turns, each with its file from the store; milliseconds."""
    environ = pointed_at(runtime, path, store_environ)
    host = store_environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    url = f"/store/models/m/v1/{floor.name}?versionId={put(store_environ, floor.name, floor)}"
    auth = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    script = FLOORS[runtime].format(read=READ)
    jobs = {
        "perch": [sys.executable, "-c", PERCH + ANSWERED, str(ROOT / "functions" / f"predict_{runtime}")],
        "floor": [sys.executable, "-c", script + ANSWERED, host, url, auth],
    }
    times = turns(jobs, environ, rounds, seconds)
    found: dict[str, Any] = {"rounds": len(times["perch"])}
    for what, unit in (("wall", "ms"), ("cpu", "cpu_ms")):
        ours, theirs = ([getattr(one, what) for one in times[name]] for name in ("perch", "floor"))
        found |= {
            f"perch_{unit}": round(1000 * statistics.median(ours), 1),
            f"floor_{unit}": round(1000 * statistics.median(theirs), 1),
            f"{what}_ratio": round(statistics.median(ours) / statistics.median(theirs), 3),
            f"{what}_ratio_of_fastest": round(min(ours) / min(theirs), 3),
            f"{what}_ms_over_of_fastest": round(1000 * (min(ours) - min(theirs)), 1),
        }
    return found


def pointed_at(runtime: str, path: Path, store_environ: Mapping[str, str]) -> dict[str, str]:
    """Put a model into the store; return what a predictor's process has to know."""
    data = path.read_bytes()
    pointer = {
        "model": "m", "version": "v1", "key": f"models/m/v1/{path.name}",
        "version_id": put(store_environ, path.name, path),
        "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "format": FORMATS[runtime],
    }  # fmt: skip
    return {
        **store_environ, "PERCH_ENDPOINT": "m", "PERCH_STORE": "store", "PERCH_POINTER": json.dumps(pointer),
        "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"],
    }  # fmt: skip


def imports(rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds that importing takes, the least of all rounds; less an interpreter that imports nothing."""
    jobs = {name: [sys.executable, "-c", f"import {name}{ANSWERED}"] for name in ("time", *IMPORTS)}
    times = turns(jobs, {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}, min(rounds, 3), 25)
    least = {name: (min(one.wall for one in took), min(one.cpu for one in took)) for name, took in times.items()}
    bare = least.pop("time")
    return {
        name: {"ms": round(1000 * (wall - bare[0]), 1), "cpu_ms": round(1000 * (cpu - bare[1]), 1)}
        for name, (wall, cpu) in least.items()
    }


def turns(
    jobs: Mapping[str, Sequence[str]], environ: Mapping[str, str], rounds: int, seconds: float
) -> dict[str, list[Took]]:
    """What each command took, in turns, until rounds or seconds are over; one round before them is not counted."""
    times: dict[str, list[Took]] = {name: [] for name in jobs}
    ends = 0.0
    for number in range(rounds + 1):
        if number > FEWEST and time.perf_counter() > ends:
            break
        for name, command in jobs.items():
            took = start(command, environ)
            if number:
                times[name].append(took)
        ends = ends or time.perf_counter() + seconds
    return times


def start(command: Sequence[str], environ: Mapping[str, str]) -> Took:
    """Start a process and wait for its last line, which is its processor time. Raises RuntimeError if it fails."""
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        with subprocess.Popen(command, env=dict(environ), stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            cpu = took = 0.0
            for line in process.stdout:
                if not line.startswith("{"):  # ours are log lines of JSON
                    cpu, took = float(line), time.perf_counter() - began
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(errors.read().decode())
    return Took(wall=took, cpu=cpu)


def write(runtime: str, path: Path) -> Path:
    """Write a small model of the runtime, 64 features and ten classes; return the file that the floor loads."""
    if runtime == "sklearn":
        import pickle

        import numpy as np
        import skops.io
        from sklearn.linear_model import LogisticRegression

        rng = np.random.default_rng(0)
        rows = rng.normal(size=(200, 64))
        model = LogisticRegression(max_iter=50).fit(rows, np.arange(200) % 10)
        skops.io.dump(model, path)
        pickled = path.with_suffix(".pkl")
        pickled.write_bytes(pickle.dumps(model))
        return pickled
    if runtime in ("torch", "numpy"):
        import torch

        from perch.export.torch_export import export_safetensors

        layers = torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        export_safetensors(torch.nn.Sequential(*layers), path)
        return path
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), f"w{s[1]}") for s in ((64, 64), (64, 10))]
    nodes = [
        helper.make_node("MatMul", ["x", "w64"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w10"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    ends = [value("x", TensorProto.FLOAT, [None, 64])], [value("y", TensorProto.FLOAT, [None, 10])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *ends, weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    path.write_bytes(model.SerializeToString())
    return path


if __name__ == "__main__":
    main()
