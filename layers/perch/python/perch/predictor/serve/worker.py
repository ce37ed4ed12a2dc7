"""One worker: a loop for the clients, and beside it one thread that runs the model, one request after the other.

    loop ── requests ──► thread: the handler ── answers ──► loop

Liveness and readiness are answered by the loop itself, from what the handler said of them at the start, so they wait
for no model and are neither logged nor counted. A model that hangs would leave them as they are and answer nobody; no
thread can be stopped, so the process ends (`request_s`), as a function does at its timeout. Who hung up before the
model got to his request is not computed for.

How it stops, at a signal (`supervisor.STOPS`):

1. It is no longer ready, and every answer closes its connection; new clients are still served, because load balancers
   need a moment to notice (`drain_s`).
2. It takes in who is on the way, and closes the port (`port`).
3. Requests in flight are answered, and clients that were about to ask another one too: a connection is closed when
   nothing was asked of it for `_QUIET_S`. After `stop_s`, or at a second signal, what is left is cut off.
"""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import uvloop

from perch.http.answer import DateLine
from perch.http.connection import Connection, Limits, Request, end_overdue
from perch.predictor import telemetry
from perch.predictor.body import MAX_BODY
from perch.predictor.handler import Handler

from .exchange import Context, make_event, method_of, path_of, refusal, to_bytes
from .files import make_room, watch_files
from .port import let_in, shut_out
from .settings import ServeSettings
from .supervisor import STOPS

_MAX_HEAD = 16_384
_QUIET_S = 0.5
_LOOKS, _LOOK_S = 5, 0.02
"""What is said to be so has to be so at five looks in a row. A process that did not run for a while finds its timers
due and, behind them, what clients sent meanwhile; the loop reads that between two looks."""

_HEALTH = ("/v2/health/live", "/v2/health/ready", "/ping", "/health")
_SHUTTING_DOWN = "this server is shutting down"
_PROBE_STAGE = "perch-probe"  # asked with this stage, the handler counts nothing


