"""The Lambda Runtime API, as the runtime client inside a worker speaks it (version 2018-06-01).

Each worker has a listener of its own, so the connection says who is calling. The clients are known (`awslambdaric`
over libcurl, and `http.client` for init errors): they send a Content-Length, so the parser looks for the end of the
head and for that one header, and for nothing else. An event leaves in one segment, head and body together: split in
two, Nagle's algorithm and delayed acknowledgements would hold each one up for 40 ms.

A function with SnapStart asks, when its init is over, to be restored, and runs its hooks then. Here each worker is its
own snapshot and is restored at once: the hooks run as they would, and no two workers share what they drew at init.

Left out: response streaming, the Extensions and Telemetry APIs.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress
from typing import Protocol

from perch.local.compute.faults import RESPONSE_LIMIT

_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*(\d+)")
_NEXT = b"/2018-06-01/runtime/invocation/next"
_INVOCATION = b"/2018-06-01/runtime/invocation/"
_INIT_ERROR = b"/2018-06-01/runtime/init/error"
_RESTORE, _RESTORE_ERROR = b"/2018-06-01/runtime/restore/next", b"/2018-06-01/runtime/restore/error"


def _answer(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_RESTORED = _answer("200 OK", b"")
_ACCEPTED = _answer("202 Accepted", b'{"status":"OK"}')
_WRONG_ID = _answer("400 Bad Request", b'{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}')
_TOO_LARGE = _answer(
    "413 Payload Too Large",
    b'{"errorMessage":"Exceeded maximum allowed payload size","errorType":"RequestEntityTooLarge"}',
)
_UNKNOWN = _answer("404 Not Found", b'{"errorMessage":"Not found","errorType":"NotFound"}')


class Sandbox(Protocol):
    """What the API does for a worker."""

    def on_next(self, connection: RuntimeApi) -> None:
        """The runtime is ready for an event."""

    def runs(self, request_id: str) -> bool:
        """Whether this is the invocation under way."""

    def on_response(self, body: bytes) -> None:
        """The handler answered; the answer may be too large."""

    def on_error(self, body: bytes) -> None:
        """The handler raised."""

    def on_init_error(self, body: bytes) -> None:
        """The runtime could not load the handler."""


class RuntimeApi(asyncio.Protocol):
    """One connection of a runtime client."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Serve one worker."""
        self._sandbox = sandbox
        self._buffer = bytearray()
        self._needed = 0
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")  # noqa: S101 - for the reader
        self._transport = transport  # type: ignore[assignment]  # uvloop's is a Transport only in shape
        self._descriptor = int(transport.get_extra_info("socket").fileno())

    def data_received(self, data: bytes) -> None:
        """Take in bytes; act on each whole request."""
        buffer = self._buffer
        buffer += data
        while len(buffer) > self._needed:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            found = _LENGTH.search(buffer, 0, end)
            size = end + 4 + (int(found[1]) if found else 0)
            if len(buffer) < size:
                self._needed = size - 1
                return
            head, body = bytes(buffer[:end]), bytes(buffer[end + 4 : size])
            del buffer[:size]
            self._needed = 0
            self._handle(head, body)

    def write(self, data: bytes) -> None:
        """Send bytes to the runtime client, at once: the loop would send them when it has done all else of its turn."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() == 0:
            with suppress(OSError):  # it takes nothing more for now, or is gone: the transport knows what to do
                data = data[os.write(self._descriptor, data) :]
        if data:
            transport.write(data)

    def _handle(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path == _NEXT:
            self._sandbox.on_next(self)
        elif path.startswith(_INVOCATION):
            request_id, _, verb = path[len(_INVOCATION) :].partition(b"/")
            if not self._sandbox.runs(request_id.decode("ascii", "replace")):
                self.write(_WRONG_ID)
            elif verb == b"response":
                # Told before it is passed on, so that the worker asks for its next event meanwhile.
                self.write(_ACCEPTED if len(body) <= RESPONSE_LIMIT else _TOO_LARGE)
                self._sandbox.on_response(body)
            else:
                self.write(_ACCEPTED)
                self._sandbox.on_error(body)
        elif path == _RESTORE:
            self.write(_RESTORED)
        elif path in (_INIT_ERROR, _RESTORE_ERROR):
            self.write(_ACCEPTED)
            self._sandbox.on_init_error(body)
        else:
            self.write(_UNKNOWN)


def event(request_id: str, deadline_ms: int, arn: str, trace_id: str, payload: bytes) -> bytes:
    """Return the answer to `next`: one event for the handler.

    Args:
        request_id: Of the invocation.
        deadline_ms: When the function times out, in milliseconds of real time since the epoch.
        arn: As invoked, qualifier included.
        trace_id: Value of the X-Ray header.
        payload: The event, as JSON.
    """
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: {request_id}\r\n"
        f"Lambda-Runtime-Deadline-Ms: {deadline_ms}\r\nLambda-Runtime-Invoked-Function-Arn: {arn}\r\n"
        f"Lambda-Runtime-Trace-Id: {trace_id}\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload
