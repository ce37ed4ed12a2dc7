"""`AWS::Lambda::EventInvokeConfig`: retries, age and failure destination of asynchronous invocations."""

from __future__ import annotations

from typing import Any

from moto.awslambda.utils import get_backend

from perch.local.strict import lambda_async
from perch.local.strict.resources.base import Made, Request, Resource, split_function


class EventInvokeConfig(Resource):
    """The config of one qualifier."""

    TYPE = "AWS::Lambda::EventInvokeConfig"

    @classmethod
    def create(cls, request: Request) -> Any:
        """Put the config whole; an update does the same."""
        storage = get_backend(request.account_id, request.region)._lambdas
        name, _ = split_function(request.get("FunctionName"))
        qualifier = request.get("Qualifier")
        lambda_async.put(storage, name, qualifier, request.properties)
        return Made(f"{name}|{qualifier}", {}, lambda: lambda_async.delete(storage, name, qualifier))
