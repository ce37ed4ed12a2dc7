"""Fetching: one piece of memory, parts in any order, and a sentence for whatever a store on loopback may do."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from perch.domain.model import Pointer
from perch.local import strict
from perch.predictor.errors import ArtifactUnreachable, ModelUnavailable
from perch.predictor.fetch import fetch_artifact
from perch.predictor.handler import make_handler
from perch.predictor.s3 import Credentials, NoCredentials, S3Object, credentials_of, sign
from perch.predictor.verify import Hashed, verify

KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-1"}
DATA = bytes(range(256)) * 40  # 10,240 bytes


def pointer(data: bytes = DATA, **changes: Any) -> Pointer:
    """A pointer to these bytes."""
    values = {"model": "m", "version": "v1", "key": "models/m/v1/a b.onnx", "version_id": "s3-1", "format": "onnx"}
    return Pointer(**{**values, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **changes})


@dataclass
class Store:
    """A store that does as a test says: `answer` may change what a request gets (status, head, body)."""

    data: bytes = DATA
    etag: str = '"one"'
    answer: Callable[[int, tuple[int, int]], dict[str, Any]] = lambda *_: {}
    ranges: list[tuple[int, int]] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def environ(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one segment, or Nagle's algorithm holds each answer up for 40 ms

        def do_GET(self) -> None:
            store: Store = httpd.store  # type: ignore[attr-defined]
            first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
            with lock:
                number = len(store.ranges)
                store.ranges.append((first, last))
                store.asked.append(dict(self.headers))
                store.paths.append(self.path)
            changed = store.answer(number, (first, last))
            body = changed.get("body", store.data[first : last + 1])
            self.send_response(changed.get("status", 206))
            total = changed.get("total", len(store.data))
            self.send_header("Content-Range", changed.get("range", f"bytes {first}-{last}/{total}"))
            self.send_header("ETag", changed.get("etag", store.etag))
            self.send_header("Content-Length", str(changed.get("length", len(body))))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            if "length" in changed:
                self.close_connection = True

        def log_message(self, *_: Any) -> None: ...

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def store(server: Any) -> Store:
    server.store = Store(port=server.server_address[1])
    return server.store


def read(store: Store, found: Pointer | None = None, **settings: Any) -> Hashed:
    """Fetch without waiting between tries."""
    return fetch_artifact("store", found or pointer(), environ=store.environ, wait=lambda _: None, **settings)


PARTS = {"one_get": 0, "part": 1000, "connections": 3}


# -- what comes back --------------------------------------------------------------------------------------------------


def test_a_small_object_is_one_request(store: Store) -> None:
    """The first byte is most of the wait, so nothing is gained by asking twice."""
    found = read(store)
    assert (bytes(found.data), found.sha256) == (DATA, hashlib.sha256(DATA).hexdigest())
    assert store.ranges == [(0, len(DATA) - 1)]
    assert store.paths == ["/store/models/m/v1/a%20b.onnx?versionId=s3-1"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 5000), part=st.integers(1, 1200), connections=st.integers(1, 9))
def test_parts_are_the_object_whatever_their_size(server: Any, size: int, part: int, connections: int) -> None:
    """Every byte is asked for once and is in its place, and the hash is that of the whole."""
    part = max(part, size // 40 + 1)
    data = hashlib.shake_128(str(size).encode()).digest(size)
    server.store = Store(data=data, port=server.server_address[1])
    found = read(server.store, pointer(data), one_get=0, part=part, connections=connections)
    assert (bytes(found.data), found.sha256) == (data, hashlib.sha256(data).hexdigest())
    asked = sorted(server.store.ranges)
    assert [first for first, _ in asked] == list(range(0, size, part))
    assert sum(last - first + 1 for first, last in asked) == size


def test_what_was_fetched_can_be_read_and_not_written(store: Store) -> None:
    """Loaders get the bytes that were hashed, and no way to change them."""
    data = read(store, **PARTS).data
    assert isinstance(data, memoryview)
    assert data.readonly


def test_all_parts_are_of_one_object(store: Store) -> None:
    """Each names the version, and every one but the first insists on the ETag that the first had."""
    read(store, **PARTS)
    assert all(path.endswith("?versionId=s3-1") for path in store.paths)
    assert [head.get("If-Match") for head in store.asked] == [None] + ['"one"'] * (len(store.asked) - 1)


# -- a store that does not do as it should ----------------------------------------------------------------------------


def test_a_part_that_fails_is_asked_for_again(store: Store) -> None:
    """A 503 and a broken connection pass; nothing that has come is asked for twice."""
    store.answer = lambda number, _: {4: {"status": 503, "body": b"<Code>SlowDown</Code>"}}.get(number, {})
    assert bytes(read(store, **PARTS).data) == DATA
    assert set(Counter(store.ranges).values()) == {1, 2}


def test_an_answer_that_ends_early_goes_on_where_it_stopped(store: Store) -> None:
    """What has come stays, and only the rest is asked for."""
    store.answer = lambda number, _: {"body": DATA[:100], "length": len(DATA)} if number == 0 else {}
    assert bytes(read(store).data) == DATA
    assert store.ranges == [(0, len(DATA) - 1), (100, len(DATA) - 1)]


def test_progress_however_slow_is_not_given_up(store: Store) -> None:
    """Only tries that bring nothing are counted."""
    store.answer = lambda _, asked: {"body": DATA[asked[0] : asked[0] + 1000], "length": asked[1] - asked[0] + 1}
    assert bytes(read(store).data) == DATA


@pytest.mark.parametrize("settings", [{}, PARTS], ids=["one", "parts"])
def test_a_store_that_stays_away_fails_the_init(store: Store, settings: dict[str, int]) -> None:
    """It says nothing of the model; Lambda begins again with a fresh environment instead of keeping a dead one."""
    store.answer = lambda *_: {"status": 503, "body": b"<Error><Code>SlowDown</Code></Error>"}
    with pytest.raises(ArtifactUnreachable, match=r"version s3-1\) could not be fetched: S3 answered SlowDown"):
        read(store, **settings)
    assert len(store.ranges) == 3


def test_an_answer_that_always_ends_early_says_how_much_is_missing(store: Store) -> None:
    """Three times nothing is enough."""
    store.answer = lambda *_: {"body": b"", "length": 5}
    with pytest.raises(ArtifactUnreachable, match="another range than it was asked for"):
        read(store)
    store.answer = lambda *_: {"body": b"", "length": len(DATA)}
    with pytest.raises(ArtifactUnreachable, match="ended 10,240 bytes early"):
        read(store)


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (404, b"<Error><Code>NoSuchVersion</Code></Error>", "cannot be read: NoSuchVersion"),
        (403, b"", "cannot be read: HTTP 403"),
        (301, b"<Code>PermanentRedirect</Code>", "cannot be read: PermanentRedirect"),
        (412, b"<Code>PreconditionFailed</Code>", "was changed while it was read"),
        (416, b"<Code>InvalidRange</Code>", "is shorter than the 10240 bytes that were registered"),
    ],
)
def test_a_store_that_says_no_is_a_fact_about_the_revision(
    store: Store, status: int, body: bytes, sentence: str
) -> None:
    """It is asked once, and every request is told why."""
    store.answer = lambda *_: {"status": status, "body": body}
    with pytest.raises(ModelUnavailable, match=sentence):
        read(store, **PARTS)
    assert len(store.ranges) == 1


def test_a_no_of_this_moment_is_asked_again(store: Store) -> None:
    """Credentials that ran out a moment ago, or a clock that is off, say nothing of the revision."""
    store.answer = lambda number, _: {"status": 400, "body": b"<Code>ExpiredToken</Code>"} if number == 1 else {}
    read(store)
    store.answer = lambda *_: {"status": 403, "body": b"<Code>RequestTimeTooSkewed</Code>"}
    with pytest.raises(ArtifactUnreachable, match="RequestTimeTooSkewed"):
        read(store)


def test_a_no_in_the_middle_ends_all_parts(store: Store) -> None:
    """The other threads stop, and none is left behind."""
    store.answer = lambda number, _: {"status": 403, "body": b"<Code>AccessDenied</Code>"} if number == 5 else {}
    before = threading.active_count()
    with pytest.raises(ModelUnavailable, match="cannot be read: AccessDenied"):
        read(store, one_get=0, part=100, connections=4)
    assert len(store.ranges) < 30
    ours = [thread for thread in threading.enumerate() if "work" in thread.name]
    assert (ours, threading.active_count() <= before + 5) == ([], True)


@pytest.mark.parametrize("settings", [{}, PARTS], ids=["one", "parts"])
def test_an_object_of_another_size_is_not_read(store: Store, settings: dict[str, int]) -> None:
    """The head of the first answer tells."""
    with pytest.raises(ModelUnavailable, match="has 10240 bytes; 5000 were registered, so it was not read"):
        read(store, pointer(size=5000), **settings)
    assert len(store.ranges) == 1


def test_a_pointer_to_nothing_asks_nobody(store: Store) -> None:
    """An empty file cannot have been registered."""
    with pytest.raises(ModelUnavailable, match="was registered with 0 bytes"):
        read(store, pointer(size=0))
    assert store.ranges == []


def test_another_range_than_was_asked_for_is_not_taken(store: Store) -> None:
    """A store that ignores the range would put the wrong bytes into the right place."""
    store.answer = lambda *_: {"range": f"bytes 1-{len(DATA)}/{len(DATA)}"}
    with pytest.raises(ArtifactUnreachable, match="another range"):
        read(store)


def test_a_closed_port_fails_the_init() -> None:
    """Nobody listens: that is no fact about the model."""
    environ = {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    with pytest.raises(ArtifactUnreachable, match=r"could not be fetched: .*refused"):
        fetch_artifact("store", pointer(), environ=environ, wait=lambda _: None)


@pytest.mark.parametrize("endpoint", ["localhost:5000", "ftp://store", "https://"])
def test_an_endpoint_that_is_no_address_is_named(endpoint: str) -> None:
    """A forgotten scheme would look like a store that is down."""
    environ = {**KEYS, "AWS_ENDPOINT_URL": endpoint}
    with pytest.raises(ArtifactUnreachable, match="no address that begins with https://"):
        fetch_artifact("store", pointer(), environ=environ)


def test_a_store_that_says_no_is_a_reason_to_answer_503(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such version: this revision will never have a model, and says so."""
    store.answer = lambda *_: {"status": 404, "body": b"<Code>NoSuchVersion</Code>"}
    for name, value in store.environ.items():
        monkeypatch.setenv(name, value)
    variables = {"PERCH_ENDPOINT": "m", "PERCH_STORE": "store", "PERCH_POINTER": pointer().to_json()}
    asked = {"rawPath": "/models/m", "requestContext": {"http": {"method": "GET", "path": "/models/m"}}}
    answer = make_handler(runtime="onnx", environ=variables)(
        asked, SimpleNamespace(aws_request_id="r", function_version="7")
    )
    assert answer["statusCode"] == 503
    assert "s3://store/models/m/v1/a b.onnx (version s3-1) cannot be read: NoSuchVersion" in answer["body"]


