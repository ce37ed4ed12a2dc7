"""Woken by an endpoint's schedule: probe its revisions, keep the history, and report failures as a metric."""

import os
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from perch.app.check_health import check_health
from perch.app.world import world_of
from perch.domain.codec import dump, parse_time

logger = Logger()
world = world_of(os.environ)


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: LambdaContext) -> list[Any]:
    """Check the endpoint that the schedule names."""
    now = parse_time(event["time"])
    policy = world.settings.endpoint(event["endpoint"])
    checks = []
    for check in check_health(world, policy, now=now):
        checks.append(check)
        report = check.report
        metrics = EphemeralMetrics(service="")  # the alarms name exactly two dimensions, so no `service` beside them
        metrics.add_dimension("Endpoint", policy.name)
        metrics.add_dimension("Role", check.role)
        metrics.add_metric("ProbeFailures", MetricUnit.Count, 0 if check.healthy else report.total - report.passed)
        metrics.add_metric("ProbeLatency", MetricUnit.Milliseconds, check.report.latency_ms)
        metrics.set_timestamp(now)
        metrics.flush_metrics()
        if not check.healthy:
            logger.warning("health.probe_failed", extra={"check": dump(check)})
    return [dump(c) for c in checks]
