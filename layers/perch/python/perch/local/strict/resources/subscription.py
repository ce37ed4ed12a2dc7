"""`AWS::SNS::Subscription`."""

from __future__ import annotations

import json
from typing import Any

from moto.sns.models import sns_backends

from perch.local.strict.resources.base import Made, Request, Resource

SETTINGS = ("RawMessageDelivery", "FilterPolicy", "FilterPolicyScope", "RedrivePolicy", "DeliveryPolicy")


class Subscription(Resource):
    """A subscription; Ref and Arn give its ARN. Topic, protocol and endpoint cannot change, so it is replaced."""

    TYPE = "AWS::SNS::Subscription"
    ATTRIBUTES = frozenset({"Arn"})
    REPLACES = True

    @classmethod
    def create(cls, request: Request) -> Any:
        """Subscribe and write the settings."""
        backend = sns_backends[request.account_id][request.region]
        subscription = backend.subscribe(request.get("TopicArn"), request.get("Endpoint"), request.get("Protocol"))
        for name in SETTINGS:
            value = request.get(name)
            if value is not None:
                text = json.dumps(value) if isinstance(value, dict) else str(value).lower()
                backend.set_subscription_attributes(
                    subscription.arn, name, value if name == "FilterPolicyScope" else text
                )
        return Made(subscription.arn, {"Arn": subscription.arn}, lambda: backend.unsubscribe(subscription.arn))
