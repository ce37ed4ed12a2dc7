"""Asynchronous invocations: accepted at once, run in order, retried in virtual time, dead-lettered."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest

from perch.local.asynchronous import AsyncLambda
from perch.local.clock import VirtualClock
from perch.local.ports import AsyncSettings, Refused
from tests.local.machines import (
    ACCOUNT,
    REGION,
    START,
    ScriptedInvoker,
    client,
    failed,
    function_arn,
    messages,
    queue,
    world,
)


@pytest.fixture
def it(monkeypatch):
    with world(monkeypatch) as started:
        yield started


def minutes(it):
    return [(call.at - START).total_seconds() / 60 for call in it.invoker.calls]


def test_events_run_in_the_order_they_were_accepted(it):
    """With one worker; the qualifier goes along."""
    for n in range(20):
        it.asynchronous.enqueue("f", json.dumps(n).encode(), qualifier="live")
    it.wait_idle()
    assert [call.event for call in it.invoker.calls] == list(range(20))
    assert {call.qualifier for call in it.invoker.calls} == {"live"}


def test_enqueue_returns_before_the_function_runs():
    """Whoever puts an event does not wait for handlers, but the clock does."""
    clock = VirtualClock(START)
    invoker, go = ScriptedInvoker(clock), threading.Event()
    queue_ = AsyncLambda(invoker, lambda _: AsyncSettings(), clock)

    def wait():
        go.wait(60)
        return failed()

    invoker.script = [wait]
    queue_.enqueue("slow", b"1")
    assert clock.holders == ("asynchronous invocation of slow",)
    go.set()
    clock.advance(59)
    assert clock.holders == ()
    assert queue_.pending_retries == 1
    queue_.stop()


def test_a_function_error_is_retried_after_one_and_then_two_minutes(it):
    """And then it is given up."""
    it.invoker.script = [failed(), failed(), failed()]
    it.asynchronous.enqueue("f", b"{}")
    it.advance(3600)
    assert minutes(it) == [0, 1, 3]


def test_a_retry_that_succeeds_ends_it(it):
    """No dead letter for what went well in the end."""
    url, arn = queue("dead")
    it.settings = AsyncSettings(dead_letter_arn=arn)
    it.invoker.script = [failed()]
    it.asynchronous.enqueue("f", b"{}")
    it.advance(3600)
    assert minutes(it) == [0, 1]
    assert messages(url) == []


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_the_number_of_retries_is_the_functions_own(it, retries):
    """Zero to two."""
    it.settings = AsyncSettings(max_retries=retries)
    it.invoker.script = [failed()] * 5
    it.asynchronous.enqueue("f", b"{}")
    it.advance(3600)
    assert len(it.invoker.calls) == retries + 1


def test_an_event_that_is_too_old_is_not_tried_again(it):
    """The second retry would come after three minutes."""
    url, arn = queue("failures")
    it.settings = AsyncSettings(max_age_s=120, on_failure_arn=arn)
    it.invoker.script = [failed()] * 5
    it.asynchronous.enqueue("f", b"{}")
    it.advance(3600)
    assert minutes(it) == [0, 1]
    [message] = messages(url)
    assert json.loads(message["Body"])["requestContext"]["condition"] == "EventAgeExceeded"


def test_throttles_are_retried_with_growing_waits_and_do_not_count_as_retries(it):
    """1 s, 2 s, 4 s; then the function itself fails and gets its own two retries."""
    throttle = Refused("TooManyRequestsException", "Rate Exceeded.", 429)
    it.invoker.script = [throttle, throttle, throttle, failed(), failed(), failed()]
    it.asynchronous.enqueue("f", b"{}")
    it.advance(3600)
    offsets = [(call.at - START).total_seconds() for call in it.invoker.calls]
    assert offsets == [0, 1, 3, 7, 67, 187]


def test_a_throttled_event_is_given_up_at_its_maximum_age(it):
    """Six hours by default, waits of at most five minutes."""
    url, arn = queue("dead")
    it.settings = AsyncSettings(dead_letter_arn=arn)
    it.invoker.script = [Refused("TooManyRequestsException", "Rate Exceeded.", 429)] * 1000
    it.asynchronous.enqueue("f", b'{"a": 1}')
    it.advance(7 * 3600)
    gaps = [(b.at - a.at) for a, b in zip(it.invoker.calls, it.invoker.calls[1:], strict=False)]
    assert max(gaps) == timedelta(minutes=5)
    assert it.invoker.calls[-1].at <= START + timedelta(hours=6)
    [message] = messages(url)
    assert message["MessageAttributes"]["ErrorCode"]["StringValue"] == "429"


def test_what_breaks_in_the_data_plane_is_a_system_error(it):
    """It is retried; the queue lives on."""
    it.invoker.script = [RuntimeError("a bug")]
    it.asynchronous.enqueue("f", b"{}")
    it.advance(10)
    assert len(it.invoker.calls) == 2


def test_a_function_that_is_gone_is_given_up_at_once(it):
    """404 when it is about to run."""
    url, arn = queue("dead")
    it.settings = AsyncSettings(dead_letter_arn=arn)
    it.invoker.script = [Refused("ResourceNotFoundException", "Function not found", 404)]
    it.asynchronous.enqueue("f", b"{}")
    it.advance(3600)
    assert len(it.invoker.calls) == 1
    assert len(messages(url)) == 1


def test_the_dead_letter_is_the_event_with_the_documented_attributes(it):
    """RequestID, ErrorCode, ErrorMessage."""
    url, arn = queue("dead")
    it.settings = AsyncSettings(max_retries=0, dead_letter_arn=arn)
    it.invoker.script = [failed(message="no such model")]
    request_id = it.asynchronous.enqueue("f", b'{"a": 1}')
    it.wait_idle()
    [message] = messages(url)
    assert json.loads(message["Body"]) == {"a": 1}
    attributes = {name: (one["DataType"], one["StringValue"]) for name, one in message["MessageAttributes"].items()}
    assert attributes == {
        "RequestID": ("String", request_id),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "no such model"),
    }


def test_the_failure_record_has_the_documented_shape(it):
    """On a queue, as the message itself."""
    url, arn = queue("failures")
    it.settings = AsyncSettings(on_failure_arn=arn)
    it.invoker.script = [failed(), failed(), failed()]
    request_id = it.asynchronous.enqueue("f", b'{"a": 1}', qualifier="live")
    it.advance(3600)
    [message] = messages(url)
    assert json.loads(message["Body"]) == {
        "version": "1.0",
        "timestamp": "2026-01-01T00:03:00.000Z",
        "requestContext": {
            "requestId": request_id,
            "functionArn": f"{function_arn('f')}:live",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"a": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "7", "functionError": "Unhandled"},
        "responsePayload": {"errorMessage": "it broke"},
    }


def test_failure_records_reach_functions_topics_and_buses(it):
    """A bus gets it as an event of its own."""
    it.invoker.script = [failed()]
    it.settings = AsyncSettings(max_retries=0, on_failure_arn=function_arn("on-failure"))
    it.asynchronous.enqueue("f", b"{}")
    it.wait_idle()
    assert it.invoker.of("on-failure")[0].event["requestContext"]["condition"] == "RetriesExhausted"

    it.rule("failures", function_arn("watch"), pattern={"source": ["lambda"]})
    it.invoker.script = [failed()]
    it.settings = AsyncSettings(max_retries=0, on_failure_arn=f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default")
    it.asynchronous.enqueue("g", b"{}")
    it.wait_idle()
    [call] = it.invoker.of("watch")
    assert call.event["detail-type"] == "Lambda Function Invocation Result - Failure"
    assert call.event["detail"]["requestContext"]["functionArn"] == f"{function_arn('g')}:$LATEST"

    url, arn = queue("subscriber")
    sns = client("sns")
    topic = sns.create_topic(Name="failed")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    it.invoker.script = [failed()]
    it.settings = AsyncSettings(max_retries=0, dead_letter_arn=topic)
    it.asynchronous.enqueue("h", b'{"n": 5}')
    it.wait_idle()
    [message] = messages(url)
    assert json.loads(message["Body"]) == {"n": 5}
    assert message["MessageAttributes"]["ErrorMessage"]["StringValue"] == "it broke"


def test_unknown_functions_and_payloads_that_are_too_large_are_refused_at_the_door(it):
    """404 and 413, and nothing holds the clock."""
    it.unknown.add("ghost")
    for function, payload, status in (("ghost", b"{}", 404), ("f", b"x" * (1024 * 1024 + 1), 413)):
        with pytest.raises(Refused) as refused:
            it.asynchronous.enqueue(function, payload)
        assert refused.value.status == status
    assert it.clock.holders == ()


def test_several_workers_run_events_side_by_side():
    """Four events that wait for each other can only end together."""
    clock = VirtualClock(START)
    invoker, together = ScriptedInvoker(clock), threading.Barrier(4)

    def meet():
        together.wait(60)
        return failed()

    invoker.script = [meet] * 4
    wide = AsyncLambda(invoker, lambda _: AsyncSettings(max_retries=0), clock, width=4)
    for _ in range(4):
        wide.enqueue("f", b"1")
    wide.wait_idle()
    wide.stop()
    assert not together.broken
