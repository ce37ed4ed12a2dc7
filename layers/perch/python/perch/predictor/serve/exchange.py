"""Between HTTP and the handler: a request becomes an event, what the handler returns becomes an answer.

The event is what API Gateway would make of the request (payload format 2.0), but its body stays bytes: base64 is only
there because Lambda's events are JSON. So it costs a dictionary, and the handler sees no other difference.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from perch.http.answer import write_answer
from perch.http.connection import Request, joined
from perch.predictor.encode import encode


class Context:
    """What the handler reads of Lambda's context object."""

    __slots__ = ("aws_request_id", "function_version")

    def __init__(self, request_id: str, revision: str) -> None:
        """Name one request.

        Args:
            request_id: of this request only.
            revision: what stands where Lambda's version number would.
        """
        self.aws_request_id = request_id
        self.function_version = revision


def make_event(request: Request, path: str, query: str, *, request_id: str, at: int) -> dict[str, Any]:
    """Return the event of a request.

    Args:
        request: as it came in.
        path: percent-decoded.
        query: as sent, without the question mark.
        request_id: of this request only.
        at: its time, in ms since 1970.
    """
    headers = joined(request.headers)
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "http": {
                "method": method_of(request),
                "path": path,
                "protocol": "HTTP/1.0" if request.http_1_0 else "HTTP/1.1",
                "sourceIp": request.connection.client,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "timeEpoch": at,
        },
        "body": request.body,
        "isBase64Encoded": False,
    }


def method_of(request: Request) -> str:
    """Return what a request asks for; HEAD asks as GET does, and `write_answer` leaves the body out."""
    return "GET" if request.method == "HEAD" else request.method


def path_of(target: bytes) -> tuple[str, str]:
    """Split a request's target into its path, percent-decoded, and its query, as sent."""
    path, _, query = target.decode("latin-1").partition("?")
    if not path.startswith("/") and "://" in path:  # the absolute form, which proxies send
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    return unquote(path) if "%" in path else path, query


def to_bytes(request: Request, answer: Mapping[str, Any], *, date: str, keep_alive: bool) -> bytes:
    """Return a handler's answer as it goes over the wire.

    Args:
        request: what it answers.
        answer: status, headers and body, as a handler returns them.
        date: as HTTP writes it.
        keep_alive: whether the connection stays open.
    """
    text = answer.get("body") or ""
    body = base64.b64decode(text) if answer.get("isBase64Encoded") else text.encode() if isinstance(text, str) else text
    # A header that came from a client's words must not end the line that it stands on.
    headers = [(name, _one_line(value)) for name, value in (answer.get("headers") or {}).items()]
    return write_answer(request, answer["statusCode"], headers, body, date=date, keep_alive=keep_alive)


def refusal(status: int, sentence: str, **headers: str) -> dict[str, Any]:
    """Return the answer to a request that does not reach the handler, in the handler's own form."""
    body = encode({"error": sentence})
    return {"statusCode": status, "headers": {"content-type": "application/json", **headers}, "body": body}


def _one_line(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)
