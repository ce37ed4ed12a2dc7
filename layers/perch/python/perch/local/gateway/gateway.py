"""The HTTP API front: an API Gateway HTTP API with Lambda proxy integrations, on the data plane's own loop.

    request ─▶ route ─▶ signature (AWS_IAM) ─▶ event (payload 2.0) ─▶ DataPlane ─▶ answer

It keeps nothing of a request and logs nothing; functions do. Virtual time is held while a request is served, from
before its time is read until its answer is written, so the metrics of a request never arrive behind the clock.

A function that takes longer than the integration's timeout is answered for with 503, as HTTP APIs do, and runs on. A
throttled one is a 503 too; a failed one is a 500. Left out: CORS, throttling by the stage, access logs, mutual TLS,
custom domains.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from random import Random

from perch.local.compute import DataPlane
from perch.local.gateway import answer as answers
from perch.local.gateway import event, sigv4
from perch.local.gateway.answer import Answer
from perch.local.gateway.protocol import Connection, Request
from perch.local.gateway.router import Router
from perch.local.ports import Clock, Invocation, Refused, Routes


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
        self._date = (0, "")

    def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Open the port (0: any free one) and return the URL, without a slash at its end.

        Raises:
            OSError: The port is taken.
        """
        loop = self._dataplane.loop
        server = asyncio.run_coroutine_threadsafe(
            loop.create_server(lambda: Connection(self), host, port, backlog=1024), loop
        ).result()
        self._server = server
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
            request.connection.send(request, answers.NOT_FOUND)
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
                request.connection.send(request, answers.FORBIDDEN)
                return
        request.request_id = self._new_id()
        exchange = _Exchange(self._clock, request)
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
                source_ip=request.connection.source_ip,
                request_id=request.request_id,
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
            exchange.limit(self._dataplane.loop, match.route.timeout_ms / 1000)

    def _new_id(self) -> str:
        """Return an extended request id of API Gateway's shape: 11 bytes in base64."""
        return base64.b64encode(self._random.randbytes(11)).decode()

    def encode(self, request: Request, answer: Answer) -> bytes:
        """Return an answer as bytes."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return answers.encode(
            answer,
            request_id=request.request_id or self._new_id(),
            date=self._date[1],
            head=request.method == "HEAD",
            keep_alive=request.keep_alive,
            http_1_0=request.http_1_0,
        )


class _Exchange:
    """One request that waits for its function.

    It does not hold virtual time: users are not part of the cloud, and under steady traffic there is always somebody
    waiting for an answer, so time would stand still.
    """

    __slots__ = ("_request", "_timer", "at", "open")

    def __init__(self, clock: Clock, request: Request) -> None:
        self._request = request
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
        self._request.connection.send(self._request, answer)
