"""What a request leaves behind to be counted: cold starts apart, one prediction, a share of payloads, no replays."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.aws.logs import Logs
from perch.local.compute.emf import EmbeddedMetrics
from perch.predictor import capture
from perch.predictor.handler import Handler, make_handler
from perch.predictor.journal import PROBE_STAGE, REPLAY_STAGE
from perch.predictor.prediction import BUCKETS, as_number
from perch.predictor.telemetry import shown
from tests.local.compute_fakes import RecordedMetrics
from tests.unit.test_predictor import CONTEXT, MODEL, ask, environment, event, lines, pointer

__all__ = ["lines"]  # the fixture
Lines = Callable[[], list[dict[str, Any]]]
AT = datetime(2026, 1, 1, tzinfo=UTC)  # of the events
ROWS = [[1, 0, 0], [0, 0, 0]]


def make(share: str | None = None) -> Handler:
    """A handler that serves the table and captures this share."""
    more = {} if share is None else {"PERCH_CAPTURE": share}
    return make_handler(runtime="onnx", environ={**environment(pointer(MODEL)), **more}, fetch=lambda *_: MODEL)


def staged(stage: str) -> dict[str, Any]:
    """A request that only the control side can send."""
    asked = event({"features": ROWS})
    asked["requestContext"]["stage"] = stage
    return asked


def counted(line: dict[str, Any]) -> dict[tuple[str, str], float]:
    """What CloudWatch reads out of a line: by the metric's name and the names of its dimensions."""
    sink = RecordedMetrics()
    EmbeddedMetrics(sink).take(json.dumps(line).encode(), AT)
    return {(name, "+".join(sorted(dimensions))): value for _, name, dimensions, value, _, _ in sink.points}


# Cold starts.


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (event({"features": ROWS}), 200),
        (event("{"), 400),
        (event({"features": [9, 0, 0]}), 500),
        (event(method="GET", path="/models/table"), 200),
    ],
)
def test_the_first_request_of_a_process_is_counted_apart(lines: Lines, first: dict[str, Any], status: int) -> None:
    """It has ColdStarts and ColdLatency, by revision, where every other one has Latency; whatever it came to."""
    handler = make()
    lines()
    assert ask(handler, first)[0] == status
    ask(handler, event({"features": ROWS}))
    cold, warm = [line for line in lines() if "_aws" in line]
    names = {name for name, _ in counted(cold)}
    assert {"ColdStarts", "ColdLatency"} <= names
    assert "Latency" not in names
    assert {where for name, where in counted(cold) if name.startswith("Cold")} == {"Endpoint+Revision"}
    assert counted(cold)["ColdStarts", "Endpoint+Revision"] == 1
    assert counted(cold)["Requests", "Endpoint"] == counted(warm)["Requests", "Endpoint"] == 1
    assert counted(warm)["Latency", "Endpoint"] == counted(warm)["Latency", "Endpoint+Revision"] > 0
    assert not any(name.startswith("Cold") for name, _ in counted(warm))


@pytest.mark.parametrize("stage", [PROBE_STAGE, REPLAY_STAGE])
def test_a_probe_or_a_replay_warms_a_process_and_is_no_cold_start(lines: Lines, stage: str) -> None:
    """After it the first user's request is warm, and it is no traffic itself."""
    handler = make()
    ask(handler, staged(stage))
    lines()
    ask(handler, event({"features": ROWS}))
    [line] = lines()
    assert "ColdStarts" not in line
    assert "Latency" in line


def test_a_question_that_no_model_answers_leaves_the_cold_start_to_the_first_request(lines: Lines) -> None:
    """A driver's knock, and what a container asks its handler before it opens its port, warm nothing."""
    handler = make()
    for path in ("/v2/health/ready", "/models/table"):
        asked = event(None, method="GET", path=path)
        asked["requestContext"]["stage"] = PROBE_STAGE
        ask(handler, asked)
    lines()
    for _ in range(2):
        ask(handler, event({"features": ROWS}))
    assert ["ColdStarts" in line for line in lines()] == [True, False]


def test_every_metric_that_a_line_names_is_in_it(lines: Lines) -> None:
    """CloudWatch refuses the whole line otherwise; for the four kinds of answer, cold and warm."""
    asked = [event({"features": ROWS}), event("{"), event({"features": [9, 0, 0]}), event(None, method="PUT")]
    for first in asked:
        handler = make()
        lines()
        for one in (first, *asked):
            ask(handler, one)
        told = [line for line in lines() if "_aws" in line]
        assert len(told) == 1 + len(asked)
        for line in told:
            named = {m["Name"] for d in line["_aws"]["CloudWatchMetrics"] for m in d["Metrics"]}
            assert named == {name for name, _ in counted(line)}


# The prediction.


