"""Woken by the schedule: replay captured requests to the candidates that want it, and sum up how they answered."""

import os
import time
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from perch.app.replay import replay_all
from perch.app.world import world_of
from perch.domain.codec import parse_time

logger = Logger()
metrics = Metrics()
world = world_of(os.environ)


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], _context: LambdaContext) -> list[str]:
    """Take now from the event, replay, and log what came of it."""
    now = parse_time(event["time"])
    metrics.set_timestamp(now)
    said = []
    for outcome in replay_all(world, now=now, timer=time.monotonic):
        said.append(f"{outcome.rollout}: {outcome.total.summary()}")
        logger.info(
            "replay.counted",
            extra={
                "rollout": outcome.rollout,
                "pairs": outcome.run.pairs,
                "total": said[-1],
                "stopped": outcome.stopped,
            },
        )
        metrics.add_metric("Replays", MetricUnit.Count, outcome.run.pairs)
    return said
