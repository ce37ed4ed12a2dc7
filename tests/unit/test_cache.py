"""The prediction cache: what hits, what never does, how much it keeps, and that its server can do no harm."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import fakeredis
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.predictor.cache import Cache, Memo, read_cache
from perch.predictor.handler import Handler, make_handler
from perch.predictor.journal import PROBE_STAGE, REPLAY_STAGE
from perch.predictor.shared_cache import SharedCache, connect
from tests.clients.models import mirror
from tests.unit.test_predictor import MODEL, environment, event, lines, pointer
from tests.unit.test_protocol import INFER, ROW, http

__all__ = ["lines"]  # the fixture

CONTEXT = SimpleNamespace(aws_request_id="request-1", function_version="7")
SETTINGS = {"ttl_s": 60, "size_mb": 1}
Lines = Callable[[], list[dict[str, Any]]]


def make(data: bytes = MODEL, *, version: str = "v1", **cache: Any) -> Handler:
    """A handler with a cache that has answered its first request, which always runs the model."""
    environ = {**environment(pointer(data, version=version)), "PERCH_CACHE": json.dumps({**SETTINGS, **cache})}
    handler = make_handler(runtime="onnx", environ=environ, fetch=lambda *_: data)
    handler(event({"features": [2, 2, 2]}), CONTEXT)
    return handler


def cached(handler: Handler, asked: dict[str, Any], context: Any = CONTEXT) -> str | None:
    """What the answer says of the cache."""
    found: str | None = handler(asked, context)["headers"].get("x-perch-cache")
    return found


def test_the_same_inputs_hit_however_they_are_written() -> None:
    """Our own way, the protocol's and MLflow's, numbers as 1 or 1.0, nested or flat, in JSON or in bytes."""
    handler = make()
    data = np.array([[1, 0, 0]], dtype="<f4").tobytes()
    tensor = {**{k: v for k, v in ROW.items() if k != "data"}, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    ways = [
        event({"features": [[1, 0, 0]]}),
        event({"features": [1.0, 0.0, 0.0]}),
        event({"features": [[True, 0, 0]], "more": "ignored"}),
        http(INFER, {"inputs": [ROW]}),
        http(INFER, {"inputs": [{**ROW, "data": [[1, 0, 0]]}], "id": "one"}),
        http(INFER, head + data, inference_header_content_length=str(len(head))),
        http("/models/table/invocations", {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 0, 0]]}}),
    ]
    assert [cached(handler, one) for one in ways] == ["miss"] + ["hit"] * (len(ways) - 1)


def test_a_hit_is_answered_as_a_miss_was() -> None:
    """But for the header that says so."""
    handler = make()
    for asked in (event({"features": [[1, 0, 0], [0, 0, 0]]}), http(INFER, {"inputs": [ROW], "id": "x"})):
        first, second = handler(asked, CONTEXT), handler(asked, CONTEXT)
        assert first["body"] == second["body"]
        assert (first["headers"].pop("x-perch-cache"), second["headers"].pop("x-perch-cache")) == ("miss", "hit")
        assert first["headers"] == second["headers"]


@pytest.mark.parametrize("stage", [PROBE_STAGE, REPLAY_STAGE])
def test_probes_and_replays_ask_the_model(stage: str, lines: Lines) -> None:
    """They are sent to learn what it answers now; and what they learn is kept for nobody."""
    handler = make()
    asked = event({"features": [1, 0, 0]})
    asked["requestContext"]["stage"] = stage
    assert [cached(handler, asked) for _ in range(2)] == [None, None]
    assert "cache" not in lines()[-1]
    assert cached(handler, event({"features": [1, 0, 0]})) == "miss"


def test_no_answer_is_taken_from_another_revision_version_or_model() -> None:
    """The key holds them all, so a candidate never passes off what stable found out as its own."""
    inputs, cache = {"x": np.zeros((1, 3), dtype=np.float32)}, Cache(size=1000, ttl_s=1)
    pointers = [pointer(MODEL), pointer(MODEL, version="v2"), pointer(MODEL, model="other"), pointer(MODEL + b" ")]
    keys = [Memo(cache, revision, 0).key(one, inputs) for revision in ("7", "8") for one in pointers]
    assert len(set(keys)) == len(keys)


def test_the_first_request_of_a_process_runs_the_model(lines: Lines) -> None:
    """It is the one that warms it; so a line is cold, or a hit, or timed, and never two of them."""
    handler = make()
    assert cached(handler, event({"features": [2, 2, 2]})) == "hit"
    cold, hit = lines()[-2:]
    assert (cold["cache"], cold["ColdStarts"], "Latency" in cold) == ("miss", 1, False)
    assert (hit["cache"], "ColdStarts" in hit, "Latency" in hit) == ("hit", False, False)


def test_the_hit_rate_is_a_metric_of_the_revision(lines: Lines) -> None:
    """1 or 0, so that the average is the rate; a hit counts as a request, and has a latency of its own."""
    handler = make()
    for row in ([1, 0, 0], [1, 0, 0], [0, 0, 0]):
        handler(event({"features": row}), CONTEXT)
    found = lines()[-3:]
    assert [line["CacheHits"] for line in found] == [0, 1, 0]
    assert [("Latency" in line, "CachedLatency" in line, line["Requests"]) for line in found] == [
        (True, False, 1),
        (False, True, 1),
        (True, False, 1),
    ]
    for line in found:  # CloudWatch refuses a line that lacks what it names
        for directive in line["_aws"]["CloudWatchMetrics"]:
            assert {metric["Name"] for metric in directive["Metrics"]} <= line.keys()
            if "CacheHits" in (names := {metric["Name"] for metric in directive["Metrics"]}):
                assert directive["Dimensions"] == [["Endpoint", "Revision"]]
            assert not {"Latency", "CachedLatency"} <= names


def test_failures_and_refusals_are_not_kept(lines: Lines) -> None:
    """A model that raised may answer the next time."""
    handler = make()
    for status, row in ((500, [9, 0, 0]), (500, [3, 0, 0]), (400, [1, 0])):
        for _ in range(2):
            answer = handler(event({"features": row}), CONTEXT)
            assert (answer["statusCode"], "x-perch-cache" in answer["headers"]) == (status, False)


def test_nan_in_an_output_is_not_kept() -> None:
    """The protocol refuses it when it encodes the answer, which is after the model ran."""
    cache = Cache(size=10_000, ttl_s=60)
    cache.put(b"key", [np.array([1.0]), np.array([np.nan])], 0)
    assert (cache.get(b"key", 0), cache.held) == (None, 0)


def test_an_engine_that_writes_into_its_output_again_changes_nothing() -> None:
    """What is kept is a copy."""
    cache, output = Cache(size=10_000, ttl_s=60), np.array([1.0, 2.0])
    cache.put(b"key", [output], 0)
    output[:] = 9
    found = cache.get(b"key", 0)
    assert found is not None
    assert found[0].tolist() == [1.0, 2.0]


@given(age=st.floats(0, 59.9), back=st.floats(0, 1e9), later=st.lists(st.floats(0.1, 40), min_size=1, max_size=8))
def test_an_answer_outlives_its_time_by_no_more_than_a_clock_is_put_back(
    age: float, back: float, later: list[float]
) -> None:
    """And by no more than its time again, however far that is: what is from a time to come is not fresh."""
    cache, start = Cache(size=10_000, ttl_s=60), 2e9
    cache.put(b"key", [np.zeros(1)], start)
    lived, clock = age, start + age - back
    for step in later:
        if cache.get(b"key", clock) is not None:
            assert lived < 60 + min(back, 60)
        lived, clock = lived + step, clock + step


def test_a_clock_that_was_ahead_leaves_nothing_behind() -> None:
    """The answer was kept a year ahead; put right, the clock would call it fresh for a year."""
    cache, year = Cache(size=10_000, ttl_s=60), 365 * 86_400.0
    cache.put(b"key", [np.zeros(1)], year)
    assert (cache.get(b"key", 0), cache.held) == (None, 0)


def test_an_answer_is_fresh_for_its_time_and_no_longer() -> None:
    """Using it does not make it younger."""
    cache = Cache(size=10_000, ttl_s=60)
    cache.put(b"key", [np.array([1.0])], 100)
    assert cache.get(b"key", 159.9) is not None
    assert cache.get(b"key", 160) is None
    assert cache.held == 0


def test_what_was_not_used_for_longest_goes_first() -> None:
    """Three fit; the first is used again, so the second goes."""
    one = [np.zeros(1000)]
    cache = Cache(size=3 * 8600, ttl_s=60)
    for key in (b"1", b"2", b"3"):
        cache.put(key, one, 0)
    cache.get(b"1", 1)
    cache.put(b"4", one, 2)
    assert [cache.get(key, 3) is not None for key in (b"1", b"2", b"3", b"4")] == [True, False, True, True]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3000), st.integers(0, 200)), max_size=60))
def test_it_never_holds_more_than_its_size(asked: list[tuple[int, int, int]]) -> None:
    """Whatever is put and got when; and it knows how much it holds."""
    cache, now = Cache(size=30_000, ttl_s=60), 0
    for key, elements, later in asked:
        now += later
        if cache.get(bytes([key]), now) is None:
            cache.put(bytes([key]), [np.zeros(elements)], now)
        assert cache.held == sum(entry.size for entry in cache._entries.values()) <= 30_000


@pytest.mark.parametrize("text", ["{", "[]", '{"ttl_s": 60}', '{"ttl_s": "long", "size_mb": 1}'])
def test_settings_that_say_nothing_clear_fail_the_init(text: str) -> None:
    """Better than a predictor that silently remembers nothing."""
    with pytest.raises(ValueError, match="PERCH_CACHE"):
        read_cache({"PERCH_CACHE": text})


# -- a server behind it -------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that speaks the protocol, over TCP."""
    tcp = fakeredis.TcpFakeServer(("127.0.0.1", 0), server_type="valkey")
    threading.Thread(target=tcp.serve_forever, daemon=True).start()
    yield f"redis://127.0.0.1:{tcp.server_address[1]}/0"
    tcp.shutdown()
    tcp.server_close()