def test_a_request_gives_one_prediction_that_of_its_first_row(lines: Lines) -> None:
    """Whatever the number of rows; by revision only. A request that was not answered gives none."""
    handler = make()
    for body in (ROWS, ROWS[::-1], [[2, 0, 0]] * 100):
        ask(handler, event({"features": body}))
    ask(handler, event("{"))
    told = [line for line in lines() if "_aws" in line]
    assert [line.get("Prediction") for line in told] == [1, 0, 2, None]
    assert {where for name, where in counted(told[1]) if name == "Prediction"} == {"Endpoint+Revision"}


@pytest.mark.parametrize("label", [0, 1, 9, 50, 2**40])
@pytest.mark.parametrize("kind", [np.int64, np.uint64, int])
def test_a_whole_number_from_zero_on_is_the_class_itself(label: int, kind: type) -> None:
    """As an array or as a list."""
    predictions = [label] if kind is int else np.array([label], dtype=kind)
    assert as_number(predictions) == label


@given(st.text(max_size=30))
def test_a_text_label_becomes_a_small_number_that_never_changes(label: str) -> None:
    """So that the same label means the same number in every revision."""
    number = as_number([label, "other"])
    assert number == as_number([label])
    assert number in range(BUCKETS)


def test_the_numbers_of_labels_are_fixed_for_good() -> None:
    """A change would look like a shift between a revision with the old code and one with the new."""
    assert [as_number([label]) for label in ("setosa", "versicolor", "virginica", "")] == [12, 15, 8, 0]


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite)
def test_a_number_is_mapped_to_a_positive_one_and_keeps_its_order(one: float, other: float) -> None:
    """From the most negative double to the largest, within what CloudWatch takes."""
    low, high = (as_number(np.array([value])) for value in sorted((one, other)))
    assert low is not None
    assert high is not None
    assert 1e-100 <= low <= high <= 1e100


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_numbers_that_differ_clearly_stay_apart(one: float, other: float) -> None:
    """The map grows everywhere, and passes 1 at 0."""
    if abs(one - other) > 1e-3:
        low, high = (as_number([value]) for value in sorted((one, other)))
        assert low is not None
        assert high is not None
        assert low < high
    assert as_number([0.0]) == as_number([-0.0]) == 1
    assert as_number([2.5]) == 3.5
    assert as_number([-3.0]) == 0.25


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, None, b"x", [1, 2]])
def test_what_is_no_finite_number_and_no_text_is_not_counted(odd: Any) -> None:
    """A NaN in a line would cost all of its metrics."""
    assert as_number([odd]) is None


def test_of_several_numbers_in_a_row_the_first_counts() -> None:
    """`perch.output` = `values` lets a model give more than one."""
    assert as_number(np.array([[2.0, 9.0], [5.0, 5.0]], dtype=np.float32)) == 3


# Capture.


def request_ids(count: int) -> list[str]:
    return [str(uuid.uuid5(uuid.NAMESPACE_URL, str(n))) for n in range(count)]


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_the_share_of_captured_requests_is_the_one_asked_for(share: float) -> None:
    """By the hash of the id: within four standard deviations, for ten thousand ids."""
    found = sum(capture.wanted(one, share) for one in request_ids(10_000))
    assert abs(found - 10_000 * share) <= 4 * math.sqrt(10_000 * share * (1 - share))


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_captures_what_a_smaller_one_did(request_id: str, one: float, other: float) -> None:
    """The same id is always decided alike; none at 0, all at 1."""
    low, high = sorted((one, other))
    assert capture.wanted(request_id, low) <= capture.wanted(request_id, high)
    assert not capture.wanted(request_id, 0)
    assert capture.wanted(request_id, 1)


def test_nothing_is_captured_unless_asked_for(lines: Lines) -> None:
    """What clients send is not written down by default."""
    for handler in (make(), make("0"), make("0.0")):
        lines()
        ask(handler, event({"features": ROWS}))
        assert [line["event"] for line in lines()] == ["predictor.answered"]


def test_a_captured_request_is_a_line_of_its_own(lines: Lines) -> None:
    """With all that a replay and a comparison need."""
    handler = make("1")
    lines()
    body = ask(handler, event({"features": ROWS}))[1]
    line, answered = lines()
    assert answered["event"] == "predictor.answered"
    assert line.pop("latency_ms") == answered["ColdLatency"]
    assert line == {
        "level": "INFO",
        "event": "predictor.captured",
        "request_id": "request-1",
        "model": "table",
        "version": "v1",
        "revision": "7",
        "at": "2026-01-01T00:00:00.000+00:00",
        "features": ROWS,
        "predictions": body["predictions"],
        "probabilities": body["probabilities"],
    }
    assert counted(line) == {}


