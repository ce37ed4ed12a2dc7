"""Acknowledging a rule of cdk-nag that does not fit, beside the construct it is about and with the reason."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Stack, Validations
from aws_cdk import aws_s3 as s3
from constructs import IConstruct


def acknowledge(construct: IConstruct, rule: str, *, reason: str) -> None:
    """Accept one finding of one rule, for a construct and what is inside it.

    Args:
        construct: where it is accepted.
        rule: `AwsSolutions-S1`, or `AwsSolutions-IAM5[Resource::*]` for one finding of a rule that makes several.
        reason: why it is right here.
    """
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))


def wide(arn: str) -> str:
    """Return the finding that a role may act on an ARN with a `*` in it, with the ARN spelled as cdk-nag spells it."""
    return f"AwsSolutions-IAM5[Resource::{arn}]"


def spelled_arn(stack: Stack, *, service: str, resource: str) -> str:
    """Spell an ARN of the deployment's own account and region as cdk-nag does."""
    spelled: str = stack.format_arn(
        service=service,
        resource=resource,
        partition="<AWS::Partition>",
        region="<AWS::Region>",
        account="<AWS::AccountId>",
    )
    return spelled


def spelled_objects(bucket: s3.IBucket, keys: str) -> str:
    """Spell the ARN of the objects of another stack's bucket as cdk-nag does: by the name of the export."""
    owner = Stack.of(bucket)
    return f"{owner.resolve(owner.export_value(bucket.bucket_arn))['Fn::ImportValue']}/{keys}"