# -- law 2 ------------------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 200), flipped=st.integers(0, 1599))
def test_one_flipped_bit_is_refused(size: int, flipped: int) -> None:
    """Whoever hashed the bytes, they are compared with what was registered."""
    data = bytearray(size)
    data[flipped // 8 % size] ^= 1 << flipped % 8
    found = pointer(bytes(size))
    with pytest.raises(ModelUnavailable, match="SHA-256"):
        verify(bytes(data), found)
    with pytest.raises(ModelUnavailable, match="SHA-256"):
        verify(Hashed(data=bytes(data), sha256=hashlib.sha256(data).hexdigest()), found)
    assert verify(bytes(size), found) == bytes(size)


def test_bytes_of_another_size_are_refused_before_they_are_hashed() -> None:
    """A hash alone would do; the size says better what is wrong."""
    with pytest.raises(ModelUnavailable, match="has 3 bytes; 10240 were registered"):
        verify(Hashed(data=b"abc", sha256=pointer().sha256), pointer())


def test_what_is_no_hash_matches_nothing() -> None:
    """Whatever stands in the pointer, the revision says that it was not loaded."""
    with pytest.raises(ModelUnavailable, match="was registered, so it was not loaded"):
        verify(DATA, pointer(sha256="é" * 64))


# -- who asks ---------------------------------------------------------------------------------------------------------


@given(
    key=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
    version=st.text(st.sampled_from("abcXYZ019._-~ +/="), min_size=1, max_size=12),
    token=st.sampled_from(["", "FwoGZXIvYXdzE//+=="]),
    at=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - it gets UTC
)
def test_requests_are_signed_as_botocore_signs_them(key: str, version: str, token: str, at: datetime) -> None:
    """The reference for Signature Version 4 is what AWS's own SDK makes of the same request."""
    source = S3Object("store", key, version, {**KEYS, "AWS_SESSION_TOKEN": token})
    ours = sign(
        source.host,
        source.path,
        source.query,
        Credentials(access_key="AKID", secret_key="secret", token=token),
        region="eu-west-1",
        at=at,
    )
    request = AWSRequest("GET", f"https://{source.host}{source.path}?{source.query}")
    auth = S3SigV4Auth(BotocoreCredentials("AKID", "secret", token or None), "s3", "eu-west-1")
    request.context["timestamp"] = ours["x-amz-date"]
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    if token:
        request.headers["X-Amz-Security-Token"] = token
    request.headers["X-Amz-Content-SHA256"] = ours["x-amz-content-sha256"]
    theirs = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    assert ours["authorization"].endswith(f"Signature={theirs}")


@pytest.mark.parametrize(
    ("bucket", "environ", "address"),
    [
        ("store", {}, "store.s3.eu-west-1.amazonaws.com/k"),
        ("a.b", {}, "s3.eu-west-1.amazonaws.com/a.b/k"),
        ("store", {"AWS_REGION": "cn-north-1"}, "store.s3.cn-north-1.amazonaws.com.cn/k"),
        ("store", {"AWS_REGION": "eusc-de-east-1"}, "store.s3.eusc-de-east-1.amazonaws.eu/k"),
        ("store", {"AWS_ENDPOINT_URL": "http://localhost:5000"}, "localhost:5000/store/k"),
        ("store", {"AWS_ENDPOINT_URL": "http://x", "AWS_ENDPOINT_URL_S3": "http://y:9/s3/"}, "y:9/s3/store/k"),
    ],
)
def test_a_bucket_is_found_where_aws_has_it(bucket: str, environ: dict[str, str], address: str) -> None:
    """By its own host name, unless there is no certificate for that."""
    source = S3Object(bucket, "k", "v", {**KEYS, **environ})
    assert source.host + source.path == address


def test_without_keys_in_the_environment_botocore_looks_for_them(tmp_path: Any, monkeypatch: Any) -> None:
    """SnapStart gives keys through an endpoint, and a container elsewhere may have a profile."""
    profile = tmp_path / "credentials"
    profile.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = B\naws_session_token = C\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    assert credentials_of({}) == Credentials(access_key="A", secret_key="B", token="C")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(NoCredentials, match="no AWS credentials were found"):
        credentials_of({})


def test_a_containers_endpoint_is_asked_for_keys(tmp_path: Any) -> None:
    """As under SnapStart: its address and a token stand in the environment in place of keys."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            body = b'{"AccessKeyId": "A", "SecretAccessKey": "B", "Token": "C", "Expiration": "2026-01-01T00:00:00Z"}'
            self.send_response(200 if self.path == "/keys?of=role" else 403)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        address = f"http://127.0.0.1:{httpd.server_address[1]}"
        (tmp_path / "token").write_text("from a file\n")
        environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{address}/keys?of=role"}
        for more in (
            {"AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret"},
            {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token")},
        ):
            assert credentials_of(environ | more) == Credentials(access_key="A", secret_key="B", token="C")
        with pytest.raises(NoCredentials, match="answered 403"):
            credentials_of({"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{address}/other"})
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
    assert asked == [("/keys?of=role", "secret"), ("/keys?of=role", "from a file"), ("/other", None)]
    with pytest.raises(NoCredentials, match="could not be asked"):
        credentials_of({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/keys"})


# -- on the local cloud's store ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local_store() -> Iterator[tuple[Any, dict[str, str]]]:
    """A versioned bucket named `store` on strict moto; gives its client, and the predictor's variables."""
    strict.install()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    port = server.get_host_and_port()[1]
    environ = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    client = boto3.client(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL"],
        region_name="eu-west-1",
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="store", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    client.put_bucket_versioning(Bucket="store", VersioningConfiguration={"Status": "Enabled"})
    yield client, environ
    server.stop()
    strict.uninstall()


@pytest.mark.parametrize("settings", [{}, PARTS], ids=["one", "parts"])
def test_exactly_the_registered_version_is_fetched(local_store: Any, settings: dict[str, int]) -> None:
    """A later upload to the same key is not what this revision serves."""
    client, environ = local_store
    first = client.put_object(Bucket="store", Key=pointer().key, Body=DATA)["VersionId"]
    client.put_object(Bucket="store", Key=pointer().key, Body=b"something else")
    found = pointer(version_id=first)
    assert bytes(verify(fetch_artifact("store", found, environ=environ, **settings), found)) == DATA


def test_an_object_that_the_local_store_does_not_have(local_store: Any) -> None:
    """No such object, no such version: this revision will never have a model."""
    sentence = r"s3://store/models/none \(version null\) cannot be read: NoSuch"
    with pytest.raises(ModelUnavailable, match=sentence):
        fetch_artifact("store", pointer(key="models/none", version_id="null"), environ=local_store[1])


@pytest.mark.parametrize(
    ("wanted", "status", "got"),
    [
        ("bytes=0-99", 206, DATA[:100]),
        ("bytes=10000-", 206, DATA[10000:]),
        ("bytes=-5", 206, DATA[-5:]),
        ("bytes=5-99999", 206, DATA[5:]),
        ("bytes=zero", 200, DATA),
    ],
)
def test_the_local_store_reads_a_range_as_s3_does(local_store: Any, wanted: str, status: int, got: bytes) -> None:
    """Only the range is read from where the object is kept; what is answered is the same as before."""
    client, _ = local_store
    client.put_object(Bucket="store", Key="ranged", Body=DATA)
    answer = client.get_object(Bucket="store", Key="ranged", Range=wanted)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
    assert answer["Body"].read() == got
