"""The body of a request: what API Gateway made of it, undone, and never larger than `MAX_BODY`.

    event ─► base64 (a body without a text Content-Type comes so) ─► gzip or deflate ─► bytes, or the text that it is

The standard library takes 2 to 4 ms for a megabyte of base64, which pybase64 does in 0.05.

What a compressed body unpacks to is bounded while it is unpacked, so a small one cannot become a large one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import pybase64

from .errors import RequestRefused

MAX_BODY = 5_000_000
"""Bytes of a decoded body; Lambda takes 6 MB with everything around it."""

MAX_MEMBERS = 100
"""Parts of a gzip body, each compressed by itself; bgzip's blocks of 64 KB are 77 of the largest body. Each part costs
a copy of all that follow it, so 5 MB of nothing but empty ones would keep a function busy for a minute."""

_GZIP_OR_ZLIB, _RAW = 47, -15
"""zlib's window bits: either header, found out by itself, or none (which some clients call deflate)."""


def body_of(event: Mapping[str, Any]) -> str | bytes:
    """Return the body of an event, empty if it has none.

    Raises:
        RequestRefused: 400 (not what it is marked as), 413 (too large), 415 (another encoding).
    """
    body: str | bytes = event.get("body") or ""
    if event.get("isBase64Encoded"):
        try:
            body = pybase64.b64decode(body, validate=True)
        except ValueError as error:
            raise RequestRefused(400, "the body is marked as base64 and is not") from error
    elif isinstance(body, str) and len(body) > MAX_BODY // 4:  # a character takes up to four bytes
        body = body.encode("utf-8", "surrogatepass")
    headers = event.get("headers")
    if headers and (encoding := headers.get("content-encoding")):
        body = _unpacked(body, encoding)
    if len(body) > MAX_BODY:
        raise _too_large()
    return body


def bytes_of(event: Mapping[str, Any]) -> bytes:
    """Return the body of an event as bytes. Raises `RequestRefused`, as `body_of` does."""
    body = body_of(event)
    return body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")


def _unpacked(body: str | bytes, encoding: str) -> str | bytes:
    named = encoding.strip().lower()
    if named in ("", "identity"):
        return body
    if named not in ("gzip", "x-gzip", "deflate"):
        raise RequestRefused(415, f"the body's Content-Encoding is {encoding[:40]!a}; gzip and deflate are taken")
    data = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    try:
        return _inflated(data, _GZIP_OR_ZLIB)
    except zlib.error as error:
        if named == "deflate":
            try:
                return _inflated(data, _RAW)
            except zlib.error:
                pass
        raise RequestRefused(400, f"the body is marked as {named} and is not") from error


def _inflated(data: bytes, window: int) -> bytes:
    found, members = b"", 0
    while data:
        if (members := members + 1) > MAX_MEMBERS:
            raise RequestRefused(400, f"the body is compressed in over {MAX_MEMBERS} parts; compress it in one")
        unpacking = zlib.decompressobj(window)
        found += unpacking.decompress(data, MAX_BODY + 1 - len(found))
        if len(found) > MAX_BODY:
            raise _too_large()
        if not unpacking.eof:
            raise zlib.error("cut short")
        data = unpacking.unused_data
        if len(found) == MAX_BODY and data:
            raise _too_large()
    return found


def _too_large() -> RequestRefused:
    return RequestRefused(413, f"the body is over {MAX_BODY:,} bytes; send fewer rows at once")
