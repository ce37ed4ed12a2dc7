"""`AWS::ApiGatewayV2::Api`: an HTTP API whose endpoint is the gateway of the local cloud.

Left out: importing an OpenAPI body, and quick-create (`Target` with a route key).
"""

from __future__ import annotations

from typing import Any

from moto.apigatewayv2.models import apigatewayv2_backends

from perch.local.strict.resources.base import Made, Request, Resource
from perch.local.strict.settings import current

CORS = {
    "AllowCredentials": "allowCredentials", "AllowHeaders": "allowHeaders", "AllowMethods": "allowMethods",
    "AllowOrigins": "allowOrigins", "ExposeHeaders": "exposeHeaders", "MaxAge": "maxAge",
}  # fmt: skip


class Api(Resource):
    """An HTTP API; Ref and ApiId give its id, ApiEndpoint the URL at which it is served here."""

    TYPE = "AWS::ApiGatewayV2::Api"
    ATTRIBUTES = frozenset({"ApiId", "ApiEndpoint"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the API and give it the local endpoint."""
        if request.get("Body") or request.get("BodyS3Location"):
            raise ValueError("The local cloud does not import OpenAPI bodies: declare routes and integrations.")
        backend = apigatewayv2_backends[request.account_id][request.region]
        api = backend.create_api(
            protocol_type=request.get("ProtocolType", "HTTP"), tags=request.get("Tags", {}), **_fields(request)
        )
        api.api_endpoint = current().api_url.rstrip("/")
        return Made(
            api.api_id,
            {"ApiId": api.api_id, "ApiEndpoint": api.api_endpoint},
            lambda: backend.delete_api(api.api_id),
        )

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Change the API in place."""
        backend = apigatewayv2_backends[request.account_id][request.region]
        backend.update_api(api_id=resource.physical_resource_id, **_fields(request))
        return resource


def _fields(request: Request) -> dict[str, Any]:
    cors = request.get("CorsConfiguration")
    return {
        "api_key_selection_expression": request.get("ApiKeySelectionExpression"),
        "cors_configuration": {CORS[name]: value for name, value in cors.items()} if cors else None,
        "description": request.get("Description"),
        "disable_schema_validation": request.get("DisableSchemaValidation"),
        "disable_execute_api_endpoint": request.get("DisableExecuteApiEndpoint"),
        "name": request.get("Name"),
        "route_selection_expression": request.get("RouteSelectionExpression"),
        "version": request.get("Version"),
    }
