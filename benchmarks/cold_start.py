"""Cold starts: process start to first answer, per runtime, against the least that it could take.

    python -m benchmarks.cold_start [--rounds 15]

`perch` is a predictor's own handler in a fresh process, as Lambda's bootstrap imports it: the model is fetched from a
local store (strict moto), verified, loaded and warmed, and one request is answered. `floor` is a bare script in a fresh
process: import the engine, load the same file from disk, run one row. Both start the same interpreter and take turns.
What Perch does beside the floor (fetch, hash, checks, JSON, metrics) is the difference; the aim is a tenth.

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
from typing import Any

from benchmarks.load_weights import put, store
from benchmarks.report import save

ROOT = Path(__file__).resolve().parents[1]
AIM = 1.10
ROW = [0.5] * 64

PERCH = """
import json, sys
sys.path[:0] = [sys.argv[1]]
from types import SimpleNamespace
import handler
context = {"http": {"method": "POST", "path": "/models/m/predict"}, "stage": "$default", "timeEpoch": 1}
event = {"version": "2.0", "rawPath": "/models/m/predict", "headers": {"content-type": "application/json"},
         "requestContext": context, "body": json.dumps({"features": [[0.5] * 64]}), "isBase64Encoded": False}
answer = handler.handler(event, SimpleNamespace(aws_request_id="r", function_version="1"))
assert answer["statusCode"] == 200, answer
"""

FLOORS = {
    "onnx": """
import sys
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: np.full((1, 64), 0.5, dtype=np.float32)})
""",
    "torch": """
import sys
import numpy as np, torch
from safetensors.torch import load_file
tensors = load_file(sys.argv[1])
with torch.device("meta"):
    module = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
module.load_state_dict(tensors, assign=True)
with torch.inference_mode():
    module(torch.from_numpy(np.full((1, 64), 0.5, dtype=np.float32))).numpy()
""",
    "numpy": """
import sys
import numpy as np
from safetensors.numpy import load_file
tensors = load_file(sys.argv[1])
hidden = np.maximum(np.full((1, 64), 0.5, dtype=np.float32) @ tensors["0.weight"].T + tensors["0.bias"], 0)
hidden @ tensors["2.weight"].T + tensors["2.bias"]
""",
    "sklearn": """
import sys
import numpy as np, skops.io
model = skops.io.load(sys.argv[1], trusted=skops.io.get_untrusted_types(file=sys.argv[1]))
model.predict(np.full((1, 64), 0.5))
""",
}
FORMATS = {"onnx": "onnx", "torch": "safetensors", "numpy": "safetensors", "sklearn": "skops"}
IMPORTS = ("numpy", "onnxruntime", "torch", "sklearn", "msgspec", "boto3", "perch.predictor.handler")


def main() -> None:
    """Measure and save."""
    reader = argparse.ArgumentParser()
    reader.add_argument("--rounds", type=int, default=15)
    reader.add_argument("--runtimes", default=",".join(FLOORS))
    asked = reader.parse_args()
    load = os.getloadavg()
    found: dict[str, Any] = {"rounds": asked.rounds, "aim": AIM, "runtimes": {}, "left_out": {}}
    with tempfile.TemporaryDirectory() as folder, store() as environ:
        for runtime in asked.runtimes.split(","):
            path = Path(folder) / f"model.{FORMATS[runtime]}"
            try:
                write(runtime, path)
                found["runtimes"][runtime] = measure(runtime, path, environ, asked.rounds)
            except (ImportError, RuntimeError) as error:
                found["left_out"][runtime] = str(error)[-300:]
            print(runtime, found["runtimes"].get(runtime) or found["left_out"][runtime])
    found["imports_ms"] = imports(asked.rounds)
    print(found["imports_ms"])
    save("cold_start", found, packages=("numpy", "onnxruntime", "torch", "msgspec", "boto3"), load=load)


def measure(runtime: str, path: Path, store_environ: Mapping[str, str], rounds: int) -> dict[str, float]:
    """Start each in turn; milliseconds."""
    data = path.read_bytes()
    version = put(store_environ, path.name, path)
    pointer = {
        "model": "m", "version": "v1", "key": f"models/m/v1/{path.name}", "version_id": version,
        "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "format": FORMATS[runtime],
    }  # fmt: skip
    environ = {
        **store_environ, "PERCH_ENDPOINT": "m", "PERCH_STORE": "store", "PERCH_POINTER": json.dumps(pointer),
        "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"],
    }  # fmt: skip
    jobs = {
        "perch": [sys.executable, "-c", PERCH, str(ROOT / "functions" / f"predict_{runtime}")],
        "floor": [sys.executable, "-c", FLOORS[runtime], str(path)],
    }
    times = turns(jobs, environ, rounds)
    medians = {name: statistics.median(took) for name, took in times.items()}
    return {
        **{f"{name}_ms": round(1000 * took, 1) for name, took in medians.items()},
        "ratio": round(medians["perch"] / medians["floor"], 3),
        "ratio_of_fastest": round(min(times["perch"]) / min(times["floor"]), 3),
    }


def imports(rounds: int) -> dict[str, float]:
    """Milliseconds that importing takes, the least of all rounds; less an interpreter that imports nothing."""
    jobs = {"": [sys.executable, "-c", ""]} | {n: [sys.executable, "-c", f"import {n}"] for n in IMPORTS}
    times = turns(jobs, {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}, min(rounds, 7))
    bare = min(times.pop(""))
    return {name: round(1000 * (min(took) - bare), 1) for name, took in times.items()}


def turns(jobs: Mapping[str, Sequence[str]], environ: Mapping[str, str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each command, run in turns; one round before them is not counted."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, command in jobs.items():
            began = time.perf_counter()
            done = subprocess.run(command, env=dict(environ), capture_output=True, text=True, check=False)
            took = time.perf_counter() - began
            if done.returncode:
                raise RuntimeError(done.stderr)
            if number:
                times[name].append(took)
    return times


def write(runtime: str, path: Path) -> None:
    """A small model of the runtime: 64 features, ten classes."""
    if runtime == "sklearn":
        import numpy as np
        import skops.io
        from sklearn.linear_model import LogisticRegression

        rng = np.random.default_rng(0)
        rows = rng.normal(size=(200, 64))
        skops.io.dump(LogisticRegression(max_iter=50).fit(rows, np.arange(200) % 10), path)
        return
    if runtime in ("torch", "numpy"):
        import torch

        from perch.predictor.torch_export import export_safetensors

        layers = torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        export_safetensors(torch.nn.Sequential(*layers), path)
        return
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


if __name__ == "__main__":
    main()
