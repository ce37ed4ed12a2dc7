"""The model store: the bucket that people upload models to, and that says on the event bus what arrived.

Versions are the registry's bytes: a registered model version names one S3 version of one key, so old versions never
expire. Uploads that were begun and never finished do, after a week.
"""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk.constructs.nag import acknowledge


class ModelStore(Construct):
    """A versioned, encrypted, private bucket with EventBridge notifications; retained when its stack is deleted."""

    bucket: s3.Bucket

    def __init__(self, scope: Construct, id_: str) -> None:
        super().__init__(scope, id_)
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            versioned=True,
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            removal_policy=RemovalPolicy.RETAIN,
            lifecycle_rules=[s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(7))],
        )
        # The property of CloudFormation itself: `event_bridge_enabled=True` would bring a custom resource with a
        # function of its own, only to set the same thing.
        bucket = self.bucket.node.default_child
        assert isinstance(bucket, s3.CfnBucket)  # noqa: S101 - tells the type, which L2 buckets always have
        bucket.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(event_bridge_enabled=True)
        )
        acknowledge(
            self.bucket,
            "AwsSolutions-S1",
            reason="Who uploaded what is in CloudTrail's data events, if an account wants them; the registry's ledger "
            "records every upload that was seen. Server access logs would need a second bucket that nobody reads.",
        )
