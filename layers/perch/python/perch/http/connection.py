"""One HTTP/1.1 connection: bytes to requests with httptools, answers back in order.

Requests of one connection are served one after the other, which is what HTTP asks of pipelining; a client that sends
many ahead is slowed down by not being read. What cannot be served is refused as soon as that is known, in words, and
the connection closed, because the rest of the request may still be on the way.

A connection keeps no timers: it notes when it began to wait and for what, and `end_overdue`, which looks at all of
them every second, ends what waits too long. So a client that sends a byte a minute holds nothing but its socket, and
that not for long.

TCP does not say whether a client that sends no more still listens. One that hung up is known when the connection is
reset, and what it asked for is not worth computing then (`gone`).
"""

from __future__ import annotations

import asyncio
import math
import select
import string
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

_FRAMING = 8
"""How many times its size a request may take on the wire: a byte in a chunk of its own takes six."""
_READ_AHEAD = 16
_LINGER_S = 2.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HOST = f"{string.ascii_letters}{string.digits}-._~!$&'()*+,;=%:[]".encode()
"""What a host, which may be an address, and its port are written with."""
_LENGTHS = frozenset(map(len, (b"host", b"expect", b"content-length", b"transfer-encoding")))

Headers = Sequence[tuple[bytes, bytes]]
"""As they were sent: names in any case, in their order."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large requests may be (bytes), and how long a client may take (seconds).

    `head` is the request line with names and values of headers, `receive_s` from a request's first byte to its last,
    and for a client to read its answer; `idle_s` between two requests.
    """

    head: int
    body: int
    receive_s: float
    idle_s: float


class Request:
    """One request as it came in."""

    __slots__ = ("body", "connection", "headers", "http_1_0", "keep_alive", "method", "refused", "target")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.method = ""
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.keep_alive = True
        self.http_1_0 = False
        self.refused: tuple[int, str] | None = None


class Service(Protocol):
    """What serves requests."""

    def handle(self, request: Request) -> None:
        """Serve a request; `request.connection.send` has to be called once for it, on the loop's thread."""

    def refuse(self, request: Request, status: int, sentence: str) -> bytes:
        """Return the answer to a request that is not served: 400, 408, 413, 431, 501, 505, or the service's own."""

    def opened(self, connection: Connection) -> None:
        """A client connected."""

    def closed(self, connection: Connection) -> None:
        """A client is gone."""


