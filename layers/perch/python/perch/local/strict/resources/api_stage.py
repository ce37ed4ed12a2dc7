"""`AWS::ApiGatewayV2::Stage`: deploys an API; the gateway of the local cloud serves `$default`."""

from __future__ import annotations

from typing import Any

from moto.apigatewayv2.models import apigatewayv2_backends

from perch.local.strict.resources.base import Made, Request, Resource


class Stage(Resource):
    """A stage; Ref gives its name."""

    TYPE = "AWS::ApiGatewayV2::Stage"
    NAME = "StageName"

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the stage, or write it anew: an update does the same."""
        backend = apigatewayv2_backends[request.account_id][request.region]
        api_id, name = request.get("ApiId"), request.get("StageName")
        config = {_lower(key): _lower_keys(value) for key, value in request.properties.items()}
        backend.create_stage(api_id, config)
        return Made(name, {}, lambda: backend.delete_stage(api_id, name))


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]


def _lower_keys(value: Any) -> Any:
    return {_lower(key): inner for key, inner in value.items()} if isinstance(value, dict) else value
