"""`POST /experiments/{endpoint}/rewards`: count what users of an experiment did that is worth something."""

import base64
import hashlib
import json
import os
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError

from perch.app.record_rewards import record_rewards, rewards_in
from perch.aws.clients import Clients
from perch.aws.experiments import SHARDS, Experiments
from perch.aws.registry import Registry
from perch.aws.trouble import passes
from perch.domain.codec import dump
from perch.domain.errors import Invalid, NotFound, NotReady, Refused

logger = Logger()
metrics = Metrics()
_dynamodb = Clients().dynamodb
_table = os.environ["PERCH_TABLE"]
registry, experiments = Registry(_dynamodb, _table), Experiments(_dynamodb, _table)

_STATUS = {Invalid: 400, NotFound: 404, Refused: 409, NotReady: 503}


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer an HTTP API request (payload format 2.0)."""
    request_id = context.aws_request_id
    endpoint = event["pathParameters"]["endpoint"]
    now = datetime.fromtimestamp(event["requestContext"]["timeEpoch"] / 1000, UTC)
    body = event.get("body") or ""
    try:
        rewards = rewards_in(base64.b64decode(body) if event.get("isBase64Encoded") else body)
        shard = hashlib.sha256(request_id.encode()).digest()[0] % SHARDS
        recorded = record_rewards(registry, experiments, endpoint, rewards, shard=shard, now=now)
    except (Invalid, NotFound, Refused, NotReady) as error:
        return _answer(_STATUS[type(error)], {"error": str(error)}, request_id)
    except ClientError as error:
        if not passes(error):
            raise
        return _answer(503, {"error": "the registry is busy; send the events again"}, request_id)
    metrics.set_timestamp(now)
    metrics.add_metric("RewardsRecorded", MetricUnit.Count, recorded.new)
    logger.info("rewards.recorded", extra={"endpoint": endpoint, "recorded": dump(recorded)})
    return _answer(200, dump(recorded), request_id)


def _answer(status: int, body: dict[str, Any], request_id: str) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps({**body, "request_id": request_id}),
    }
