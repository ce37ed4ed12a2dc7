"""An answer as it goes over the wire."""

from __future__ import annotations

import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

from .connection import Request

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = (204, 304)


def write_answer(
    request: Request, status: int, headers: Iterable[tuple[str, str]], body: bytes, *, date: str, keep_alive: bool
) -> bytes:
    """Return an answer as bytes.

    Args:
        request: what is answered; the answer to a HEAD has no body, and HTTP/1.0 is told that its connection is kept.
        status: of the answer.
        headers: names with values, each on one line; without date, length and connection.
        body: whole.
        date: as HTTP writes it.
        keep_alive: whether the connection stays open.
    """
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}", f"date: {date}"]
    bodiless = status in _BODILESS
    if not bodiless:
        lines.append(f"content-length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers]
    if not keep_alive:
        lines.append("connection: close")
    elif request.http_1_0:
        lines.append("connection: keep-alive")
    lines += ["", ""]
    head = "\r\n".join(lines).encode("utf-8", "replace")
    return head if bodiless or request.method == "HEAD" else head + body


class DateLine:
    """The time as HTTP writes it, written once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second, self._text = 0, ""

    def now(self) -> str:
        """Return the time now."""
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text
