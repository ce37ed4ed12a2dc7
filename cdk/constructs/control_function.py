"""A control function: a thin handler, the package and Powertools as layers, a role of its own, failures kept.

Whatever wakes it asynchronously and fails three times is left in the dead-letter queue, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aws_cdk import Duration
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk.constructs.execution import Execution, ExecutionProps
from cdk.constructs.layer_shelf import SETTINGS, LayerShelf
from cdk.constructs.nag import acknowledge
from cdk.package_layer import PACKAGE

RUNTIME = lambda_.Runtime.PYTHON_3_13
RUNTIME_REASON = (
    "python3.13 is what the layers are built for; it is supported by AWS until 2029, and a newer runtime is "
    "taken deliberately, with all layers, not because it exists."
)
ARCHITECTURES = {"arm64": lambda_.Architecture.ARM_64, "x86_64": lambda_.Architecture.X86_64}
NOT_CODE = ("**/__pycache__", "**/*.pyc")


@dataclass(frozen=True, kw_only=True)
class ControlFunctionProps:
    """What a control function is.

    `name` is the deployment's name, `verb` the function's (`drive-rollouts`; its folder is `drive_rollouts`), `takes`
    names its layers. `dead_letters` is None for a function that is only invoked synchronously; `max_event_age` bounds
    how old an event may be when it is still tried again.
    """

    root: Path
    name: str
    verb: str
    description: str
    layers: LayerShelf
    architecture: str
    log_days: int
    takes: Sequence[str] = (PACKAGE, "powertools", SETTINGS)
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_mb: int = 256
    timeout: Duration = field(default_factory=lambda: Duration.seconds(30))
    dead_letters: sqs.IQueue | None = None
    max_event_age: Duration = field(default_factory=lambda: Duration.hours(6))


class ControlFunction(Construct):
    """One function of the control side. `execution.allow(…)` grants."""

    function: lambda_.Function
    execution: Execution

    def __init__(self, scope: Construct, id_: str, *, props: ControlFunctionProps) -> None:
        super().__init__(scope, id_)
        function_name = f"{props.name}-{props.verb}"
        folder = props.root / "functions" / props.verb.replace("-", "_")
        self.execution = Execution(
            self, "Execution", props=ExecutionProps(function_name=function_name, log_days=props.log_days)
        )
        asynchronous = props.dead_letters is not None
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=function_name,
            description=props.description,
            runtime=RUNTIME,
            architecture=ARCHITECTURES[props.architecture],
            handler="handler.handler",
            code=lambda_.Code.from_asset(str(folder), exclude=list(NOT_CODE)),
            layers=props.layers.take(function_name, props.takes, [folder]),
            role=self.execution.role,
            log_group=self.execution.log_group,
            memory_size=props.memory_mb,
            timeout=props.timeout,
            environment={
                "POWERTOOLS_SERVICE_NAME": function_name,
                "POWERTOOLS_METRICS_NAMESPACE": "Perch",
                **props.environment,
            },
            on_failure=destinations.SqsDestination(props.dead_letters) if props.dead_letters else None,
            retry_attempts=2 if asynchronous else None,
            max_event_age=props.max_event_age if asynchronous else None,
        )
        acknowledge(self.function, "AwsSolutions-L1", reason=RUNTIME_REASON)
