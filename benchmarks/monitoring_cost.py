"""What monitoring costs: metrics, the log line and capture on, against none of them, as a share of a request.

    python -m benchmarks.monitoring_cost

Off is the same handler with its journal (`perch.predictor.journal`) taken away; nobody can deploy that. On are metrics
with the log line alone (what is always there), and with 10 % or all of the requests captured. The share depends on
what it is a share of, so three denominators are told, each measured on and off in turns:

    handler, digits    the handler with a model of 7 µs: the worst case, and no request that a client can send
    handler, 1 ms      the handler with a model of about 1 ms, which is what Lambda bills by
    over HTTP          one request as a client sees it: the container's server on loopback, one connection, digits. An
                       HTTP API in front of Lambda takes several milliseconds more, so the share there is smaller.

The differences in microseconds are what to look at on a machine of one's own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.asking import Call, call, event, hidden, perch, timed
from benchmarks.report import save
from benchmarks.written_handlers import PREDICT, Handler
from examples.digits.train import held_out, train
from perch.predictor.journal import Journal

ROUNDS, CALLS = 40, 100
WAYS = {"off": None, "metrics": "0", "metrics, 10 % captured": "0.1", "metrics, all captured": "1"}


def main() -> None:
    """Time, print, save."""
    load = os.getloadavg()
    row = held_out().features[:1].tolist()
    wide = np.random.default_rng(0).random((1, 784)).tolist()
    found = {
        "handler, digits": _compared(timed(_cases(train("onnx", "v2"), row), rounds=ROUNDS, calls=CALLS)),
        "handler, 1 ms": _compared(timed(_cases(hidden(784, 6_000, 10), wide), rounds=ROUNDS, calls=CALLS // 10)),
        "over HTTP": _compared(_over_http(row)),
    }
    for name, rows in found.items():
        print(name)
        for way, told in rows.items():
            print(f"  {way:24} median {told['median_us']:9.2f} µs  costs {told['costs_us']:6.2f}  {told['share']:.1%}")
    save(
        "monitoring_cost",
        {"workload": f"1 row; {ROUNDS} rounds of {CALLS} calls of each (1 ms: {CALLS // 10})", "results": found},
        packages=("onnxruntime", "numpy", "msgspec"),
        load=load,
    )


def _cases(data: bytes, row: Any) -> dict[str, Call]:
    return {way: call(_handler(data, share), event({"features": row})) for way, share in WAYS.items()}


def _handler(data: bytes, share: str | None) -> Handler:
    """Our handler; without a share it writes nothing."""
    handler = perch(data, PERCH_CAPTURE=share or "0")
    return handler if share is not None else _without_journal(handler)


def _without_journal(handler: Handler) -> Handler:
    """The same handler, whose journal is closed."""
    cells = dict(zip(handler.__code__.co_freevars, handler.__closure__ or (), strict=True))

    class Closed(Journal):
        def write(self, *_: Any) -> None:
            """Write nothing."""

    journal = cells["journal"].cell_contents
    cells["journal"].cell_contents = Closed(endpoint=journal.endpoint, share=0.0, salt="")
    return handler


def _compared(timings: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    medians = {way: statistics.median(values) for way, values in timings.items()}
    off = medians["off"]
    return {
        way: {
            "median_us": round(us, 2),
            "costs_us": round(us - off, 2),
            "share": round((us - off) / us, 4),
        }
        for way, us in medians.items()
    }


# -- over HTTP ----------------------------------------------------------------------------------------------------


def _over_http(row: Any) -> dict[str, list[float]]:
    """Microseconds of requests to four servers, in turns."""
    body, headers = json.dumps({"features": row}), {"content-type": "application/json"}
    with _servers() as ports:
        clients = {way: http.client.HTTPConnection("127.0.0.1", port) for way, port in ports.items()}

        def ask(client: http.client.HTTPConnection) -> None:
            client.request("POST", PREDICT, body, headers)
            client.getresponse().read()

        for client in clients.values():
            client.connect()
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return timed(
            {way: lambda client=client: ask(client) for way, client in clients.items()},  # type: ignore[misc]  # a default
            rounds=ROUNDS,
            calls=CALLS,
        )


@contextmanager
def _servers() -> Iterator[dict[str, int]]:
    """Run one server for each way; each writes its log lines to nowhere."""
    running, ports = [], {}
    try:
        for way in WAYS:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports[way] = free.getsockname()[1]
            command = [sys.executable, "-m", "benchmarks.monitoring_cost", "--way", way, "--port", str(ports[way])]
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        for port in ports.values():
            _wait_for(port)
        yield ports
    finally:
        for one in running:
            one.terminate()
        for one in running:
            one.wait(30)


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("a server did not start")


def _serve(way: str, port: int) -> None:
    """Be one server."""
    from perch.predictor.serve.settings import ServeSettings
    from perch.predictor.serve.worker import Worker

    settings = ServeSettings(host="127.0.0.1", port=port, drain_s=0.0)
    handler = _handler(train("onnx", "v2"), WAYS[way])
    with socket.socket() as sock, Path(os.devnull).open("w") as sys.stdout:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((settings.host, settings.port))
        Worker(handler, settings, revision="7", random=Random(1)).run(sock)  # noqa: S311 - names of requests


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--port", type=int)
    asked = parser.parse_args()
    if asked.way:
        _serve(asked.way, asked.port)
    else:
        main()
