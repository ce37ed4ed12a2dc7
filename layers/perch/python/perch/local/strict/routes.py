"""The routes of the deployed HTTP APIs, read from moto's API Gateway backend for the gateway of the local cloud.

Moto has no counter of changes, so the strict extensions count them: every call that changes an API, a route, an
integration or a stage moves `generation` on. An API without a stage is not deployed and serves nothing.

Left out: authorizers other than IAM, stage variables, several APIs with the same route key (the first one serves),
and integrations other than the Lambda proxy.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from moto.apigatewayv2 import models

from perch.local.patches import Patches
from perch.local.ports import Route
from perch.local.strict.functions import DEFAULT_ACCOUNT, DEFAULT_REGION

_INVOCATIONS = re.compile(r".*/functions/(?P<function>arn:.+)/invocations$")
_CHANGES = (
    "create_api", "update_api", "delete_api", "reimport_api",
    "create_route", "update_route", "delete_route",
    "create_integration", "update_integration", "delete_integration",
    "create_stage", "delete_stage",
)  # fmt: skip


class _Generation:
    value = 0


class MotoRoutes:
    """`Routes` on moto's API Gateway v2 backend of one account and region."""

    def __init__(self, account_id: str = DEFAULT_ACCOUNT, region: str = DEFAULT_REGION) -> None:
        self._account_id = account_id
        self._region = region

    @property
    def generation(self) -> int:
        """A number that grows with every change of an API."""
        return _Generation.value

    def routes(self) -> tuple[Route, ...]:
        """Return the routes of all deployed HTTP APIs, in order of creation."""
        backend = models.apigatewayv2_backends[self._account_id][self._region]
        found: dict[str, Route] = {}
        for api in list(backend.apis.values()):
            if api.protocol_type != "HTTP" or not api.stages:
                continue
            for route in list(api.routes.values()):
                read = _route(api, route)
                if read is not None:
                    found.setdefault(read.route_key, read)
        return tuple(found.values())


def _route(api: Any, route: Any) -> Route | None:
    integration = api.integrations.get((route.target or "").removeprefix("integrations/"))
    if integration is None or integration.integration_type != "AWS_PROXY":
        return None
    method, _, path = route.route_key.partition(" ")
    if route.route_key == "$default":
        method = path = ""
    uri = integration.integration_uri or ""
    invocations = _INVOCATIONS.match(uri)
    return Route(
        route_key=route.route_key,
        method=method,
        path=path,
        function=invocations.group("function") if invocations else uri,
        auth=route.authorization_type or "NONE",
        timeout_ms=int(integration.timeout_in_millis or 30_000),
    )


def _counted(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def counted(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        finally:
            _Generation.value += 1

    return counted


def install(patches: Patches) -> None:
    """Count changes of APIs."""
    for name in _CHANGES:
        patches.set(models.ApiGatewayV2Backend, name, _counted(getattr(models.ApiGatewayV2Backend, name)))
    # A reset of moto empties the backend without any of these calls.
    patches.set(models.ApiGatewayV2Backend, "reset", _counted(models.ApiGatewayV2Backend.reset))