class Worker:
    """Serves one handler on one port."""

    def __init__(self, handler: Handler, settings: ServeSettings, *, revision: str, random: Random) -> None:
        """Prepare to serve.

        Args:
            handler: takes events and returns answers; called on one thread only.
            settings: how.
            revision: what answers and metrics call this deployment.
            random: where request ids come from.
        """
        self._handler = handler
        self._settings = settings
        self._revision = revision
        self._random = random
        self._connections: set[Connection] = set()
        self._room = settings.connections
        self._asked: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._answered: deque[tuple[Request, dict[str, Any]]] = deque()
        self._woken = False
        self._running: Request | None = None
        self._date = DateLine()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._health = {path: self._ask_health(path) for path in _HEALTH}

    def run(self, sock: socket.socket, started: Callable[[], object] = lambda: None) -> bool:
        """Serve until a signal comes.

        Args:
            sock: bound, not yet listening.
            started: called when clients are served.

        Returns:
            Whether every request was answered.
        """
        done: bool = uvloop.run(self._run(sock, started))
        return done

    async def _run(self, sock: socket.socket, started: Callable[[], object]) -> bool:
        self._loop = loop = asyncio.get_running_loop()
        for one in STOPS:
            loop.add_signal_handler(one, self._stop)
        threading.Thread(target=self._work, name="model", daemon=True).start()
        settings = self._settings
        self._room = make_room(settings.connections)
        limits = Limits(head=_MAX_HEAD, body=MAX_BODY, receive_s=settings.receive_s, idle_s=settings.idle_s)
        server = await loop.create_server(lambda: Connection(self, limits, loop.time), sock=sock, backlog=1024)
        watching = (end_overdue(self._connections, limits), self._end_if_it_hangs(), watch_files())
        watches = [loop.create_task(watch) for watch in watching]
        started()
        port = sock.getsockname()[1]
        telemetry.write({"level": "INFO", "event": "predictor.serving", "port": port, "process": os.getpid()})
        await self._stopping.wait()
        telemetry.write({"level": "INFO", "event": "predictor.draining", "connections": len(self._connections)})
        await self._until(lambda: False, self._settings.drain_s)
        shut_out(sock)
        await self._until(lambda: True, self._settings.stop_s)  # who is on the way in is let in before the port closes
        server.close()
        done = await self._until(self._finished, self._settings.stop_s)
        left = sum(connection.idle_s == 0 for connection in self._connections)
        for watch in watches:
            watch.cancel()
        for connection in list(self._connections):
            connection.close() if done else connection.abort()
        telemetry.write({"level": "INFO" if done else "ERROR", "event": "predictor.stopped", "cut_off": left})
        return not left

    # For connections

    def opened(self, connection: Connection) -> None:
        """A client connected."""
        self._connections.add(connection)
        if self._stopping.is_set():
            let_in(connection.descriptor)
        if len(self._connections) > self._room:
            connection.refuse(503, f"this server takes {self._room:,} clients at a time; come again")

    def closed(self, connection: Connection) -> None:
        """A client is gone."""
        self._connections.discard(connection)

    def handle(self, request: Request) -> None:
        """Serve one request; its answer comes later, unless it asks for health."""
        path, _ = path_of(request.target)
        asks = method_of(request) == "GET"
        if asks and path in self._health:
            self._send(request, self._tell_health(path))
        elif asks and path.endswith("/ready") and self._stopping.is_set():
            self._send(request, refusal(503, _SHUTTING_DOWN))
        else:
            self._asked.put(request)

    def refuse(self, request: Request, status: int, sentence: str) -> bytes:
        """Tell a request that cannot be served why, and the log too."""
        line = {"level": "INFO", "event": "predictor.refused", "status": status, "error": sentence}
        telemetry.write({**line, "client": request.connection.client})
        return to_bytes(request, refusal(status, sentence), date=self._date.now(), keep_alive=False)

    # The model's thread

    def _work(self) -> None:
        while True:
            request = self._asked.get()
            if request.connection.gone:
                self._loop.call_soon_threadsafe(self._abandon, request.connection)
                continue
            self._running = request
            self._answered.append((request, self._call(request)))
            self._running = None
            if not self._woken:  # else the loop is on its way already
                self._woken = True
                self._loop.call_soon_threadsafe(self._pass_on)

    def _call(self, request: Request) -> dict[str, Any]:
        request_id = f"{self._random.getrandbits(128):032x}"
        path, query = path_of(request.target)
        event = make_event(request, path, query, request_id=request_id, at=time.time_ns() // 1_000_000)
        try:
            return self._handler(event, Context(request_id, self._revision))
        except Exception as error:  # noqa: BLE001 - the handler answers all that is foreseen; one request ends no worker
            telemetry.write_failure("predictor.handler_raised", error, request_id=request_id)
            return refusal(500, f"the predictor failed (request {request_id})")

    async def _end_if_it_hangs(self) -> None:
        """End this process when the model does not end; looks are counted, as a process may stand still for a while."""
        seconds, pause = self._settings.request_s, min(1.0, self._settings.request_s / 4)
        seen, looks = None, 0
        while looks * pause < seconds:
            await asyncio.sleep(pause)
            looks = looks + 1 if seen is not None and seen is self._running else 0
            seen = self._running
        sentence = f"the model did not answer within {seconds:g} s"
        telemetry.write({"level": "ERROR", "event": "predictor.hangs", "error": sentence})
        if seen is not None:
            self._send(seen, refusal(504, sentence))
            await asyncio.sleep(_LOOK_S)
        os._exit(1)

    def _pass_on(self) -> None:
        """On the loop: send what the thread has answered."""
        self._woken = False
        while self._answered:
            request, answer = self._answered.popleft()
            try:
                self._send(request, answer)
            except Exception as error:  # noqa: BLE001 - as above
                telemetry.write_failure("predictor.not_sent", error)
                request.connection.abort()

    def _abandon(self, connection: Connection) -> None:
        """On the loop: forget a client who hung up while its request waited for the model."""
        telemetry.write({"level": "INFO", "event": "predictor.abandoned", "client": connection.client})
        connection.abort()

    def _send(self, request: Request, answer: dict[str, Any]) -> None:
        keep = request.keep_alive and not self._stopping.is_set()
        data = to_bytes(request, answer, date=self._date.now(), keep_alive=keep)
        request.connection.send(data, keep_alive=keep)

    # Health

    def _ask_health(self, path: str) -> dict[str, Any]:
        request_id = "health"
        http = {"method": "GET", "path": path}
        event = {"headers": {}, "requestContext": {"http": http, "stage": _PROBE_STAGE}, "body": b""}
        answer = self._handler(event, Context(request_id, self._revision))
        kept = {name: value for name, value in answer["headers"].items() if name != "x-request-id"}
        return {**answer, "headers": kept}

    def _tell_health(self, path: str) -> dict[str, Any]:
        if self._stopping.is_set() and not path.endswith("/live"):
            return refusal(503, _SHUTTING_DOWN)
        return self._health[path]

    # Stopping

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def _finished(self) -> bool:
        return all(connection.idle_s > _QUIET_S for connection in self._connections)

    async def _until(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is so, for some seconds at most, or until there is no time for it."""
        end = self._loop.time() + seconds
        looks = 0
        while looks < _LOOKS:
            await asyncio.sleep(_LOOK_S)
            looks = looks + 1 if reached() else 0
            if looks == 0 and (self._loop.time() >= end or self._hurry.is_set()):
                return False
        return True
