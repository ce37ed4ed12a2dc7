"""Where events end that could not be handled: one queue for the deployment, encrypted, TLS only.

Two kinds of message arrive: Lambda's record of an invocation that failed three times (with the error), and an event
that EventBridge could not deliver at all (with the error in its attributes).
"""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk.constructs.nag import acknowledge


class DeadLetters(Construct):
    """The queue. Messages wait there for two weeks, the longest that SQS allows."""

    queue: sqs.Queue

    def __init__(self, scope: Construct, id_: str) -> None:
        super().__init__(scope, id_)
        self.queue = sqs.Queue(
            self,
            "Queue",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.days(14),
        )
        acknowledge(self.queue, "AwsSolutions-SQS3", reason="This is the dead-letter queue itself.")
