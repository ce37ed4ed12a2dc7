"""One signed GET from S3: all that the predictor ever asks of AWS, without an SDK.

Importing boto3 and making a client takes 400 ms of a cold start, as long as everything else together; signing a request
takes a page (AWS Signature Version 4, "Authenticating Requests: Using the Authorization Header"). Bytes are read by
`http.client`, whose `readinto` puts them where they belong, which no layer above it does.

    S3Object (where, who) ─► connect ─► get(range) ─► HTTPResponse, whose body the caller reads into its own memory

Credentials are those that Lambda puts into the environment, or those that a container's endpoint gives, whose address
stands there instead (SnapStart, ECS, EKS). Where there are neither, botocore looks for them in its usual places.
Honoured beside those: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_CA_BUNDLE, AWS_REGION, AWS_DEFAULT_REGION.

Left out: redirects to another region, dual-stack and FIPS endpoints, isolated partitions, proxies, access points.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import ssl
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit

CONNECT_S, READ_S = 2.0, 5.0
"""Seconds to wait for a connection, and for the next bytes."""

_EMPTY = hashlib.sha256(b"").hexdigest()


class Credentials(NamedTuple):
    """Who asks; `token` is empty for keys that do not expire."""

    access_key: str
    secret_key: str
    token: str = ""


class NoCredentials(Exception):
    """Nothing says who asks."""


class S3Object:
    """One version of one object, and who reads it."""

    def __init__(self, bucket: str, key: str, version_id: str, environ: Mapping[str, str]) -> None:
        """Find out where the object is and with which keys to ask. Raises `NoCredentials`; OSError: no address."""
        self.region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        path = "/" + quote(key, safe="/-_.~")
        if endpoint or "." in bucket:  # neither has a certificate for a host name per bucket
            endpoint = endpoint or f"https://s3.{self.region}.{_suffix(self.region)}"
            path = f"/{bucket}{path}"
        else:
            endpoint = f"https://{bucket}.s3.{self.region}.{_suffix(self.region)}"
        url = urlsplit(endpoint)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise OSError(f"the endpoint {endpoint!r} is no address that begins with https:// or http://")
        self.host = url.netloc
        self.path = url.path.rstrip("/") + path
        self.query = f"versionId={quote(version_id, safe='-_.~')}"
        self._secure = url.scheme == "https"
        self._tls = ssl.create_default_context(cafile=environ.get("AWS_CA_BUNDLE")) if self._secure else None
        self._credentials = credentials_of(environ)

    def connect(self) -> http.client.HTTPConnection:
        """Make a connection to the store, which the first `get` opens."""
        if self._tls is not None:
            return http.client.HTTPSConnection(self.host, timeout=CONNECT_S, context=self._tls)
        return http.client.HTTPConnection(self.host, timeout=CONNECT_S)

    def get(
        self, connection: http.client.HTTPConnection, begin: int, end: int, *, at: datetime, etag: str | None = None
    ) -> http.client.HTTPResponse:
        """Ask for the bytes from `begin` up to, not including, `end`; the body is still to be read.

        Args:
            connection: one that `connect` opened, with no answer under way.
            begin: first byte.
            end: the byte after the last.
            at: now, aware; S3 refuses a signature that is 15 minutes off.
            etag: what the object has to be still (If-Match).

        Raises:
            OSError, http.client.HTTPException: no answer came.
        """
        headers = sign(self.host, self.path, self.query, self._credentials, region=self.region, at=at)
        headers["Range"] = f"bytes={begin}-{end - 1}"
        headers["Accept-Encoding"] = "identity"
        if etag is not None:
            headers["If-Match"] = etag
        if connection.sock is None:  # the answer before said that it was the last one
            connection.connect()
        connection.sock.settimeout(READ_S)
        connection.request("GET", f"{self.path}?{self.query}", headers=headers)
        return connection.getresponse()


def credentials_of(environ: Mapping[str, str]) -> Credentials:
    """Return the keys of the environment, or those that botocore finds. Raises `NoCredentials`."""
    access_key, secret_key = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if access_key and secret_key:
        return Credentials(access_key=access_key, secret_key=secret_key, token=environ.get("AWS_SESSION_TOKEN", ""))
    if container := _container(environ):
        return container
    try:
        from botocore.session import Session  # noqa: PLC0415 - 130 ms that Lambda's own environment does not need
    except ImportError as error:
        raise NoCredentials(
            "the environment has no AWS keys, and botocore, which could look further, is not here"
        ) from error
    found = Session().get_credentials()
    keys = found.get_frozen_credentials() if found is not None else None
    if keys is None or not keys.access_key or not keys.secret_key:
        raise NoCredentials("no AWS credentials were found in the environment, a profile or a metadata service")
    return Credentials(access_key=keys.access_key, secret_key=keys.secret_key, token=keys.token or "")


def _container(environ: Mapping[str, str]) -> Credentials | None:
    """Ask the endpoint that the environment names. Raises `NoCredentials` if it does not tell."""
    address = environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if relative := environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        address = f"http://169.254.170.2{relative}"
    if not address:
        return None
    from pathlib import Path  # noqa: PLC0415 - Lambda's own keys are no file

    url, path = urlsplit(address), environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.netloc, timeout=CONNECT_S)
    try:
        token = Path(path).read_text().strip() if path else environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        target = url.path + (f"?{url.query}" if url.query else "")
        connection.request("GET", target, headers={"Authorization": token} if token else {})
        answer = connection.getresponse()
        if answer.status != 200:
            raise NoCredentials(f"the container's endpoint for credentials answered {answer.status}")
        told = json.loads(answer.read())
        return Credentials(access_key=told["AccessKeyId"], secret_key=told["SecretAccessKey"], token=told["Token"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise NoCredentials(f"the container's endpoint for credentials could not be asked: {error}") from error
    finally:
        connection.close()


def sign(host: str, path: str, query: str, credentials: Credentials, *, region: str, at: datetime) -> dict[str, str]:
    """Return the headers that sign a GET without a body (AWS Signature Version 4).

    Args:
        host: as it will be sent, with its port.
        path: percent-encoded.
        query: canonical: names in order, percent-encoded.
        credentials: who asks.
        region: of the bucket.
        at: now, aware, in UTC.
    """
    stamp, day = f"{at:%Y%m%dT%H%M%SZ}", f"{at:%Y%m%d}"
    headers = {"host": host, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    names = ";".join(headers)
    canonical = "\n".join(["GET", path, query, *(f"{k}:{v}" for k, v in headers.items()), "", names, _EMPTY])
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + credentials.secret_key.encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _suffix(region: str) -> str:
    return {"cn": "amazonaws.com.cn", "eusc": "amazonaws.eu"}.get(region.partition("-")[0], "amazonaws.com")
