"""Woken by the schedule: move every rollout on by what the time allows.

Also by events that others put on the bus. Those may say any time they like, so nothing is driven by it: the answer to
the gate of a step is taken, news of a registered version puts it into the queue, and the schedule goes on.
"""

import os
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from perch.app.command import answer_event
from perch.app.drive import drive
from perch.app.world import world_of
from perch.domain.codec import dump, parse_time

logger = Logger()
metrics = Metrics()
world = world_of(os.environ)
SCHEDULE = "aws.events"  # PutEvents refuses sources that begin with aws.


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> list[Any]:
    """Take now from the event, advance, and log what was done."""
    now = parse_time(event["time"])
    source = event.get("source", SCHEDULE)  # without a source somebody invoked us directly, who may
    if source == "perch.hooks":
        logger.info("gate.answered", extra={"said": answer_event(world, event["detail"], now=now)})
        return []
    metrics.set_timestamp(now)
    progress = drive(world, now=now, owner=context.aws_request_id, nudge=source != SCHEDULE)
    for endpoint in progress:
        if endpoint.done or endpoint.waiting:
            logger.info("rollout.advanced", extra={"progress": dump(endpoint)})
    metrics.add_metric("Moves", MetricUnit.Count, sum(len(p.done) for p in progress))
    return [dump(p) for p in progress]