def patient(url: str, prefix: str = "perch:table:") -> SharedCache:
    """Its client, with so much patience that a busy machine is no trouble."""
    shared = connect(url, prefix=prefix)
    assert shared is not None
    shared.patience_s = 30
    return shared


def test_what_one_process_found_another_one_gives(server: str) -> None:
    """Every datatype, in its shape, and fresh for as long as it was."""
    outputs = [
        np.array([[1.5, -0.0]], dtype=np.float16),
        np.array([2**63 + 1], dtype=np.uint64),
        np.array([True, False]),
        np.array([["Zürich"], [""]], dtype=object),
    ]
    now = time.time()
    Cache(size=10_000, ttl_s=60, shared=patient(server)).put(b"key", outputs, now)
    other = Cache(size=10_000, ttl_s=60, shared=patient(server))
    found = other.get(b"key", now + 1)
    assert found is not None
    for before, after in zip(outputs, found, strict=True):
        assert (before.dtype, before.shape, before.tolist()) == (after.dtype, after.shape, after.tolist())
    assert other._entries[b"key"].expires == pytest.approx(now + 60)
    assert Cache(size=10_000, ttl_s=60, shared=patient(server, "perch:other:")).get(b"key", now) is None


def test_two_processes_of_a_revision_share_their_answers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From request to answer; another revision of the same model does not take part."""
    monkeypatch.setattr("perch.predictor.shared_cache.connect", patient)
    one, other = make(url=server), make(url=server)
    asked = event({"features": [1, 0, 0]})
    assert cached(one, asked) == "miss"
    assert cached(other, asked) == "hit"
    assert cached(other, asked, SimpleNamespace(aws_request_id="r", function_version="8")) == "miss"


def test_deployments_that_have_one_server_keep_apart(server: str) -> None:
    """The same endpoint, model and revision number may run other code there."""
    variables = {"PERCH_ENDPOINT": "table", "PERCH_CACHE": json.dumps({"ttl_s": 60, "size_mb": 1, "url": server})}
    one, other = (read_cache({**variables, "PERCH_STORE": store}) for store in ("live", "trial"))
    assert one is not None
    assert other is not None
    assert one.shared is not None
    assert other.shared is not None
    assert one.shared.prefix != other.shared.prefix


class Broken:
    """A server that raises, and counts how often it was asked."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def get(self, name: str, /) -> bytes | None:
        self.asked += 1
        raise self.error

    def set(self, name: str, value: bytes, /, *, px: int) -> object:
        self.asked += 1
        raise self.error


