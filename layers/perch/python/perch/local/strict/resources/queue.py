"""`AWS::SQS::Queue`: moto's own, with updates that write every attribute."""

from __future__ import annotations

from typing import Any

from moto.sqs.models import Queue as MotoQueue
from moto.sqs.models import sqs_backends

from perch.local.strict.resources.base import Request, Resource

ATTRIBUTES = {
    "DelaySeconds": 0, "MaximumMessageSize": 262_144, "MessageRetentionPeriod": 345_600,
    "ReceiveMessageWaitTimeSeconds": 0, "VisibilityTimeout": 30,
}  # fmt: skip


class Queue(Resource):
    """A queue; Ref gives its URL."""

    TYPE = "AWS::SQS::Queue"
    NAME = "QueueName"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Moto's queue knows its attributes."""
        return bool(MotoQueue.has_cfn_attr(attr) or attr == "QueueUrl")

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the queue."""
        return MotoQueue.create_from_cloudformation_json(
            request.name, {"Properties": request.properties}, request.account_id, request.region
        )

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Write what changed; an attribute that the template dropped goes back to its default."""
        changed = request.changed()
        attributes = {
            name: ATTRIBUTES.get(name) if value is None else value
            for name, value in changed.items()
            if name in ATTRIBUTES or (name not in {"Tags", "QueueName"} and value is not None)
        }
        if attributes:
            sqs_backends[request.account_id][request.region].set_queue_attributes(resource.name, attributes)
        if changed.get("RedrivePolicy", resource) is None:
            resource.redrive_policy, resource.dead_letter_queue = None, None
        return resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        """Delete the queue."""
        MotoQueue.delete_from_cloudformation_json(resource_name, cloudformation_json, account_id, region_name)
