"""The front door: an HTTP API with literal routes for each endpoint, and one function that knows what exists.

Five routes an endpoint: what is ours, MLflow's, and the Open Inference Protocol (one greedy route, because the path
names versions that CloudFormation does not know). An HTTP API takes 300 routes, so it has room for 58 endpoints.

Written with CloudFormation's own resources, because the routes lead to an alias whose versions CloudFormation does not
know, and every integration, permission and route should be one that a reader can point at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from aws_cdk import Aws, RemovalPolicy, Stack
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from cdk.constructs.nag import acknowledge
from cdk.settings import Api

_WAIT_MS = 30_000  # the longest an HTTP API waits
_LOGGED = {
    "at": "$context.requestTimeEpoch",
    "request_id": "$context.requestId",
    "route": "$context.routeKey",
    "path": "$context.path",
    "status": "$context.status",
    "ms": "$context.responseLatency",
    "function_ms": "$context.integrationLatency",
    "function_status": "$context.integrationStatus",
    "error": "$context.error.message",
    "ip": "$context.identity.sourceIp",
    "caller": "$context.identity.caller",
}


@dataclass(frozen=True, kw_only=True)
class HttpApiProps:
    """`predictors` maps an endpoint's name to its alias; `rewards` takes what users of experiments earn.

    `describe` answers everything that nobody else does.
    """

    name: str
    api: Api
    log_days: int
    predictors: Mapping[str, lambda_.CfnAlias]
    rewards: lambda_.IFunction
    describe: lambda_.IFunction


class HttpApi(Construct):
    """The API, its stage, and its routes. `url` has no slash at its end."""

    api: apigateway.CfnApi
    url: str

    def __init__(self, scope: Construct, id_: str, *, props: HttpApiProps) -> None:
        super().__init__(scope, id_)
        self._auth = {"iam": "AWS_IAM", "none": "NONE"}[props.api.auth]
        self.api = apigateway.CfnApi(
            self, "Api", name=props.name, protocol_type="HTTP", description="Predictions of Perch's endpoints"
        )
        self.url = self.api.attr_api_endpoint
        self._make_stage(props)
        for endpoint, alias in props.predictors.items():
            self._lead_to_predictor(endpoint, alias.ref)
        self._lead_to_rewards(props.rewards.function_arn)
        self._lead_to_describe(props.describe.function_arn)

    def _make_stage(self, props: HttpApiProps) -> None:
        # Names under /aws/vendedlogs/ keep the log group's resource policy from outgrowing its limit.
        log = logs.CfnLogGroup(
            self,
            "AccessLogs",
            log_group_name=f"/aws/vendedlogs/apis/{props.name}",
            retention_in_days=props.log_days,
        )
        log.apply_removal_policy(RemovalPolicy.DESTROY)
        apigateway.CfnStage(
            self,
            "Stage",
            api_id=self.api.ref,
            stage_name="$default",
            auto_deploy=True,
            access_log_settings=apigateway.CfnStage.AccessLogSettingsProperty(
                destination_arn=log.attr_arn, format=json.dumps(_LOGGED)
            ),
            default_route_settings=apigateway.CfnStage.RouteSettingsProperty(
                throttling_rate_limit=props.api.throttle_rate, throttling_burst_limit=props.api.throttle_burst
            ),
        )

    def _lead_to_predictor(self, endpoint: str, alias_arn: str) -> None:
        part = Construct(self, endpoint)
        target = self._integration(part, alias_arn)
        for name, method, path in (
            ("Predict", "POST", f"/models/{endpoint}/predict"),
            ("Served", "GET", f"/models/{endpoint}"),
            ("Invocations", "POST", f"/models/{endpoint}/invocations"),
            ("Metadata", "GET", f"/v2/models/{endpoint}"),
            ("Protocol", "ANY", f"/v2/models/{endpoint}/{{proxy+}}"),
        ):
            self._route(part, name, f"{method} {path}", target)
            allowed = path.replace("{proxy+}", "*")
            self._permit(part, f"Permit{name}", alias_arn, f"{'*' if method == 'ANY' else method}{allowed}")

    def _lead_to_rewards(self, function_arn: str) -> None:
        part = Construct(self, "Rewards")
        target = self._integration(part, function_arn)
        # One route for all endpoints: the function finds out whether an experiment runs on the one that is named.
        self._route(part, "Record", "POST /experiments/{endpoint}/rewards", target)
        self._permit(part, "Permit", function_arn, "POST/experiments/*/rewards")

    def _lead_to_describe(self, function_arn: str) -> None:
        part = Construct(self, "Describe")
        target = self._integration(part, function_arn)
        self._route(part, "Models", "GET /models", target)
        # The server's own part of the Open Inference Protocol; an endpoint's longer path goes before.
        self._route(part, "Server", "GET /v2", target)
        self._route(part, "Protocol", "ANY /v2/{proxy+}", target)
        self._route(part, "Default", "$default", target)
        self._permit(part, "Permit", function_arn, "*")

    def _integration(self, scope: Construct, function_arn: str) -> apigateway.CfnIntegration:
        return apigateway.CfnIntegration(
            scope,
            "Integration",
            api_id=self.api.ref,
            integration_type="AWS_PROXY",
            integration_uri=function_arn,
            payload_format_version="2.0",
            timeout_in_millis=_WAIT_MS,
        )

    def _route(self, scope: Construct, id_: str, route_key: str, target: apigateway.CfnIntegration) -> None:
        route = apigateway.CfnRoute(
            scope,
            id_,
            api_id=self.api.ref,
            route_key=route_key,
            authorization_type=self._auth,
            target=f"integrations/{target.ref}",
        )
        if self._auth == "NONE":
            acknowledge(
                route, "AwsSolutions-APIG4", reason='perch.toml says `auth = "none"`: this API is meant to be open.'
            )

    def _permit(self, scope: Construct, id_: str, function_arn: str, route: str) -> None:
        """Let this API, any stage of it, call a function for one route (or `*`)."""
        lambda_.CfnPermission(
            scope,
            id_,
            action="lambda:InvokeFunction",
            function_name=function_arn,
            principal="apigateway.amazonaws.com",
            source_arn=Stack.of(self).format_arn(
                service="execute-api", resource=self.api.ref, resource_name=f"*/{route}"
            ),
            source_account=Aws.ACCOUNT_ID,
        )
