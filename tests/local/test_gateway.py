"""The gateway answers over HTTP as an API Gateway HTTP API does."""

import base64
import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from perch.local.compute import DataPlane
from perch.local.gateway.gateway import LIMITS, Gateway
from perch.local.ports import Route
from tests.local.compute_fakes import ARN, NOON, FakeFunctions, FixedClock, RecordedLogs, RecordedMetrics, until

ECHO = "def handler(event, context): return event"
SAY = """
import json
def handler(event, context): return json.loads(event["body"])
"""
TROUBLE = """
import os, time
def handler(event, context):
    match event["rawPath"].rsplit("/")[-1]:
        case "raise": raise ValueError("no")
        case "exit": os._exit(1)
        case "sleep": time.sleep(60)
        case "wait":
            query = event["queryStringParameters"]["gate"]
            open(query + ".here", "w").close()
            while not os.path.exists(query): time.sleep(0.005)
            return "waited"
"""
SECRET = "secret"
ROUTES = {
    "ANY /echo/{id}/{rest+}": "echo",
    "ANY /echo": "echo",
    "POST /say": "say",
    "ANY /trouble/{what}": "trouble",
    "ANY /brief/{what}": "brief",
    "ANY /slow/{what}": "slow",
    "GET /full": "full",
    "GET /nobody": "nobody",
    "ANY /signed": "echo",
}


class FakeRoutes:
    """Routes that a test may change."""

    def __init__(self):
        self.generation = 1
        self.table = [self.route(key, name) for key, name in ROUTES.items()]

    @staticmethod
    def route(key, name):
        method, path = key.split(" ")
        return Route(
            route_key=key,
            method=method,
            path=path,
            function=f"{ARN}{name}:live",
            auth="AWS_IAM" if path == "/signed" else "NONE",
            timeout_ms=200 if path.startswith("/slow") else 30_000,
        )

    def routes(self):
        return tuple(self.table)


class Front:
    """A running gateway and a client for it."""

    def __init__(self, folder):
        self.functions = FakeFunctions(folder)
        self.functions.add("echo", ECHO, alias="live")
        self.functions.add("say", SAY, alias="live", memory_mb=512)
        self.functions.add("trouble", TROUBLE, alias="live")
        self.functions.add("brief", TROUBLE, alias="live", timeout_s=0.5)
        self.functions.add("slow", TROUBLE, alias="live", timeout_s=60)
        self.functions.add("full", ECHO, alias="live", reserved=0)
        self.clock = FixedClock()
        self.metrics = RecordedMetrics()
        self.routes = FakeRoutes()
        self.plane = DataPlane(self.functions, self.clock, self.metrics, RecordedLogs())
        self.plane.start()
        self.gateway = Gateway(self.plane, self.routes, self.clock, credentials={"key": SECRET})
        self.url = self.gateway.start()
        self.address = urlsplit(self.url).hostname, urlsplit(self.url).port

    def connect(self):
        return closing(http.client.HTTPConnection(*self.address, timeout=120))

    def ask(self, method, target, body=None, headers=None):
        """Return status, headers and body of one request."""
        with self.connect() as client:
            client.request(method, target, body, headers or {})
            answer = client.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def event(self, method, target, body=None, headers=None):
        """Return the event that a request became."""
        status, _, answer = self.ask(method, target, body, headers)
        assert status == 200, answer
        return json.loads(answer)

    def say(self, value):
        """Return what the client gets when a handler returns `value`."""
        return self.ask("POST", "/say", json.dumps(value), {"content-type": "application/json"})

    def raw(self, data, until=b""):
        """Send bytes and return all that comes back, to the end of the connection or to a mark."""
        with socket.create_connection(self.address, timeout=120) as client:
            client.sendall(data)
            got = b""
            while chunk := client.recv(65536):
                got += chunk
                if until and until in got:
                    break
            return got

    def stop(self):
        self.gateway.stop()
        self.plane.stop()


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """One gateway for all tests here."""
    front = Front(tmp_path_factory.mktemp("functions"))
    yield front
    front.stop()


