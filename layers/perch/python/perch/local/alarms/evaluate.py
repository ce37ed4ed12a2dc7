"""How CloudWatch decides the state of an alarm: a pure function of its configuration and its data points.

An alarm asks for M breaching points out of the last N periods (M = `datapoints_to_alarm`, N = `evaluation_periods`).
It looks at more periods than N, the *evaluation range*, and then:

- N or more real points in the range: the N newest real ones decide, and how missing data is treated does not matter.
- Some real points, fewer than N: the rest is filled as `treat_missing_data` says. Filled with "missing" or "ignore":
  M real breaching points are ALARM; any point that is not breaching is OK; and when all are breaching, the alarm waits
  for more data until the oldest of them is at least M periods old, so that it does not go off too early (then "missing"
  gives ALARM, and "ignore" keeps the state).
- No real point: INSUFFICIENT_DATA, the current state, ALARM, or OK, for missing, ignore, breaching, notBreaching.

The documentation shows a range of 5 for N = 3 and says that the size depends on the period without saying how; here it
is N + 2. For "fewer than N, all breaching, too young" it shows INSUFFICIENT_DATA for "missing" in its tables.

A point that is worse than the threshold is breaching; a percentile over too few samples counts or keeps the state, as
`low_samples` says. Left out: anomaly detection bands, alarms on several series, composite alarms.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from perch.local.metrics.statistic import percentile_rank
from perch.local.metrics.store import Point

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
_EXTRA_PERIODS = 2
_OPERATORS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}
COMPARISONS = tuple(_OPERATORS)


@dataclass(frozen=True, kw_only=True)
class AlarmSpec:
    """What is asked of the data. `statistic` is None for an alarm on an expression."""

    evaluation_periods: int
    datapoints_to_alarm: int
    threshold: float
    comparison: str
    period_s: int
    statistic: str | None = None
    unit: str | None = None
    treat_missing_data: str = "missing"
    low_samples: str = "evaluate"

    @property
    def evaluation_range(self) -> int:
        """How many periods are looked at."""
        return self.evaluation_periods + _EXTRA_PERIODS


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The state, and why: the points that decided (oldest first) and how many missing ones were filled in."""

    state: State
    reason: str
    used: tuple[Point, ...] = ()
    filled: int = 0


def evaluate(spec: AlarmSpec, points: Sequence[Point | None], current: State) -> Verdict:
    """Decide the state.

    Args:
        spec: The alarm.
        points: One for each period of the evaluation range, oldest first; None where there is no data.
        current: The state that the alarm has.
    """
    real = [point for point in points if point is not None]
    used = tuple(real[-spec.evaluation_periods :])
    if _too_few_samples(spec, used):
        return Verdict(state=current, reason="The percentile has too few samples to be evaluated.", used=used)
    missing = spec.evaluation_periods - len(used)
    breaching = sum(_breaches(spec, point) for point in used)
    state = _state(spec, points, current, breaching=breaching, missing=missing)
    return Verdict(state=state, reason=_reason(spec, used, missing, state), used=used, filled=missing)


def _state(spec: AlarmSpec, points: Sequence[Point | None], current: State, *, breaching: int, missing: int) -> State:
    wanted, treatment = spec.datapoints_to_alarm, spec.treat_missing_data
    seen = spec.evaluation_periods - missing
    if breaching >= wanted:
        return "ALARM"
    if missing <= 0 or treatment == "notBreaching":
        return "OK"
    if treatment == "breaching":
        return "ALARM" if breaching + missing >= wanted else "OK"
    if breaching < seen:  # there is a point that is fine
        return "OK"
    if treatment == "ignore":
        return current
    ages = [age for age, point in enumerate(reversed(points), 1) if point is not None]
    return "ALARM" if ages and max(ages) >= wanted else "INSUFFICIENT_DATA"


def _breaches(spec: AlarmSpec, point: Point) -> bool:
    return _OPERATORS[spec.comparison][0](point.value, spec.threshold)


def _too_few_samples(spec: AlarmSpec, used: Sequence[Point]) -> bool:
    rank = percentile_rank(spec.statistic) if spec.statistic else None
    if rank is None or spec.low_samples != "ignore" or not used:
        return False
    share = rank / 100
    tail = min(share, 1 - share)
    return tail > 0 and sum(point.samples for point in used) < 10 / tail - 1e-6


# -- words -----------------------------------------------------------------------------------------------------------


def _reason(spec: AlarmSpec, used: Sequence[Point], missing: int, state: State) -> str:
    """The sentence that describe_alarms shows, in the service's form."""
    if state == "INSUFFICIENT_DATA" or (not used and spec.treat_missing_data in ("missing", "ignore")):
        return f"Insufficient Data: {_count(missing, 'datapoint was', 'datapoints were')} unknown."
    treated = "Breaching" if spec.treat_missing_data == "breaching" else "NonBreaching"
    filled = f"{_count(missing, 'missing datapoint was', 'missing datapoints were')} treated as [{treated}]"
    if not used:
        return (
            f"Threshold Crossed: no datapoints were received for {_count(missing, 'period', 'periods')} and {filled}."
        )
    wanted = spec.datapoints_to_alarm
    alarm = state == "ALARM"
    shown = [point for point in used if _breaches(spec, point) == alarm] or list(used)
    values = ", ".join(f"{point.value} ({point.at:%d/%m/%y %H:%M:%S})" for point in reversed(shown))
    verb = "was" if len(shown) == 1 else "were"
    negation = "" if _breaches(spec, shown[0]) else "not "
    least = wanted if alarm else spec.evaluation_periods - wanted + 1
    move = "OK -> ALARM" if alarm else "ALARM -> OK"
    also = f" and {filled}" if missing > 0 and spec.treat_missing_data in ("breaching", "notBreaching") else ""
    return (
        f"Threshold Crossed: {len(shown)} out of the last {len(used)} datapoints [{values}] {verb} {negation}"
        f"{_OPERATORS[spec.comparison][1]} the threshold ({spec.threshold}){also} "
        f"(minimum {_count(least, 'datapoint', 'datapoints')} for {move} transition)."
    )


def reason_data(spec: AlarmSpec, verdict: Verdict, at: datetime) -> str:
    """The JSON that describe_alarms shows as StateReasonData."""
    data: dict[str, Any] = {"version": "1.0", "queryDate": stamp(at)}
    if verdict.used:
        data["startDate"] = stamp(verdict.used[0].at)
    if spec.unit:
        data["unit"] = spec.unit
    if spec.statistic:
        data["statistic"] = spec.statistic
    data |= {
        "period": spec.period_s,
        "recentDatapoints": [point.value for point in verdict.used],
        "threshold": spec.threshold,
        "evaluatedDatapoints": [
            {"timestamp": stamp(point.at), "value": point.value}
            | ({"sampleCount": point.samples} if spec.statistic else {})
            for point in reversed(verdict.used)
        ],
    }
    return json.dumps(data, separators=(",", ":"))


def stamp(at: datetime) -> str:
    """The way alarms write times: 2024-04-16T08:47:36.960+0000."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}+0000"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
