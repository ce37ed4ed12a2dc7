"""One set of boto3 clients, made on first use and shared.

Region, credentials and endpoint come from the ordinary AWS configuration. Retries are botocore's `standard` mode with a
few attempts: a control function that stays throttled gives up and lets the next tick go on.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client

_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=65)


class Clients:
    """The services that Perch calls. Making a client costs 10 to 100 ms, so each is made only when it is asked for."""

    def __init__(self, session: boto3.Session | None = None) -> None:
        self.session = session or boto3.Session()

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        """Amazon DynamoDB."""
        return self.session.client("dynamodb", config=_CONFIG)

    @cached_property
    def lambda_(self) -> LambdaClient:
        """AWS Lambda."""
        return self.session.client("lambda", config=_CONFIG)

    @cached_property
    def cloudwatch(self) -> CloudWatchClient:
        """Amazon CloudWatch."""
        return self.session.client("cloudwatch", config=_CONFIG)

    @cached_property
    def events(self) -> EventBridgeClient:
        """Amazon EventBridge."""
        return self.session.client("events", config=_CONFIG)

    @cached_property
    def s3(self) -> S3Client:
        """Amazon S3."""
        return self.session.client("s3", config=_CONFIG)

    @cached_property
    def kms(self) -> KMSClient:
        """AWS Key Management Service."""
        return self.session.client("kms", config=_CONFIG)

    @cached_property
    def logs(self) -> CloudWatchLogsClient:
        """Amazon CloudWatch Logs."""
        return self.session.client("logs", config=_CONFIG)

    @cached_property
    def cloudformation(self) -> CloudFormationClient:
        """AWS CloudFormation."""
        return self.session.client("cloudformation", config=_CONFIG)
