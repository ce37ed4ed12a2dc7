"""`AWS::SQS::QueuePolicy`: kept on the queues it names, not enforced."""

from __future__ import annotations

import json
from typing import Any

from moto.sqs.models import sqs_backends

from perch.local.strict.resources.base import Made, Request, Resource


class QueuePolicy(Resource):
    """The policy of some queues; Ref and Id give an id of its own."""

    TYPE = "AWS::SQS::QueuePolicy"
    ATTRIBUTES = frozenset({"Id"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Put the policy on each queue; an update does the same."""
        backend = sqs_backends[request.account_id][request.region]
        document = json.dumps(request.get("PolicyDocument"))
        names = [url.rsplit("/", 1)[-1] for url in request.get("Queues", [])]

        def put(policy: str) -> None:
            for name in names:
                if name in backend.queues:
                    backend.set_queue_attributes(name, {"Policy": policy})

        for name in names:
            backend.get_queue(name)
        put(document)
        return Made(request.name, {"Id": request.name}, lambda: put(""))
