"""Deploying an assembly through the CloudFormation API, and checking that all of it is there.

Assets first, then the stacks in order, each created or updated and waited for; then every logical id of every template
is compared with what CloudFormation says it made, because an emulator that skips a resource looks like one that works.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from botocore.exceptions import ClientError

from perch.local.deploy.assembly import Assembly, StackArtifact
from perch.local.deploy.assets import publish_assets

NOT_RESOURCES = frozenset({"AWS::CDK::Metadata"})


class DeploymentFailed(RuntimeError):
    """A stack did not reach its template; the message names the stack, the resource and the reason."""


class DeploymentIncomplete(DeploymentFailed):
    """Resources of the templates do not exist; `missing` holds `stack/logical id (type)`."""

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__("These resources of the templates were not made:\n  " + "\n  ".join(missing))
        self.missing = missing


class ClientFactory(Protocol):
    """Makes boto3 clients: a `boto3.Session` with its endpoint, or a stand-in for tests."""

    def __call__(self, service: str) -> Any:
        """Return a client of one service."""


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What was deployed: the outputs of each stack by stack name."""

    outputs: dict[str, dict[str, str]]

    def output(self, stack: str, name: str) -> str:
        """Return one output; raises KeyError."""
        return self.outputs[stack][name]


def deploy(
    assembly: Assembly,
    client: ClientFactory,
    *,
    image_store: Path,
    account: str = "123456789012",
    region: str = "us-east-1",
    on_progress: Callable[[str], None] = lambda _: None,
) -> Deployed:
    """Bring all stacks of an assembly to their templates.

    Deploying the same assembly again changes nothing. Raises DeploymentFailed when a stack fails, and
    DeploymentIncomplete (with the list) when a stack says that it is complete and is not.
    """
    publish_assets(
        assembly,
        s3=client("s3"),
        ssm=client("ssm"),
        image_store=image_store,
        account=account,
        region=region,
        on_progress=on_progress,
    )
    cloudformation = client("cloudformation")
    outputs = {}
    for stack in assembly.stacks:
        on_progress(f"deploying {stack.name}")
        outputs[stack.name] = _deploy_stack(cloudformation, stack)
    check_complete(assembly, cloudformation)
    return Deployed(outputs=outputs)


def _deploy_stack(cloudformation: Any, stack: StackArtifact) -> dict[str, str]:
    existing = _describe(cloudformation, stack.name)
    if existing is not None and existing["StackStatus"] in {"ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS"}:
        cloudformation.delete_stack(StackName=stack.name)  # a stack that was never complete cannot be updated
        existing = None
    request = {
        "StackName": stack.name,
        "TemplateBody": stack.template_path.read_text(),
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in stack.parameters.items()],
        "Tags": [{"Key": key, "Value": value} for key, value in stack.tags.items()],
    }
    try:
        if existing is None:
            cloudformation.create_stack(**request)
        else:
            cloudformation.update_stack(**request)
    except ClientError as error:
        message = error.response["Error"]["Message"]
        if "No updates are to be performed" not in message:
            raise DeploymentFailed(f"Stack {stack.name} was refused: {message}") from error
    described = _wait(cloudformation, stack.name)
    if described["StackStatus"] not in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
        raise DeploymentFailed(_why(cloudformation, stack.name, described["StackStatus"]))
    return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}


def _describe(cloudformation: Any, name: str) -> dict[str, Any] | None:
    try:
        stack: dict[str, Any] = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in error.response["Error"]["Message"]:
            return None
        raise
    return stack


def _wait(
    cloudformation: Any, name: str, *, tries: int = 600, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    for _ in range(tries):
        described = _describe(cloudformation, name)
        if described is not None and not described["StackStatus"].endswith("IN_PROGRESS"):
            return described
        sleep(0.5)
    raise DeploymentFailed(f"Stack {name} did not finish.")


def _why(cloudformation: Any, name: str, status: str) -> str:
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    failed = [event for event in events if event["ResourceStatus"].endswith("_FAILED")]
    # The newest come first; the oldest failure is the cause of the others.
    cause = failed[-1] if failed else next((event for event in events if event.get("ResourceStatusReason")), None)
    if cause is None:
        return f"Stack {name} is {status}."
    return (
        f"Stack {name} is {status}: {cause['LogicalResourceId']} ({cause['ResourceType']}): "
        f"{cause.get('ResourceStatusReason', 'no reason given')}"
    )


def check_complete(assembly: Assembly, cloudformation: Any) -> None:
    """Compare every logical id of every template with what exists; raises DeploymentIncomplete."""
    missing: list[str] = []
    for stack in assembly.stacks:
        resources = cloudformation.describe_stack_resources(StackName=stack.name)["StackResources"]
        made = {entry["LogicalResourceId"] for entry in resources if entry.get("PhysicalResourceId")}
        for logical_id, resource in stack.template.get("Resources", {}).items():
            # What hangs on a condition may rightly be absent, and CloudFormation decided that.
            expected = resource["Type"] not in NOT_RESOURCES and "Condition" not in resource
            if expected and logical_id not in made:
                missing.append(f"{stack.name}/{logical_id} ({resource['Type']})")
    if missing:
        raise DeploymentIncomplete(tuple(missing))
