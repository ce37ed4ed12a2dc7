"""What each control function may do, and on what: a function here for each there, with no more than its verb needs.

Rights on the registry are by partition key, so that what parses uploads cannot touch an endpoint, and what sends
clients' requests again cannot touch the ledger. Each wildcard is acknowledged where it stands, with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_s3 as s3

from cdk.constructs.execution import Execution, keys
from cdk.constructs.nag import acknowledge, spelled_arn, spelled_objects, wide

# Rules of others trust what `aws.s3` or `aws.cloudwatch` say, and so do ours.
_OWN_EVENTS = {"ForAllValues:StringEquals": {"events:source": ["perch"]}}


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the control functions work on: the store, the ARN of the registry table, the names of the predictors."""

    stack: Stack
    name: str
    store: s3.IBucket
    table: str
    predictors: Sequence[str]

    @property
    def bus(self) -> str:
        """The ARN of the default event bus."""
        return str(self.stack.format_arn(service="events", resource="event-bus/default"))

    @property
    def functions(self) -> list[str]:
        """The ARNs of the predictors."""
        return [self.stack.format_arn(service="lambda", resource=f"function:{name}") for name in self.predictors]

    @property
    def qualified(self) -> list[str]:
        """Of each predictor, its versions and its aliases."""
        return [f"{function}:*" for function in self.functions]


def grant_register_model(execution: Execution, on: Resources) -> None:
    """Read any upload, mark it if it is refused, and write what is registered."""
    execution.allow("s3:GetObject", "s3:GetObjectVersion", on=[on.store.arn_for_objects("*")])
    acknowledge(execution, wide(spelled_objects(on.store, "*")), reason="Any key may be uploaded, and is looked at.")
    # What it refuses it marks, so that no predictor can read it.
    execution.allow("s3:GetObjectVersionTagging", "s3:PutObjectVersionTagging", on=[on.store.arn_for_objects("*")])
    execution.allow("s3:ListBucket", on=[on.store.bucket_arn])
    execution.allow("dynamodb:GetItem", "dynamodb:Query", on=[on.table])
    # It parses what anybody may upload; if that went wrong, it still could not touch an endpoint or its ledger.
    written = keys("MODEL#*", "REJECTED", "IDEMPOTENCY#register")
    execution.allow("dynamodb:PutItem", "dynamodb:UpdateItem", on=[on.table], where=written)
    # Idempotency takes its record back when the handler fails, so that the next try is not taken for a repetition.
    execution.allow("dynamodb:DeleteItem", on=[on.table], where=keys("IDEMPOTENCY#register"))
    execution.allow("events:PutEvents", on=[on.bus], where=_OWN_EVENTS)


def grant_drive_rollouts(execution: Execution, on: Resources) -> None:
    """Publish revisions, move the alias, and keep the state and the alarms of rollouts."""
    execution.allow("dynamodb:GetItem", "dynamodb:Query", on=[on.table])
    execution.allow(
        "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", on=[on.table], where=keys("ENDPOINT#*")
    )
    # What the brake of an experiment saw.
    execution.allow("dynamodb:PutItem", on=[on.table], where=keys("EXPERIMENT#*"))
    # Only the environment of a function is changed, never its role or layers, so neither iam:PassRole nor
    # lambda:GetLayerVersion is needed.
    execution.allow(
        "lambda:GetAlias",
        "lambda:UpdateAlias",
        "lambda:CreateAlias",  # `green`, which a revision waits behind
        "lambda:GetFunctionConfiguration",
        "lambda:UpdateFunctionConfiguration",
        "lambda:PublishVersion",
        "lambda:InvokeFunction",
        on=[*on.functions, *on.qualified],
    )
    alarms = f"alarm:{on.name}/*"
    execution.allow(
        "cloudwatch:PutMetricAlarm",
        "cloudwatch:DeleteAlarms",
        on=[on.stack.format_arn(service="cloudwatch", resource=alarms)],
    )
    acknowledge(
        execution,
        wide(spelled_arn(on.stack, service="cloudwatch", resource=alarms)),
        reason="The alarms of a rollout are named for its endpoint and its revision, which is yet to come.",
    )
    execution.allow_everywhere(
        "cloudwatch:GetMetricData",
        "cloudwatch:DescribeAlarms",
        because="GetMetricData knows no resources to be narrowed to, and DescribeAlarms by prefix asks for all.",
    )
    execution.allow("events:PutEvents", on=[on.bus], where=_OWN_EVENTS)
    _acknowledge_revisions(execution, on)


def grant_roll_back(execution: Execution, on: Resources) -> None:
    """Put the alias back, and write that it did."""
    execution.allow("dynamodb:GetItem", "dynamodb:Query", on=[on.table])
    execution.allow("dynamodb:PutItem", "dynamodb:UpdateItem", on=[on.table], where=keys("ENDPOINT#*"))
    execution.allow("lambda:GetAlias", "lambda:UpdateAlias", on=[*on.functions, *on.qualified])
    execution.allow("events:PutEvents", on=[on.bus], where=_OWN_EVENTS)
    _acknowledge_revisions(execution, on)


def grant_check_health(execution: Execution, on: Resources) -> None:
    """Ask revisions, and write how they answered."""
    execution.allow("dynamodb:GetItem", on=[on.table])
    execution.allow("dynamodb:PutItem", on=[on.table], where=keys("HEALTH#*"))
    execution.allow("lambda:InvokeFunction", on=on.qualified)
    _acknowledge_revisions(execution, on)


def grant_replay_requests(execution: Execution, on: Resources) -> None:
    """Read captured requests, send them again, and write how the answers compare."""
    execution.allow("dynamodb:GetItem", on=[on.table])
    # It sends what clients sent; if that went wrong, it still could not touch an endpoint or its ledger.
    execution.allow("dynamodb:PutItem", on=[on.table], where=keys("REPLAY#*"))
    execution.allow("lambda:InvokeFunction", on=on.qualified)
    logs = [
        on.stack.format_arn(
            service="logs",
            resource="log-group",
            resource_name=f"/aws/lambda/{name}:*",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        for name in on.predictors
    ]
    execution.allow("logs:FilterLogEvents", on=logs)
    for name in on.predictors:
        acknowledge(
            execution,
            wide(spelled_arn(on.stack, service="logs", resource=f"log-group:/aws/lambda/{name}:*")),
            reason="A policy names a log group with :* at the end; that is the group and its streams.",
        )
    _acknowledge_revisions(execution, on)


def _acknowledge_revisions(execution: Execution, on: Resources) -> None:
    for name in on.predictors:
        acknowledge(
            execution,
            wide(spelled_arn(on.stack, service="lambda", resource=f"function:{name}:*")),
            reason="A revision's number is only known when it is published, long after deployment.",
        )
