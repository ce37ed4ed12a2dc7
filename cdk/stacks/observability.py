"""The observability stack: where people look, and what tells them to. It depends on no other stack."""

from __future__ import annotations

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_sns as sns
from constructs import Construct

from cdk.constructs.alerts import Alerts, AlertsProps
from cdk.constructs.dashboard import Dashboard, DashboardProps
from cdk.settings import Settings


class ObservabilityStack(Stack):
    """The alerts topic and the dashboard."""

    topic: sns.Topic

    def __init__(self, scope: Construct, id_: str, *, settings: Settings) -> None:
        super().__init__(scope, id_, description="Perch: alerts and the dashboard")
        self.topic = Alerts(self, "Alerts", props=AlertsProps(name=settings.name)).topic
        dashboard = Dashboard(self, "Dashboard", props=DashboardProps(settings=settings)).dashboard

        CfnOutput(self, "AlertsTopic", value=self.topic.topic_arn, description="Subscribe to be told")
        CfnOutput(self, "DashboardName", value=dashboard.dashboard_name)
