"""The serving stack: a predictor for each endpoint, what takes the rewards of experiments, and the API before them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk.constructs.control_function import ControlFunction, ControlFunctionProps
from cdk.constructs.execution import keys
from cdk.constructs.http_api import HttpApi, HttpApiProps
from cdk.constructs.layer_shelf import SETTINGS, LayerShelf, LayerShelfProps
from cdk.constructs.predictor import Predictor, PredictorProps
from cdk.package_layer import PACKAGE, PREDICTOR_PACKAGE
from cdk.settings import Endpoint, Settings


@dataclass(frozen=True, kw_only=True)
class ServingStackProps:
    """`store` is the bucket that predictors load their models from; `table` holds what experiments count."""

    root: Path
    settings: Settings
    store: s3.IBucket
    table: dynamodb.ITable


class ServingStack(Stack):
    """Predictors, their `live` aliases, and the HTTP API."""

    def __init__(self, scope: Construct, id_: str, *, props: ServingStackProps) -> None:
        super().__init__(scope, id_, description="Perch: predictors and their API")
        self._props = props
        self._layers = LayerShelf(self, "Layers", props=LayerShelfProps(root=props.root, settings=props.settings))
        predictors = {endpoint.name: self._predictor(endpoint) for endpoint in props.settings.endpoints}
        describe, rewards = self._describe(), self._rewards()
        api = HttpApi(
            self,
            "HttpApi",
            props=HttpApiProps(
                name=props.settings.name,
                api=props.settings.api,
                log_days=props.settings.log_days,
                predictors={name: predictor.alias for name, predictor in predictors.items()},
                rewards=rewards.function,
                describe=describe.function,
            ),
        )
        CfnOutput(self, "ApiUrl", value=api.url, description="POST <url>/models/<endpoint>/predict")

    def _predictor(self, endpoint: Endpoint) -> Predictor:
        props = self._props
        return Predictor(
            self,
            f"Predictor-{endpoint.name}",
            props=PredictorProps(
                root=props.root, settings=props.settings, endpoint=endpoint, store=props.store, layers=self._layers
            ),
        )

    def _describe(self) -> ControlFunction:
        props, settings = self._props, self._props.settings
        return ControlFunction(
            self,
            "DescribeApi",
            props=ControlFunctionProps(
                root=props.root,
                name=settings.name,
                verb="describe-api",
                description="Answers what no predictor does: the endpoints that exist, and 404 in words",
                layers=self._layers,
                takes=(PREDICTOR_PACKAGE, SETTINGS),  # it reads the settings, and calls nobody
                architecture=settings.architecture,
                log_days=settings.log_days,
            ),
        )

    def _rewards(self) -> ControlFunction:
        props, settings = self._props, self._props.settings
        rewards = ControlFunction(
            self,
            "RecordRewards",
            props=ControlFunctionProps(
                root=props.root,
                name=settings.name,
                verb="record-rewards",
                description="Counts what users of an experiment earn, each user once",
                layers=self._layers,
                takes=(PACKAGE, "powertools"),
                architecture=settings.architecture,
                log_days=settings.log_days,
                environment={"PERCH_TABLE": props.table.table_name},
                memory_mb=512,  # its first request imports boto3, which takes CPU
            ),
        )
        # It answers clients: it may read which experiment runs, and write what that counted, and nothing else.
        rewards.execution.allow("dynamodb:GetItem", on=[props.table.table_arn], where=keys("ENDPOINT#*"))
        written = ("dynamodb:PutItem", "dynamodb:UpdateItem")
        rewards.execution.allow(*written, on=[props.table.table_arn], where=keys("EXPERIMENT#*"))
        return rewards
