"""Scheduled rules: each has a timer of the virtual clock, set for the next time that its expression names.

a rule changed ─► reconcile: timers as the rules are ─► due ─► is it still so? ─► the next timer ─► fire
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from moto.events.models import Rule

from perch.local.clock import Timer, VirtualClock
from perch.local.events.schedules import InvalidScheduleError, parse_schedule

_log = logging.getLogger(__name__)


@dataclass
class _Scheduled:
    expression: str
    began: datetime
    timer: Timer


class ScheduledRules:
    """The timers.

    Args:
        clock: The one clock.
        rules: Tells the rules that are there, by name; those without a schedule, or disabled, are passed over.
        fire: Takes a rule whose time has come, and that time.
    """

    def __init__(
        self, clock: VirtualClock, rules: Callable[[], Mapping[str, Rule]], fire: Callable[[Rule, datetime], None]
    ) -> None:
        self._clock = clock
        self._rules = rules
        self._fire = fire
        self._lock = threading.RLock()
        self._known: dict[str, _Scheduled] = {}

    def reconcile(self) -> None:
        """Make the timers agree with the rules. To be called on every change of a rule."""
        wanted = {name: rule.scheduled_expression for name, rule in self._scheduled().items()}
        with self._lock:
            for name, scheduled in list(self._known.items()):
                if wanted.get(name) != scheduled.expression:
                    scheduled.timer.cancel()
                    del self._known[name]
            for name, expression in wanted.items():
                if name not in self._known:
                    self._arm(name, expression, began=self._clock.now(), after=self._clock.now())

    def clear(self) -> None:
        """Take all of them off the clock."""
        with self._lock:
            for scheduled in self._known.values():
                scheduled.timer.cancel()
            self._known.clear()

    def _scheduled(self) -> dict[str, Rule]:
        rules = list(self._rules().items())
        return {name: rule for name, rule in rules if rule.scheduled_expression and rule.state != "DISABLED"}

    def _arm(self, name: str, expression: str, *, began: datetime, after: datetime) -> None:
        try:
            due = parse_schedule(expression).next_after(after, began)
        except InvalidScheduleError:
            _log.exception("rule %s has a schedule that is not valid", name)
            return
        if due is None:
            self._known.pop(name, None)
            return
        timer = self._clock.call_at(due, lambda at: self._due(name, expression, began, at), f"schedule {name}")
        self._known[name] = _Scheduled(expression, began, timer)

    def _due(self, name: str, expression: str, began: datetime, due: datetime) -> None:
        rule = self._scheduled().get(name)
        with self._lock:
            if rule is None or rule.scheduled_expression != expression:  # gone without a word, as after moto's reset
                self._known.pop(name, None)
                return
            self._arm(name, expression, began=began, after=due)
        self._fire(rule, due)
