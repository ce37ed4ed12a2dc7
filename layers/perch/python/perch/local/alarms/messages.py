"""What an alarm tells the world when its state changes: the EventBridge event, the Lambda payload, the SNS message.

The three shapes are the documented ones. All are made from the same two states and the same description of the metrics.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perch.local.alarms.evaluate import stamp


@dataclass(frozen=True, kw_only=True)
class StateSeen:
    """An alarm's state at one moment. `reason_data` is JSON text, or empty."""

    value: str
    reason: str
    reason_data: str
    at: datetime

    def as_json(self) -> dict[str, Any]:
        """The shape that events and payloads have."""
        shown: dict[str, Any] = {"value": self.value, "reason": self.reason, "timestamp": stamp(self.at)}
        if self.reason_data and self.reason_data != "{}":
            shown["reasonData"] = self.reason_data
        return shown


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change of state of one alarm of moto's."""

    alarm: Any
    before: StateSeen
    after: StateSeen
    account: str
    region: str

    def event(self) -> dict[str, Any]:
        """The event `CloudWatch Alarm State Change`."""
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "CloudWatch Alarm State Change",
            "source": "aws.cloudwatch",
            "account": self.account,
            "time": f"{self.after.at:%Y-%m-%dT%H:%M:%SZ}",
            "region": self.region,
            "resources": [self.alarm.alarm_arn],
            "detail": self._data(),
        }

    def payload(self) -> dict[str, Any]:
        """What a Lambda function that is an action of the alarm is invoked with."""
        return {
            "source": "aws.cloudwatch",
            "alarmArn": self.alarm.alarm_arn,
            "accountId": self.account,
            "time": stamp(self.after.at),
            "region": self.region,
            "alarmData": self._data(),
        }

    def subject(self) -> str:
        """The subject of the SNS message, at most 99 characters."""
        return f'{self.after.value}: "{self.alarm.name}" in {self.region}'[:99]

    def message(self) -> str:
        """The SNS message, JSON text."""
        alarm = self.alarm
        trigger: dict[str, Any] = {
            "Period": alarm.period,
            "EvaluationPeriods": alarm.evaluation_periods,
            "DatapointsToAlarm": alarm.datapoints_to_alarm or alarm.evaluation_periods,
            "ComparisonOperator": alarm.comparison_operator,
            "Threshold": alarm.threshold,
            "TreatMissingData": alarm.treat_missing_data or "missing",
            "EvaluateLowSampleCountPercentile": alarm.evaluate_low_sample_count_percentile or "",
        }
        if alarm.metric_data_queries:
            trigger["Metrics"] = describe_metrics(alarm, capital=True)
        else:
            trigger |= {
                "MetricName": alarm.metric_name,
                "Namespace": alarm.namespace,
                "StatisticType": "ExtendedStatistic" if alarm.extended_statistic else "Statistic",
                "Statistic": alarm.extended_statistic or str(alarm.statistic).upper(),
                "Unit": alarm.unit,
                "Dimensions": [{"name": one.name, "value": one.value} for one in alarm.dimensions],
            }
        return json.dumps(
            {
                "AlarmName": alarm.name,
                "AlarmDescription": alarm.description,
                "AWSAccountId": self.account,
                "AlarmConfigurationUpdatedTimestamp": stamp(alarm.configuration_updated_timestamp),
                "NewStateValue": self.after.value,
                "NewStateReason": self.after.reason,
                "StateChangeTime": stamp(self.after.at),
                "Region": self.region,
                "AlarmArn": alarm.alarm_arn,
                "OldStateValue": self.before.value,
                "OKActions": alarm.ok_actions or [],
                "AlarmActions": alarm.alarm_actions or [],
                "InsufficientDataActions": alarm.insufficient_data_actions or [],
                "Trigger": trigger,
            }
        )

    def _data(self) -> dict[str, Any]:
        configuration: dict[str, Any] = {"metrics": describe_metrics(self.alarm)}
        if self.alarm.description:
            configuration["description"] = self.alarm.description
        return {
            "alarmName": self.alarm.name,
            "state": self.after.as_json(),
            "previousState": self.before.as_json(),
            "configuration": configuration,
        }


def describe_metrics(alarm: Any, *, capital: bool = False) -> list[dict[str, Any]]:
    """The metrics of an alarm as its events (lower case) or SNS messages (`capital`) describe them."""
    if not alarm.metric_data_queries:
        single = _metric_stat(
            alarm.namespace,
            alarm.metric_name,
            alarm.dimensions,
            alarm.period,
            alarm.extended_statistic or alarm.statistic,
        )
        name = str(uuid.uuid5(uuid.NAMESPACE_URL, alarm.alarm_arn))
        return [{"id": name, "metricStat": single, "returnData": True}]
    found: list[dict[str, Any]] = []
    for query in alarm.metric_data_queries:
        one: dict[str, Any] = {"id": query.id, "returnData": is_returned(query)}
        if query.label:
            one["label"] = query.label
        if query.metric_stat is not None:
            stat = query.metric_stat
            one["metricStat"] = _metric_stat(
                stat.metric.namespace, stat.metric.metric_name, stat.metric.dimensions, stat.period, stat.stat
            )
        else:
            one["expression"] = query.expression
        found.append(_capitals(one) if capital else one)
    return found


def is_returned(query: Any) -> bool:
    """Whether a query of moto's has ReturnData (true unless it says false)."""
    return str(query.return_data).lower() != "false"


def _metric_stat(namespace: str, name: str, dimensions: Any, period: Any, stat: str) -> dict[str, Any]:
    return {
        "metric": {"namespace": namespace, "name": name, "dimensions": {one.name: one.value for one in dimensions}},
        "period": int(period),
        "stat": stat,
    }


def _capitals(value: dict[str, Any]) -> dict[str, Any]:
    return {
        name[0].upper() + name[1:]: _capitals(one) if isinstance(one, dict) and name != "dimensions" else one
        for name, one in value.items()
    }
