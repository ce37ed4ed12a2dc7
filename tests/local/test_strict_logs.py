"""The log sink: lines of functions are readable by FilterLogEvents, at any virtual time, up to a cap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from perch.local import strict

FAR = datetime(2031, 1, 1, tzinfo=UTC)


@pytest.fixture
def logs(monkeypatch):
    """A client of a strict moto."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    strict.install()
    with mock_aws():
        yield boto3.client("logs", "us-east-1")
    strict.uninstall()


def test_lines_are_readable_before_a_batch_is_full(logs):
    """A read sees what was written, even years away from this machine's clock, in order of time."""
    sink = strict.MotoLogSink(batch=100)
    sink.write("/aws/lambda/f", "2031/01/01/[1]a", FAR, "first")
    sink.write("/aws/lambda/f", "2031/01/01/[2]b", FAR + timedelta(seconds=1), "ERROR second")
    events = logs.filter_log_events(logGroupName="/aws/lambda/f")["events"]

    assert [event["message"] for event in events] == ["first", "ERROR second"]
    assert events[0]["timestamp"] == int(FAR.timestamp() * 1000)
    found = logs.filter_log_events(logGroupName="/aws/lambda/f", filterPattern="ERROR")["events"]
    assert [event["logStreamName"] for event in found] == ["2031/01/01/[2]b"]
    assert len(logs.describe_log_streams(logGroupName="/aws/lambda/f")["logStreams"]) == 2


def test_a_group_keeps_its_newest_lines(logs):
    """Above the cap the oldest go, and a stream that is empty goes with them."""
    sink = strict.MotoLogSink(batch=1, cap=10)
    for number in range(25):
        sink.write("/aws/lambda/f", f"s{number // 5}", FAR + timedelta(seconds=number), str(number))
    events = logs.filter_log_events(logGroupName="/aws/lambda/f")["events"]

    assert [event["message"] for event in events] == [str(number) for number in range(15, 25)]
    streams = logs.describe_log_streams(logGroupName="/aws/lambda/f")["logStreams"]
    assert {stream["logStreamName"] for stream in streams} == {"s3", "s4"}


LINES = (
    '{"event": "predictor.captured", "status": 200, "model": {"name": "digits"}, "rows": [[1.5, 2], [3]], "nil": null}',
    '{"event": "predictor.answered", "status": 503, "cold": true, "model": {"name": "letters"}}',
    '{"event": "predictor.probed", "status": "200", "cold": false, "a name": 1, "wild": "a?c"}',
    "START RequestId: 7 predictor.captured",
    '["predictor.captured"]',
)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ('{ $.event = "predictor.captured" }', [0]),
        ("{ $.event = predictor.captured }", [0]),
        ('{ $.event = "predictor.*" }', [0, 1, 2]),
        ('{ $.event != "predictor.captured" }', [1, 2]),
        ("{ $.status = 200 }", [0]),
        ('{ $.status = "200" }', [2]),
        ("{ $.status >= 5e2 }", [1]),
        ("{ $.status != 503 }", [0, 2]),
        ('{ $.model.name = "d*s" }', [0]),
        ("{ $.rows[0][1] < 3 }", [0]),
        ("{ $.rows[7][0] < 3 }", []),
        ("{ $.nil IS NULL }", [0]),
        ("{ $.model NOT EXISTS }", [2]),
        ("{ $.cold IS TRUE }", [1]),
        ("{ $.cold IS FALSE }", [2]),
        ('{ $.["a name"] = 1 }', [2]),
        ('{ $.wild = "a?c" }', [2]),
        ('{ $.wild = "a??" }', []),
        ('{ $.event = "predictor.answered" || $.cold IS FALSE && $.status = 1 }', [1]),
        ('{ ($.event = "predictor.answered" || $.cold IS FALSE) && $.status > 1 }', [1]),
        ("START", [3]),
        ("", [0, 1, 2, 3, 4]),
    ],
)
def test_json_patterns_select_lines_by_their_properties(logs, pattern, found):
    """Only JSON objects match a JSON pattern; terms and no pattern work as before."""
    sink = strict.MotoLogSink()
    for number, line in enumerate(LINES):
        sink.write("/aws/lambda/f", "s", FAR + timedelta(seconds=number), line)
    events = logs.filter_log_events(logGroupName="/aws/lambda/f", filterPattern=pattern)["events"]

    assert [LINES.index(event["message"]) for event in events] == found


@pytest.mark.parametrize(
    "pattern",
    [
        "{ }",
        "{ $.a }",
        "{ $.a = }",
        '{ $.a > "x" }',
        "{ $.a = 1 } }",
        "{ ($.a = 1 }",
        "{ $.a && $.b }",
        "[a, b]",
        "%x%",
    ],
)
def test_a_pattern_that_is_not_understood_is_refused(logs, pattern):
    """Moto alone would answer with every line."""
    sink = strict.MotoLogSink()
    sink.write("/aws/lambda/f", "s", FAR, "{}")
    with pytest.raises(ClientError, match="InvalidParameterException"):
        logs.filter_log_events(logGroupName="/aws/lambda/f", filterPattern=pattern)


def test_pages_hold_a_megabyte_and_follow_one_another_in_time(logs):
    """Streams are interleaved, nothing is left out or told twice, and both ends of the time range are included."""
    sink = strict.MotoLogSink()
    for number in range(30):
        sink.write(
            "/aws/lambda/f", f"s{number % 3}", FAR + timedelta(seconds=number // 2), f"{number:02d}" + 100_000 * "x"
        )
    milliseconds = int(FAR.timestamp() * 1000)
    pages = list(
        logs.get_paginator("filter_log_events").paginate(
            logGroupName="/aws/lambda/f", startTime=milliseconds + 1000, endTime=milliseconds + 14_000
        )
    )

    assert [len(page["events"]) for page in pages] == [10, 10, 8]
    assert sorted(e["message"][:2] for p in pages for e in p["events"]) == [f"{n:02d}" for n in range(2, 30)]
    times = [event["timestamp"] for page in pages for event in page["events"]]
    assert times == sorted(times)