class Connection(asyncio.Protocol):
    """One client connection; not thread-safe, all of it runs on the loop's thread."""

    __slots__ = (
        *("_busy", "_chunks", "_ended", "_in_head", "_limits", "_now", "_parser", "_paused", "_queue", "_raw"),
        *("_lingering", "_receiving", "_request", "_service", "_serving", "_since", "_size", "_told"),
        *("_transport", "_writable", "client"),
    )

    def __init__(self, service: Service, limits: Limits, now: Callable[[], float]) -> None:
        """Serve one client; `now` is the loop's time, in seconds."""
        self.client = ""
        self._service = service
        self._limits = limits
        self._now = now
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request(self)
        self._chunks: list[bytes] = []
        self._size = 0  # of the head, then of the body, as parsed
        self._raw = 0  # of the request so far, as received
        self._told = 0  # of these, up to the last piece of its body
        self._in_head = True
        self._queue: deque[Request] = deque()
        self._receiving = False  # a request has begun and is not whole
        self._busy = False  # a request is with the service
        self._serving = False
        self._paused = False
        self._writable = True
        self._ended = False  # nothing more is read from this client
        self._lingering = False  # it has had its last answer
        self._since = now()  # when it began to wait for what it waits for

    @property
    def idle_s(self) -> float:
        """How long nothing has been asked of it; 0 while a request is on its way in or out."""
        waiting = self._busy or self._receiving or self._queue or not self._writable
        return 0.0 if waiting else self._now() - self._since

    @property
    def descriptor(self) -> int:
        """The socket's file descriptor; -1 when it is closed."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return -1 if sock is None else int(sock.fileno())

    @property
    def gone(self) -> bool:
        """Whether the client has hung up, so that nobody will read an answer; may be asked on any thread."""
        return self._transport is None or (self._ended and _hung_up(self.descriptor))

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who it is."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if peer else ""
        self._service.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the connection; the request that runs for it runs on."""
        self._transport = None
        self._ended = True
        self._queue.clear()
        self._service.closed(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._ended:
            return
        if not self._receiving and not self._busy:
            self._since = self._now()
            self._receiving = True  # also before the parser has seen a whole line
        self._raw += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # it will not be upgraded; what comes after that request is not read
        except httptools.HttpParserError as error:
            self.refuse(400, f"this is not an HTTP/1.1 request: {error}")
        # The parser keeps a line until it is whole, and drops the framing of chunks: neither may go on for ever.
        framing, whole = self._raw - self._told, self._limits.head + self._limits.body
        if self._receiving and (framing > _FRAMING * self._limits.head or self._raw > _FRAMING * whole):
            self._refuse_head()
        if len(self._queue) > _READ_AHEAD and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more; it may still wait for its answer, or be gone, which shows when it is written to.

        So it is, with an interim answer, which means nothing to who waits; who is gone resets the connection (`gone`).
        """
        self._ended = True
        waits = bool(self._busy or self._queue)
        if waits and self._transport is not None and not self._request.http_1_0:  # which knows no interim answers
            self._transport.write(_CONTINUE)
        return waits

    def pause_writing(self) -> None:
        """The client does not read; serve it no further requests for now."""
        self._writable = False
        self._since = self._now()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable = True
        self._since = self._now()
        self._serve_next()

    # From the parser

    def on_message_begin(self) -> None:
        """A request starts."""
        self._request = Request(self)
        self._chunks = []
        self._size = 0
        self._receiving = self._in_head = True

    def on_url(self, url: bytes) -> None:
        """The target, in pieces when it came in pieces."""
        self._request.target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. What follows a chunked body is none: whoever checks headers before us has not looked at it."""
        if self._in_head:
            self._count(len(name) + len(value))
            self._request.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Refuse what HTTP forbids and a body that is announced too large, encourage a client that asks first."""
        request = self._request
        request.method = self._parser.get_method().decode("ascii")
        version = self._parser.get_http_version()
        request.http_1_0 = version == "1.0"
        request.keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self._in_head, self._size = False, 0
        hosts: list[bytes] = []
        codings: list[bytes] = []
        announced, expects = 0, False
        for name, value in request.headers:
            if len(name) not in _LENGTHS:
                continue
            known = name.lower()
            if known == b"host":
                hosts.append(value)
            elif known == b"content-length":
                announced = int(value)
            elif known == b"transfer-encoding":
                codings.append(value)
            elif known == b"expect":
                expects = value.lower() == b"100-continue"
        if fault := _fault(version, hosts, codings):
            self.refuse(*fault)
        elif announced > self._limits.body:
            self._refuse_large()
        elif expects and not request.http_1_0 and self._transport is not None:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._size += len(body)
        self._told = self._raw
        if self._size > self._limits.body:
            self._refuse_large()
        elif not self._ended:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._receiving = False
        self._raw = self._told = 0
        if self._ended:
            return
        chunks = self._chunks
        self._request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._queue.append(self._request)
        self._serve_next()

    # To the client

    def send(self, data: bytes, *, keep_alive: bool) -> None:
        """Answer the request that is being served, and serve the next."""
        self._busy = False
        self._since = self._now()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        if not keep_alive:
            self._queue.clear()
            self._linger(transport)
        elif self._ended and not self._queue:
            transport.close()
        else:
            if self._paused and len(self._queue) <= _READ_AHEAD // 2:
                self._paused = False
                transport.resume_reading()
            self._serve_next()

    def refuse(self, status: int, sentence: str) -> None:
        """Answer the request that is coming in with an error, after those before it, and close."""
        if self._ended:
            return
        self._ended = True
        self._receiving = False
        request, self._request = self._request, Request(self)
        request.refused = status, sentence
        request.keep_alive = False
        self._chunks = []
        self._queue.append(request)
        self._serve_next()

    def overdue(self) -> None:
        """End what waits too long: half a request (408), no request, a client that does not read."""
        waited = self._now() - self._since
        if self._lingering or not self._writable:
            if waited > self._limits.receive_s:
                self.abort()
            elif self._writable and waited > _LINGER_S:
                self.close()
        elif self._busy or self._queue:
            return  # that is ours to finish
        elif self._receiving and waited > self._limits.receive_s:
            self.refuse(408, f"the request was not whole after {math.ceil(self._limits.receive_s)} s")
        elif not self._receiving and waited > self._limits.idle_s:
            self.close()

    def close(self) -> None:
        """Close the connection; what was written still goes out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def _serve_next(self) -> None:
        if self._serving:
            return  # an answer was ready at once: the loop below goes on by itself, without recursion
        self._serving = True
        try:
            while self._queue and not self._busy and self._writable and self._transport is not None:
                self._busy = True
                request = self._queue.popleft()
                if request.refused is not None:
                    self.send(self._service.refuse(request, *request.refused), keep_alive=False)
                else:
                    self._service.handle(request)
        finally:
            self._serving = False

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._limits.head:
            self._refuse_head()

    def _refuse_head(self) -> None:
        self.refuse(431, f"the request line, its headers or its framing are over {self._limits.head:,} bytes")

    def _refuse_large(self) -> None:
        self.refuse(413, f"the body is over {self._limits.body:,} bytes; send fewer rows at once")

    def _linger(self, transport: asyncio.Transport) -> None:
        """Close, but read on for a while: closing on a client that still sends would reset away our answer."""
        self._ended = self._lingering = True
        if self._paused:
            self._paused = False
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()


def _fault(version: str, hosts: Sequence[bytes], codings: Sequence[bytes]) -> tuple[int, str] | None:
    """Say what is wrong with where a request is sent to and how its body comes (RFC 9112, 2.3, 3.2 and 6), if it is.

    What the parser lets pass, another server on the way may read differently: a request could hide in a body.
    """
    if version not in ("1.0", "1.1"):
        return 505, f"HTTP/1.1 is spoken here, not HTTP/{version}"
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return 400, f"an HTTP/1.1 request has one Host header; this one has {len(hosts) or 'none'}"
    if hosts and hosts[0].translate(None, _HOST):
        return 400, "the Host header is not the name of a host"
    return _uncoded(version, codings) if codings else None


def _uncoded(version: str, codings: Sequence[bytes]) -> tuple[int, str] | None:
    """Say why the codings of a body are not undone here, if they are not."""
    coding = b", ".join(codings).decode("latin-1").strip().lower()
    if version == "1.0":
        return 400, "HTTP/1.0 has no Transfer-Encoding"
    if not coding.endswith("chunked"):
        return 400, f"Transfer-Encoding ends with chunked, or the body has no end; this one is {coding!r}"
    return None if coding == "chunked" else (501, f"Transfer-Encoding can be chunked only; this one is {coding!r}")


def _hung_up(descriptor: int) -> bool:
    """Whether the connection of a socket was reset; also if there is no such socket any more."""
    poll = select.poll()
    try:
        poll.register(descriptor, 0)  # errors and hang-ups are told in any case
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return True


async def end_overdue(connections: Collection[Connection], limits: Limits) -> None:
    """End what waits too long on any of these connections, until cancelled."""
    while True:
        await asyncio.sleep(min(1.0, limits.receive_s / 4, limits.idle_s / 4))
        for connection in list(connections):
            connection.overdue()


def joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by lower-cased name; one that came several times holds all values, with commas between."""
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]},{text}" if key in found else text
    return found
