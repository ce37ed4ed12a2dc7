"""Alarms of the local CloudWatch live: they are evaluated in virtual time, and act when their state changes."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError
from moto.core.base_backend import BackendDict
from moto.server import ThreadedMotoServer

from tests.local.machines import ACCOUNT, REGION, START, World, client, function_arn, messages, queue, world

DIMENSIONS = [{"Name": "Endpoint", "Value": "digits"}]
ROLL_BACK = function_arn("roll-back")


@pytest.fixture
def it(monkeypatch):
    with world(monkeypatch) as started:
        yield started


@pytest.fixture
def cloudwatch(it):
    return client("cloudwatch")


def alarm(cloudwatch, name="perch/digits/failures", **more):
    given = {
        "AlarmName": name,
        "Namespace": "Perch",
        "MetricName": "Failures",
        "Dimensions": DIMENSIONS,
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        "AlarmActions": [ROLL_BACK],
        **more,
    }
    cloudwatch.put_metric_alarm(**{key: value for key, value in given.items() if value is not None})


def state(cloudwatch, name="perch/digits/failures"):
    [found] = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return found["StateValue"]


def fail(it, count=1.0, name="Failures"):
    it.store.put("Perch", name, {"Endpoint": "digits"}, count, at=it.clock.now())


def test_a_new_alarm_has_insufficient_data_until_it_is_evaluated(it, cloudwatch):
    """A few seconds after the first minute that closes."""
    it.advance(30)
    alarm(cloudwatch)
    [found] = cloudwatch.describe_alarms()["MetricAlarms"]
    assert (found["StateValue"], found["StateReason"]) == ("INSUFFICIENT_DATA", "Unchecked: Initial alarm creation")
    it.advance(34)
    assert state(cloudwatch) == "INSUFFICIENT_DATA"
    it.advance(1)
    [found] = cloudwatch.describe_alarms()["MetricAlarms"]
    assert found["StateValue"] == "OK"
    assert found["StateUpdatedTimestamp"] == START + timedelta(seconds=65)


def test_an_alarm_calls_its_function_once_with_the_documented_payload(it, cloudwatch):
    """On the transition, not in every minute that it stays in ALARM."""
    alarm(cloudwatch, AlarmDescription="too many failures")
    it.advance(120)
    for _ in range(3):
        fail(it, 5)
        it.advance(60)
    assert state(cloudwatch) == "ALARM"
    [call] = it.invoker.of("roll-back")
    assert call.at == START + timedelta(seconds=185)
    payload = call.event
    assert {name: payload[name] for name in ("source", "alarmArn", "accountId", "time", "region")} == {
        "source": "aws.cloudwatch",
        "alarmArn": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:perch/digits/failures",
        "accountId": ACCOUNT,
        "time": "2026-01-01T00:03:05.000+0000",
        "region": REGION,
    }
    data = payload["alarmData"]
    assert data["alarmName"] == "perch/digits/failures"
    assert (data["state"]["value"], data["previousState"]["value"]) == ("ALARM", "OK")
    assert data["state"]["timestamp"] == "2026-01-01T00:03:05.000+0000"
    assert json.loads(data["state"]["reasonData"])["recentDatapoints"] == [5.0]
    assert data["configuration"]["description"] == "too many failures"
    [metric] = data["configuration"]["metrics"]
    assert metric.pop("id")
    assert metric == {
        "metricStat": {
            "metric": {"namespace": "Perch", "name": "Failures", "dimensions": {"Endpoint": "digits"}},
            "period": 60,
            "stat": "Sum",
        },
        "returnData": True,
    }


def test_a_change_of_state_is_an_event_on_the_bus(it, cloudwatch):
    """Which rules match by the alarm's name and state."""
    pattern = {
        "source": ["aws.cloudwatch"],
        "detail-type": ["CloudWatch Alarm State Change"],
        "detail": {"alarmName": [{"prefix": "perch/"}], "state": {"value": ["ALARM"]}},
    }
    it.rule("alarms", function_arn("on-alarm"), pattern=pattern)
    alarm(cloudwatch, AlarmActions=[])
    fail(it)
    it.advance(300)
    [call] = it.invoker.of("on-alarm")
    event = call.event
    assert event["time"] == "2026-01-01T00:01:05Z"
    assert event["resources"] == [f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:perch/digits/failures"]
    assert event["detail"]["previousState"]["value"] == "INSUFFICIENT_DATA"
    assert set(event["detail"]) == {"alarmName", "state", "previousState", "configuration"}


def test_a_topic_gets_the_documented_message(it, cloudwatch):
    """With its subject."""
    url, arn = queue("subscriber")
    sns = client("sns")
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    alarm(cloudwatch, AlarmActions=[topic])
    fail(it)
    it.advance(65)
    [message] = messages(url)
    envelope = json.loads(message["Body"])
    assert envelope["Subject"] == f'ALARM: "perch/digits/failures" in {REGION}'
    body = json.loads(envelope["Message"])
    assert (body["AlarmName"], body["NewStateValue"], body["OldStateValue"]) == (
        "perch/digits/failures",
        "ALARM",
        "INSUFFICIENT_DATA",
    )
    assert body["Trigger"]["MetricName"] == "Failures"
    assert body["Trigger"]["Dimensions"] == [{"name": "Endpoint", "value": "digits"}]


def test_actions_belong_to_states_and_can_be_switched_off(it, cloudwatch):
    """OK and INSUFFICIENT_DATA have theirs; a disabled alarm changes state in silence."""
    alarm(
        cloudwatch,
        OKActions=[function_arn("on-ok")],
        InsufficientDataActions=[function_arn("on-none")],
        TreatMissingData="missing",
    )
    fail(it)
    it.advance(60)
    fail(it, 0)
    it.advance(600)
    assert [call.function.rsplit(":", 1)[1] for call in it.invoker.calls] == ["roll-back", "on-ok", "on-none"]
    cloudwatch.disable_alarm_actions(AlarmNames=["perch/digits/failures"])
    fail(it)
    it.advance(65)
    assert state(cloudwatch) == "ALARM"
    assert len(it.invoker.calls) == 3


def test_a_failing_action_does_not_stop_the_alarm_or_its_other_actions(it, cloudwatch):
    """It stands in the history."""
    it.unknown.add("ghost")
    alarm(cloudwatch, AlarmActions=[function_arn("ghost"), "arn:aws:automate:us-east-1:ec2:stop", ROLL_BACK])
    fail(it)
    it.advance(65)
    assert len(it.invoker.of("roll-back")) == 1
    history = cloudwatch.describe_alarm_history(AlarmName="perch/digits/failures", HistoryItemType="Action")
    assert sorted(item["HistorySummary"].split()[0] for item in history["AlarmHistoryItems"]) == [
        "Failed",
        "Failed",
        "Successfully",
    ]


def test_setting_the_state_by_hand_acts_and_lasts_until_the_next_evaluation(it, cloudwatch):
    """SetAlarmState, as in a drill."""
    alarm(cloudwatch)
    it.advance(70)
    cloudwatch.set_alarm_state(AlarmName="perch/digits/failures", StateValue="ALARM", StateReason="a drill")
    it.wait_idle()
    [call] = it.invoker.of("roll-back")
    assert call.event["alarmData"]["state"]["reason"] == "a drill"
    cloudwatch.set_alarm_state(AlarmName="perch/digits/failures", StateValue="ALARM", StateReason="again")
    it.wait_idle()
    assert len(it.invoker.of("roll-back")) == 1
    it.advance(60)
    assert state(cloudwatch) == "OK"


def test_putting_an_alarm_again_keeps_its_state_and_uses_the_new_configuration(it, cloudwatch):
    """As on AWS."""
    alarm(cloudwatch)
    it.advance(65)
    alarm(cloudwatch, Threshold=10)
    assert state(cloudwatch) == "OK"
    fail(it, 5)
    it.advance(60)
    assert state(cloudwatch) == "OK"
    fail(it, 50)
    it.advance(60)
    assert state(cloudwatch) == "ALARM"


def test_m_out_of_n_over_five_minute_periods_slides_by_the_minute(it, cloudwatch):
    """A period is the five minutes up to the minute that closed last."""
    alarm(cloudwatch, Period=300, EvaluationPeriods=2, DatapointsToAlarm=2, Threshold=3)
    it.advance(120)
    for _ in range(10):
        fail(it)
        it.advance(60)
        if state(cloudwatch) == "ALARM":
            break
    assert it.clock.now() == START + timedelta(minutes=11)  # failures in 00:02..00:04 and 00:05..00:09: three in each


def test_an_alarm_on_an_expression(it, cloudwatch):
    """The deployed one: failed requests in percent, but only from three failures on."""
    stat = lambda name: {"Metric": {"Namespace": "Perch", "MetricName": name, "Dimensions": DIMENSIONS}, "Period": 60}  # noqa: E731
    failed = "FILL(failures, 0)"
    alarm(
        cloudwatch,
        Namespace=None,
        MetricName=None,
        Dimensions=None,
        Statistic=None,
        Period=None,
        Threshold=5,
        ComparisonOperator="GreaterThanThreshold",
        Metrics=[
            {"Id": "requests", "MetricStat": stat("Requests") | {"Stat": "Sum"}, "ReturnData": False},
            {"Id": "failures", "MetricStat": stat("Failures") | {"Stat": "Sum"}, "ReturnData": False},
            {"Id": "percent", "Expression": f"IF({failed} >= 3, 100 * ({failed}) / requests, 0)", "ReturnData": True},
        ],
    )
    fail(it, 100, "Requests")
    fail(it, 2)
    it.advance(65)
    assert state(cloudwatch) == "OK"
    fail(it, 20, "Requests")
    fail(it, 3)
    it.advance(60)
    assert state(cloudwatch) == "ALARM"
    metrics = it.invoker.of("roll-back")[0].event["alarmData"]["configuration"]["metrics"]
    assert [metric["id"] for metric in metrics] == ["requests", "failures", "percent"]
    assert metrics[2]["expression"].startswith("IF(")


def test_a_ten_second_alarm_is_evaluated_every_ten_seconds(it, cloudwatch):
    """For high-resolution metrics."""
    alarm(cloudwatch, Period=10)
    it.advance(20)
    fail(it)
    it.advance(15)
    assert state(cloudwatch) == "ALARM"


def test_a_percentile_alarm(it, cloudwatch):
    """ExtendedStatistic."""
    alarm(cloudwatch, MetricName="Latency", Statistic=None, ExtendedStatistic="p90", Threshold=100)
    for value in [10] * 8 + [500] * 2:
        fail(it, value, "Latency")
    it.advance(65)
    assert state(cloudwatch) == "ALARM"


def test_an_alarm_on_a_count_over_a_range(it, cloudwatch):
    """So many slow requests, however many there were (moto takes no such ExtendedStatistic, but it takes Metrics)."""
    metric = {"Namespace": "Perch", "MetricName": "Latency", "Dimensions": DIMENSIONS}
    slow = {"Id": "slow", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "TC(100:)"}, "ReturnData": True}
    one_metric = dict.fromkeys(("Namespace", "MetricName", "Dimensions", "Statistic", "Period"))
    alarm(cloudwatch, **one_metric, Metrics=[slow], Threshold=3)
    for value in [10] * 50 + [500] * 2:
        fail(it, value, "Latency")
    it.advance(65)
    assert state(cloudwatch) == "OK"
    for value in [100] * 50 + [101] * 3:
        fail(it, value, "Latency")
    it.advance(60)
    assert state(cloudwatch) == "ALARM"


