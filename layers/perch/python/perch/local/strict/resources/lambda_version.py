"""`AWS::Lambda::Version`: publishes $LATEST once; any change of its properties replaces it."""

from __future__ import annotations

from typing import Any

from moto.awslambda.utils import get_backend

from perch.local.strict.lambda_functions import publish
from perch.local.strict.lambda_state import LOCK
from perch.local.strict.resources.base import Made, Request, Resource, split_function


class Version(Resource):
    """A published version; Ref and FunctionArn give its qualified ARN, Version its number."""

    TYPE = "AWS::Lambda::Version"
    ATTRIBUTES = frozenset({"Version", "FunctionArn"})
    REPLACES = True
    VERSIONED = True

    @classmethod
    def create(cls, request: Request) -> Any:
        """Publish; as on AWS, it is an error when the last version already is what $LATEST is."""
        name, _ = split_function(request.get("FunctionName"))
        backend = get_backend(request.account_id, request.region)
        storage = backend._lambdas
        with LOCK:
            function = backend.get_function(name)
            before = {str(version.version) for version in storage._functions[function.function_name]["versions"]}
            version = publish(storage, name, request.get("Description"), request.get("CodeSha256"))
        number = str(version.version)
        if number in before:
            raise ValueError(
                f"A version for this Lambda function exists ( {number} ). Modify the function to create a new version."
            )
        return Made(
            version.function_arn,
            {"Version": number, "FunctionArn": version.function_arn},
            lambda: backend.delete_function(function.function_name, number),
        )
