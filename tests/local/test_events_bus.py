"""The bus: events reach the targets of the rules that match, at least once, in virtual time."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from perch.local.events.faults import DeliveryFaults, Next, Share, to_function
from perch.local.ports import Refused
from tests.local.machines import ACCOUNT, REGION, START, client, function_arn, messages, queue, world

ORDERS = {"source": ["shop"]}


@pytest.fixture
def it(monkeypatch):
    with world(monkeypatch) as started:
        yield started


def test_an_event_reaches_the_function_of_the_rule_that_matches(it):
    """In the shape that EventBridge documents, with the virtual time."""
    it.rule("orders", function_arn("on-order"), pattern=ORDERS)
    it.rule("others", function_arn("on-other"), pattern={"source": ["other"]})
    event_id = it.put(price=5)
    [call] = it.invoker.calls
    assert call.function == function_arn("on-order")
    assert call.event == {
        "version": "0",
        "id": event_id,
        "detail-type": "Order",
        "source": "shop",
        "account": ACCOUNT,
        "time": "2026-01-01T00:00:00Z",
        "region": REGION,
        "resources": [],
        "detail": {"price": 5},
    }


def test_an_event_that_no_rule_wants_is_gone(it):
    """Nothing is kept for later."""
    it.put()
    it.rule("orders", function_arn("on-order"), pattern=ORDERS)
    it.advance(60)
    assert it.invoker.calls == []


def test_a_disabled_rule_takes_nothing_until_it_is_enabled(it):
    """By API."""
    it.rule("orders", function_arn("on-order"), pattern=ORDERS)
    events = client("events")
    events.disable_rule(Name="orders")
    it.put()
    assert it.invoker.calls == []
    events.enable_rule(Name="orders")
    it.put()
    assert len(it.invoker.calls) == 1


def test_rules_on_a_custom_bus_see_only_its_events(it):
    """And a rule can send on to another bus."""
    events = client("events")
    events.create_event_bus(Name="mine")
    events.put_rule(Name="r", EventBusName="mine", EventPattern=json.dumps(ORDERS))
    events.put_targets(Rule="r", EventBusName="mine", Targets=[{"Id": "1", "Arn": function_arn("mine")}])
    it.put(n=1)
    assert it.invoker.calls == []
    it.rule("forward", f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/mine", pattern=ORDERS)
    it.put(n=2)
    assert [call.event["detail"] for call in it.invoker.of("mine")] == [{"n": 2}]


def test_queues_topics_and_log_groups_are_targets_too(it):
    """A topic's subscribers and a log group's stream get the event."""
    url, arn = queue("direct")
    fan_url, fan_arn = queue("fan")
    sns, lines = client("sns"), []

    class Logs:
        def write(self, group, stream, at, line):
            lines.append((group, at, json.loads(line)["detail"]))

    it.bus.sender.logs = Logs()
    topic = sns.create_topic(Name="orders")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=fan_arn)
    it.rule("q", arn, pattern=ORDERS, InputPath="$.detail")
    it.rule("t", topic, pattern=ORDERS)
    it.rule("l", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/events", pattern=ORDERS)
    it.put(n=1)
    assert [json.loads(message["Body"]) for message in messages(url)] == [{"n": 1}]
    [message] = messages(fan_url)
    assert json.loads(json.loads(message["Body"])["Message"])["detail"] == {"n": 1}
    assert lines == [("/events", START, {"n": 1})]


def test_put_events_answers_each_entry_for_itself(it):
    """What is malformed is refused with its code; the rest goes through."""
    it.rule("orders", function_arn("on-order"), pattern=ORDERS)
    good = {"Source": "shop", "DetailType": "Order", "Detail": "{}"}
    answer = client("events").put_events(
        Entries=[
            good,
            good | {"Detail": "not json"},
            good | {"Detail": "[1]"},
            good | {"Source": "aws.s3"},
            {"Source": "shop", "Detail": "{}"},
        ]
    )
    it.wait_idle()
    codes = [entry.get("ErrorCode") for entry in answer["Entries"]]
    assert codes == [None, "MalformedDetail", "MalformedDetail", "NotAuthorizedForSourceException", "InvalidArgument"]
    assert answer["FailedEntryCount"] == 4
    assert len(it.invoker.calls) == 1


def test_put_events_refuses_too_many_and_too_large(it):
    """Eleven entries; more than 256 KB."""
    events = client("events")
    entry = {"Source": "shop", "DetailType": "Order", "Detail": "{}"}
    for entries in ([entry] * 11, [entry | {"Detail": json.dumps({"x": "a" * 300_000})}]):
        with pytest.raises(ClientError, match="ValidationException"):
            events.put_events(Entries=entries)


def test_a_rule_that_is_not_valid_is_refused(it):
    """Patterns and schedules are checked when the rule is put."""
    events = client("events")
    with pytest.raises(ClientError, match="unrecognised match type 'begins'"):
        events.put_rule(Name="r", EventPattern='{"source": [{"begins": "a"}]}')
    with pytest.raises(ClientError, match="ScheduleExpression is not valid"):
        events.put_rule(Name="r", ScheduleExpression="rate(1 minutes)")


# -- failing deliveries ----------------------------------------------------------------------------------------------


def test_a_target_that_is_not_there_goes_to_the_dead_letter_queue_at_once(it):
    """With the documented attributes; trying again would not help."""
    url, arn = queue("dead")
    it.unknown.add("ghost")
    it.rule("orders", function_arn("ghost"), pattern=ORDERS, DeadLetterConfig={"Arn": arn})
    event_id = it.put(n=1)
    [message] = messages(url)
    assert json.loads(message["Body"])["id"] == event_id
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert attributes["ERROR_CODE"] == "ResourceNotFoundException"
    assert attributes["RETRY_ATTEMPTS"] == "0"
    assert attributes["TARGET_ARN"] == function_arn("ghost")
    assert attributes["RULE_ARN"].endswith(":rule/orders")
    assert it.bus.history[-1].outcome == "dead-lettered"


def test_without_a_dead_letter_queue_it_is_dropped_and_the_others_get_theirs(it):
    """One bad target does not disturb another."""
    it.rule("bad", f"arn:aws:sqs:{REGION}:{ACCOUNT}:ghost", pattern=ORDERS)
    it.rule("good", function_arn("on-order"), pattern=ORDERS)
    it.put()
    assert [record.outcome for record in it.bus.history] == ["dropped", "delivered"]


def test_what_may_pass_is_tried_again_until_the_retries_are_used_up(it, monkeypatch):
    """The retry policy counts; the waits are virtual."""
    url, arn = queue("dead")
    refusal = Refused("TooManyRequestsException", "slow down", 429)
    tries = []

    def refuse(function, payload, *, qualifier=None):
        tries.append(it.clock.now())
        raise refusal

    monkeypatch.setattr(it.asynchronous, "enqueue", refuse)
    it.rule(
        "orders",
        function_arn("busy"),
        pattern=ORDERS,
        RetryPolicy={"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 3600},
        DeadLetterConfig={"Arn": arn},
    )
    it.put()
    it.advance(3600)
    assert [(at - START).total_seconds() for at in tries] == [0, 1, 3, 7]
    [message] = messages(url)
    assert message["MessageAttributes"]["EXHAUSTED_RETRY_CONDITION"]["StringValue"] == "MaximumRetryAttempts"
    assert message["MessageAttributes"]["RETRY_ATTEMPTS"]["StringValue"] == "3"


# -- faults ----------------------------------------------------------------------------------------------------------


def numbers(it):
    return [call.event["detail"]["n"] for call in it.invoker.calls]


def test_the_next_delivery_can_be_duplicated_lost_or_late(it):
    """Each once, and then all is well again."""
    it.rule("orders", function_arn("on-order"), pattern=ORDERS)
    it.bus.faults = DeliveryFaults(duplicate=Next(1))
    it.put(n=1)
    it.put(n=2)
    assert numbers(it) == [1, 1, 2]
    it.bus.faults = DeliveryFaults(lose=Next(1))
    it.put(n=3)
    it.put(n=4)
    assert numbers(it) == [1, 1, 2, 4]
    it.bus.faults = DeliveryFaults(delay=Next(1), delay_s=90)
    it.put(n=5)
    it.put(n=6)
    it.advance(89)
    assert numbers(it) == [1, 1, 2, 4, 6]
    it.advance(1)
    assert numbers(it) == [1, 1, 2, 4, 6, 5]


def test_two_deliveries_can_be_swapped_and_none_is_forgotten(it):
    """The first waits for the second; where no second comes, it is only late."""
    it.rule("orders", function_arn("on-order"), pattern=ORDERS)
    it.bus.faults = DeliveryFaults(reorder=Next(1))
    it.put(n=1)
    it.put(n=2)
    assert numbers(it) == [2, 1]
    it.bus.faults = DeliveryFaults(reorder=Next(1))
    it.put(n=3)
    it.advance(120)
    assert numbers(it) == [2, 1, 3]


def test_a_fault_can_pick_its_deliveries(it):
    """By target, here."""
    it.rule("a", function_arn("alpha"), pattern=ORDERS)
    it.rule("b", function_arn("beta"), pattern=ORDERS)
    it.bus.faults = DeliveryFaults(lose=Next(5, when=to_function("alpha")))
    it.put()
    assert [call.function for call in it.invoker.calls] == [function_arn("beta")]


def test_random_faults_are_the_same_for_the_same_seed(it):
    """And about as many as asked for."""
    it.rule("orders", function_arn("on-order"), pattern=ORDERS)
    runs = []
    for _ in range(2):
        it.invoker.calls.clear()
        it.bus.faults = DeliveryFaults(lose=Share(0.3), duplicate=Share(0.2), seed=7)
        for n in range(60):
            it.bus.publish({"id": str(n), "source": "shop", "detail": {"n": n}})
        it.wait_idle()
        runs.append(numbers(it))
    assert runs[0] == runs[1]
    assert 5 < 60 - len(set(runs[0])) < 35


# -- schedules -------------------------------------------------------------------------------------------------------


def test_a_scheduled_rule_fires_at_its_times_with_its_times(it):
    """The event's time is when it was due."""
    it.rule("tick", function_arn("tick"), schedule="rate(1 minute)")
    it.advance(180)
    assert [call.event["time"] for call in it.invoker.calls] == [f"2026-01-01T00:0{n}:00Z" for n in (1, 2, 3)]
    first = it.invoker.calls[0]
    assert first.at == START + timedelta(minutes=1)
    assert (first.event["source"], first.event["detail-type"]) == ("aws.events", "Scheduled Event")
    assert first.event["resources"] == [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/tick"]


def test_a_schedule_follows_its_rule(it):
    """Disabled, enabled, changed, deleted."""
    events = client("events")
    it.rule("tick", function_arn("tick"), schedule="rate(1 minute)")
    it.advance(60)
    events.disable_rule(Name="tick")
    it.advance(600)
    assert len(it.invoker.calls) == 1
    events.enable_rule(Name="tick")
    it.advance(60)
    assert len(it.invoker.calls) == 2
    events.put_rule(Name="tick", ScheduleExpression="rate(10 minutes)")
    it.advance(600)
    assert len(it.invoker.calls) == 3
    events.remove_targets(Rule="tick", Ids=["1"])
    events.delete_rule(Name="tick")
    it.advance(3600)
    assert len(it.invoker.calls) == 3
    assert not [timer for timer in it.clock.timers() if "tick" in timer.name]


def test_putting_a_rule_again_unchanged_keeps_its_beat(it):
    """A stack that is deployed over and over does not put off its schedules."""
    it.rule("tick", function_arn("tick"), schedule="rate(5 minutes)")
    for _ in range(4):
        it.advance(100)
        it.rule("tick", function_arn("tick"), schedule="rate(5 minutes)")
    assert len(it.invoker.calls) == 1


def test_schedules_of_a_stack_start_and_stop_with_it(it):
    """By CloudFormation, with an input transformer."""
    template = {
        "Resources": {
            "Tick": {
                "Type": "AWS::Events::Rule",
                "Properties": {
                    "ScheduleExpression": "rate(5 minutes)",
                    "State": "ENABLED",
                    "Targets": [
                        {
                            "Id": "T",
                            "Arn": function_arn("check"),
                            "InputTransformer": {
                                "InputPathsMap": {"time": "$.time"},
                                "InputTemplate": '{"endpoint":"digits","time":<time>}',
                            },
                        }
                    ],
                },
            }
        }
    }
    cloudformation = client("cloudformation")
    cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(template))
    it.advance(300)
    assert [call.event for call in it.invoker.calls] == [{"endpoint": "digits", "time": "2026-01-01T00:05:00Z"}]
    cloudformation.delete_stack(StackName="s")
    it.advance(3600)
    assert len(it.invoker.calls) == 1


