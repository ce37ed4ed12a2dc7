"""The definition of an alarm: what PutMetricAlarm and SetAlarmState refuse and moto takes, and what there is to ask.

`check_alarm` looks at what a caller gave, `read_alarm` at the alarm that moto made of it: which data it is about and by
what rule it is judged. Both refuse in words, as CloudWatch does; composite alarms and anomaly detection are refused
because the local cloud has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moto.cloudwatch.exceptions import InvalidFormat, ResourceNotFound, ValidationError

from perch.local.alarms.evaluate import COMPARISONS, TREATMENTS, AlarmSpec
from perch.local.alarms.messages import is_returned
from perch.local.metrics.api import Query, read_query
from perch.local.metrics.statistic import read_statistic
from perch.local.metrics.store import Series, check_period

ACTIONS = {"ALARM": "alarm_actions", "OK": "ok_actions", "INSUFFICIENT_DATA": "insufficient_data_actions"}
"""By state, the attribute of moto's alarm that lists what is done when it is entered."""

_DAY_S = 86400


@dataclass(frozen=True)
class AlarmPlan:
    """An alarm of moto's, read once: what to ask of the data, and where the data is."""

    spec: AlarmSpec
    series: Series | None
    queries: tuple[Query, ...] = ()
    returned: str = ""


def check_alarm(given: Mapping[str, Any]) -> None:
    """Refuse what PutMetricAlarm refuses and moto takes. Raises moto's ValidationError."""
    periods, wanted = int(given.get("evaluation_periods") or 0), given.get("datapoints_to_alarm")
    has_metric = bool(given.get("metric_name"))
    rules = (
        (given.get("rule") is None, "Composite alarms are not supported by the local cloud."),
        (not given.get("threshold_metric_id"), "Anomaly detection alarms are not supported by the local cloud."),
        (
            given.get("comparison_operator") in COMPARISONS,
            f"ComparisonOperator must be one of {', '.join(COMPARISONS)}.",
        ),
        (given.get("threshold") is not None, "The parameter Threshold is required."),
        (periods >= 1, "EvaluationPeriods must be at least 1."),
        (wanted is None or 1 <= int(wanted) <= periods, "DatapointsToAlarm must be from 1 to EvaluationPeriods."),
        (
            given.get("treat_missing_data") in (None, *TREATMENTS),
            f"TreatMissingData must be one of {', '.join(TREATMENTS)}.",
        ),
        (has_metric != bool(given.get("metric_data_queries")), "An alarm needs either MetricName or Metrics."),
        (
            not has_metric or bool(given.get("statistic")) != bool(given.get("extended_statistic")),
            "An alarm on a metric needs either Statistic or ExtendedStatistic.",
        ),
        (
            all(len(given.get(name) or []) <= 5 for name in ACTIONS.values()),
            "An alarm has at most five actions for each state.",
        ),
    )
    for holds, message in rules:
        if not holds:
            raise ValidationError(message)


def check_state(backend: Any, name: str, data: str | None, state: str) -> None:
    """Refuse what SetAlarmState refuses. Raises moto's InvalidFormat, ResourceNotFound or ValidationError."""
    try:
        json.loads(data or "{}")
    except ValueError as error:
        raise InvalidFormat("Unknown") from error
    if name not in backend.alarms:
        raise ResourceNotFound
    if state not in ACTIONS:
        raise ValidationError(
            f"1 validation error detected: Value '{state}' at 'stateValue' failed to satisfy constraint: "
            "Member must satisfy enum value set: [INSUFFICIENT_DATA, ALARM, OK]"
        )


def read_alarm(alarm: Any) -> AlarmPlan:
    """Read an alarm of moto's. Raises ValueError in words."""
    queries: tuple[Query, ...] = ()
    series: Series | None = None
    returned = ""
    statistic = unit = None
    if alarm.metric_data_queries:
        queries = tuple(read_query(_raw_query(query)) for query in alarm.metric_data_queries)
        returning = [query for query in queries if query.returns]
        if len(returning) != 1:
            raise ValueError("exactly one of the alarm's Metrics must have ReturnData true")
        returned = returning[0].id
        period_s = max(query.period_s or 0 for query in queries) or 60
        if returning[0].series is not None:
            series, statistic, unit = returning[0].series, returning[0].stat, returning[0].unit
    else:
        period_s = int(alarm.period)
        statistic, unit = alarm.extended_statistic or alarm.statistic, alarm.unit
        read_statistic(statistic)
        series = Series.of(alarm.namespace, alarm.metric_name, {one.name: one.value for one in alarm.dimensions})
    check_period(period_s)
    if int(alarm.evaluation_periods) * period_s > _DAY_S:
        raise ValueError("EvaluationPeriods times Period may not exceed one day")
    spec = AlarmSpec(
        evaluation_periods=int(alarm.evaluation_periods),
        datapoints_to_alarm=int(alarm.datapoints_to_alarm or alarm.evaluation_periods),
        threshold=float(alarm.threshold),
        comparison=alarm.comparison_operator,
        period_s=period_s,
        statistic=statistic,
        unit=unit,
        treat_missing_data=alarm.treat_missing_data or "missing",
        low_samples=alarm.evaluate_low_sample_count_percentile or "evaluate",
    )
    return AlarmPlan(spec, series, queries, returned)


def _raw_query(query: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {"Id": query.id, "Label": query.label, "ReturnData": is_returned(query)}
    if query.metric_stat is None:
        return raw | {"Expression": query.expression, "Period": query.period}
    stat = query.metric_stat
    metric = {
        "Namespace": stat.metric.namespace,
        "MetricName": stat.metric.metric_name,
        "Dimensions": [{"Name": one.name, "Value": one.value} for one in stat.metric.dimensions],
    }
    return raw | {"MetricStat": {"Metric": metric, "Period": stat.period, "Stat": stat.stat, "Unit": stat.unit}}
