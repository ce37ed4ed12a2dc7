"""`AWS::Lambda::LayerVersion`: immutable, so every change publishes the next version of the same layer."""

from __future__ import annotations

from typing import Any

from moto.awslambda.utils import get_backend

from perch.local.strict.resources.base import Made, Request, Resource

FIELDS = ("Description", "CompatibleRuntimes", "CompatibleArchitectures", "LicenseInfo")


class LayerVersion(Resource):
    """A layer version; Ref and LayerVersionArn give its ARN."""

    TYPE = "AWS::Lambda::LayerVersion"
    NAME = "LayerName"
    ATTRIBUTES = frozenset({"LayerVersionArn"})
    REPLACES = True
    VERSIONED = True

    @classmethod
    def create(cls, request: Request) -> Any:
        """Publish the layer version."""
        # Without a name CloudFormation takes the logical id, so the versions of one layer go on under one name.
        layer = request.get("LayerName") or request.logical_id
        backend = get_backend(request.account_id, request.region)
        given = {name: request.get(name) for name in FIELDS if request.get(name) is not None}
        version = backend.publish_layer_version({"LayerName": layer, "Content": request.get("Content"), **given})
        return Made(
            version.arn,
            {"LayerVersionArn": version.arn},
            lambda: backend.delete_layer_version(layer, str(version.version)),
        )