def test_an_alarm_with_another_dimension_sees_nothing(it, cloudwatch):
    """The classic canary alarm that sits in INSUFFICIENT_DATA for ever."""
    alarm(cloudwatch, Dimensions=[], TreatMissingData="missing")
    fail(it, 100)
    it.advance(600)
    assert state(cloudwatch) == "INSUFFICIENT_DATA"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"Period": 45}, "period"),
        ({"DatapointsToAlarm": 2}, "DatapointsToAlarm"),
        ({"ComparisonOperator": "Above"}, "ComparisonOperator"),
        ({"TreatMissingData": "zero"}, "TreatMissingData"),
        ({"Statistic": None}, "Statistic"),
        ({"MetricName": None}, "MetricName or Metrics"),
        ({"Period": 3600, "EvaluationPeriods": 25}, "one day"),
        ({"Statistic": None, "ExtendedStatistic": "p101"}, "statistic"),
    ],
)
def test_an_alarm_that_is_not_valid_is_refused_and_changes_nothing(cloudwatch, wrong, reason):
    """As PutMetricAlarm does, and moto does not."""
    alarm(cloudwatch, Threshold=7)
    with pytest.raises(ClientError, match=reason):
        alarm(cloudwatch, **wrong)
    [found] = cloudwatch.describe_alarms()["MetricAlarms"]
    assert (found["Threshold"], found["Period"]) == (7, 60)


