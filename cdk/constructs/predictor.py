"""A predictor: the function that answers for one endpoint, and its alias `live`.

The alias has one writer, and it is not CloudFormation: the rollout driver publishes revisions and moves the alias. So
the version and the alias below have only constant properties. CloudFormation makes them once, with the alias at a
placeholder revision that holds no model, and a later deployment, finding nothing changed, leaves them alone. What a
deployment does change is $LATEST, and the driver makes a candidate of that.

Never run a drift-reverting deployment (`cdk deploy --revert-drift`): it would put the alias back at the placeholder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from aws_cdk import Duration, IgnoreMode, RemovalPolicy
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk.constructs.control_function import ARCHITECTURES, NOT_CODE, RUNTIME, RUNTIME_REASON
from cdk.constructs.execution import Execution, ExecutionProps
from cdk.constructs.layer_shelf import LayerShelf
from cdk.constructs.nag import acknowledge, spelled_objects, wide
from cdk.package_layer import PREDICTOR_PACKAGE
from cdk.settings import Endpoint, Settings
from perch.domain.formats import RUNTIMES, Runtime

ALIAS = "live"

# Registration tags what it refuses. "Not equal" also holds for an object that has no such tag at all.
NOT_QUARANTINED = {"StringNotEquals": {"s3:ExistingObjectTag/perch": ["quarantined"]}}

# The image's build context is the project's folder. Docker's rules: leave out all, then take back what the image needs.
IMAGE_CONTEXT = (
    "*",
    "!functions/container/entrypoint.sh",
    "!functions/container/requirements.txt",
    "!functions/predict_torch",
    "!layers/perch/python/perch",
    "layers/perch/python/perch/app",
    "layers/perch/python/perch/aws",
    "layers/perch/python/perch/cli",
    "layers/perch/python/perch/export",
    "layers/perch/python/perch/local",
    "layers/perch/python/perch/signing",
    "**/__pycache__",
    "**/*.pyc",
)


@dataclass(frozen=True, kw_only=True)
class PredictorProps:
    """What to serve (`endpoint`), from where (`store`), built from which project folder (`root`)."""

    root: Path
    settings: Settings
    endpoint: Endpoint
    store: s3.IBucket
    layers: LayerShelf


class Predictor(Construct):
    """One endpoint's function, its placeholder revision and its alias."""

    function: lambda_.Function
    alias: lambda_.CfnAlias
    execution: Execution

    def __init__(self, scope: Construct, id_: str, *, props: PredictorProps) -> None:
        super().__init__(scope, id_)
        name = f"{props.settings.name}-{props.endpoint.name}"
        self.execution = Execution(
            self, "Execution", props=ExecutionProps(function_name=name, log_days=props.settings.log_days)
        )
        runtime = RUNTIMES[props.endpoint.runtime]
        make = self._zip if runtime.layers else self._image
        self.function = make(name, runtime, props)
        placeholder = lambda_.CfnVersion(
            self,
            "Placeholder",
            function_name=self.function.function_name,
            description="Holds no model; answers 503 until the first one is live",
        )
        placeholder.apply_removal_policy(RemovalPolicy.RETAIN)
        self.alias = lambda_.CfnAlias(
            self,
            "Live",
            name=ALIAS,
            function_name=self.function.function_name,
            function_version=placeholder.attr_version,
            description="Moved by the rollout driver only",
        )
        self.execution.allow(
            "s3:GetObject",
            "s3:GetObjectVersion",
            on=[props.store.arn_for_objects("models/*")],
            where=NOT_QUARANTINED,
        )
        acknowledge(
            self.execution,
            wide(spelled_objects(props.store, "models/*")),
            reason="Which model version a revision serves is decided when it is published, long after deployment.",
        )

    def _zip(self, name: str, runtime: Runtime, props: PredictorProps) -> lambda_.Function:
        folder = props.root / "functions" / runtime.folder
        function = lambda_.Function(
            self,
            "Function",
            function_name=name,
            description=f"Serves {props.endpoint.model} with {runtime.engine}",
            runtime=RUNTIME,
            architecture=ARCHITECTURES[props.settings.architecture],
            handler="handler.handler",
            code=lambda_.Code.from_asset(str(folder), exclude=list(NOT_CODE)),
            layers=props.layers.take(name, [PREDICTOR_PACKAGE, *runtime.layers, *_cache_layers(props)], [folder]),
            role=self.execution.role,
            log_group=self.execution.log_group,
            memory_size=props.endpoint.memory_mb,
            timeout=Duration.seconds(props.endpoint.timeout_s),
            snap_start=_snap_start(props),
            environment=_environment(props),
        )
        acknowledge(function, "AwsSolutions-L1", reason=RUNTIME_REASON)
        return function

    def _image(self, name: str, runtime: Runtime, props: PredictorProps) -> lambda_.Function:
        arm = props.settings.architecture == "arm64"
        index = props.settings.torch_index
        return lambda_.DockerImageFunction(
            self,
            "Function",
            function_name=name,
            description=f"Serves {props.endpoint.model} with {runtime.engine}",
            architecture=ARCHITECTURES[props.settings.architecture],
            code=lambda_.DockerImageCode.from_image_asset(
                str(props.root),
                file=f"functions/{runtime.folder}/Dockerfile",
                exclude=list(IMAGE_CONTEXT),
                ignore_mode=IgnoreMode.DOCKER,
                platform=ecr_assets.Platform.LINUX_ARM64 if arm else ecr_assets.Platform.LINUX_AMD64,
                build_args={"TORCH_INDEX": index} if index else None,
            ),
            role=self.execution.role,
            log_group=self.execution.log_group,
            memory_size=props.endpoint.memory_mb,
            timeout=Duration.seconds(props.endpoint.timeout_s),
            snap_start=_snap_start(props),
            environment=_environment(props),
        )


def _cache_layers(props: PredictorProps) -> tuple[str, ...]:
    """The client of a cache that is shared; an image has it anyway."""
    return ("redis",) if props.endpoint.cache and props.endpoint.cache.url else ()


def _snap_start(props: PredictorProps) -> lambda_.SnapStartConf | None:
    """Published versions only: the placeholder and each revision, whose model is then loaded before anybody waits."""
    return lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if props.endpoint.snapstart else None


def _environment(props: PredictorProps) -> dict[str, str]:
    # PERCH_POINTER is not here: the driver sets it when it publishes a revision.
    endpoint = props.endpoint
    found = {"PERCH_ENDPOINT": endpoint.name, "PERCH_STORE": props.store.bucket_name}
    if endpoint.capture:
        found["PERCH_CAPTURE"] = f"{endpoint.capture:g}"
    if endpoint.cache:
        found["PERCH_CACHE"] = json.dumps(asdict(endpoint.cache))
    return found
