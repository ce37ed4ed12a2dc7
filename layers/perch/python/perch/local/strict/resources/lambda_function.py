"""`AWS::Lambda::Function` with all properties that a predictor or a control function has.

An update touches $LATEST only, and only what the template changed: other code leaves the environment alone, and an
environment that the template did not change is not written again, so that what the API wrote into it stays.
"""

from __future__ import annotations

import base64
from typing import Any

from moto.awslambda.models import LambdaFunction
from moto.awslambda.utils import get_backend

from perch.local.strict.lambda_functions import apply_code, apply_configuration
from perch.local.strict.lambda_state import LOCK
from perch.local.strict.resources.base import Request, Resource

DEFAULTS: dict[str, Any] = {
    "Description": "",
    "MemorySize": 128,
    "Timeout": 3,
    "Environment": {},
    "Layers": [],
    "DeadLetterConfig": {},
    "LoggingConfig": {},
    "SnapStart": {"ApplyOn": "None"},
    "TracingConfig": {"Mode": "PassThrough"},
    "EphemeralStorage": {"Size": 512},
    "ImageConfig": {},
    "KmsKeyArn": None,
    "Handler": None,
    "Role": None,
    "Runtime": None,
}
"""The properties of UpdateFunctionConfiguration, each with what it goes back to when a template drops it."""

API_NAMES = {"KmsKeyArn": "KMSKeyArn"}


class Function(Resource):
    """A function; Ref gives its name, Fn::GetAtt its Arn."""

    TYPE = "AWS::Lambda::Function"
    NAME = "FunctionName"
    ATTRIBUTES = frozenset({"Arn"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create $LATEST; CloudFormation waits until it is Active."""
        spec = {API_NAMES.get(name, name): value for name, value in request.properties.items() if name in DEFAULTS}
        spec["FunctionName"] = request.name
        spec["Code"] = _code(request.properties)
        for name in ("PackageType", "Architectures"):
            if name in request.properties:
                spec[name] = request.properties[name]
        if "Tags" in request.properties:
            spec["Tags"] = {tag["Key"]: tag["Value"] for tag in request.properties["Tags"]}
        backend = get_backend(request.account_id, request.region)
        function = backend.create_function(spec)
        if request.get("ReservedConcurrentExecutions") is not None:
            backend.put_function_concurrency(request.name, int(request.get("ReservedConcurrentExecutions")))
        return function

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Write what the template changed to $LATEST, code first."""
        changed = request.changed()
        backend = get_backend(request.account_id, request.region)
        function = backend.get_function(resource.function_name)
        with LOCK:
            if "Code" in changed or "Architectures" in changed:
                apply_code(function, {**_code(request.properties), "Architectures": request.get("Architectures")})
            configuration = {
                API_NAMES.get(name, name): DEFAULTS[name] if value is None else value
                for name, value in changed.items()
                if name in DEFAULTS
            }
            if configuration:
                apply_configuration(function, configuration)
            if "Tags" in changed:
                function.tags = {tag["Key"]: tag["Value"] for tag in changed["Tags"] or []}
        if "ReservedConcurrentExecutions" in changed:
            reserved = changed["ReservedConcurrentExecutions"]
            if reserved is None:
                backend.delete_function_concurrency(resource.function_name)
            else:
                backend.put_function_concurrency(resource.function_name, int(reserved))
        return function


def _code(properties: dict[str, Any]) -> dict[str, Any]:
    code = dict(properties["Code"])
    if "ZipFile" in code:  # in a template this is the source text itself
        archive = LambdaFunction._create_zipfile_from_plaintext_code(code["ZipFile"])
        code["ZipFile"] = base64.b64encode(archive).decode()
    return code
