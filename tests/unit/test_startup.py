"""A cold start: the fetch is begun ahead, and changes nothing of what is loaded, refused or told."""

from __future__ import annotations

import gc
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from perch.domain.pointer import Pointer
from perch.predictor import loading, startup
from perch.predictor.errors import ArtifactUnreachable, ModelUnavailable
from perch.predictor.fetch import fetch_artifact
from perch.predictor.runtimes import loader_of as real_loader_of
from perch.predictor.verify import Hashed
from perch.predictor.verify import verify as real_verify
from tests.local.tiny_models import onnx_model

MODEL = onnx_model(1)
CONTEXT = SimpleNamespace(aws_request_id="r", function_version="7")
ASKED = {
    "version": "2.0",
    "rawPath": "/models/m/predict",
    "headers": {"content-type": "application/json"},
    "requestContext": {
        "http": {"method": "POST", "path": "/models/m/predict"},
        "stage": "$default",
        "timeEpoch": 1,
    },
    "body": json.dumps({"features": [[1.0, 2.0, 3.0, 0.0]]}),
    "isBase64Encoded": False,
}


def pointer(data: bytes = MODEL, **changes: Any) -> Pointer:
    said = {"model": "m", "version": "v", "key": "models/m/v/m.onnx", "version_id": "i", "size": len(data)}
    return Pointer(**{**said, "sha256": hashlib.sha256(data).hexdigest(), "format": "onnx", **changes})


class Store(BaseHTTPRequestHandler):
    """A store of one object, which counts who asks and may be held up."""

    data = MODEL
    status = 206
    asked: ClassVar[list[str]] = []
    open = threading.Event()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.open.wait(30)
        body = self.data if self.status == 206 else b"<Code>NoSuchVersion</Code>"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes 0-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A store, open, and the variables that lead to its model."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for name, value in (("data", MODEL), ("status", 206), ("asked", [])):
        monkeypatch.setattr(Store, name, value)
    Store.open.set()
    yield {
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "PERCH_ENDPOINT": "m", "PERCH_STORE": "store",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "PERCH_POINTER": pointer().to_json(),
    }  # fmt: skip
    Store.open.set()
    server.shutdown()
    server.server_close()


def test_a_predictor_starts_with_one_fetch_and_answers(environ: dict[str, str]) -> None:
    """What was fetched ahead is what is loaded; nothing is asked twice."""
    answer = startup.start(runtime="onnx", environ=environ)(ASKED, CONTEXT)
    assert answer["statusCode"] == 200
    assert len(Store.asked) == 1


def test_the_engine_is_imported_while_the_bytes_are_still_on_their_way(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store answers only once the loader has been asked for: were it the other way round, nobody would answer."""
    Store.open.clear()

    def asked_for(*names: str) -> Any:
        Store.open.set()
        return real_loader_of(*names)

    monkeypatch.setattr(loading, "loader_of", asked_for)
    assert startup.start(runtime="onnx", environ=environ)(ASKED, CONTEXT)["statusCode"] == 200


def test_law_2_bytes_that_came_ahead_are_compared_before_a_loader_gets_them(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One other byte, and the revision has no model."""
    monkeypatch.setattr(Store, "data", MODEL[:-1] + bytes([MODEL[-1] ^ 1]))
    monkeypatch.setattr(loading, "loader_of", lambda *_: lambda _: pytest.fail("a loader got bytes"))
    answer = startup.start(runtime="onnx", environ=environ)(ASKED, CONTEXT)
    assert answer["statusCode"] == 503
    assert "SHA-256" in answer["body"]


@pytest.mark.parametrize(
    "changes",
    [
        {"PERCH_POINTER": ""},
        {"PERCH_POINTER": "{"},
        {"PERCH_STORE": ""},
        {"PERCH_POINTER": pointer(format="joblib").to_json()},
        {"PERCH_POINTER": pointer(format="pt2").to_json()},
    ],
    ids=["no model", "no pointer", "no store", "mistrusted", "of another runtime"],
)
def test_what_must_not_be_loaded_here_is_not_fetched_ahead(environ: dict[str, str], changes: dict[str, str]) -> None:
    """The store is not asked at all, and the revision says why it has no model."""
    answer = startup.start(runtime="onnx", environ={**environ, **changes})(ASKED, CONTEXT)
    assert answer["statusCode"] == 503
    assert not Store.asked


def test_a_store_that_says_no_is_a_reason_of_the_revision(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the thread was told is told to the clients."""
    monkeypatch.setattr(Store, "status", 404)
    answer = startup.start(runtime="onnx", environ=environ)(ASKED, CONTEXT)
    assert answer["statusCode"] == 503
    assert "cannot be read: NoSuchVersion" in answer["body"]
    assert len(Store.asked) == 1


def test_a_store_that_does_not_answer_ends_the_init(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda is to try again in a fresh environment; and the collector is on again all the same."""

    def fetch(bucket: str, found: Pointer, **_: Any) -> Hashed:
        raise ArtifactUnreachable("nobody there")

    monkeypatch.setattr(startup, "fetch_artifact", fetch)
    with pytest.raises(ArtifactUnreachable, match="nobody there"):
        startup.start(runtime="onnx", environ=environ)
    assert gc.isenabled()


def test_keys_that_are_not_found_are_told_by_whoever_loads(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is begun without them."""

    def locate(*_: Any) -> Any:
        raise ArtifactUnreachable("no keys")

    monkeypatch.setattr(startup, "locate", locate)
    assert startup.fetch_ahead("onnx", environ) is fetch_artifact


def test_another_model_than_the_one_begun_is_fetched_when_it_is_asked_for(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are the challengers of an experiment, and a model that is asked for once more."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    fetch = startup.fetch_ahead("onnx", environ)
    for wanted in (pointer(version_id="j"), pointer(), pointer()):
        found = fetch("store", wanted)
        assert isinstance(found, Hashed)
        assert bytes(found.data) == MODEL
    assert sorted(path[-1] for path in Store.asked) == ["i", "i", "j"]


def test_the_collector_rests_while_a_model_is_loaded(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And is on again for requests, whose garbage it finds."""
    seen = []

    def verify(*given: Any) -> Any:
        seen.append(gc.isenabled())
        return real_verify(*given)

    monkeypatch.setattr(loading, "verify", verify)
    startup.start(runtime="onnx", environ=environ)
    gc.unfreeze()  # the objects of all other tests
    assert seen == [False]
    assert gc.isenabled()


def test_an_engine_that_is_not_there_is_a_reason_of_the_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched for it."""

    def loader_of(*_: str) -> Any:
        raise ImportError("No module named 'onnxruntime'")

    monkeypatch.setattr(loading, "loader_of", loader_of)
    environ = {"PERCH_STORE": "store", "PERCH_POINTER": pointer().to_json()}
    with pytest.raises(ModelUnavailable, match="what loads onnx cannot be imported: ImportError: No module"):
        loading.load_served("onnx", environ, lambda *_: pytest.fail("fetched"))


THREAD = """
import os, sys
from perch.predictor import startup
before = set(sys.modules)
startup.fetch_ahead("onnx", os.environ)("store", startup.wanted("onnx", os.environ)[1])
print(*sorted(set(sys.modules) - before))
"""


def test_the_thread_imports_nothing_of_ours(environ: dict[str, str]) -> None:
    """Two threads that import can wait for each other; what it may need is how Python spells host names."""
    done = subprocess.run([sys.executable, "-c", THREAD], env=environ, capture_output=True, text=True, check=True)
    assert len(Store.asked) == 1
    assert set(done.stdout.split()) <= {"encodings.idna", "stringprep", "unicodedata"}
