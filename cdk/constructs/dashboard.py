"""The dashboard: for each endpoint what it answers, how fast, how its probes fare, and whether its alarms are quiet.

Revisions come and go, so their series are searched for rather than named. All other names are fixed by the settings,
so the dashboard depends on no other stack.
"""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from cdk.constructs.alarms import ROLES, alarm_name
from cdk.settings import Endpoint, Settings

_GUARDS = ("failures", *(f"probes-{role}" for role in ROLES))


@dataclass(frozen=True, kw_only=True)
class DashboardProps:
    """`settings` name the endpoints."""

    settings: Settings


class Dashboard(Construct):
    """One row of widgets an endpoint, under a row for the alarms."""

    dashboard: cloudwatch.Dashboard

    def __init__(self, scope: Construct, id_: str, *, props: DashboardProps) -> None:
        super().__init__(scope, id_)
        settings = props.settings
        self.dashboard = cloudwatch.Dashboard(
            self, "Dashboard", dashboard_name=settings.name, default_interval=Duration.hours(3)
        )
        self.dashboard.add_widgets(
            cloudwatch.AlarmStatusWidget(title="Alarms", width=24, height=4, alarms=self._alarms(settings))
        )
        for endpoint in settings.endpoints:
            self.dashboard.add_widgets(*_row(endpoint))

    def _alarms(self, settings: Settings) -> list[cloudwatch.IAlarm]:
        names = [alarm_name(settings.name, e.name, guard) for e in settings.endpoints for guard in _GUARDS]
        names += [f"{settings.name}-{of}" for of in ("dead-letters", "driver-errors", "driver-silent")]
        arns = [Stack.of(self).format_arn(service="cloudwatch", resource=f"alarm:{name}") for name in names]
        return [
            cloudwatch.Alarm.from_alarm_arn(self, name.replace("/", "-"), arn)
            for name, arn in zip(names, arns, strict=True)
        ]


def _row(endpoint: Endpoint) -> list[cloudwatch.IWidget]:
    return [
        _graph(f"{endpoint.name}: requests by revision", [_by_revision(endpoint, "Requests", "Sum")]),
        _graph(f"{endpoint.name}: failed requests by revision", [_by_revision(endpoint, "Failures", "Sum")]),
        _graph(
            f"{endpoint.name}: latency (ms)",
            [_metric(endpoint, "Latency", stat, label=stat) for stat in ("p50", "p95", "p99")],
        ),
        _graph(
            f"{endpoint.name}: failed probes",
            [_metric(endpoint, "ProbeFailures", "Sum", label=role, Role=role) for role in ROLES],
        ),
    ]


def _graph(title: str, left: list[cloudwatch.IMetric]) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(
        title=title, width=6, height=6, left=left, left_y_axis=cloudwatch.YAxisProps(min=0, show_units=False)
    )


def _by_revision(endpoint: Endpoint, metric: str, statistic: str) -> cloudwatch.MathExpression:
    query = f'{{Perch,Endpoint,Revision}} MetricName="{metric}" Endpoint="{endpoint.name}"'
    return cloudwatch.MathExpression(
        expression=f"SEARCH('{query}', '{statistic}', 60)",
        label="${PROP('Dim.Revision')}",
        using_metrics={},
        period=Duration.minutes(1),
    )


def _metric(endpoint: Endpoint, name: str, statistic: str, *, label: str, **more: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="Perch",
        metric_name=name,
        dimensions_map={"Endpoint": endpoint.name, **more},
        statistic=statistic,
        label=label,
        period=Duration.minutes(1),
    )
