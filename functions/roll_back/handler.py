"""Woken by an alarm, over the event bus or by its direct action: take back the rollout that it speaks of."""

import os
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from perch.app.roll_back import roll_back_on_alarm
from perch.app.world import world_of
from perch.domain.codec import parse_time
from perch.domain.names import parse_alarm

logger = Logger()
metrics = Metrics()
world = world_of(os.environ)


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Read the alarm from either shape of event, and act on it if it still matters."""
    # The bus puts the alarm into `detail`, the direct action into `alarmData`; inside they are the same.
    told = event.get("detail") or event["alarmData"]
    name, state = parse_alarm(told["alarmName"]), told["state"]
    if name is None or name.name != world.settings.name or state["value"] != "ALARM":
        return {"rolled_back": False, "reason": f"{told['alarmName']} {state['value']} is not for us"}
    now = parse_time(event["time"])
    outcome = roll_back_on_alarm(
        world, name, reason=state.get("reason", ""), since=parse_time(state["timestamp"]), now=now
    )
    metrics.set_timestamp(now)
    metrics.add_metric("AlarmRollbacks", MetricUnit.Count, int(outcome.rolled_back))
    logger.info("rollback.alarm_handled", extra={"alarm": str(name), "outcome": outcome.reason})
    return {"rolled_back": outcome.rolled_back, "reason": outcome.reason}
