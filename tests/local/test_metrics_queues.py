"""What CloudWatch knows of queues, and an alarm that goes off because messages wait."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.local.machines import client, messages, queue, world


@pytest.fixture
def it(monkeypatch):
    with world(monkeypatch) as started:
        yield started


def measured(it, name: str) -> float:
    """The latest value."""
    found = client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SQS", MetricName=name, Dimensions=[{"Name": "QueueName", "Value": "dead"}],
        StartTime=it.clock.now() - timedelta(minutes=1), EndTime=it.clock.now() + timedelta(seconds=1),
        Period=60, Statistics=["Maximum"],
    )  # fmt: skip
    return found["Datapoints"][-1]["Maximum"]


def test_messages_that_wait_are_measured_every_minute_and_set_an_alarm_off(it):
    """Messages that were received and not deleted are in flight, not waiting."""
    url, _ = queue("dead")
    for text in ("a", "b"):
        client("sqs").send_message(QueueUrl=url, MessageBody=text)
    client("cloudwatch").put_metric_alarm(
        AlarmName="dead letters", Namespace="AWS/SQS", MetricName="ApproximateNumberOfMessagesVisible",
        Dimensions=[{"Name": "QueueName", "Value": "dead"}], Statistic="Maximum", Period=60, EvaluationPeriods=1,
        Threshold=0, ComparisonOperator="GreaterThanThreshold", TreatMissingData="notBreaching",
    )  # fmt: skip
    it.advance(60 + 70)
    (alarm,) = client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert alarm["StateValue"] == "ALARM"

    assert len(messages(url)) == 2
    it.advance(120)
    found = {
        name: measured(it, name)
        for name in ("ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible")
    }
    assert found == {"ApproximateNumberOfMessagesVisible": 0, "ApproximateNumberOfMessagesNotVisible": 2}


def test_nothing_is_measured_once_the_machinery_has_stopped(it):
    """Its timer leaves the clock with it."""
    it.stop()
    assert all(timer.name != "queue metrics" for timer in it.clock.timers())