# The event


def test_a_request_becomes_an_event_of_payload_format_two(front):
    """Every member that the service documents, at virtual time."""
    event = front.event(
        "POST",
        "/echo/a%20b/c/d?x=1&y=%C3%A9&x=2&empty=",
        b'{"q": 1}',
        {
            "Content-Type": "application/json; charset=utf-8",
            "Cookie": "a=1; b=2",
            "X-Twice": "one",
            "User-Agent": "test/1",
        },
    )
    context = event.pop("requestContext")
    headers = event.pop("headers")

    assert event == {
        "version": "2.0",
        "routeKey": "ANY /echo/{id}/{rest+}",
        "rawPath": "/echo/a b/c/d",
        "rawQueryString": "x=1&y=%C3%A9&x=2&empty=",
        "cookies": ["a=1", "b=2"],
        "queryStringParameters": {"x": "1,2", "y": "é", "empty": ""},
        "pathParameters": {"id": "a b", "rest": "c/d"},
        "body": '{"q": 1}',
        "isBase64Encoded": False,
    }
    assert context.pop("requestId")
    assert context == {
        "accountId": "123456789012",
        "apiId": "local",
        "domainName": "127.0.0.1",
        "domainPrefix": "local",
        "http": {
            "method": "POST",
            "path": "/echo/a b/c/d",
            "protocol": "HTTP/1.1",
            "sourceIp": "127.0.0.1",
            "userAgent": "test/1",
        },
        "routeKey": "ANY /echo/{id}/{rest+}",
        "stage": "$default",
        "time": "21/Nov/2026:12:00:00 +0000",
        "timeEpoch": int(NOON.timestamp() * 1000),
    }
    assert headers["x-twice"] == "one"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["content-length"] == "8"
    assert "cookie" not in headers


def test_a_header_that_comes_twice_is_joined_with_a_comma(front):
    """In the order sent."""
    data = b"GET /echo HTTP/1.1\r\nHost: here\r\nX-Tag: one\r\nx-tag: two\r\nConnection: close\r\n\r\n"
    event = json.loads(front.raw(data).split(b"\r\n\r\n", 1)[1])

    assert event["headers"]["x-tag"] == "one,two"
    assert "body" not in event
    assert "queryStringParameters" not in event


@pytest.mark.parametrize(
    ("content_type", "is_text"),
    [
        ("application/json", True),
        ("application/xml; charset=utf-8", True),
        ("application/javascript", True),
        ("TEXT/csv", True),
        ("application/octet-stream", False),
        ("application/x-www-form-urlencoded", False),
        ("application/ld+json", False),
        (None, False),
    ],
)
def test_a_body_is_text_only_by_its_content_type(front, content_type, is_text):
    """Everything else arrives in base64."""
    event = front.event("POST", "/echo", b"body", {"content-type": content_type} if content_type else {})

    assert event["isBase64Encoded"] is not is_text
    assert event["body"] == ("body" if is_text else base64.b64encode(b"body").decode())


def test_bytes_that_are_no_text_survive_whatever_their_type(front):
    """Nothing is replaced."""
    event = front.event("POST", "/echo", b"\xff\x00", {"content-type": "application/json"})

    assert base64.b64decode(event["body"]) == b"\xff\x00"
    assert event["isBase64Encoded"] is True


# The answer


