"""`AWS::S3::BucketPolicy`.

The policy is kept and can be read, but not enforced: moto ignores the conditions of a policy, so that "deny without
TLS" would deny everything.
"""

from __future__ import annotations

import json
from typing import Any

from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket, s3_backends
from moto.utilities.utils import get_partition

from perch.local.patches import Patches
from perch.local.strict.resources.base import Made, Request, Resource


class _Unenforced(bytes):
    """A policy that moto's permission check must not read."""


class BucketPolicy(Resource):
    """The policy of one bucket; Ref gives the bucket's name."""

    TYPE = "AWS::S3::BucketPolicy"

    @classmethod
    def create(cls, request: Request) -> Any:
        """Put the policy; an update does the same."""
        backend = s3_backends[request.account_id][get_partition(request.region)]
        name = request.get("Bucket")
        backend.put_bucket_policy(name, _Unenforced(json.dumps(request.get("PolicyDocument")).encode()))
        return Made(name, {}, lambda: backend.delete_bucket_policy(name))


_get_permission = FakeBucket.get_permission


def _permission(self: Any, action: str, resource: str) -> Any:
    """Decide as moto does, but without looking at the policies of templates."""
    policy = self.policy
    if isinstance(policy, _Unenforced):
        return PermissionResult.NEUTRAL
    return _get_permission(self, action, resource)


def install(patches: Patches) -> None:
    """Keep moto from enforcing policies whose conditions it cannot read."""
    patches.set(FakeBucket, "get_permission", _permission)
