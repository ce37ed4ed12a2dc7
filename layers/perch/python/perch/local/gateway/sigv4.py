"""AWS_IAM authorization: is the request signed (Signature Version 4) with a known key?

The signature is computed again with botocore's own signer from what arrived: method, path, query, the headers named as
signed, and a hash of the body. A wrong key, a changed byte, a signature for another service or one that is more than
five minutes old or early is refused. The age is that of the real clock: the signer's time is its machine's.

Left out: IAM policies (every known key may call every route), signatures in the query string, session tokens (signed
like any header, not looked at).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPMessage
from typing import cast

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from perch.http.connection import Headers, joined

MAX_SKEW = timedelta(minutes=5)
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^/\s]+)/(\d{8})/([^/\s]+)/([^/\s]+)/aws4_request\s*,"
    r"\s*SignedHeaders=([^,\s]+)\s*,\s*Signature=([0-9a-f]{64})"
)
SERVICE = "execute-api"


@dataclass(frozen=True)
class Caller:
    """Who signed the request."""

    access_key: str


def verify(
    credentials: Mapping[str, str],
    *,
    method: str,
    target: str,
    headers: Headers,
    body: bytes,
    now: datetime,
) -> Caller | None:
    """Return who signed a request, or None if it must be refused.

    Args:
        credentials: Secret keys by access key.
        method: HTTP method.
        target: Path and query as sent.
        headers: As sent.
        body: As sent.
        now: The real time, aware.
    """
    given = joined((name, value.strip()) for name, value in headers)
    found = _AUTHORIZATION.fullmatch(given.get("authorization", "").strip())
    if found is None:
        return None
    access_key, day, region, service, signed_names, signature = found.groups()
    stamp = given.get("x-amz-date", "")
    names = signed_names.split(";")
    if access_key not in credentials or service != SERVICE or not _is_fresh(stamp, day, now):
        return None
    if "host" not in names or "x-amz-date" not in names or not all(name in given for name in names):
        return None
    body_hash = hashlib.sha256(body).hexdigest()
    if given.get("x-amz-content-sha256", body_hash) != body_hash:
        return None

    request = AWSRequest(method=method, url=f"http://{given['host']}{target}", data=body)
    for name in names:
        request.headers[name] = given[name]
    request.context["timestamp"] = stamp
    signer = _Signer(Credentials(access_key, credentials[access_key]), SERVICE, region)
    canonical = signer.canonical_request(request)
    expected = signer.signature(signer.string_to_sign(request, canonical), request)
    return Caller(access_key) if hmac.compare_digest(expected, signature) else None


class _Signer(SigV4Auth):
    """Signs exactly the headers that the client signed; botocore's own choice leaves some out."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPMessage:
        return cast("HTTPMessage", request.headers)


def _is_fresh(stamp: str, day: str, now: datetime) -> bool:
    try:
        signed = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return stamp[:8] == day and abs(now - signed) <= MAX_SKEW
