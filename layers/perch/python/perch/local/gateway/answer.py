"""The HTTP answer that API Gateway makes of what a function returned: payload format 2.0.

A JSON object with a `statusCode` says all of the answer. Any other JSON, null included, is itself the body of a 200
with `application/json`. What cannot be sent (a body that is no text, a status that is no number, a header with a line
break) is an error of the integration: 500, as is a function that failed.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any

from perch.local.json_text import NotJson, dump, parse
from perch.local.ports import Invocation, Refused

_HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f]")
_TEXT = "text/plain;charset=UTF-8"
_JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """What to send back; `headers` are lower-cased names with values, without length and date."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = field(default=(("content-type", _JSON),))


def _message(status: int, text: str) -> Answer:
    return Answer(status, dump({"message": text}))


BAD_REQUEST = _message(400, "Bad Request")
FORBIDDEN = _message(403, "Forbidden")
NOT_FOUND = _message(404, "Not Found")
TOO_SLOW = _message(408, "Request Timeout")
TOO_LARGE = _message(413, "Request Entity Too Large")
HEAD_TOO_LARGE = _message(431, "Request Header Fields Too Large")
FAILED = _message(500, "Internal Server Error")
NOT_IMPLEMENTED = _message(501, "Not Implemented")
UNAVAILABLE = _message(503, "Service Unavailable")
OTHER_VERSION = _message(505, "HTTP Version Not Supported")


UNREADABLE = {
    answer.status: answer
    for answer in (BAD_REQUEST, TOO_SLOW, TOO_LARGE, HEAD_TOO_LARGE, NOT_IMPLEMENTED, OTHER_VERSION)
}
"""By status, what a client is told whose request was no HTTP/1, not whole in time, too large, or oddly coded."""


def of_refusal(refused: Refused) -> Answer:
    """Return the answer when Lambda would not take the invocation."""
    return {413: TOO_LARGE, 429: UNAVAILABLE}.get(refused.status, FAILED)


def of_invocation(invocation: Invocation) -> Answer:
    """Return the answer to an invocation that ended."""
    if invocation.error is not None:
        return FAILED
    try:
        result = parse(invocation.payload)
    except NotJson:
        return FAILED
    if not isinstance(result, dict) or "statusCode" not in result:
        return Answer(200, invocation.payload)
    try:
        return Answer(_status(result["statusCode"]), _body(result), _headers(result))
    except _UnusableError:
        return FAILED


class _UnusableError(Exception):
    """The function's answer cannot be sent."""


def _status(value: Any) -> int:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise _UnusableError
    return value


def _body(result: dict[str, Any]) -> bytes:
    body = result.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise _UnusableError
    if result.get("isBase64Encoded") is not True:
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _UnusableError from error


def _headers(result: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    given = result.get("headers") or {}
    cookies = result.get("cookies") or []
    if not isinstance(given, dict) or not isinstance(cookies, list):
        raise _UnusableError
    headers = [(name.lower(), _value(value)) for name, value in given.items() if name.lower() not in _HOP_BY_HOP]
    if not all(_TOKEN.fullmatch(name) for name, _ in headers):
        raise _UnusableError
    if not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", _TEXT))
    headers += [("set-cookie", _value(cookie)) for cookie in cookies]
    return tuple(headers)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        value = "true" if value else "false"
    text = str(value) if isinstance(value, str | int | float) else None
    if text is None or _CONTROL.search(text):
        raise _UnusableError
    return text
