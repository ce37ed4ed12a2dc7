"""A predictor's server as a process of its own, for tests, and clients that count what they lose."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.local.tiny_models import ORDINARY, onnx_model

ROW = json.dumps({"features": [ORDINARY]}).encode()
SERVE = (sys.executable, "-m", "perch.predictor.serve")


@dataclass
class Server:
    """A server that runs: its port, and all that it printed so far."""

    process: subprocess.Popen[bytes]
    lines: list[dict] = field(default_factory=list)
    port: int = 0

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def said(self, event: str) -> list[dict]:
        return [line for line in self.lines if line.get("event") == event]

    def wait_for(self, event: str, times: int = 1, seconds: float = 120) -> list[dict]:
        """Wait until an event was logged so many times."""
        end = time.monotonic() + seconds
        while len(found := self.said(event)) < times:
            assert time.monotonic() < end, f"no {event} in {self.lines[-5:]}"
            time.sleep(0.01)
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code, after all lines are read."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(120)
        self._reader.join(60)
        return code

    def start_reading(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()


@contextlib.contextmanager
def serving(folder: Path, *, command: Sequence[str] = SERVE, workers: int = 1, **environ: str) -> Iterator[Server]:
    """Run a server with a tiny model until the block ends."""
    model = folder / "rows.onnx"
    if not model.exists():
        model.write_bytes(onnx_model(1))
    variables = {"PORT": "0", "HOST": "127.0.0.1", "PERCH_WORKERS": str(workers), "PERCH_MODEL": str(model)}
    process = subprocess.Popen(
        command, env={**os.environ, **variables, "PERCH_DRAIN_S": "0", **environ}, stdout=subprocess.PIPE
    )
    server = Server(process)
    server.start_reading()
    try:
        server.port = server.wait_for("predictor.serving", workers)[0]["port"]
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        server.ended()


def request(path: str, body: bytes = b"", method: str = "POST", headers: Mapping[str, str] | None = None) -> bytes:
    """Write a request."""
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Answer:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict:
        return json.loads(self.body)


class Client:
    """One connection, byte by byte under the test's control."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.file = self.sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, *, head: bool = False) -> Answer:
        """Read one answer. Raises ConnectionError if the connection ends before it does."""
        first = self.file.readline()
        if not first:
            raise ConnectionResetError("closed without an answer")
        headers = {}
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        size = 0 if head else int(headers.get("content-length", 0))
        body = self.file.read(size)
        if len(body) < size:
            raise ConnectionResetError("cut off")
        return Answer(int(first.split()[1]), headers, body)

    def ask(self, path: str, body: bytes = b"", method: str = "POST", **headers: str) -> Answer:
        self.send(request(path, body, method, {name.replace("_", "-"): value for name, value in headers.items()}))
        return self.answer()

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@dataclass
class Load:
    """Clients that ask over and over, each on a connection that it keeps while it may."""

    port: int
    path: str
    body: bytes
    statuses: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def run(self, clients: int) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        return threads

    def _ask(self) -> None:
        client: Client | None = None
        while True:
            if client is None:
                try:
                    client = Client(self.port)
                except ConnectionRefusedError:
                    return  # told at the door: nothing was asked
            try:
                answer = client.ask(self.path, self.body)
            except OSError as error:
                self.lost.append(repr(error))
                return
            self.statuses.append(answer.status)
            if answer.headers.get("connection") == "close":
                client.close()
                client = None
