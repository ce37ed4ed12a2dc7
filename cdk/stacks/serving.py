"""The serving stack: a predictor for each endpoint, and the API in front of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk.constructs.control_function import ControlFunction, ControlFunctionProps
from cdk.constructs.http_api import HttpApi, HttpApiProps
from cdk.constructs.layer_shelf import PREDICTOR_PACKAGE, SETTINGS, LayerShelf, LayerShelfProps
from cdk.constructs.predictor import Predictor, PredictorProps
from cdk.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ServingStackProps:
    """`store` is the bucket that predictors load their models from."""

    root: Path
    settings: Settings
    store: s3.IBucket


class ServingStack(Stack):
    """Predictors, their `live` aliases, and the HTTP API."""

    def __init__(self, scope: Construct, id_: str, *, props: ServingStackProps) -> None:
        super().__init__(scope, id_, description="Perch: predictors and their API")
        settings = props.settings
        layers = LayerShelf(self, "Layers", props=LayerShelfProps(root=props.root, settings=settings))
        predictors = {
            endpoint.name: Predictor(
                self,
                f"Predictor-{endpoint.name}",
                props=PredictorProps(
                    root=props.root, settings=settings, endpoint=endpoint, store=props.store, layers=layers
                ),
            )
            for endpoint in settings.endpoints
        }
        describe = ControlFunction(
            self,
            "DescribeApi",
            props=ControlFunctionProps(
                root=props.root,
                name=settings.name,
                verb="describe-api",
                description="Answers what no predictor does: the endpoints that exist, and 404 in words",
                layers=layers,
                takes=(PREDICTOR_PACKAGE, SETTINGS),  # it reads the settings, and calls nobody
                architecture=settings.architecture,
                log_days=settings.log_days,
            ),
        )
        api = HttpApi(
            self,
            "HttpApi",
            props=HttpApiProps(
                name=settings.name,
                api=settings.api,
                log_days=settings.log_days,
                predictors={name: predictor.alias for name, predictor in predictors.items()},
                describe=describe.function,
            ),
        )
        CfnOutput(self, "ApiUrl", value=api.url, description="POST <url>/models/<endpoint>/predict")