def test_an_object_with_a_status_code_is_the_whole_answer(front):
    """Status, headers, cookies, body."""
    status, headers, body = front.say(
        {
            "statusCode": 418,
            "headers": {"X-Number": 7, "X-True": True, "Content-Type": "text/tea", "Content-Length": "999"},
            "cookies": ["a=1; Path=/", "b=2"],
            "body": "töpfchen",
        }
    )

    assert (status, body.decode()) == (418, "töpfchen")
    assert headers["x-number"] == "7"
    assert headers["x-true"] == "true"
    assert headers["content-type"] == "text/tea"
    assert headers["content-length"] == str(len(body))
    assert headers["set-cookie"] == "b=2"  # both are sent; a dict shows the last
    assert headers["apigw-requestid"]


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], "text", 7, None])
def test_any_other_json_is_the_body_of_a_200(front, value):
    """With the type application/json."""
    status, headers, body = front.say(value)

    assert (status, headers["content-type"], json.loads(body)) == (200, "application/json", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"statusCode": 200}, (200, b"")),
        ({"statusCode": "201", "body": "x"}, (201, b"x")),
        ({"statusCode": 200, "body": "AAH/", "isBase64Encoded": True}, (200, b"\x00\x01\xff")),
        ({"statusCode": 204, "body": "dropped"}, (204, b"")),
        ({"statusCode": 299, "body": None}, (299, b"")),
    ],
)
def test_a_status_code_alone_is_enough(front, value, expected):
    """The rest has defaults; binary comes in base64."""
    status, _, body = front.say(value)

    assert (status, body) == expected


@pytest.mark.parametrize(
    "value",
    [
        {"statusCode": "many"},
        {"statusCode": 99},
        {"statusCode": True},
        {"statusCode": None},
        {"statusCode": 200, "body": {"not": "text"}},
        {"statusCode": 200, "body": "no base64!", "isBase64Encoded": True},
        {"statusCode": 200, "headers": ["x"]},
        {"statusCode": 200, "headers": {"x": {"y": 1}}},
        {"statusCode": 200, "headers": {"x": "a\r\nset-cookie: stolen=1"}},
        {"statusCode": 200, "headers": {"x: y\r\nz": "a"}},
        {"statusCode": 200, "cookies": "a=1"},
    ],
)
def test_what_cannot_be_sent_is_an_internal_error(front, value):
    """Nothing of it reaches the client."""
    status, headers, body = front.say(value)

    assert (status, json.loads(body)) == (500, {"message": "Internal Server Error"})
    assert "set-cookie" not in headers


@pytest.mark.parametrize("path", ["/trouble/raise", "/trouble/exit", "/brief/sleep", "/nobody"])
def test_a_function_that_fails_is_an_internal_error(front, path):
    """Raised, ended, timed out, or not there."""
    status, _, body = front.ask("GET", path)

    assert (status, json.loads(body)) == (500, {"message": "Internal Server Error"})


def test_a_throttled_function_is_unavailable(front):
    """503, as HTTP APIs answer."""
    status, _, body = front.ask("GET", "/full")

    assert (status, json.loads(body)) == (503, {"message": "Service Unavailable"})


def test_a_function_slower_than_the_integration_is_unavailable_and_runs_on(front):
    """The client is answered at the integration's timeout; the invocation still counts."""
    front.plane.invoke(f"{ARN}slow", json.dumps({"rawPath": "/nothing"}).encode())  # so that a worker is warm
    before = len(front.metrics.values("Invocations", FunctionName="slow"))
    status, _, body = front.ask("GET", "/slow/sleep")

    assert (status, json.loads(body)) == (503, {"message": "Service Unavailable"})
    assert len(front.metrics.values("Invocations", FunctionName="slow")) == before
    assert front.clock.held == 0


def test_no_route_is_not_found(front):
    """And a changed table is seen at once."""
    assert front.ask("GET", "/new")[0] == 404
    assert json.loads(front.ask("GET", "/new")[2]) == {"message": "Not Found"}

    front.routes.table.append(front.routes.route("GET /new", "echo"))
    front.routes.generation += 1

    assert front.ask("GET", "/new")[0] == 200


def test_users_do_not_hold_virtual_time(front, tmp_path):
    """Under steady traffic somebody always waits for an answer; time goes on all the same."""
    gate = tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(front.ask, "GET", f"/trouble/wait?gate={gate}")
        until(Path(f"{gate}.here").exists)
        assert front.clock.held == 0
        gate.touch()

        assert waiting.result()[2] == b'"waited"'


