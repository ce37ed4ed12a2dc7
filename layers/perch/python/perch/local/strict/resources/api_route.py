"""`AWS::ApiGatewayV2::Route`: a method and path, or `$default`, and the integration behind it."""

from __future__ import annotations

from typing import Any

from moto.apigatewayv2.models import apigatewayv2_backends

from perch.local.strict.resources.base import Made, Request, Resource


class Route(Resource):
    """A route; Ref and RouteId give its id. One route key exists once in an API."""

    TYPE = "AWS::ApiGatewayV2::Route"
    ATTRIBUTES = frozenset({"RouteId"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the route of an API."""
        backend = apigatewayv2_backends[request.account_id][request.region]
        api_id, key = request.get("ApiId"), request.get("RouteKey")
        if any(route.route_key == key for route in backend.get_routes(api_id)):
            raise ValueError(f"Route with key {key} already exists for this API")
        route = backend.create_route(api_id=api_id, **_fields(request))
        return Made(route.route_id, {"RouteId": route.route_id}, lambda: backend.delete_route(api_id, route.route_id))

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Change the route in place; another API replaces it."""
        if "ApiId" in request.changed():
            return cls.create(request)
        backend = apigatewayv2_backends[request.account_id][request.region]
        backend.update_route(api_id=request.get("ApiId"), route_id=resource.physical_resource_id, **_fields(request))
        return resource


def _fields(request: Request) -> dict[str, Any]:
    return {
        "api_key_required": bool(request.get("ApiKeyRequired", False)),
        "authorization_scopes": request.get("AuthorizationScopes", []),
        "authorization_type": request.get("AuthorizationType", "NONE"),
        "authorizer_id": request.get("AuthorizerId"),
        "model_selection_expression": request.get("ModelSelectionExpression"),
        "operation_name": request.get("OperationName"),
        "request_models": request.get("RequestModels"),
        "request_parameters": request.get("RequestParameters"),
        "route_key": request.get("RouteKey"),
        "route_response_selection_expression": request.get("RouteResponseSelectionExpression"),
        "target": request.get("Target"),
    }