def test_the_history_tells_the_life_of_an_alarm(it, cloudwatch):
    """Newest first."""
    alarm(cloudwatch)
    fail(it)
    it.advance(65)
    items = cloudwatch.describe_alarm_history(AlarmName="perch/digits/failures")["AlarmHistoryItems"]
    assert [item["HistoryItemType"] for item in items] == ["Action", "StateUpdate", "ConfigurationUpdate"]
    assert items[1]["HistorySummary"] == "Alarm updated from INSUFFICIENT_DATA to ALARM"
    assert items[1]["Timestamp"] == START + timedelta(seconds=65)


def test_the_history_can_be_asked_for_a_span_of_time(it, cloudwatch):
    """StartDate and EndDate, both inclusive."""
    alarm(cloudwatch)
    fail(it)
    it.advance(65)

    def kinds(**span):
        items = cloudwatch.describe_alarm_history(AlarmName="perch/digits/failures", **span)["AlarmHistoryItems"]
        return [item["HistoryItemType"] for item in items]

    went_off = START + timedelta(seconds=65)
    assert kinds(StartDate=went_off) == ["Action", "StateUpdate"]
    assert kinds(EndDate=START) == ["ConfigurationUpdate"]
    assert kinds(StartDate=went_off + timedelta(seconds=1)) == []


