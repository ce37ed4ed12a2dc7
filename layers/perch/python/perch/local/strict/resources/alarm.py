"""`AWS::CloudWatch::Alarm` with every property kept, metric math included."""

from __future__ import annotations

from typing import Any

from moto.cloudwatch import models

from perch.local.strict.resources.base import Made, Request, Resource


class Alarm(Resource):
    """A metric alarm; Ref gives its name, Fn::GetAtt its Arn. An update writes the alarm whole, as PutMetricAlarm."""

    TYPE = "AWS::CloudWatch::Alarm"
    NAME = "AlarmName"
    ATTRIBUTES = frozenset({"Arn"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Put the alarm."""
        backend = models.cloudwatch_backends[request.account_id][request.region]
        queries = request.get("Metrics")
        alarm = backend.put_metric_alarm(
            name=request.name,
            namespace=request.get("Namespace"),
            metric_name=request.get("MetricName"),
            metric_data_queries=[_query(query) for query in queries] if queries else None,
            comparison_operator=request.get("ComparisonOperator"),
            evaluation_periods=_whole(request.get("EvaluationPeriods")),
            datapoints_to_alarm=_whole(request.get("DatapointsToAlarm")),
            period=_whole(request.get("Period")),
            threshold=_number(request.get("Threshold")),
            statistic=request.get("Statistic"),
            extended_statistic=request.get("ExtendedStatistic"),
            description=request.get("AlarmDescription"),
            dimensions=request.get("Dimensions", []),
            alarm_actions=request.get("AlarmActions", []),
            ok_actions=request.get("OKActions", []),
            insufficient_data_actions=request.get("InsufficientDataActions", []),
            unit=request.get("Unit"),
            actions_enabled=_flag(request.get("ActionsEnabled"), default=True),
            treat_missing_data=request.get("TreatMissingData"),
            evaluate_low_sample_count_percentile=request.get("EvaluateLowSampleCountPercentile"),
            threshold_metric_id=request.get("ThresholdMetricId"),
            tags=request.get("Tags"),
        )
        return Made(request.name, {"Arn": alarm.alarm_arn}, lambda: backend.delete_alarms([request.name]))

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Put the alarm again under the name it has."""
        del resource
        return cls.create(request)


def _query(query: dict[str, Any]) -> models.MetricDataQuery:
    stat = query.get("MetricStat")
    metric_stat = None
    if stat:
        metric = stat["Metric"]
        dimensions = [models.Dimension(name=d["Name"], value=d["Value"]) for d in metric.get("Dimensions", [])]
        metric_stat = models.MetricStat(
            metric=models.Metric(
                metric_name=metric.get("MetricName"), namespace=metric.get("Namespace"), dimensions=dimensions
            ),
            period=_whole(stat.get("Period")),
            stat=stat.get("Stat"),
            unit=stat.get("Unit"),
        )
    return models.MetricDataQuery(
        query_id=query.get("Id"),
        label=query.get("Label"),
        period=_whole(query.get("Period")),
        return_data=_flag(query.get("ReturnData"), default=True),
        expression=query.get("Expression"),
        metric_stat=metric_stat,
    )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _flag(value: Any, *, default: bool) -> bool:
    return default if value is None else str(value).lower() == "true"
