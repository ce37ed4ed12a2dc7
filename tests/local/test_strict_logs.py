"""The log sink: lines of functions are readable by FilterLogEvents, at any virtual time, up to a cap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import boto3
import pytest
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
