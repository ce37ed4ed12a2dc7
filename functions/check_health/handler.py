"""Woken by an endpoint's schedule: probe its revisions, keep the history, and report failures as a metric."""

import os
from typing import Any

from aws_lambda_powertools import Logger, single_metric
from aws_lambda_powertools.metrics import MetricUnit
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
    checks = check_health(world, policy, now=now)
    for check in checks:
        failures = check.report.total - check.report.passed
        for name, unit, value in (
            ("ProbeFailures", MetricUnit.Count, failures),
            ("ProbeLatency", MetricUnit.Milliseconds, check.report.latency_ms),
        ):
            with single_metric(name=name, unit=unit, value=value) as metric:
                metric.add_dimension("Endpoint", policy.name)
                metric.add_dimension("Role", check.role)
                metric.set_timestamp(now)
        if not check.healthy:
            logger.warning("health.probe_failed", extra={"check": dump(check)})
    return [dump(c) for c in checks]
