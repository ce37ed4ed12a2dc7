"""The local cloud's end of the fork server: start workers, kill them, hear of their end.

One socket carries all of it, one JSON message a packet; the write end of a worker's log pipe travels with its spawn
request. A fork server that died has taken its workers with it: each of them is reported as killed, and the next spawn
starts another.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ZYGOTE = Path(__file__).with_name("zygote.py")
MESSAGE_LIMIT = 1 << 20

PRELOADED = (
    *("json", "logging", "traceback", "http.client", "ssl", "concurrent.futures", "decimal", "uuid", "hashlib"),
    *("datetime", "base64", "tempfile", "simplejson", "awslambdaric", "awslambdaric.lambda_context"),
    *("boto3", "botocore.session", "botocore.httpsession", "botocore.client", "botocore.signers", "boto3.session"),
    *("aws_lambda_powertools", "aws_lambda_powertools.logging", "aws_lambda_powertools.metrics"),
)
"""Imported by nearly every control function; nothing here reads a variable that differs between functions."""


@dataclass(frozen=True, kw_only=True)
class Spawn:
    """All that a process needs to become the worker of one function version."""

    path: tuple[str, ...]
    directory: str
    handler: str
    environment: Mapping[str, str]


@dataclass
class _Watch:
    started: Callable[[int], None]
    ended: Callable[[int], None]


@dataclass
class Spawner:
    """Starts workers by forking; all methods belong to the loop's thread."""

    loop: asyncio.AbstractEventLoop
    python: str
    pycache: str
    preloaded: tuple[str, ...] = PRELOADED
    _socket: socket.socket | None = None
    _process: subprocess.Popen[bytes] | None = None
    _watches: dict[int, _Watch] = field(default_factory=dict)
    _last: int = 0

    def start(self) -> None:
        """Start the fork server, which imports in the background; requests wait in its socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_LIMIT)
        runtime = f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}"
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own script with our own arguments
                [
                    *(self.python, "-I", "-X", "utf8", str(ZYGOTE)),
                    *(str(theirs.fileno()), str(os.getpid()), ",".join(self.preloaded)),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", ""), "AWS_EXECUTION_ENV": runtime, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket = ours
        self.loop.add_reader(ours.fileno(), self._read)

    def spawn(self, spawn: Spawn, output: int, started: Callable[[int], None], ended: Callable[[int], None]) -> int:
        """Ask for a worker whose stdout and stderr are the file descriptor `output`.

        Args:
            spawn: What to run.
            output: Write end of the log pipe; the caller closes its own copy afterwards.
            started: Called with the process id.
            ended: Called once with the wait status.

        Returns:
            A number to name the worker by.
        """
        if self._socket is None:
            self.start()
        self._last += 1
        self._watches[self._last] = _Watch(started, ended)
        message = {
            "number": self._last,
            "path": spawn.path,
            "directory": spawn.directory,
            "handler": spawn.handler,
            "environment": dict(spawn.environment),
            "pycache": self.pycache,
        }
        if self._socket is not None:
            with suppress(BrokenPipeError, ConnectionResetError):  # it died; `_read` will hear, and report this one too
                socket.send_fds(self._socket, [json.dumps(message).encode()], [output])
        return self._last

    def kill(self, number: int) -> None:
        """Kill a worker and all that it started; its `ended` is called when it is gone."""
        if self._socket is not None and number in self._watches:
            with suppress(BrokenPipeError, ConnectionResetError):
                self._socket.send(json.dumps({"kill": number}).encode())

    def stop(self) -> None:
        """Kill everything and wait for the fork server to be gone."""
        if self._socket is not None:
            self.loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._process.kill()  # still importing; it has no workers yet, or takes them with it
                self._process.wait()
            self._process = None
        self._watches.clear()

    def _read(self) -> None:
        while self._socket is not None:
            try:
                packet = self._socket.recv(MESSAGE_LIMIT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                packet = b""
            if not packet:
                self._lost()
                return
            message = json.loads(packet)
            watch = self._watches.get(message["number"])
            if watch is None:
                continue
            if "pid" in message:
                watch.started(message["pid"])
            else:
                del self._watches[message["number"]]
                watch.ended(message["exit"])

    def _lost(self) -> None:
        """The fork server died, and the kernel killed its workers with it."""
        watches = list(self._watches.values())
        self.stop()
        for watch in watches:
            watch.ended(int(signal.SIGKILL))
