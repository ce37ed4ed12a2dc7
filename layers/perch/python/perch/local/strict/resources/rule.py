"""`AWS::Events::Rule`: moto's own, with targets as they came, and updates that keep the rule's place."""

from __future__ import annotations

import copy
from typing import Any

from moto.events.models import Rule as MotoRule

from perch.local.strict.resources.base import Request, Resource


class Rule(Resource):
    """A rule with its targets (transformers, dead-letter queues and retry policies included); Ref gives its name."""

    TYPE = "AWS::Events::Rule"
    NAME = "Name"
    ATTRIBUTES = frozenset({"Arn"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the rule and its targets."""
        properties = copy.deepcopy(request.properties)
        return MotoRule.create_from_cloudformation_json(
            request.name, {"Properties": properties}, request.account_id, request.region
        )

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Write the rule anew under its name."""
        resource.delete(request.account_id, request.region)
        return cls.create(request)