def test_rules_that_vanish_without_a_word_stop_firing(it):
    """As after moto's reset."""
    it.rule("tick", function_arn("tick"), schedule="rate(1 minute)")
    from moto.events.models import events_backends

    events_backends[ACCOUNT][REGION].reset()
    it.advance(600)
    assert it.invoker.calls == []


def test_moto_is_as_it_was_after_stop(monkeypatch):
    """Every replaced function is put back."""
    from moto.cloudwatch.models import CloudWatchBackend
    from moto.cloudwatch.responses import CloudWatchResponse
    from moto.events.models import EventsBackend
    from moto.s3 import notifications
    from moto.s3.models import S3Backend

    owners = (CloudWatchBackend, CloudWatchResponse, EventsBackend, notifications, S3Backend)
    before = [dict(vars(owner)) for owner in owners]
    with world(monkeypatch):
        assert dict(vars(EventsBackend)) != before[2]
    assert [dict(vars(owner)) for owner in owners] == before


def test_the_time_of_ingestion_is_the_buss_own_word(it):
    """An event says any time it likes; a rule may send its target the time at which the bus got it."""
    times = '{"said":<said>,"came":"<aws.events.event.ingestion-time>"}'
    send = {"InputPathsMap": {"said": "$.time"}, "InputTemplate": times}
    it.rule("orders", function_arn("on-order"), pattern=ORDERS, InputTransformer=send)
    event = {"Source": "shop", "DetailType": "Order", "Detail": "{}", "Time": START.replace(year=2031)}
    client("events").put_events(Entries=[event])
    it.wait_idle()

    assert [c.event for c in it.invoker.calls] == [{"said": "2031-01-01T00:00:00Z", "came": "2026-01-01T00:00:00Z"}]
