"""The HTTP API front: an API Gateway HTTP API with Lambda proxy integrations, on the data plane's own loop.

    request ─▶ route ─▶ signature (AWS_IAM) ─▶ event (payload 2.0) ─▶ DataPlane ─▶ answer

It keeps nothing of a request and logs nothing; functions do. Virtual time is held while a request is served, from
before its time is read until its answer is written, so the metrics of a request never arrive behind the clock.

A function that takes longer than the integration's timeout is answered for with 503, as HTTP APIs do, and runs on. A
throttled one is a 503 too; a failed one is a 500. Sizes are bounded as documented: 10,240 bytes of request line and
headers, 10 MB of body. How long clients may take is not documented; here it is half a minute for a request and five
minutes between two. Left out: CORS, throttling by the stage, access logs, mutual TLS, custom domains.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from random import Random

from perch.http.answer import DateLine, write_answer
from perch.http.connection import Connection, Limits, Request, end_overdue
from perch.local.compute import DataPlane
from perch.local.gateway import answer as answers
from perch.local.gateway import event, sigv4
from perch.local.gateway.answer import Answer
from perch.local.gateway.router import Router
from perch.local.ports import Clock, Invocation, Refused, Routes

LIMITS = Limits(head=10_240, body=10 * 1024 * 1024, receive_s=30, idle_s=300)


def _real_now() -> datetime:
    return datetime.now(UTC)


class Gateway:
    """Serves the routes of the deployed HTTP APIs."""

    def __init__(
        self,
        dataplane: DataPlane,
        routes: Routes,
        clock: Clock,
        *,
        credentials: Mapping[str, str] | None = None,
        account_id: str = "123456789012",
        api_id: str = "local",
        region: str = "us-east-1",
        real_now: Callable[[], datetime] = _real_now,
        random: Random | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        """Make a gateway; `start` opens its port.

        Args:
            dataplane: Runs the functions; must be started first.
            routes: What to serve; read again whenever its generation changes.
            clock: The virtual clock; events carry its time.
            credentials: Secret keys by access key, for routes with AWS_IAM. Default: `test` / `test`.
            account_id: In events.
            api_id: In events.
            region: In events.
            real_now: The real time, for the age of signatures.
            random: Where request ids come from.
            limits: What clients may send, and how long they may take.
        """
        self._dataplane = dataplane
        self._routes = routes
        self._clock = clock
        self._credentials = dict(credentials if credentials is not None else {"test": "test"})
        self._real_now = real_now
        self._random = random or Random()  # noqa: S311 - names, not secrets
        self._api = event.Api(account_id=account_id, api_id=api_id, region=region, port=0)
        self._router = Router(())
        self._generation: int | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._limits = limits
        self._watch: asyncio.Task[None] | None = None
        self._date = DateLine()

    def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Open the port (0: any free one) and return the URL, without a slash at its end.

        Raises:
            OSError: The port is taken.
        """
        loop = self._dataplane.loop

        async def listen() -> asyncio.Server:
            make = partial(Connection, self, self._limits, loop.time)
            server = await loop.create_server(make, host, port, backlog=1024)
            self._watch = loop.create_task(end_overdue(self._connections, self._limits))
            return server

        self._server = server = asyncio.run_coroutine_threadsafe(listen(), loop).result()
        bound = next(sock for sock in server.sockets if sock.family in (socket.AF_INET, socket.AF_INET6))
        self._api = event.Api(
            account_id=self._api.account_id,
            api_id=self._api.api_id,
            region=self._api.region,
            port=bound.getsockname()[1],
        )
        return f"http://{host}:{self._api.port}"

    def stop(self) -> None:
        """Close the port and all connections."""

        async def close() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
            if self._watch is not None:
                self._watch.cancel()
            for connection in list(self._connections):
                connection.close()

        asyncio.run_coroutine_threadsafe(close(), self._dataplane.loop).result()

    # For connections

    def opened(self, connection: Connection) -> None:
        """A client connected."""
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """A client is gone."""
        self._connections.discard(connection)

    def handle(self, request: Request) -> None:
        """Serve one request; its answer may come later."""
        generation = self._routes.generation
        if generation != self._generation:
            self._generation, self._router = generation, Router(self._routes.routes())
        target = request.target.decode("latin-1")
        path, _, query = target.partition("?")
        match = self._router.match(request.method, path)
        if match is None:
            self._send(request, answers.NOT_FOUND)
            return
        caller = None
        if match.route.auth == "AWS_IAM":
            caller = sigv4.verify(
                self._credentials,
                method=request.method,
                target=target,
                headers=request.headers,
                body=request.body,
                now=self._real_now(),
            )
            if caller is None:
                self._send(request, answers.FORBIDDEN)
                return
        request_id = self._new_id()
        exchange = _Exchange(self._clock, lambda answer: self._send(request, answer, request_id))
        try:
            payload = event.build(
                self._api,
                match,
                method=request.method,
                path=path,
                query=query,
                protocol="HTTP/1.0" if request.http_1_0 else "HTTP/1.1",
                headers=request.headers,
                body=request.body,
                source_ip=request.connection.client,
                request_id=request_id,
                trace=f"{self._random.getrandbits(96):024x}",
                at=exchange.at,
                caller=caller,
            )
            self._dataplane.submit(match.route.function, payload, exchange.at, exchange.done)
        except Refused as refused:
            exchange.send(answers.of_refusal(refused))
        except Exception as error:  # noqa: BLE001 - one request must not end the loop that all others share
            exchange.send(answers.FAILED)
            context = {"message": f"gateway: {match.route.route_key} failed", "exception": error}
            self._dataplane.loop.call_exception_handler(context)
        if exchange.open:
            exchange.limit(self._dataplane.loop, match.route.timeout_ms / 1000 * self._dataplane.patience)

    def _new_id(self) -> str:
        """Return an extended request id of API Gateway's shape: 11 bytes in base64."""
        return base64.b64encode(self._random.randbytes(11)).decode()

    def refuse(self, request: Request, status: int, sentence: str) -> bytes:  # noqa: ARG002 - API Gateway has its own
        """Answer a request that could not be read."""
        return self._encode(request, answers.UNREADABLE[status], self._new_id())

    def _send(self, request: Request, answer: Answer, request_id: str = "") -> None:
        data = self._encode(request, answer, request_id or self._new_id())
        request.connection.send(data, keep_alive=request.keep_alive)

    def _encode(self, request: Request, answer: Answer, request_id: str) -> bytes:
        headers = (*answer.headers, ("apigw-requestid", request_id))
        return write_answer(
            request, answer.status, headers, answer.body, date=self._date.now(), keep_alive=request.keep_alive
        )


class _Exchange:
    """One request that waits for its function.

    It does not hold virtual time: users are not part of the cloud, and under steady traffic there is always somebody
    waiting for an answer, so time would stand still.
    """

    __slots__ = ("_answer", "_timer", "at", "open")

    def __init__(self, clock: Clock, answer: Callable[[Answer], None]) -> None:
        self._answer = answer
        self._timer: asyncio.TimerHandle | None = None
        self.at = clock.now()
        self.open = True

    def limit(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._timer = loop.call_later(seconds, self.send, answers.UNAVAILABLE)

    def done(self, invocation: Invocation) -> None:
        if self.open:
            self.send(answers.of_invocation(invocation))

    def send(self, answer: Answer) -> None:
        if not self.open:
            return
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
        self._answer(answer)
