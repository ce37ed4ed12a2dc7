"""`AWS::SNS::Topic`: moto's own, with updates in place (moto's would make another topic)."""

from __future__ import annotations

from typing import Any

from moto.sns.models import Topic as MotoTopic

from perch.local.strict.resources.base import Request, Resource


class Topic(Resource):
    """A topic; Ref and TopicArn give its ARN."""

    TYPE = "AWS::SNS::Topic"
    NAME = "TopicName"
    ATTRIBUTES = frozenset({"TopicName", "TopicArn"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the topic with its settings."""
        topic = MotoTopic.create_from_cloudformation_json(
            request.name, {"Properties": _without_tags(request.properties)}, request.account_id, request.region
        )
        _write(topic, request.properties)
        return topic

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Write the settings anew; subscriptions are resources of their own."""
        _write(resource, request.properties)
        return resource


def _without_tags(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name != "Tags"}


def _write(topic: Any, properties: dict[str, Any]) -> None:
    topic.display_name = properties.get("DisplayName", "")
    topic.kms_master_key_id = properties.get("KmsMasterKeyId", "")
    topic._tags = {tag["Key"]: tag["Value"] for tag in properties.get("Tags", [])}
