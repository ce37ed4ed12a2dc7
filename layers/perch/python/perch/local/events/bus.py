"""The event bus: matches events with rules and delivers them to targets, in EventBridge's manner.

moto keeps buses, rules and targets (so the API and CloudFormation work as ever); this bus does what moto does not:

    PutEvents ─┐
    S3 ────────┤                    ┌─ matches the pattern ─ input ─ faults ─ deliver ─ retry ─ dead-letter queue
    alarms ────┼─> publish(event) ──┤  for each enabled rule, for each target
    schedules ─┘                    └─ no rule: the event is gone

A delivery happens in the thread that published, in order of rules and targets, so a test sees one order; Lambda
functions are only put on Lambda's own asynchronous queue, so nobody waits for a handler. Retries and delays are timers
of the virtual clock, and so are scheduled rules (`scheduled_rules`), which are told of every change of a rule in moto.

Left out: archives and replays, schemas, pipes, partner sources, API destinations, permissions, encryption, jitter of
retries. `bus.faults` brings duplicates, losses, delays and reordering on demand (see `faults`).
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from moto.events import notifications as moto_notifications
from moto.events.exceptions import InvalidEventPatternException, ValidationException
from moto.events.models import EventsBackend, Rule, events_backends

from perch.local.clock import VirtualClock
from perch.local.events.entries import entry_size, event_time, refusal
from perch.local.events.faults import Delivery, DeliveryFaults
from perch.local.events.patterns import EventPattern, InvalidPatternError
from perch.local.events.s3 import S3Notifications
from perch.local.events.scheduled_rules import ScheduledRules
from perch.local.events.schedules import InvalidScheduleError, parse_schedule
from perch.local.events.targets import Sender, UndeliverableError, make_input
from perch.local.patches import Patches
from perch.local.ports import AsyncInvoker

_log = logging.getLogger(__name__)
_CHANGES_RULES = ("put_rule", "delete_rule", "enable_rule", "disable_rule", "delete_event_bus")
_MAX_ENTRY = 256 * 1024
_BACKOFF_LIMIT_S = 600


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of one delivery.

    `outcome` is "delivered", "lost", "delayed", "reordered", "retrying", "dead-lettered" or "dropped".
    """

    at: datetime
    event_id: str
    rule: str
    target_arn: str
    outcome: str
    reason: str = ""