def test_a_client_that_goes_away_leaves_nothing_behind(front, tmp_path):
    """Its function runs to its end, and virtual time is free again."""
    gate = tmp_path / "gate"
    before = len(front.metrics.values("Invocations", FunctionName="trouble"))
    with socket.create_connection(front.address, timeout=120) as client:
        client.sendall(f"GET /trouble/wait?gate={gate} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        until(Path(f"{gate}.here").exists)
    gate.touch()
    until(lambda: len(front.metrics.values("Invocations", FunctionName="trouble")) > before)
    front.ask("GET", "/echo")  # a round trip through the loop

    assert front.clock.held == 0


def test_what_an_answer_stands_for_is_measured_before_it_is_sent(front):
    """A client that has its answer can count on its metrics."""
    before = len(front.metrics.values("Invocations", FunctionName="echo"))
    for number in range(1, 20):
        front.ask("GET", "/echo")
        assert len(front.metrics.values("Invocations", FunctionName="echo")) == before + number


# Sizes


def test_a_body_above_ten_megabytes_is_too_large(front):
    """Announced or chunked; the client gets the answer although it is still sending."""
    body = b"x" * (10 * 1024 * 1024 + 1)
    expected = (413, {"message": "Request Entity Too Large"})

    status, _, answer = front.ask("POST", "/echo", body)
    assert (status, json.loads(answer)) == expected

    chunks = (body[start : start + 65536] for start in range(0, len(body), 65536))
    status, _, answer = front.ask("POST", "/echo", chunks)
    assert (status, json.loads(answer)) == expected


def test_a_body_that_lambda_would_not_take_is_too_large(front):
    """Seven megabytes pass the gateway's limit, but not Lambda's six; nothing else is disturbed."""
    status, _, answer = front.ask("POST", "/echo", b"x" * 7_000_000, {"content-type": "text/plain"})

    assert (status, json.loads(answer)) == (413, {"message": "Request Entity Too Large"})
    assert front.ask("GET", "/echo")[0] == 200


def test_five_megabytes_of_text_arrive_whole(front):
    """And go back whole."""
    text = "0123456789" * 250_000
    status, _, answer = front.ask(
        "POST", "/say", json.dumps({"statusCode": 200, "body": text}), {"content-type": "application/json"}
    )

    assert (status, answer.decode()) == (200, text)


def test_a_head_too_large_is_refused(front):
    """Headers and request line together may take 10,240 bytes."""
    assert front.ask("GET", "/echo", headers={"x-long": "x" * 11_000})[0] == 431
    assert front.ask("GET", "/echo?" + "x" * 11_000)[0] == 431


# HTTP, of which tests/unit/test_http.py says more


def test_one_connection_serves_many_requests(front):
    """Kept alive, bodies read to their ends."""
    with front.connect() as client:
        for number in range(5):
            client.request("POST", "/echo", str(number).encode(), {"content-type": "text/plain"})
            assert json.loads(client.getresponse().read())["body"] == str(number)


def test_pipelined_requests_are_answered_in_order(front):
    """Hundreds at once, errors among them."""
    ask = "GET {} HTTP/1.1\r\nhost: x\r\n\r\n"
    targets = [f"/echo?n={number}" if number % 3 else "/not-there" for number in range(300)]
    data = "".join(ask.format(target) for target in targets)
    data += "GET /echo?n=last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    got = front.raw(data.encode())

    assert got.count(b"HTTP/1.1 404") == 100
    bodies = [part.split(b'"rawQueryString": "n=')[1] for part in got.split(b"HTTP/1.1 200")[1:]]
    found = [body.split(b'"')[0].decode() for body in bodies]
    assert found == [*(str(number) for number in range(300) if number % 3), "last"]


def test_what_cannot_be_read_is_refused_as_api_gateway_does(front):
    """No HTTP, chunks without an end, another coding, and half a request; the connection is closed."""
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\n"
    chunks = head + b"transfer-encoding: chunked\r\n\r\n1;"
    cases = {
        b"rubbish\r\n\r\n": (30, b'HTTP/1.1 400 Bad Request|{"message":"Bad Request"}'),
        chunks + b"a" * 100_000: (
            *(30, b"HTTP/1.1 431 Request Header Fields Too Large|"),
            b'{"message":"Request Header Fields Too Large"}',
        ),
        head + b"transfer-encoding: gzip, chunked\r\n\r\n": (
            *(30, b"HTTP/1.1 501 Not Implemented|"),
            b'{"message":"Not Implemented"}',
        ),
        b"GET /ec": (0.2, b'HTTP/1.1 408 Request Timeout|{"message":"Request Timeout"}'),
    }
    for data, (receive_s, *answer) in cases.items():
        limits = replace(LIMITS, body=100, receive_s=receive_s)
        gateway = Gateway(front.plane, front.routes, front.clock, limits=limits)
        address = urlsplit(gateway.start())
        try:
            with socket.create_connection((address.hostname, address.port), timeout=120) as client:
                client.sendall(data)
                got = client.makefile("rb").read()
        finally:
            gateway.stop()
        assert (got[: got.index(b"\r\n")] + b"|" + got[got.index(b"{") :]) == b"".join(answer)
        assert b"apigw-requestid" in got


# Signatures


def sign(front, method="GET", target="/signed", body=b"", *, key="key", secret=SECRET, service="execute-api"):
    """Return the headers of a signed request."""
    request = AWSRequest(method=method, url=front.url + target, data=body, headers={"content-type": "text/plain"})
    SigV4Auth(Credentials(key, secret), service, "us-east-1").add_auth(request)
    return dict(request.headers)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [("GET", "/signed", b""), ("POST", "/signed?b=2&a=%20x&a=1", b"the body"), ("DELETE", "/signed?empty=", b"")],
)
def test_a_signed_request_passes_and_names_its_caller(front, method, target, body):
    """Signed by botocore, as any AWS client would."""
    event = front.event(method, target, body or None, sign(front, method, target, body))

    assert event["requestContext"]["authorizer"]["iam"]["accessKey"] == "key"


