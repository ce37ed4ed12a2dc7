"""Schedule expressions of EventBridge rules: `rate(5 minutes)` and `cron(0 12 * * ? *)`, and when they are next due.

A rate counts from the moment its rule was made or enabled. A cron expression has six fields (minutes, hours, day of
month, month, day of week, year), is in UTC, and has exactly one `?` among the two day fields. `,` `-` `*` `/` work
everywhere; `L`, `W` and `#` where the service documents them (`L`, `3W`, `LW` as day of month; `L`, `6L`, `3#2` as day
of week; weeks begin on Sunday = 1). Ranges may wrap (`20-2`, `FRI-MON`).

The service promises the minute, not the second; here a cron expression is due at second 0.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)(s?)\)")
_CRON = re.compile(r"cron\((.*)\)")
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"), 1
    )
}
_WEEKDAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_YEARS = (1970, 2199)


class InvalidScheduleError(ValueError):
    """The schedule expression is not valid; the message says why."""


@dataclass(frozen=True)
class Rate:
    """Every `period`, counted from when the rule began."""

    period: timedelta

    def next_after(self, now: datetime, began: datetime) -> datetime:
        """Return the first due time after `now`."""
        return began + self.period * max(1, (now - began) // self.period + 1)


@dataclass(frozen=True)
class Cron:
    """The minutes, hours, months and years that match, and a test for the day."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: frozenset[int]
    years: frozenset[int]
    day_matches: Callable[[date], bool]

    def next_after(self, now: datetime, began: datetime) -> datetime | None:  # noqa: ARG002 - the same shape as Rate
        """Return the first due time after `now`, or None when there is none any more."""
        day = now.astimezone(UTC).date()
        while day.year <= max(self.years):
            if day.year not in self.years:
                day = date(day.year + 1, 1, 1)
            elif day.month not in self.months:
                day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
            else:
                due = self._next_on(day, now) if self.day_matches(day) else None
                if due is not None:
                    return due
                day += timedelta(days=1)
        return None

    def _next_on(self, day: date, now: datetime) -> datetime | None:
        for hour in self.hours:
            for minute in self.minutes:
                due = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
                if due > now:
                    return due
        return None


Schedule = Rate | Cron


def parse_schedule(expression: str) -> Schedule:
    """Parse `rate(...)` or `cron(...)`. Raises `InvalidScheduleError`."""
    if found := _RATE.fullmatch(expression.strip()):
        value, unit, plural = int(found[1]), found[2], found[3]
        if value < 1:
            raise InvalidScheduleError(f"{expression}: the value of a rate must be positive")
        if (value == 1) == bool(plural):
            raise InvalidScheduleError(f"{expression}: a value of 1 takes a singular unit, a larger one a plural unit")
        return Rate(timedelta(**{f"{unit}s": value}))
    if found := _CRON.fullmatch(expression.strip()):
        try:
            return _parse_cron(found[1].split())
        except InvalidScheduleError as error:
            raise InvalidScheduleError(f"{expression}: {error}") from error
    raise InvalidScheduleError(f"{expression!r} is neither rate(value unit) nor cron(six fields)")


def _parse_cron(fields: list[str]) -> Cron:
    if len(fields) != 6:
        raise InvalidScheduleError(f"a cron expression has six fields, this one has {len(fields)}")
    minutes, hours, month_day, months, week_day, years = (field.upper() for field in fields)
    if (month_day == "?") == (week_day == "?"):
        raise InvalidScheduleError("exactly one of day of month and day of week must be ?")
    return Cron(
        minutes=tuple(sorted(_values(minutes, 0, 59))),
        hours=tuple(sorted(_values(hours, 0, 23))),
        months=frozenset(_values(months, 1, 12, _MONTHS)),
        years=frozenset(_values(years, *_YEARS)),
        day_matches=_month_day(month_day) if week_day == "?" else _week_day(week_day),
    )


def _values(field: str, low: int, high: int, names: dict[str, int] | None = None) -> set[int]:
    """Expand one plain field into the numbers that match."""

    def number(text: str) -> int:
        value = (names or {}).get(text)
        if value is None:
            if not text.isdigit():
                raise InvalidScheduleError(f"{text!r} is not a value from {low} to {high}")
            value = int(text)
        if not low <= value <= high:
            raise InvalidScheduleError(f"{text!r} is not a value from {low} to {high}")
        return value

    found: set[int] = set()
    for part in field.split(","):
        base, _, step_text = part.partition("/")
        step = int(step_text) if step_text.isdigit() else 0
        if "/" in part and step < 1:
            raise InvalidScheduleError(f"{part!r}: the increment after / must be a positive number")
        first, dash, last = base.partition("-")
        begin = low if first == "*" else number(first)
        end = number(last) if dash else (high if first == "*" or step else begin)
        span = end - begin if end >= begin else end - begin + (high - low + 1)  # 20-2 goes past midnight
        found.update(low + (begin - low + offset) % (high - low + 1) for offset in range(0, span + 1, step or 1))
    return found


def _month_day(field: str) -> Callable[[date], bool]:
    if field == "L":
        return lambda day: day.day == _last(day)
    if field == "LW":
        return lambda day: day.day == _nearest_weekday(day, _last(day))
    if found := re.fullmatch(r"(\d{1,2})W", field):
        wanted = int(found[1])
        if not 1 <= wanted <= 31:
            raise InvalidScheduleError(f"{field!r}: the day must be from 1 to 31")
        return lambda day: wanted <= _last(day) and day.day == _nearest_weekday(day, wanted)
    days = _values(field, 1, 31)
    return lambda day: day.day in days


def _week_day(field: str) -> Callable[[date], bool]:
    if field == "L":
        return lambda day: _sunday_first(day) == 7
    if found := re.fullmatch(r"([A-Z]{3}|\d)L", field):
        [wanted] = _values(found[1], 1, 7, _WEEKDAYS)
        return lambda day: _sunday_first(day) == wanted and day.day + 7 > _last(day)
    if found := re.fullmatch(r"([A-Z]{3}|\d)#(\d)", field):
        [wanted] = _values(found[1], 1, 7, _WEEKDAYS)
        nth = int(found[2])
        if not 1 <= nth <= 5:
            raise InvalidScheduleError(f"{field!r}: the number after # must be from 1 to 5")
        return lambda day: _sunday_first(day) == wanted and (day.day + 6) // 7 == nth
    days = _values(field, 1, 7, _WEEKDAYS)
    return lambda day: _sunday_first(day) in days


def _sunday_first(day: date) -> int:
    return day.isoweekday() % 7 + 1


def _last(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def _nearest_weekday(day: date, wanted: int) -> int:
    """The weekday nearest to a day of the month, within the month."""
    there = date(day.year, day.month, wanted).isoweekday()
    if there == 6:
        return wanted - 1 if wanted > 1 else wanted + 2
    if there == 7:
        return wanted + 1 if wanted < _last(day) else wanted - 2
    return wanted
