"""One HTTP/1.1 connection: bytes to requests with httptools, answers to bytes, in order.

Requests of one connection are served one after the other, which is what HTTP asks of pipelining; a client that sends
many ahead is slowed down by not being read. A request too large is answered as soon as that is known, and its
connection closed, because the rest of its body is still on the way.

Left out: HTTP/2, TLS, WebSocket upgrades (the request is served as if it had not asked).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol, cast

import httptools

from perch.local.gateway import answer as answers
from perch.local.gateway.answer import Answer

MAX_BODY = 10 * 1024 * 1024
MAX_HEAD = 10_240
_LINGER_S = 5.0
_READ_AHEAD = 16


class Request:
    """One request as it came in; `headers` keep order and case."""

    __slots__ = ("body", "connection", "headers", "http_1_0", "keep_alive", "method", "refused", "request_id", "target")

    def __init__(self, connection: Connection) -> None:
        """Make an empty request to be filled by the parser."""
        self.connection = connection
        self.method = ""
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.keep_alive = True
        self.http_1_0 = False
        self.refused: Answer | None = None
        self.request_id = ""


class Service(Protocol):
    """What handles requests."""

    def handle(self, request: Request) -> None:
        """Serve a request; `request.connection.send` must be called once for it."""

    def encode(self, request: Request, answer: Answer) -> bytes:
        """Return an answer as bytes."""

    def opened(self, connection: Connection) -> None:
        """A client connected."""

    def closed(self, connection: Connection) -> None:
        """A client is gone."""


class Connection(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        *(
            "_busy",
            "_chunks",
            "_closing",
            "_parser",
            "_paused",
            "_queue",
            "_request",
            "_service",
            "_size",
            "_transport",
        ),
        *("_serving", "_writable", "source_ip"),
    )

    def __init__(self, service: Service) -> None:
        """Serve one client."""
        self.source_ip = ""
        self._service = service
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request(self)
        self._chunks: list[bytes] = []
        self._size = 0
        self._queue: deque[Request] = deque()
        self._busy = False
        self._serving = False
        self._paused = False
        self._writable = True
        self._closing = False

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who it is."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.source_ip = peer[0] if peer else "127.0.0.1"
        self._service.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the connection; what runs for it runs on, as in API Gateway."""
        self._transport = None
        self._closing = True
        self._queue.clear()
        self._service.closed(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._request.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(answers.BAD_REQUEST)
        if len(self._queue) > _READ_AHEAD and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more, but may still wait for its answer."""
        if not self._busy and not self._queue:
            return False
        self._closing = True
        return True

    def pause_writing(self) -> None:
        """The client does not read; serve it no further requests for now."""
        self._writable = False

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable = True
        self._serve_next()

    # From the parser

    def on_message_begin(self) -> None:
        """A request starts."""
        self._request = Request(self)
        self._chunks = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """The target, in pieces when it came in pieces."""
        self._request.target += url
        self._size += len(url)
        self._check_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer of a chunked body."""
        self._size += len(name) + len(value)
        self._check_head()
        self._request.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """All headers are here; refuse a body that is announced too large, encourage a client that asks first."""
        self._size = 0
        request = self._request
        request.method = self._parser.get_method().decode("ascii")
        request.http_1_0 = self._parser.get_http_version() == "1.0"
        request.keep_alive = self._parser.should_keep_alive()
        for name, value in request.headers:
            lowered = name.lower()
            if lowered == b"content-length" and int(value) > MAX_BODY:
                self._refuse(answers.TOO_LARGE)
                return
            if lowered == b"expect" and value.lower() == b"100-continue" and self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._size += len(body)
        if self._size > MAX_BODY:
            self._refuse(answers.TOO_LARGE)
        elif not self._closing:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._closing:
            return
        request = self._request
        chunks = self._chunks
        request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._queue.append(request)
        self._serve_next()

    # To the client

    def send(self, request: Request, answer: Answer) -> None:
        """Answer the request that is being served, and serve the next."""
        self._busy = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(self._service.encode(request, answer))
        if request.refused is not None:
            self._linger(transport)
            return
        if not request.keep_alive or (self._closing and not self._queue):
            self._closing = True
            self._queue.clear()
            transport.close()
            return
        if self._paused and len(self._queue) <= _READ_AHEAD // 2:
            self._paused = False
            transport.resume_reading()
        self._serve_next()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def _serve_next(self) -> None:
        if self._serving:
            return  # an answer was ready at once: the loop below goes on by itself, without recursion
        self._serving = True
        try:
            while self._queue and not self._busy and self._writable and self._transport is not None:
                self._busy = True
                request = self._queue.popleft()
                if request.refused is not None:
                    self.send(request, request.refused)
                else:
                    self._service.handle(request)
        finally:
            self._serving = False

    def _check_head(self) -> None:
        if self._size > MAX_HEAD and not self._chunks:
            self._refuse(answers.HEAD_TOO_LARGE)

    def _refuse(self, answer: Answer) -> None:
        """Answer the request that is coming in with an error, after those before it, and close."""
        if self._closing:
            return
        self._closing = True
        request = self._request
        request.keep_alive = False
        request.refused = answer
        self._chunks = []
        self._queue.append(request)
        self._serve_next()

    def _linger(self, transport: asyncio.Transport) -> None:
        """Close, but read on for a while: closing on a client that still sends would reset away our answer."""
        if self._paused:
            self._paused = False
            transport.resume_reading()
        transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_S, transport.close)
