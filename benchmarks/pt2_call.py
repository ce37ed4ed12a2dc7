"""What one call of a torch model costs, by how it is loaded: row in as an array, answer out as an array.

    python -m benchmarks.pt2_call

The same network three ways in torch itself (the module, `ExportedProgram.module()`, frozen TorchScript with its own
optimiser) and three ways as Perch serves it (`.pt2` by our own loader, TorchScript, declared layers). Timed in turns,
so that a busy machine is unfair to none; medians and the best round are printed and saved to
benchmarks/results/pt2_call.json, with how long loading took from bytes in memory.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.report import save
from perch.export.torch_export import to_safetensors
from perch.export.torch_programs import export_pt2, export_torchscript
from perch.predictor.runtimes.pt2 import load_pt2
from perch.predictor.runtimes.torch import load_torch
from perch.predictor.runtimes.torchscript import load_torchscript

ROUNDS, CALLS = 60, 200

MODELS: dict[str, nn.Module] = {
    "MLP 64-32-10": nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), nn.Softmax(dim=-1)),
    "MLP of 12 layers": nn.Sequential(
        *(layer for _ in range(11) for layer in (nn.Linear(64, 64), nn.ReLU())), nn.Linear(64, 10)
    ),
}


def main() -> None:
    """Time, print, save."""
    warnings.simplefilter("ignore")
    load = os.getloadavg()
    torch.set_num_threads(1)
    found = {name: _results(module.eval()) for name, module in MODELS.items()}
    for name, results in found.items():
        print(name)
        for way, row in results.items():
            median, best, load_ms = row.values()
            print(f"  {way:38} median {median:7.1f} µs  best {best:7.1f}  load {load_ms:8.1f} ms")
    workload = f"one row of 64 float32, {ROUNDS} rounds of {CALLS} calls of each, one thread, inference mode"
    print(save("pt2_call", {"workload": workload, "results": found}, packages=("torch", "numpy"), load=load))


def _results(module: nn.Module) -> dict[str, dict[str, float]]:
    rows = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
    program, script = _files(module)
    layers = to_safetensors(module)
    loaders: dict[str, Callable[[], Callable[[Any], Any]]] = {
        "torch: the module": lambda: _in_torch(module),
        "torch: ExportedProgram.module()": lambda: _in_torch(torch.export.load(io.BytesIO(program)).module()),
        "torch: TorchScript, frozen": lambda: _in_torch(torch.jit.freeze(torch.jit.load(io.BytesIO(script)).eval())),
        "perch: .pt2": lambda: load_pt2(program).run,
        "perch: TorchScript": lambda: load_torchscript(script).run,
        "perch: declared layers (safetensors)": lambda: load_torch(layers).run,
    }
    calls, loading = {}, {}
    for way, loader in loaders.items():
        begin = time.perf_counter()
        calls[way] = loader()
        loading[way] = (time.perf_counter() - begin) * 1e3
        for _ in range(CALLS):
            calls[way](rows)
    times: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(ROUNDS):
        for way, call in calls.items():
            begin = time.perf_counter()
            for _ in range(CALLS):
                call(rows)
            times[way].append((time.perf_counter() - begin) / CALLS * 1e6)
    return {
        way: {
            "median_us": round(statistics.median(took), 2),
            "best_us": round(min(took), 2),
            "load_ms": round(loading[way], 2),
        }
        for way, took in times.items()
    }


def _in_torch(module: Any) -> Callable[[Any], Any]:
    """What a person would write around a module of torch."""

    def call(rows: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(rows)).numpy()

    return call


def _files(module: nn.Module) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        program, script = Path(folder) / "model.pt2", Path(folder) / "model.ts"
        export_pt2(module, program, torch.zeros(2, 64))
        export_torchscript(module, script, torch.zeros(2, 64))
        return program.read_bytes(), script.read_bytes()


if __name__ == "__main__":
    main()
