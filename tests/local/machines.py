"""A scripted data plane and a started `Machinery`, for the tests of time, events, metrics and alarms."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from moto import mock_aws

from perch.local.clock import VirtualClock
from perch.local.machinery import Machinery
from perch.local.ports import AsyncSettings, Invocation, Refused
from perch.local.sessions import make_session

START = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT, REGION = "123456789012", "us-east-1"


def client(service: str) -> Any:
    """A client of moto in this process, or of the server that the environment names; made once, for that is slow."""
    return _client(service, os.environ.get("AWS_ENDPOINT_URL"))


@cache
def _client(service: str, endpoint_url: str | None) -> Any:
    session = make_session(aws_access_key_id="testing", aws_secret_access_key="testing", region_name=REGION)
    return session.client(service, endpoint_url=endpoint_url)  # type: ignore[call-overload]  # the name is a variable


def function_arn(name: str) -> str:
    """The ARN of a function."""
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def failed(kind: str = "Unhandled", message: str = "it broke") -> Invocation:
    """What a function that raised gives."""
    payload = json.dumps({"errorMessage": message}).encode()
    return Invocation(request_id="r", payload=payload, error=kind, executed_version="7", duration_ms=1.0, cold=False)


@dataclass(frozen=True)
class Call:
    """One invocation that was asked for."""

    at: datetime
    function: str
    event: Any
    qualifier: str | None


class ScriptedInvoker:
    """An Invoker that notes each call and answers what the next step of its script says: a result, or an error."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.calls: list[Call] = []
        self.script: list[Invocation | Exception | Callable[[], Invocation]] = []

    def invoke(self, function: str, payload: bytes, *, qualifier: str | None = None) -> Invocation:
        """Note the call and follow the script; succeed at its end."""
        self.calls.append(Call(self.clock.now(), function, json.loads(payload), qualifier))
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            raise step
        if callable(step):
            return step()
        return step or Invocation(
            request_id="r", payload=b"null", error=None, executed_version="7", duration_ms=1.0, cold=False
        )

    def of(self, name: str) -> list[Call]:
        """The calls of one function."""
        return [call for call in self.calls if call.function == name or f":function:{name}" in call.function]


class World(Machinery):
    """A machinery with a scripted data plane, one event at a time; `settings` is how every function is treated."""

    def __init__(self) -> None:
        clock = VirtualClock(START, patience_s=10)
        self.invoker = ScriptedInvoker(clock)
        self.settings = AsyncSettings()
        self.unknown: set[str] = set()
        super().__init__(self.invoker, lambda _: self.settings, clock=clock, check=self._check, width=1)

    def _check(self, function: str, _: str | None) -> None:
        if any(name in function for name in self.unknown):
            raise Refused("ResourceNotFoundException", f"Function not found: {function}", 404)

    def rule(self, name: str, arn: str, *, pattern: Any = None, schedule: str | None = None, **target: Any) -> None:
        """Put a rule with one target."""
        events = client("events")
        given = {"ScheduleExpression": schedule} if schedule else {"EventPattern": json.dumps(pattern)}
        events.put_rule(Name=name, **given)
        answer = events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": arn, **target}])
        assert answer["FailedEntryCount"] == 0

    def put(self, source: str = "shop", detail_type: str = "Order", **detail: Any) -> str:
        """Put one event by API and wait for its effects; returns its id."""
        entry = {"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail)}
        answer = client("events").put_events(Entries=[entry])
        assert answer["FailedEntryCount"] == 0, answer
        self.wait_idle()
        return str(answer["Entries"][0]["EventId"])


@contextmanager
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A started world on an empty moto."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws(), World() as started:
        yield started


def queue(name: str, **attributes: str) -> tuple[str, str]:
    """Make an SQS queue: (url, arn)."""
    sqs = client("sqs")
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return url, f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"


def messages(url: str) -> list[dict[str, Any]]:
    """Take what a queue holds."""
    answer = client("sqs").receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
    )
    return list(answer.get("Messages", []))
