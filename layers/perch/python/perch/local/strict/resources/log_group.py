"""`AWS::Logs::LogGroup` with its retention; an update keeps the lines."""

from __future__ import annotations

from typing import Any

from moto.logs.models import logs_backends

from perch.local.strict.resources.base import Request, Resource


class LogGroup(Resource):
    """A log group; Ref gives its name."""

    TYPE = "AWS::Logs::LogGroup"
    NAME = "LogGroupName"
    ATTRIBUTES = frozenset({"Arn"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the group; as on AWS, it is an error when it exists already."""
        backend = logs_backends[request.account_id][request.region]
        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
        group = backend.create_log_group(request.name, tags, kmsKeyId=request.get("KmsKeyId"))
        group.set_retention_policy(_days(request))
        return group

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Write the retention anew."""
        resource.set_retention_policy(_days(request))
        return resource


def _days(request: Request) -> int | None:
    days = request.get("RetentionInDays")
    return None if days is None else int(days)
