"""Woken by an upload to the store: register it as a model version, or record why not.

The event may come twice, also at the same time. Powertools' idempotency saves the second download and hash of a large
artifact; that a version is stored once does not depend on it (the registry's conditional put sees to that).
"""

import os
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.typing import LambdaContext

from perch.app.register import Upload, inspect_apart, register
from perch.app.world import world_of
from perch.domain.codec import parse_time

logger = Logger()
metrics = Metrics()
world = world_of(os.environ)
once = IdempotencyConfig(event_key_jmespath="[key, version_id]", expires_after_seconds=3600)
records = DynamoDBPersistenceLayer(
    table_name=os.environ["PERCH_TABLE"],
    key_attr="pk",
    sort_key_attr="sk",
    static_pk_value="IDEMPOTENCY#register",
    expiry_attr="expires",
    status_attr="progress",
)


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Register what the event names."""
    once.register_lambda_context(context)
    detail = event["detail"]
    upload = {
        "key": detail["object"]["key"],
        "version_id": detail["object"].get("version-id"),
        "at": event["time"],
        "by": detail.get("requester", "s3"),
    }
    outcome: dict[str, Any] = register_once(upload=upload)
    logger.info("model.upload_handled", extra={"outcome": outcome, "upload": upload})
    metrics.set_timestamp(parse_time(event["time"]))
    metrics.add_metric(f"Uploads{outcome['status'].capitalize()}", MetricUnit.Count, 1)
    return outcome


@idempotent_function(  # type: ignore[untyped-decorator]  # Powertools types its decorators as Any
    data_keyword_argument="upload", config=once, persistence_store=records
)
def register_once(*, upload: dict[str, Any]) -> dict[str, Any]:
    """Register an upload; the same upload again within the hour gets the first answer."""
    found = register(
        world,
        Upload(key=upload["key"], version_id=upload["version_id"], at=parse_time(upload["at"]), by=upload["by"]),
        look_into=inspect_apart,
    )
    return {"status": found.status, "reason": found.reason}
