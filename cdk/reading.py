"""Reading settings: a small checker of TOML tables that collects every problem instead of stopping at the first.

A `Reader` wraps one table, hands out checked values by key, and remembers which keys were asked for, so that `close`
can name the ones that nobody knows. A value that is wrong is reported and replaced by its default, so that the rest of
the file is still checked. `settings` owns what the keys mean; this module only knows how to ask and complain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")

_UNITS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_DURATION = re.compile(r"(\d+) *(second|minute|hour|day)s?")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) *%")


class WrongValueError(ValueError):
    """A value does not fit; the message says what would."""


@dataclass
class Reader:
    """One table of the file. `at` is its dotted path, `problems` is shared by all tables of the file."""

    table: Mapping[str, object]
    at: str
    problems: list[str]
    _asked: list[str] = field(default_factory=list)

    def value(self, key: str, check: Callable[[object], T], default: T) -> T:
        """Return the checked value of a key; `default` when it is absent or wrong (and then the problem is noted)."""
        self._asked.append(key)
        if key not in self.table:
            return default
        try:
            return check(self.table[key])
        except WrongValueError as wrong:
            self.complain(key, str(wrong))
            return default

    def required(self, key: str, check: Callable[[object], T], stand_in: T) -> T:
        """Return the checked value of a key that has no default; `stand_in` only lets the reading go on."""
        if key not in self.table:
            self._asked.append(key)
            self.complain(key, "is missing; it has no default")
            return stand_in
        return self.value(key, check, stand_in)

    def inner(self, key: str) -> Reader:
        """Return the reader of a table inside this one; of an empty table when it is absent."""
        return Reader(self.value(key, table, {}), self.path(key), self.problems)

    def complain(self, key: str, message: str) -> None:
        """Note a problem with one key."""
        self.problems.append(f"{self.path(key)}: {message}")

    def close(self) -> None:
        """Note every key that nobody asked for, with the nearest one that exists."""
        for key in self.table:
            if key not in self._asked:
                near = get_close_matches(key, self._asked, n=1, cutoff=0.6)
                known = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(self._asked))}"
                self.complain(key, f"is not a known key; {known}")

    def path(self, key: str) -> str:
        """Return the dotted path of a key, as a reader of the file would look for it."""
        return f"{self.at}.{key}" if self.at else key


def table(value: object) -> Mapping[str, object]:
    """Check for a table."""
    if not isinstance(value, Mapping):
        raise WrongValueError(f"{value!r} is not a table; write it as [section] or {{key = value}}")
    return value


def text(pattern: str, means: str) -> Callable[[object], str]:
    """Make a check for a string that matches `pattern` as a whole; `means` says in words what that is."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            raise WrongValueError(f"{value!r} does not fit; it must be {means}")
        return value

    return check


def one_of(*choices: str) -> Callable[[object], str]:
    """Make a check for one of a few words."""

    def check(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        offer = ", ".join(repr(choice) for choice in choices)
        near = get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise WrongValueError(f"{value!r} is not one of {offer}{hint}")

    return check


def whole(least: int, most: int, unit: str = "") -> Callable[[object], int]:
    """Make a check for a whole number in a closed range."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            of = f" {unit}" if unit else ""
            raise WrongValueError(f"{value!r} does not fit; it must be a whole number{of} from {least} to {most}")
        return value

    return check


def number(least: float, most: float, unit: str = "") -> Callable[[object], float]:
    """Make a check for a number in a closed range."""

    def check(value: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
            of = f" {unit}" if unit else ""
            raise WrongValueError(f"{value!r} does not fit; it must be a number{of} from {least:g} to {most:g}")
        return float(value)

    return check


def flag(value: object) -> bool:
    """Check for true or false."""
    if not isinstance(value, bool):
        raise WrongValueError(f"{value!r} does not fit; write true or false")
    return value


def words(*choices: str) -> Callable[[object], tuple[str, ...]]:
    """Make a check for a list of some of a few words."""
    one = one_of(*choices)

    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise WrongValueError(f"{value!r} is not a list; write it as [{choices[0]!r}]")
        return tuple(one(item) for item in value)

    return check


def fraction(value: object) -> float:
    """Check for a share strictly between 0 and 1, written as `"5%"` or `0.05`."""
    example = 'write a share above 0 % and below 100 %, as "5%" or 0.05'
    number = _share(value, example)
    if not 0 < number < 1:
        raise WrongValueError(f"{value!r} does not fit; {example}")
    return number


def proportion(value: object) -> float:
    """Check for a share from none to all of it, written as `"5%"` or `0.05`."""
    example = 'write a share from 0 % to 100 %, as "5%" or 0.05'
    number = _share(value, example)
    if not 0 <= number <= 1:
        raise WrongValueError(f"{value!r} does not fit; {example}")
    return number


def _share(value: object, example: str) -> float:
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value.strip())):
        return round(float(match[1]) / 100, 6)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return round(float(value), 6)
    raise WrongValueError(f"{value!r} is not a share; {example}")


def duration(least: int, most: int, *, whole_minutes: str = "") -> Callable[[object], int]:
    """Make a check for a time such as `"90 seconds"` or `"6 hours"`, given back in seconds.

    `whole_minutes`, when given, asks for whole minutes and says why.
    """

    def check(value: object) -> int:
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise WrongValueError(f'{value!r} is not a time; write "90 seconds", "5 minutes", "6 hours" or "2 days"')
        seconds = int(match[1]) * _UNITS[match[2]]
        if whole_minutes and seconds % 60:
            raise WrongValueError(f"{value!r} does not fit; it must be whole minutes, because {whole_minutes}")
        if not least <= seconds <= most:
            raise WrongValueError(f"{value!r} does not fit; it must be from {spell(least)} to {spell(most)}")
        return seconds

    return check


def spell(seconds: int) -> str:
    """Write a time in its largest whole unit: 5400 is "90 minutes". `duration(...)(spell(s)) == s`."""
    unit = next(name for name in ("day", "hour", "minute", "second") if seconds % _UNITS[name] == 0)
    count = seconds // _UNITS[unit]
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