class Slow:
    """A server that answers when it is let."""

    def __init__(self) -> None:
        self.let, self.came, self.asked = threading.Event(), threading.Event(), 0

    def get(self, name: str, /) -> bytes | None:
        self.asked += 1
        self.came.set()
        self.let.wait(60)
        return None

    def set(self, name: str, value: bytes, /, *, px: int) -> object:
        self.asked += 1
        return None


def test_a_server_that_is_down_is_a_miss_and_left_alone_for_a_while(lines: Lines) -> None:
    """One line tells it; after its rest it is asked again, once."""
    client = Broken(ConnectionError("refused"))
    cache = Cache(size=10_000, ttl_s=3600, shared=SharedCache(client, "perch:", patience_s=30))
    for now in (0, 1, 29):
        assert cache.get(b"key", now) is None
        cache.put(b"key2", [np.zeros(1)], now)
    assert client.asked == 1
    [line] = lines()
    assert (line["event"], line["reason"]) == ("predictor.cache_trouble", "ConnectionError: refused")
    assert cache.get(b"key", 31) is None
    assert client.asked == 2
    assert cache.get(b"key2", 31) is not None  # memory is there anyway


def test_a_server_that_hangs_is_not_waited_for(lines: Lines) -> None:
    """Not even after its rest, as long as the question that hung is on its way."""
    client = Slow()
    shared = SharedCache(client, "perch:", patience_s=0.01)
    try:
        assert [shared.get(b"key", now) for now in (0, 1, 40, 80)] == [None] * 4
        assert client.came.wait(60)
        assert client.asked == 1
        assert "no answer within 10 ms" in lines()[0]["reason"]
    finally:
        client.let.set()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x02\x03",
        msgspec.msgpack.encode([1.0, [["FP32", [5], b"a"]]]),
        msgspec.msgpack.encode([1.0, [["FP32", [1], ["a"]]]]),
        msgspec.msgpack.encode([1.0, [["BYTES", [2], ["a"]]]]),
        msgspec.msgpack.encode([1.0, [["OBJECT", [1], b"a"]]]),
    ],
)
def test_a_value_that_is_no_answer_is_a_miss(value: bytes, lines: Lines) -> None:
    """Data that does not fit together is never an array."""
    shared = SharedCache(SimpleNamespace(get=lambda name: value, set=None), "perch:", patience_s=30)  # type: ignore[arg-type]
    assert shared.get(b"key", 0) is None
    assert "a value cannot be read" in lines()[0]["reason"]


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [["INT64", [1], bytes(8)]] * 2,
        [["FP32", [2, 3], bytes(24)]],
        [["FP32", [3], bytes(12)]],
        [["FP32", [1, 3], b"\xff" * 12]],
        [["BYTES", [1, 3], ["a", "b", "c"]]],
        [["FP64", [1, 3], bytes(24)]],
        [["FP32", [1, 0], b""]],
    ],
)
@pytest.mark.parametrize("asked", [event({"features": [1, 0, 0]}), http(INFER, {"inputs": [ROW]})])
def test_an_answer_that_the_model_cannot_have_given_is_a_miss(
    monkeypatch: pytest.MonkeyPatch, lines: Lines, outputs: list[Any], asked: dict[str, Any]
) -> None:
    """Whoever kept it: the model answers, and is not blamed for what it did not say."""
    kept: dict[str, bytes] = {}
    client: Any = SimpleNamespace(get=lambda name: next(iter(kept.values()), None), set=lambda *_, **__: None)
    shared = SharedCache(client, "perch:", patience_s=30)
    monkeypatch.setattr("perch.predictor.shared_cache.connect", lambda *_, **__: shared)
    handler = make(url="redis://cache")
    kept["any"] = msgspec.msgpack.encode([2e9, outputs])
    lines()
    answer = handler(asked, CONTEXT)
    assert (answer["statusCode"], answer["headers"]["x-perch-cache"]) == (200, "miss")
    assert "no answer of this model" in lines()[0]["reason"]


