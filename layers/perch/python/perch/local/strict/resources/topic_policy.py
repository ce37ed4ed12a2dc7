"""`AWS::SNS::TopicPolicy`: kept on the topics it names, not enforced."""

from __future__ import annotations

import json
from typing import Any

from moto.sns.models import sns_backends

from perch.local.strict.resources.base import Made, Request, Resource


class TopicPolicy(Resource):
    """The policy of some topics; Ref and Id give an id of its own."""

    TYPE = "AWS::SNS::TopicPolicy"
    ATTRIBUTES = frozenset({"Id"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Put the policy on each topic; an update does the same."""
        backend = sns_backends[request.account_id][request.region]
        for arn in request.get("Topics", []):
            backend.get_topic(arn).policy = json.dumps(request.get("PolicyDocument"))
        return Made(request.name, {"Id": request.name})