def test_a_request_that_is_not_signed_as_it_should_be_is_forbidden(front):
    """Each of these differs from a good one in one thing."""
    good = sign(front, "POST", body=b"body")
    attempts = {
        "unsigned": ("/signed", b"body", {}),
        "other body": ("/signed", b"other", good),
        "other query": ("/signed?x=1", b"body", good),
        "other header": ("/signed", b"body", {**good, "X-Amz-Date": "20200101T000000Z"}),
        "wrong secret": ("/signed", b"body", sign(front, "POST", body=b"body", secret="guess")),
        "unknown key": ("/signed", b"body", sign(front, "POST", body=b"body", key="nobody")),
        "other service": ("/signed", b"body", sign(front, "POST", body=b"body", service="s3")),
        "garbage": ("/signed", b"body", {"authorization": "AWS4-HMAC-SHA256 Credential=key"}),
        "wrong hash": ("/signed", b"body", {**good, "X-Amz-Content-SHA256": "0" * 64}),
    }
    answers = {name: front.ask("POST", *attempt) for name, attempt in attempts.items()}

    assert {name: answer[0] for name, answer in answers.items()} == dict.fromkeys(attempts, 403)
    assert {answer[2] for answer in answers.values()} == {b'{"message":"Forbidden"}'}
    assert front.ask("POST", "/signed", b"body", good)[0] == 200


def test_a_signature_older_than_five_minutes_is_forbidden(front, monkeypatch):
    """By the real clock, whatever the virtual one says."""
    headers = sign(front)
    for minutes, status in ((4, 200), (-4, 200), (6, 403), (-6, 403)):
        later = datetime.now(UTC) + timedelta(minutes=minutes)
        monkeypatch.setattr(front.gateway, "_real_now", lambda later=later: later)
        assert front.ask("GET", "/signed", headers=headers)[0] == status