@given(st.binary(max_size=200))
def test_no_bytes_from_the_server_break_a_request(value: bytes) -> None:
    """They are an answer's data, or a miss."""
    client: Any = SimpleNamespace(get=lambda name: value, set=None)
    shared = SharedCache(client, "perch:", patience_s=30)
    found = shared.get(b"key", 0)
    shared._thread.shutdown()
    assert found is None or all(isinstance(array, np.ndarray) for array in found[0])


def test_an_address_that_is_none_is_said_without_its_password(lines: Lines) -> None:
    """The predictor serves without it."""
    handler = make(url="http://:secret@cache")
    assert cached(handler, event({"features": [2, 2, 2]})) == "hit"
    said = json.dumps(lines())
    assert "predictor.cache_trouble" in said
    assert "secret" not in said


def test_texts_are_told_apart_from_their_neighbours() -> None:
    """("ab", "c") and ("a", "bc") are different requests, and so are "None" and a text that is missing."""
    memo = Memo(Cache(size=1, ttl_s=1), "7", 0)
    asked = (["ab", "c"], ["a", "bc"], ["None"], [None])
    assert len({memo.key(pointer(MODEL), {"t": np.array(texts, dtype=object)}) for texts in asked}) == 4


def test_models_of_several_inputs_hit_in_any_order() -> None:
    """The protocol's inputs come in the order that the client likes."""
    handler = make_handler(
        runtime="onnx",
        environ={**environment(pointer(mirror("FP32", "BYTES"))), "PERCH_CACHE": json.dumps(SETTINGS)},
        fetch=lambda *_: mirror("FP32", "BYTES"),
    )
    inputs = [
        {"name": "FP32", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
        {"name": "BYTES", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "b"]},
    ]
    asked = [http(INFER, {"inputs": inputs}), http(INFER, {"inputs": inputs[::-1]})]
    assert [cached(handler, one) for one in asked] == ["miss", "hit"]
