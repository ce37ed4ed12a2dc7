"""Alerts: the topic that people subscribe to, and what reaches it.

Two roads lead there: the alarms of this deployment, and Perch's own events of severity `warning` or `critical`. The
topic is encrypted with a key of its own, because services may not publish to a topic under the AWS-managed key.
"""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Aws, RemovalPolicy, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from constructs import Construct


@dataclass(frozen=True, kw_only=True)
class AlertsProps:
    """`name` is the deployment's name."""

    name: str


class Alerts(Construct):
    """The topic, its key, and the rule that brings Perch's events to it."""

    topic: sns.Topic

    def __init__(self, scope: Construct, id_: str, *, props: AlertsProps) -> None:
        super().__init__(scope, id_)
        publishers = [iam.ServicePrincipal("cloudwatch.amazonaws.com"), iam.ServicePrincipal("events.amazonaws.com")]
        ours = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}
        key = kms.Key(
            self,
            "Key",
            description=f"Alerts of {props.name}",
            enable_key_rotation=True,
            removal_policy=RemovalPolicy.DESTROY,
        )
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="PublishersMayEncrypt",
                principals=publishers,
                actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                resources=["*"],  # of a key policy: this key
                conditions=ours,
            )
        )
        self.topic = sns.Topic(
            self, "Topic", display_name=f"Perch alerts: {props.name}", master_key=key, enforce_ssl=True
        )
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsMayPublish",
                principals=[publishers[0]],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions={
                    **ours,
                    "ArnLike": {
                        "aws:SourceArn": Stack.of(self).format_arn(
                            service="cloudwatch", resource=f"alarm:{props.name}*"
                        )
                    },
                },
            )
        )
        events.Rule(
            self,
            "Rule",
            description="Perch's warnings, for people",
            event_pattern=events.EventPattern(source=["perch"], detail={"severity": ["warning", "critical"]}),
            targets=[targets.SnsTopic(self.topic)],
        )