class EventBus:
    """All buses of one account and region.

    Args:
        clock: The one clock.
        invoker: Takes what goes to Lambda functions.
        account: The account.
        region: The region.

    Attributes:
        faults: What goes wrong with deliveries, for tests; may be set at any time.
        history: The last thousand things that became of deliveries, the newest last.
        sender: Sends to queues, topics, functions, log groups and buses by ARN.
    """

    def __init__(
        self,
        clock: VirtualClock,
        invoker: AsyncInvoker,
        *,
        account: str = "123456789012",
        region: str = "us-east-1",
        faults: DeliveryFaults | None = None,
    ) -> None:
        self._clock = clock
        self._account = account
        self._region = region
        self.faults = faults or DeliveryFaults()
        self.history: deque[Record] = deque(maxlen=1000)
        self.sender = Sender(invoker, put_event=self._forward, now=clock.now, account=account)
        self._patches = Patches()
        self._s3 = S3Notifications(self.publish, clock.now)
        self._lock = threading.RLock()
        self._schedules = ScheduledRules(clock, self._rules, self._fire)
        self._patterns: dict[str, EventPattern] = {}
        self._waiting: Delivery | None = None  # a delivery that is to come after the next one

    # -- in ----------------------------------------------------------------------------------------------------------

    def publish(self, event: Mapping[str, Any], bus_name: str = "default") -> None:
        """Match an event (as rules see it) with the rules of a bus and deliver it to their targets."""
        for rule in self._rules(bus_name).values():
            if rule.state != "DISABLED" and not rule.scheduled_expression and self._matches(rule, event):
                self._deliver_to_targets(rule, event)

    def put_events(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """PutEvents: check up to ten entries, publish the good ones, answer one result for each."""
        if not 1 <= len(entries) <= 10:
            raise ValidationException(
                "1 validation error detected: Value '[PutEventsRequestEntry]' at 'entries' failed to satisfy "
                "constraint: Member must have length less than or equal to 10"
            )
        if sum(entry_size(entry) for entry in entries) > _MAX_ENTRY:
            raise ValidationException("Total size of the entries in the request is over the limit.")
        results: list[dict[str, Any]] = []
        for entry in entries:
            if refused := refusal(entry):
                results.append({"ErrorCode": refused[0], "ErrorMessage": refused[1]})
            else:
                results.append({"EventId": self._put_entry(entry)})
        return results

    def _put_entry(self, entry: Mapping[str, Any]) -> str:
        event = self._event(
            str(entry["DetailType"]),
            str(entry["Source"]),
            event_time(entry.get("Time"), self._clock.now()),
            list(entry.get("Resources") or []),
            json.loads(entry["Detail"]),
        )
        self.publish(event, str(entry.get("EventBusName") or "default").split("/")[-1])
        return str(event["id"])

    def _fire(self, rule: Rule, due: datetime) -> None:
        event = self._event("Scheduled Event", "aws.events", event_time(due, due), [rule.arn], {})
        self._deliver_to_targets(rule, event)

    def _event(self, kind: str, source: str, time: str, resources: list[str], detail: Any) -> dict[str, Any]:
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": kind,
            "source": source,
            "account": self._account,
            "time": time,
            "region": self._region,
            "resources": resources,
            "detail": detail,
        }

    def _forward(self, bus_name: str, event: Mapping[str, Any]) -> None:
        """An event that a rule, or Lambda's destination, sends on to another bus."""
        self.publish(dict(event) | {"id": str(uuid.uuid4()), "region": self._region}, bus_name)

    # -- matching ----------------------------------------------------------------------------------------------------

    def _rules(self, bus_name: str = "default") -> dict[str, Rule]:
        bus = events_backends[self._account][self._region].event_buses.get(bus_name)
        return dict(list(bus.rules.items())) if bus is not None else {}

    def _matches(self, rule: Rule, event: Mapping[str, Any]) -> bool:
        text = rule.event_pattern.dump()
        if not text:
            return False
        pattern = self._patterns.get(text)
        if pattern is None:
            try:
                pattern = self._patterns[text] = EventPattern.parse(text)
            except InvalidPatternError:
                _log.exception("rule %s has a pattern that is not valid", rule.name)
                return False
        return pattern.matches(event)

    def _deliver_to_targets(self, rule: Rule, event: Mapping[str, Any]) -> None:
        received = event_time(None, self._clock.now())
        for target in list(rule.targets):
            self._deliver(
                Delivery(event=event, received=received, rule_name=rule.name, rule_arn=rule.arn, target=target)
            )

    # -- delivering --------------------------------------------------------------------------------------------------

    def _deliver(self, delivery: Delivery) -> None:
        """Deliver with the faults that were asked for."""
        fault = self.faults.strike(delivery)
        with self._lock:
            overtaken, self._waiting = self._waiting, None
            if fault == "reorder":
                self._waiting = delivery
        match fault:
            case "lose":
                self._record(delivery, "lost")
            case "delay":
                self._record(delivery, "delayed")
                self._later(self.faults.delay_s, lambda: self._attempt(delivery))
            case "reorder":
                self._record(delivery, "reordered")
                self._later(self.faults.reorder_s, lambda: self._release(delivery))
            case _:
                self._attempt(delivery)
                if fault == "duplicate":
                    self._attempt(delivery)
        if overtaken is not None:
            self._attempt(overtaken)

    def _release(self, delivery: Delivery) -> None:
        """Nothing came that could overtake it: deliver it after all."""
        with self._lock:
            if self._waiting is not delivery:
                return
            self._waiting = None
        self._attempt(delivery)

    def _attempt(self, delivery: Delivery, attempt: int = 0, since: datetime | None = None) -> None:
        """Try once; on failure try again later or give up, by the target's retry policy."""
        since = since or self._clock.now()
        body = make_input(
            delivery.target,
            delivery.event,
            received=delivery.received,
            rule_name=delivery.rule_name,
            rule_arn=delivery.rule_arn,
        )
        group_id = (delivery.target.get("SqsParameters") or {}).get("MessageGroupId")
        try:
            self.sender.send(delivery.arn, body, group_id=group_id)
        except UndeliverableError as error:
            policy = delivery.target.get("RetryPolicy") or {}
            wait_s = min(2.0**attempt, _BACKOFF_LIMIT_S)
            age_s = (self._clock.now() - since).total_seconds()
            if not error.retry:
                self._give_up(delivery, error, attempt, None)
            elif attempt >= int(policy.get("MaximumRetryAttempts", 185)):
                self._give_up(delivery, error, attempt, "MaximumRetryAttempts")
            elif age_s + wait_s > float(policy.get("MaximumEventAgeInSeconds", 86400)):
                self._give_up(delivery, error, attempt, "MaximumEventAgeInSeconds")
            else:
                self._record(delivery, "retrying", str(error))
                self._later(wait_s, lambda: self._attempt(delivery, attempt + 1, since))
        else:
            self._record(delivery, "delivered")

    def _give_up(self, delivery: Delivery, error: UndeliverableError, attempt: int, exhausted: str | None) -> None:
        queue = (delivery.target.get("DeadLetterConfig") or {}).get("Arn")
        if queue is None:
            self._record(delivery, "dropped", str(error))
            return
        attributes: dict[str, str | int] = {
            "RULE_ARN": delivery.rule_arn,
            "TARGET_ARN": delivery.arn,
            "ERROR_CODE": error.code,
            "ERROR_MESSAGE": str(error)[:1024] or error.code,
            "RETRY_ATTEMPTS": attempt,
        }
        if exhausted is not None:
            attributes["EXHAUSTED_RETRY_CONDITION"] = exhausted
        try:
            self.sender.send(queue, json.dumps(delivery.event, separators=(",", ":")), attributes=attributes)
        except UndeliverableError as failure:
            self._record(delivery, "dropped", f"{error}; and its dead-letter queue: {failure}")
        else:
            self._record(delivery, "dead-lettered", str(error))

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self._clock.call_at(self._clock.now() + timedelta(seconds=seconds), lambda _: what(), "event delivery")

    def _record(self, delivery: Delivery, outcome: str, reason: str = "") -> None:
        self.history.append(
            Record(
                at=self._clock.now(),
                event_id=str(delivery.event["id"]),
                rule=delivery.rule_name,
                target_arn=delivery.arn,
                outcome=outcome,
                reason=reason,
            )
        )

    # -- moto --------------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Take the place of moto's delivery, and follow the rules that exist and will be made."""
        for name in _CHANGES_RULES:
            self._patches.wrap(EventsBackend, name, self._follow)
        self._patches.wrap(EventsBackend, "put_rule", self._check_rule)
        self._patches.wrap(EventsBackend, "put_events", self._take_events)
        # moto calls Lambda itself for one made-up S3 event; that would run functions behind everybody's back
        self._patches.set(moto_notifications, "send_notification", lambda *_, **__: None)
        self._s3.install()
        self._schedules.reconcile()

    def uninstall(self) -> None:
        """Give moto its own functions back and take the schedules off the clock."""
        self._s3.uninstall()
        self._patches.undo()
        self._schedules.clear()

    def _mine(self, backend: Any) -> bool:
        return bool(backend.region_name == self._region and backend.account_id == self._account)

    def _follow(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def changed(backend: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(backend, *args, **kwargs)
            if self._mine(backend):
                self._schedules.reconcile()
            return result

        return changed

    def _check_rule(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def put_rule(backend: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            try:
                if kwargs.get("event_pattern"):
                    EventPattern.parse(kwargs["event_pattern"])
                if kwargs.get("scheduled_expression"):
                    parse_schedule(kwargs["scheduled_expression"])
            except InvalidPatternError as error:
                raise InvalidEventPatternException(str(error)) from error
            except InvalidScheduleError as error:
                raise ValidationException("Parameter ScheduleExpression is not valid.") from error
            return original(backend, name, *args, **kwargs)

        return put_rule

    def _take_events(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def put_events(backend: Any, events: list[dict[str, Any]]) -> Any:
            return self.put_events(events) if self._mine(backend) else original(backend, events)

        return put_events
