"""The loop that evaluates alarms: moto keeps them, this gives them life.

Every minute of virtual time (every ten seconds for alarms with a period below a minute), a few seconds after the minute
closed, each metric alarm of moto's CloudWatch is evaluated on the store's data up to that minute. A period is a window
that ends at the last closed minute, so an alarm with a five-minute period looks at a new window every minute.

When the state changes, it is set in moto (so DescribeAlarms and the history show it, in virtual time), the event goes
to the bus, and the actions for the new state are performed: Lambda functions are invoked asynchronously, SNS topics are
published to. SetAlarmState does the same. A new alarm begins as INSUFFICIENT_DATA, and PutMetricAlarm on one that
exists keeps its state, both as on AWS and unlike moto.

Left out: composite alarms and anomaly detection (refused in words), actions on EC2, Auto Scaling and SSM (they stand in
the history as failed), configuration-change events, alarm warm-up and mute rules.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from moto.cloudwatch.exceptions import ValidationError
from moto.cloudwatch.models import CloudWatchBackend, cloudwatch_backends
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult

from perch.local.alarms.definition import ACTIONS, AlarmPlan, check_alarm, check_state, read_alarm
from perch.local.alarms.evaluate import State, evaluate, reason_data
from perch.local.alarms.messages import Change, StateSeen
from perch.local.clock import Timer, VirtualClock
from perch.local.metrics.api import aware, evaluate_queries
from perch.local.metrics.store import MetricStore, Point
from perch.local.patches import Patches

_log = logging.getLogger(__name__)
_EPOCH, _FOREVER = datetime(1970, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_HISTORY_LIMIT = 2000


class Send(Protocol):
    """Sends a text to what an ARN names (`Sender.send`)."""

    def __call__(self, arn: str, body: str, *, subject: str | None = None) -> None:
        """Send `body` to `arn`."""


class AlarmEvaluator:
    """Evaluates the alarms of one account and region.

    Args:
        clock: The one clock.
        store: The metrics.
        publish: Takes the events (the bus).
        send: Takes what goes to functions and topics; raises when it cannot be sent.
        account: The account.
        region: The region.
        settle_s: How long after a minute's end it is evaluated.
    """

    def __init__(
        self,
        clock: VirtualClock,
        store: MetricStore,
        *,
        publish: Callable[[Mapping[str, Any]], object],
        send: Send,
        account: str = "123456789012",
        region: str = "us-east-1",
        settle_s: float = 5.0,
    ) -> None:
        self._clock = clock
        self._store = store
        self._publish = publish
        self._send = send
        self._account = account
        self._region = region
        self._settle_s = settle_s
        self._lock = threading.RLock()
        self._patches = Patches()
        self._plans: dict[str, tuple[Any, AlarmPlan]] = {}
        self._every_minute: Timer | None = None
        self._every_ten: Timer | None = None
        self._history: list[dict[str, Any]] = []

    # -- evaluating --------------------------------------------------------------------------------------------------

    def evaluate_all(self, *, fast: bool = False) -> None:
        """Evaluate every alarm with a period of a minute or more (`fast`: every alarm with a shorter one)."""
        now = self._clock.now()
        for alarm in list(self._backend().alarms.values()):
            if alarm.rule is not None:
                continue
            try:
                plan = self._plan(alarm)
                if (plan.spec.period_s < 60) == fast:
                    self._evaluate(alarm, plan, now)
            except Exception:  # noqa: BLE001 - one broken alarm must not silence the others
                _log.exception("could not evaluate the alarm %s", alarm.name)

    def _evaluate(self, alarm: Any, plan: AlarmPlan, now: datetime) -> None:
        spec = plan.spec
        step = 60 if spec.period_s >= 60 else 10
        end = int(now.timestamp()) // step * step
        begin = end - spec.evaluation_range * spec.period_s
        if plan.series is not None:
            found = self._store.window(plan.series, begin, end, spec.period_s, spec.statistic or "", spec.unit)
        else:
            values = evaluate_queries(self._store, plan.queries, begin, end)[plan.returned]
            found = {at: (value, 1.0) for at, value in values.items()}
        points = [
            Point(_EPOCH + timedelta(seconds=at), *found[at]) if at in found else None
            for at in range(begin, end, spec.period_s)
        ]
        with self._lock:
            verdict = evaluate(spec, points, alarm.state_value)
            if verdict.state != alarm.state_value:
                self._change(alarm, verdict.state, verdict.reason, reason_data(spec, verdict, now), now)

    def _plan(self, alarm: Any) -> AlarmPlan:
        known = self._plans.get(alarm.name)
        if known is None or known[0] is not alarm:  # moto makes a new object for each PutMetricAlarm
            known = self._plans[alarm.name] = (alarm, read_alarm(alarm))
        return known[1]

    # -- changing ----------------------------------------------------------------------------------------------------

    def _change(self, alarm: Any, state: State, reason: str, data: str, now: datetime) -> None:
        before = StateSeen(
            value=alarm.state_value,
            reason=alarm.state_reason,
            reason_data=alarm.state_reason_data,
            at=alarm.state_updated_timestamp,
        )
        after = StateSeen(value=state, reason=reason, reason_data=data, at=now)
        alarm.update_state(reason, data, state)
        alarm.state_updated_timestamp = now
        alarm.state_transitioned_timestamp = now
        summary = f"Alarm updated from {before.value} to {state}"
        self._remember(alarm, "StateUpdate", summary, {"oldState": before.as_json(), "newState": after.as_json()})
        change = Change(alarm=alarm, before=before, after=after, account=self._account, region=self._region)
        self._publish(change.event())
        if alarm.actions_enabled:
            for arn in getattr(alarm, ACTIONS[state]) or []:
                self._act(change, arn)

    def _act(self, change: Change, arn: str) -> None:
        try:
            if ":lambda:" in arn:
                self._send(arn, json.dumps(change.payload()))
            elif ":sns:" in arn:
                self._send(arn, change.message(), subject=change.subject())
            else:
                raise ValueError("nothing here can perform this action")  # noqa: TRY301 - reported like any failure
        except Exception as error:  # noqa: BLE001 - the alarm changes state whatever becomes of its actions
            _log.warning("alarm %s: action %s failed: %s", change.alarm.name, arn, error)
            self._remember(change.alarm, "Action", f"Failed to execute action {arn}", {"error": str(error)})
        else:
            self._remember(change.alarm, "Action", f"Successfully executed action {arn}", {"actionState": "Succeeded"})

    def _remember(self, alarm: Any, kind: str, summary: str, data: Mapping[str, Any]) -> None:
        self._history.append(
            {
                "AlarmName": alarm.name,
                "AlarmType": "MetricAlarm",
                "Timestamp": self._clock.now(),
                "HistoryItemType": kind,
                "HistorySummary": summary,
                "HistoryData": json.dumps(data),
            }
        )
        del self._history[:-_HISTORY_LIMIT]

    # -- moto and the clock ------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Follow moto's alarms, and evaluate them from now on."""
        self._patches.wrap(CloudWatchBackend, "put_metric_alarm", self._put)
        self._patches.wrap(CloudWatchBackend, "set_alarm_state", self._set)
        self._patches.set(
            CloudWatchResponse,
            "describe_alarm_history",
            lambda response: self._describe_history(response),  # noqa: PLW0108 - moto looks for functions only
        )
        now = int(self._clock.now().timestamp())
        first = _EPOCH + timedelta(seconds=now // 60 * 60 + 60 + self._settle_s)
        self._every_minute = self._clock.call_every(60, lambda _: self.evaluate_all(), "alarms", first=first)
        for alarm in self._backend().alarms.values():
            self._adopt(alarm)

    def uninstall(self) -> None:
        """Give moto its own functions back and stop evaluating."""
        self._patches.undo()
        for timer in (self._every_minute, self._every_ten):
            if timer is not None:
                timer.cancel()
        self._every_minute = self._every_ten = None

    def _backend(self) -> CloudWatchBackend:
        return cloudwatch_backends[self._account][self._region]

    def _mine(self, backend: Any) -> bool:
        return bool(backend.region_name == self._region and backend.account_id == self._account)

    def _adopt(self, alarm: Any, before: Any = None) -> None:
        """Give an alarm the state it should have, and see to it that it is evaluated often enough."""
        now = self._clock.now()
        alarm.configuration_updated_timestamp = now
        if before is None:
            alarm.state_value, alarm.state_reason = "INSUFFICIENT_DATA", "Unchecked: Initial alarm creation"
            alarm.state_reason_data, alarm.state_updated_timestamp = "", now
            alarm.state_transitioned_timestamp = now
        else:
            for name in ("value", "reason", "reason_data", "updated_timestamp", "transitioned_timestamp"):
                setattr(alarm, f"state_{name}", getattr(before, f"state_{name}", now))
            alarm.history = before.history
        if self._every_ten is None and alarm.rule is None and self._plan(alarm).spec.period_s < 60:
            first = _EPOCH + timedelta(seconds=int(now.timestamp()) // 10 * 10 + 10 + self._settle_s)
            self._every_ten = self._clock.call_every(
                10, lambda _: self.evaluate_all(fast=True), "alarms below a minute", first=first
            )

    def _put(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def put_metric_alarm(backend: Any, name: str, **given: Any) -> Any:
            if not self._mine(backend):
                return original(backend, name=name, **given)
            check_alarm(given)
            with self._lock:
                before = backend.alarms.get(name)
                alarm = original(backend, name=name, **given)
                try:
                    read_alarm(alarm)
                except (ValueError, KeyError) as error:
                    backend.alarms.pop(name, None)
                    if before is not None:
                        backend.alarms[name] = before
                    raise ValidationError(str(error)) from error
                self._adopt(alarm, before)
                verb = "updated" if before is not None else "created"
                self._remember(alarm, "ConfigurationUpdate", f'Alarm "{name}" {verb}', {"type": verb.title()})
                return alarm

        return put_metric_alarm

    def _set(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def set_alarm_state(
            backend: Any, alarm_name: str, reason: str, reason_data: str | None, state_value: str
        ) -> None:
            if not self._mine(backend):
                original(backend, alarm_name, reason, reason_data, state_value)
                return
            check_state(backend, alarm_name, reason_data, state_value)
            with self._lock:
                alarm, now = backend.alarms[alarm_name], self._clock.now()
                if alarm.state_value != state_value:
                    self._change(alarm, state_value, reason, reason_data or "", now)  # type: ignore[arg-type]  # checked
                else:
                    alarm.state_reason, alarm.state_reason_data = reason, reason_data or ""
                    alarm.state_updated_timestamp = now

        return set_alarm_state

    def _describe_history(self, response: Any) -> ActionResult:
        params = response._get_params()  # noqa: SLF001 - the way moto's responses read their request
        name, kind = params.get("AlarmName"), params.get("HistoryItemType")
        since, until = aware(params.get("StartDate") or _EPOCH), aware(params.get("EndDate") or _FOREVER)
        items = [
            item
            for item in self._history
            if name in (None, item["AlarmName"])
            and kind in (None, item["HistoryItemType"])
            and since <= item["Timestamp"] <= until
        ]
        if params.get("ScanBy") != "TimestampAscending":
            items.reverse()
        return ActionResult({"AlarmHistoryItems": items[: int(params.get("MaxRecords") or 100)]})
