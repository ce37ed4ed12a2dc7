"""`AWS::ApiGatewayV2::Integration`: what a route calls."""

from __future__ import annotations

from typing import Any

from moto.apigatewayv2.models import apigatewayv2_backends

from perch.local.strict.resources.base import Made, Request, Resource


class Integration(Resource):
    """An integration; Ref and IntegrationId give its id."""

    TYPE = "AWS::ApiGatewayV2::Integration"
    ATTRIBUTES = frozenset({"IntegrationId"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the integration of an API."""
        backend = apigatewayv2_backends[request.account_id][request.region]
        api_id = request.get("ApiId")
        integration = backend.create_integration(api_id=api_id, **_fields(request))
        return Made(
            integration.id,
            {"IntegrationId": integration.id},
            lambda: backend.delete_integration(api_id, integration.id),
        )

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Change the integration in place; another API replaces it."""
        if "ApiId" in request.changed():
            return cls.create(request)
        backend = apigatewayv2_backends[request.account_id][request.region]
        backend.update_integration(
            api_id=request.get("ApiId"), integration_id=resource.physical_resource_id, **_fields(request)
        )
        return resource


def _fields(request: Request) -> dict[str, Any]:
    return {
        "connection_id": request.get("ConnectionId"),
        "connection_type": request.get("ConnectionType", "INTERNET"),
        "content_handling_strategy": request.get("ContentHandlingStrategy"),
        "credentials_arn": request.get("CredentialsArn"),
        "description": request.get("Description"),
        "integration_method": request.get("IntegrationMethod"),
        "integration_subtype": request.get("IntegrationSubtype"),
        "integration_type": request.get("IntegrationType"),
        "integration_uri": request.get("IntegrationUri"),
        "passthrough_behavior": request.get("PassthroughBehavior"),
        "payload_format_version": request.get("PayloadFormatVersion", "1.0"),
        "request_parameters": request.get("RequestParameters"),
        "request_templates": request.get("RequestTemplates"),
        "response_parameters": request.get("ResponseParameters"),
        "template_selection_expression": request.get("TemplateSelectionExpression"),
        "timeout_in_millis": int(request.get("TimeoutInMillis", 30_000)),
        "tls_config": request.get("TlsConfig"),
    }