def test_a_week_of_ticks_and_alarms_passes_in_virtual_time(it, cloudwatch):
    """Every tick fires, every alarm is evaluated, and nothing but the ticks happens."""
    it.rule("tick", function_arn("tick"), schedule="rate(1 minute)")
    for number in range(5):
        alarm(cloudwatch, f"perch/e{number}/failures")
    it.advance(7 * 86400)
    assert len(it.invoker.of("tick")) == 7 * 1440
    assert {one["StateValue"] for one in cloudwatch.describe_alarms()["MetricAlarms"]} == {"OK"}
    assert len(it.invoker.calls) == 7 * 1440


def test_all_of_it_works_on_motos_server(monkeypatch):
    """Over HTTP: upload, event, metric, alarm, action, each seen by the functions."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://localhost:{port}")
        with World() as it:
            s3, cloudwatch = client("s3"), client("cloudwatch")
            s3.create_bucket(Bucket="store")
            s3.put_bucket_notification_configuration(
                Bucket="store", NotificationConfiguration={"EventBridgeConfiguration": {}}
            )
            it.rule("uploads", function_arn("register"), pattern={"source": ["aws.s3"]})
            it.rule("tick", function_arn("tick"), schedule="rate(1 minute)")
            alarm(cloudwatch)
            s3.put_object(Bucket="store", Key="models/digits/v1/model.onnx", Body=b"x")
            cloudwatch.put_metric_data(
                Namespace="Perch", MetricData=[{"MetricName": "Failures", "Dimensions": DIMENSIONS, "Value": 3}]
            )
            it.advance(120)
            assert it.invoker.of("register")[0].event["detail"]["object"]["key"] == "models/digits/v1/model.onnx"
            assert len(it.invoker.of("tick")) == 2
            assert len(it.invoker.of("roll-back")) == 1
            assert state(cloudwatch) == "ALARM"
            found = cloudwatch.get_metric_statistics(
                Namespace="Perch",
                MetricName="Failures",
                Dimensions=DIMENSIONS,
                StartTime=START,
                EndTime=START + timedelta(minutes=5),
                Period=60,
                Statistics=["Sum"],
            )["Datapoints"]
            assert [(row["Timestamp"], row["Sum"]) for row in found] == [(START, 3)]
    finally:
        server.stop()
        BackendDict.reset()
