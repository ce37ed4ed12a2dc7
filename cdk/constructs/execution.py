"""What a function runs with: a log group that forgets, and a role of its own that may do what is listed, no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from cdk.constructs.nag import acknowledge, wide


@dataclass(frozen=True, kw_only=True)
class ExecutionProps:
    """`function_name` names the log group as Lambda would; `log_days` is one of CloudWatch Logs' retention times."""

    function_name: str
    log_days: int


class Execution(Construct):
    """The role and the log group of one function. Lambda's managed policy would let it write to every log group."""

    role: iam.Role
    log_group: logs.ILogGroup

    def __init__(self, scope: Construct, id_: str, *, props: ExecutionProps) -> None:
        super().__init__(scope, id_)
        group = logs.CfnLogGroup(
            self,
            "Logs",
            log_group_name=f"/aws/lambda/{props.function_name}",
            retention_in_days=props.log_days,
        )
        group.apply_removal_policy(RemovalPolicy.DESTROY)
        self.log_group = logs.LogGroup.from_log_group_name(self, "LogGroup", group.ref)
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description=f"What {props.function_name} may do",
        )
        self.allow("logs:CreateLogStream", "logs:PutLogEvents", on=[group.attr_arn])

    def allow(self, *actions: str, on: Sequence[str], where: dict[str, dict[str, list[str]]] | None = None) -> None:
        """Add a statement to the role: actions, the ARNs they are allowed on, and conditions."""
        self.role.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=list(on), conditions=where))

    def allow_everywhere(self, *actions: str, because: str) -> None:
        """Allow actions on `*`, for those that AWS does not let be narrowed; `because` says so."""
        self.allow(*actions, on=["*"])
        acknowledge(self, wide("*"), reason=because)


def keys(*patterns: str) -> dict[str, dict[str, list[str]]]:
    """Return the condition that only items with such partition keys are touched, each one of a transaction alike."""
    return {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": list(patterns)}}
