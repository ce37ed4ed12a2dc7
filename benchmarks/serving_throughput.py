"""Throughput and latency of servers that speak the Open Inference Protocol: Perch's two ways, and five others.

    python -m benchmarks.serving_throughput [--seconds 6] [--rounds 3] [--only perch,triton] [--install]

The same small ONNX model (64-64-10), the same JSON request, the same load generator (wrk, 16 and 64 connections), the
same two cores, which wrk shares. In each round each server is started, asked once and its answer compared with the
model's own, warmed for a second, measured at 16 and at 64 connections, and stopped, so that a busy minute of the
machine hits all alike. `cpu_us` is the processor time of the server's processes for one request, `processes` how many
they were. Each is measured with one worker and with two (`-2`), by the setting that its documents name for it, because
what is better on two cores depends on the server; sessions take one thread, and nobody writes a line for each request
to a disk or reports to its maker.

Each peer comes from PyPI into an environment of its own (`.perch/bench/<name>`, from `benchmarks/peers/<name>.txt`,
`--install` makes them all and measures nothing), with its smallest server file beside it. One that cannot be installed
or started is left out with its reason in the result. BentoML and LitServe have no such protocol; their handlers read
and write its JSON by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.gateway_throughput import children_of, model_bytes, processor_seconds
from benchmarks.load import need_wrk, post
from benchmarks.report import save

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).parent / "peers"
ENVIRONMENTS = ROOT / ".perch" / "bench"
CONNECTIONS = (16, 64)
ROW = [round(0.1 * number, 1) for number in range(64)]
HEADERS = {"Content-Type": "application/json"}


class LeftOut(Exception):
    """A server cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Server:
    """How a server is started, in which environment ("" is the project's own), and whose version is told."""

    command: tuple[str, ...]
    peer: str = ""
    package: str = ""
    workers: int = 1

    def start(self, model: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
        """Start it in a process group of its own."""
        home = ENVIRONMENTS / self.peer / "bin" if self.peer else Path(sys.executable).parent
        environ = {
            **os.environ,
            "MODEL": str(model),
            "PORT": str(port),
            "PERCH_MODEL": str(model),
            "PERCH_MODEL_NAME": "bench",
            "PATH": f"{home}:{os.environ['PATH']}",
            "PERCH_WORKERS": str(self.workers),
            "WORKERS": str(self.workers),
            "BENTOML_DO_NOT_TRACK": "True",
            "ORT_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": "" if self.peer else str(ROOT),
        }
        program, *arguments = (part.format(port=port) for part in self.command)
        return subprocess.Popen(
            [str(home / program), *arguments],
            cwd=PEERS if self.peer else ROOT,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=log.open("w"),
            start_new_session=True,
        )


PEERS_OF = {
    "mlserver": Server(("python", "mlserver_server.py"), "mlserver", "mlserver"),
    "triton": Server(("python", "triton_server.py"), "triton", "nvidia-pytriton"),
    "kserve": Server(("python", "kserve_server.py"), "kserve", "kserve"),
    "litserve": Server(("python", "litserve_server.py"), "litserve", "litserve"),
    "bentoml": Server(("bentoml", "serve", "bentoml_server:Bench", "--port", "{port}"), "bentoml", "bentoml"),
}
_ONE = {"perch": Server(("python", "-m", "perch.predictor.serve")), **PEERS_OF}
SERVERS = {
    **_ONE,
    **{f"{name}-2": replace(server, workers=2) for name, server in _ONE.items()},
    "perch-local-lambda-2": Server(("python", "-m", "benchmarks.peers.perch_lambda_server"), workers=2),
}


def install(peer: str) -> None:
    """Make a peer's environment, again when its pins change. Raises `LeftOut`."""
    home, pins = ENVIRONMENTS / peer, PEERS / f"{peer}.txt"
    stamp, wanted = home / ".installed", hashlib.sha256(pins.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"{peer}: installing", flush=True)
    # Triton's Python backend loads the system's shared libpython, and has to find the library of the same Python.
    python = "/usr/bin/python3" if peer == "triton" else sys.executable
    subprocess.run([python, "-m", "venv", "--clear", home], check=True)
    done = subprocess.run(
        [home / "bin" / "pip", "install", "-q", "-r", pins], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise LeftOut(f"it cannot be installed: {done.stderr.strip().splitlines()[-1][:200]}")
    stamp.write_text(wanted)


@contextlib.contextmanager
def serving(server: Server, model: Path, expected: list[float]) -> Iterator[tuple[str, int]]:
    """Run a server, once it answers as the model does; yield its URL and process id. Raises `LeftOut`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = model.with_name("server.log")
    process = server.start(model, port, log)
    url = f"http://127.0.0.1:{port}/v2/models/bench/infer"
    try:
        _wait(url, expected, process, log)
        yield url, process.pid
    finally:
        for number, seconds in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(seconds)


def _wait(url: str, expected: list[float], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 90
    while True:
        try:
            given = _ask(url)
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise LeftOut(f"it does not serve ({error}): {log.read_text().strip()[-300:]}") from error
            time.sleep(0.1)
        else:
            if not np.allclose(given, expected, atol=1e-5):
                raise LeftOut(f"it answers {given[:3]}… where the model gives {expected[:3]}…")
            return


def request_body() -> bytes:
    """Return the request that everybody gets."""
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": ROW}
    return json.dumps({"inputs": [tensor]}).encode()


def _ask(url: str) -> list[float]:
    asked = urllib.request.Request(url, request_body(), HEADERS)  # noqa: S310 - our own server
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - as above
        found: list[float] = json.load(answer)["outputs"][0]["data"]
        return list(np.ravel(found))


def measure(url: str, pid: int, *, seconds: int, connections: int) -> dict[str, float]:
    """Load a server for some seconds; return what wrk found and the processor time of one request."""
    pids = [pid, *children_of(pid)]
    before = processor_seconds(pids)
    found = post(url, request_body(), HEADERS, seconds=seconds, connections=connections)
    found["cpu_us"] = round((processor_seconds(pids) - before) / found["requests"] * 1e6)
    found["processes"] = len(pids)
    return found


def version_of(server: Server) -> str:
    """Return the version of a peer's package, from its pins."""
    lines = (PEERS / f"{server.peer}.txt").read_text().splitlines() if server.peer else []
    return next((line.partition("==")[2] for line in lines if line.startswith(f"{server.package}==")), "this project")


def run_rounds(names: list[str], *, seconds: int, rounds: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure all servers in turn; return results by server, and why others were left out."""
    results: dict[str, dict[int, list[dict[str, float]]]] = {name: {c: [] for c in CONNECTIONS} for name in names}
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "bench.onnx"
        model.write_bytes(model_bytes())
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        expected = session.run(None, {"x": np.array([ROW], dtype=np.float32)})[0].ravel().tolist()
        for number in range(rounds):
            for name in names:
                if name in left_out:
                    continue
                server = SERVERS[name]
                try:
                    if server.peer:
                        install(server.peer)
                    with serving(server, model, expected) as (url, pid):
                        post(url, request_body(), HEADERS, seconds=1, connections=16)
                        for connections in CONNECTIONS:
                            found = measure(url, pid, seconds=seconds, connections=connections)
                            results[name][connections].append(found)
                            _tell(f"{number + 1} {name}", connections, found)
                except (LeftOut, RuntimeError) as error:
                    left_out[name] = str(error)
                    print(f"{name} is left out: {error}", flush=True)
    return {name: _summary(found) for name, found in results.items() if name not in left_out}, left_out


def _summary(found: Mapping[int, list[dict[str, float]]]) -> dict[str, Any]:
    """The median round of each number, and every round."""
    return {
        f"{connections} connections": {
            "median": {key: statistics.median(one[key] for one in rounds) for key in rounds[0]},
            "rounds": rounds,
        }
        for connections, rounds in found.items()
    }


def _tell(what: str, connections: int, found: Mapping[str, float]) -> None:
    numbers = "  ".join(f"{key} {value:g}" for key, value in found.items())
    print(f"{what:24} {connections:3} connections  {numbers}", flush=True)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(SERVERS), help="names, separated by commas")
    parser.add_argument("--install", action="store_true", help="make the peers' environments, and stop")
    options = parser.parse_args()
    if options.install:
        for name in PEERS_OF:
            install(name)
        return
    need_wrk()
    load = os.getloadavg()
    asked = options.only.split(",")
    results, left_out = run_rounds(asked, seconds=options.seconds, rounds=options.rounds)
    for name, found in results.items():
        for connections in CONNECTIONS:
            _tell(f"median {name}", connections, found[f"{connections} connections"]["median"])
    save(
        "serving_throughput",
        {
            "servers": {
                name: {"version": version_of(SERVERS[name]), "workers": SERVERS[name].workers} for name in asked
            },
            "results": results,
            "left_out": left_out,
        },
        packages=("httptools", "msgspec", "numpy", "onnxruntime", "uvloop"),
        load=load,
    )


if __name__ == "__main__":
    main()
