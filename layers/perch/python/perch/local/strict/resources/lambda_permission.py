"""`AWS::Lambda::Permission`: a statement in the policy of a function, version or alias."""

from __future__ import annotations

from typing import Any

from moto.awslambda.utils import get_backend

from perch.local.strict import lambda_permissions
from perch.local.strict.resources.base import Made, Request, Resource, split_function

FIELDS = ("Action", "Principal", "SourceArn", "SourceAccount", "EventSourceToken", "PrincipalOrgID")


class Permission(Resource):
    """A permission; Ref and Id give the statement's id. Every change replaces it."""

    TYPE = "AWS::Lambda::Permission"
    ATTRIBUTES = frozenset({"Id"})
    REPLACES = True

    @classmethod
    def create(cls, request: Request) -> Any:
        """Add the statement under an id of its own."""
        storage = get_backend(request.account_id, request.region)._lambdas
        function, qualifier = split_function(request.get("FunctionName"))
        statement = {name: request.get(name) for name in FIELDS if request.get(name) is not None}
        lambda_permissions.add(storage, function, qualifier, {**statement, "StatementId": request.name})
        return Made(
            request.name,
            {"Id": request.name},
            lambda: lambda_permissions.remove(storage, function, qualifier, request.name),
        )
