"""`AWS::KMS::Key` with its specification and its use, which moto drops (it would make a symmetric key of each).

A key of another specification or use is another key on AWS too: it is replaced. Left out: replicas, imported key
material, and the waiting period before a key is deleted.
"""

from __future__ import annotations

from typing import Any

from moto.kms.models import Key as MotoKey
from moto.kms.models import kms_backends

from perch.local.strict.resources.base import Request, Resource


class KmsKey(Resource):
    """A key; Ref gives its id."""

    TYPE = "AWS::KMS::Key"
    NAME = ""
    ATTRIBUTES = frozenset({"Arn"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the key."""
        key = kms_backends[request.account_id][request.region].create_key(
            policy=request.get("KeyPolicy"),
            key_usage=request.get("KeyUsage", "ENCRYPT_DECRYPT"),
            key_spec=request.get("KeySpec", "SYMMETRIC_DEFAULT"),
            description=request.get("Description", ""),
            tags=request.get("Tags", []),
        )
        _write(key, request)
        return key

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Write policy, description and rotation anew; what would make another key of it makes another key."""
        if request.changed().keys() & {"KeySpec", "KeyUsage"}:
            return cls.create(request)
        resource.policy = request.get("KeyPolicy")
        resource.description = request.get("Description", "")
        _write(resource, request)
        return resource


def _write(key: MotoKey, request: Request) -> None:
    key.enabled = bool(request.get("Enabled", True))
    key.key_rotation_status = bool(request.get("EnableKeyRotation", False))
