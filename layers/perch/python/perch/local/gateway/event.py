"""The event that API Gateway makes of an HTTP request: Lambda proxy payload format 2.0.

`rawPath` is percent-decoded, the query string is as sent; a header or query parameter that comes several times is
joined with commas, and cookies go to a list of their own. A body is text only when its Content-Type says `text/*` or
one of the JSON, XML and JavaScript types; anything else, a missing Content-Type included, arrives in base64, and so
does text that is not UTF-8.

Left out: client certificates, JWT and Lambda authorizers, stage variables, custom stages (all is `$default`).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import parse_qsl, unquote

from perch.http.connection import Headers, joined
from perch.local.gateway.router import Match
from perch.local.gateway.sigv4 import Caller
from perch.local.json_text import dump

_TEXT_TYPES = frozenset({"application/json", "application/javascript", "application/xml"})
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, kw_only=True)
class Api:
    """What does not change from request to request."""

    account_id: str
    api_id: str
    region: str
    port: int


def build(
    api: Api,
    match: Match,
    *,
    method: str,
    path: str,
    query: str,
    protocol: str,
    headers: Headers,
    body: bytes,
    source_ip: str,
    request_id: str,
    trace: str,
    at: datetime,
    caller: Caller | None,
) -> bytes:
    """Return the event as JSON.

    Args:
        api: The constants.
        match: Route and path variables.
        method: HTTP method.
        path: As sent, percent-encoded, without the query.
        query: As sent, without the question mark.
        protocol: Such as `HTTP/1.1`.
        headers: In the order sent; names in any case.
        body: After transfer decoding.
        source_ip: Of the client.
        request_id: Extended request id, as in the `apigw-requestid` header.
        trace: 24 hexadecimal digits for the trace header.
        at: Virtual time of the request.
        caller: Who signed it, on a route with IAM authorization.
    """
    merged, cookies = _headers(headers, api, source_ip)
    epoch = at.timestamp()
    merged.setdefault("x-amzn-trace-id", f"Root=1-{int(epoch):08x}-{trace}")
    raw_path = unquote(path) if "%" in path else path
    route_key = match.route.route_key
    context: dict[str, object] = {
        "accountId": api.account_id,
        "apiId": api.api_id,
        "domainName": merged.get("host", "localhost").rsplit(":", 1)[0],
        "domainPrefix": api.api_id,
        "http": {
            "method": method,
            "path": raw_path,
            "protocol": protocol,
            "sourceIp": source_ip,
            "userAgent": merged.get("user-agent", ""),
        },
        "requestId": request_id,
        "routeKey": route_key,
        "stage": "$default",
        "time": _clf_time(int(epoch)),
        "timeEpoch": int(epoch * 1000),
    }
    event: dict[str, object] = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": raw_path,
        "rawQueryString": query,
        "headers": merged,
        "requestContext": context,
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = _parameters(query)
    if match.parameters:
        event["pathParameters"] = match.parameters
    if caller is not None:
        context["authorizer"] = {"iam": _identity(caller, api)}
    if body:
        text = _text(body, merged.get("content-type"))
        event["body"] = base64.b64encode(body).decode() if text is None else text
        event["isBase64Encoded"] = text is None
    return dump(event)


def _headers(headers: Headers, api: Api, source_ip: str) -> tuple[dict[str, str], list[str]]:
    merged = joined(headers)
    cookies: list[str] = []
    if merged.pop("cookie", None) is not None:
        values = (value.decode("latin-1") for name, value in headers if name.lower() == b"cookie")
        cookies = [cookie for value in values for cookie in value.split("; ") if cookie]
    forwarded = merged.get("x-forwarded-for")
    merged["x-forwarded-for"] = f"{forwarded}, {source_ip}" if forwarded else source_ip
    merged["x-forwarded-port"] = str(api.port)
    merged["x-forwarded-proto"] = "http"
    return merged, cookies


def _parameters(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    return parameters


def _text(body: bytes, content_type: str | None) -> str | None:
    """Return the body as text, or None if it has to go in base64."""
    kind = (content_type or "").split(";", 1)[0].strip().lower()
    if kind not in _TEXT_TYPES and not kind.startswith("text/"):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _identity(caller: Caller, api: Api) -> dict[str, object]:
    return {
        "accessKey": caller.access_key,
        "accountId": api.account_id,
        "callerId": caller.access_key,
        "cognitoIdentity": None,
        "principalOrgId": None,
        "userArn": f"arn:aws:iam::{api.account_id}:user/{caller.access_key}",
        "userId": caller.access_key,
    }


@lru_cache(maxsize=1)  # the requests of one second have it in common
def _clf_time(epoch: int) -> str:
    at = datetime.fromtimestamp(epoch, UTC)
    return f"{at.day:02}/{_MONTHS[at.month - 1]}/{at.year}:{at.hour:02}:{at.minute:02}:{at.second:02} +0000"
