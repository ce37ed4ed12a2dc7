"""`AWS::Lambda::Alias`: an update writes only what the template changed, so weights set by the API stay."""

from __future__ import annotations

from typing import Any

from moto.awslambda.utils import get_backend

from perch.local.strict import lambda_aliases
from perch.local.strict.resources.base import Made, Request, Resource, split_function


class Alias(Resource):
    """An alias; Ref and AliasArn give its ARN."""

    TYPE = "AWS::Lambda::Alias"
    ATTRIBUTES = frozenset({"AliasArn"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the alias under the API's own rules."""
        storage = get_backend(request.account_id, request.region)._lambdas
        function, _ = split_function(request.get("FunctionName"))
        name = request.get("Name")
        alias = lambda_aliases.create(
            storage,
            function,
            name,
            str(request.get("FunctionVersion")),
            _routing(request.get("RoutingConfig")),
            request.get("Description", ""),
        )
        return Made(alias.arn, {"AliasArn": alias.arn}, lambda: lambda_aliases.delete(storage, function, name))

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Change version, routing or description; a change of name or function replaces the alias."""
        changed = request.changed()
        if changed.keys() & {"Name", "FunctionName"}:
            replacement = cls.create(request)
            resource.delete(request.account_id, request.region)
            return replacement
        storage = get_backend(request.account_id, request.region)._lambdas
        function, _ = split_function(request.get("FunctionName"))
        lambda_aliases.update(
            storage,
            function,
            request.get("Name"),
            str(changed["FunctionVersion"]) if "FunctionVersion" in changed else None,
            (_routing(changed["RoutingConfig"]) or {}) if "RoutingConfig" in changed else None,
            (changed["Description"] or "") if "Description" in changed else None,
        )
        return resource


def _routing(config: dict[str, Any] | None) -> dict[str, Any] | None:
    weights = (config or {}).get("AdditionalVersionWeights")
    if not weights:
        return None
    return {
        "AdditionalVersionWeights": {str(entry["FunctionVersion"]): float(entry["FunctionWeight"]) for entry in weights}
    }
