"""Live traffic: held-out digits through the API, without a pause, from a process of its own.

python -m examples.digits.traffic URL ENDPOINT [ENDPOINT …] --rate 300

Each answer is a line on standard output: endpoint, status, model version, right or wrong, milliseconds. Requests are
signed as any client of an IAM-protected API signs them. It stops when its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from typing import NamedTuple
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

CONNECTIONS = 6  # for each endpoint


class Request(NamedTuple):
    """What to send where, and the digit that it shows."""

    endpoint: str
    body: bytes
    digit: int


def requests(endpoints: list[str]) -> Iterator[Request]:
    """Return the held-out scans in turn, one after the other for each endpoint, for ever."""
    from examples.digits.data import held_out  # noqa: PLC0415 - scikit-learn takes a second to import

    scans = held_out()
    rows = [
        (json.dumps({"features": [row.tolist()]}).encode(), int(digit))
        for row, digit in zip(scans.features, scans.digits, strict=True)
    ]
    for body, digit in cycle(rows):
        for endpoint in endpoints:
            yield Request(endpoint, body, digit)


async def connection(url: str, wanted: asyncio.Queue[Request], credentials: Credentials) -> None:
    """Send what the queue holds over one kept-alive connection."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    while True:
        request = await wanted.get()
        began = time.perf_counter()
        writer.write(_signed(url, request, credentials))
        status, answer = await _answer(reader)
        right = answer.get("predictions") == [request.digit]
        line = f"{request.endpoint} {status} {answer.get('version', '-')} {int(right)}"
        print(line, f"{1000 * (time.perf_counter() - began):.2f}", flush=True)


def _signed(url: str, request: Request, credentials: Credentials) -> bytes:
    path = f"/models/{request.endpoint}/predict"
    aws = AWSRequest("POST", url + path, data=request.body, headers={"Content-Type": "application/json"})
    SigV4Auth(credentials, "execute-api", os.environ.get("AWS_REGION", "us-east-1")).add_auth(aws)
    aws.headers["Host"] = urlsplit(url).netloc
    aws.headers["Content-Length"] = str(len(request.body))
    head = "".join(f"{name}: {value}\r\n" for name, value in aws.headers.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + request.body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, object]]:
    status = int((await reader.readline()).split()[1])
    length = 0
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = json.loads(await reader.readexactly(length))
    return status, body if isinstance(body, dict) else {}


async def send(url: str, endpoints: list[str], rate: float) -> None:
    """Send `rate` requests a second in all, evenly, until standard input closes."""
    credentials = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    wanted: asyncio.Queue[Request] = asyncio.Queue(maxsize=4 * CONNECTIONS)
    senders = [asyncio.create_task(connection(url, wanted, credentials)) for _ in range(CONNECTIONS * len(endpoints))]
    closed = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    started = time.perf_counter()
    for number, request in enumerate(requests(endpoints)):
        await wanted.put(request)
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        failed = next((s for s in senders if s.done()), None)
        if failed:
            failed.result()
        if closed.done():
            return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("endpoints", nargs="+")
    parser.add_argument("--rate", type=float, default=300)
    asked = parser.parse_args()
    asyncio.run(send(asked.url, asked.endpoints, asked.rate))
    os._exit(0)  # the thread that waits for standard input would keep the process