def test_what_is_captured_can_be_read_again(lines: Lines) -> None:
    """By the reader that replays it: the same rows, the same answer."""
    body = ask(make("1"), event({"features": [[0.1, 0.2, 0.3]]}))[1]
    line = next(line for line in lines() if line["event"] == capture.EVENT)
    page = {"events": [{"message": json.dumps(line), "timestamp": AT.timestamp() * 1000}]}
    client = SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=lambda **_: [page]))
    client.exceptions = SimpleNamespace(ResourceNotFoundException=KeyError)
    [found] = Logs(client).after("perch-table", AT, AT + timedelta(minutes=1), stop=lambda: False)
    assert found.whole
    assert found.revision == "7"
    assert np.array_equal(np.array(found.features, dtype=np.float32), np.array([[0.1, 0.2, 0.3]], dtype=np.float32))
    assert list(found.answer.predictions) == body["predictions"]


@pytest.mark.parametrize(
    ("asked", "whole"),
    [
        (event({"features": [[1, 0, 0]] * 20}), True),
        (event({"features": [[1, 0, 0]] * 21}), False),  # too many rows
        (event('{"features": [[1, 0, 0]]' + " " * (64 * 1024 - 25) + "}"), True),
        (event('{"features": [[1, 0, 0]]' + " " * (64 * 1024 - 24) + "}"), False),  # too many bytes
    ],
)
def test_what_is_too_large_is_left_out_of_the_line(lines: Lines, asked: dict[str, Any], *, whole: bool) -> None:
    """The line stays, with the first twenty predictions, and says that there are no features."""
    handler = make("1")
    lines()
    ask(handler, asked)
    line = lines()[0]
    assert line["event"] == "predictor.captured"
    assert (line["features"] is not None) == whole
    assert ("probabilities" in line) == whole
    assert len(line["predictions"]) <= 20


@pytest.mark.parametrize("length", [1, 500, 1_000_000])
def test_a_line_repeats_texts_only_if_they_are_short(length: int) -> None:
    """A model may give back what it was sent; a line that Lambda would break has no metrics."""
    texts = ["x" * length] * 30
    assert shown(texts) == (texts[:20] if length <= 500 else None)
    line = capture.captured(
        request_id="r", names={}, revision="1", body_size=2**20, features=[], answer={"predictions": texts}, ms=1, at=0
    )
    assert len(line) < capture.MAX_LINE


def test_a_captured_line_is_never_longer_than_lambda_hands_on() -> None:
    """Twenty rows of numbers that take twenty characters each, with as many probabilities."""
    text = capture.captured(
        request_id="r",
        names={},
        revision="7",
        body_size=1000,
        features=np.full((20, 600), 0.1, dtype=np.float32),
        answer={"predictions": np.zeros(20), "probabilities": np.full((20, 1000), 0.001, dtype=np.float32)},
        ms=1.0,
        at=0,
    )
    assert len(text) < 2_000
    assert json.loads(text)["features"] is None


@pytest.mark.parametrize(
    "asked",
    [event("{"), event({"features": [9, 0, 0]}), event(method="GET", path="/models/table")],
    ids=["refused", "raised", "described"],
)
def test_only_answered_predictions_are_captured(lines: Lines, asked: dict[str, Any]) -> None:
    """There is nothing to compare in the others."""
    handler = make("1")
    lines()
    ask(handler, asked)
    assert "predictor.captured" not in {line["event"] for line in lines()}


@pytest.mark.parametrize("share", ["1.01", "-0.1", "nan", "much", "1%"])
def test_a_share_that_is_none_stops_the_init(share: str) -> None:
    """So that such a revision fails its probes, before it sees a user."""
    with pytest.raises(ValueError, match="PERCH_CAPTURE"):
        make(share)


# Probes and replays.


@pytest.mark.parametrize(("stage", "name"), [(PROBE_STAGE, "predictor.probed"), (REPLAY_STAGE, "predictor.replayed")])
def test_probes_and_replays_are_answered_like_any_request_and_neither_counted_nor_captured(
    lines: Lines, stage: str, name: str
) -> None:
    """One plain line, with the latency that whoever sent it may read from the end of the log."""
    handler = make("1")
    usual = ask(handler, event({"features": ROWS}))
    lines()
    assert ask(handler, staged(stage)) == usual
    [line] = lines()
    assert line["event"] == name
    assert line["revision"] == CONTEXT.function_version
    assert line["latency_ms"] > 0
    assert counted(line) == {}
    assert "_aws" not in line


def test_the_line_of_a_replay_fits_into_the_end_of_the_log(lines: Lines) -> None:
    """An invoke returns the last 4 KB."""
    handler = make()
    asked = staged(REPLAY_STAGE)
    asked["body"] = json.dumps({"features": [[1, 0, 0]] * 1000})
    lines()
    ask(handler, asked)
    [line] = lines()
    assert len(json.dumps(line)) < 1_000
