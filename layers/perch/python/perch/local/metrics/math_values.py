"""Values of CloudWatch metric math, and how operators combine them.

A value is a number, a time series (start of period -> value, epoch seconds) or an array of time series. Operators work
on points with the same time: a point that is missing on one side is missing in the result, and so is one that would
divide by zero. Comparisons give 1 or 0.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TimeSeries = Mapping[int, float]
Value = float | TimeSeries | list[TimeSeries]


class MathError(ValueError):
    """The expression is not valid, or uses what is not supported; the message says where."""


@dataclass(frozen=True)
class Window:
    """The periods that an expression is evaluated over, in epoch seconds."""

    begin: int
    end: int
    period_s: int

    def times(self) -> range:
        """The starts of the periods."""
        return range(self.begin, self.end, self.period_s)


@dataclass(frozen=True)
class Env:
    """What an expression is evaluated with: its periods, and the series by their ids."""

    window: Window
    values: Mapping[str, Value]


def members(value: Value) -> list[TimeSeries]:
    """The series of an array, or the one series."""
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, list):
        return value
    raise MathError("an array holds metrics, not numbers")


def mapped(function: Callable[[float], float], value: Value) -> Value:
    """What a function of one number makes of a value."""
    if isinstance(value, Mapping):
        results = ((at, _real(function, one)) for at, one in value.items())
        return {at: result for at, result in results if result is not None}
    if isinstance(value, list):
        return [series for one in value if isinstance(series := mapped(function, one), Mapping)]
    result = _real(function, value)
    if result is None:
        raise MathError("the expression has no real value")
    return result


def _real(function: Callable[..., Any], *arguments: float) -> float | None:
    """The result, or None where there is none (division by zero, overflow, a complex number)."""
    try:
        result = function(*arguments)
    except (ArithmeticError, ValueError):
        return None
    return float(result) if isinstance(result, int | float) and math.isfinite(result) else None


def combine(function: Callable[[float, float], float], one: Value, other: Value) -> Value:
    """What an operator makes of two values."""
    if isinstance(one, list):
        return [series for each in one if isinstance(series := combine(function, each, other), Mapping)]
    if isinstance(other, list):
        return [series for each in other if isinstance(series := combine(function, one, each), Mapping)]
    if not isinstance(one, Mapping) and not isinstance(other, Mapping):
        result = _real(function, one, other)
        if result is None:
            raise MathError("the expression has no real value")
        return result
    times = sorted(set.intersection(*(set(side) for side in (one, other) if isinstance(side, Mapping))))
    results = ((at, _real(function, value_at(one, at), value_at(other, at))) for at in times)
    return {at: result for at, result in results if result is not None}


def value_at(value: Value, at: int) -> float:
    """The number itself, or the point of a series, which must be there."""
    if isinstance(value, Mapping):
        return value[at]
    if isinstance(value, list):
        raise MathError("an array cannot be used here")
    return value


OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": operator.pow,
    "<": lambda a, b: float(a < b),
    "<=": lambda a, b: float(a <= b),
    ">": lambda a, b: float(a > b),
    ">=": lambda a, b: float(a >= b),
    "==": lambda a, b: float(a == b),
    "!=": lambda a, b: float(a != b),
    "AND": lambda a, b: float(bool(a) and bool(b)),
    "&&": lambda a, b: float(bool(a) and bool(b)),
    "OR": lambda a, b: float(bool(a) or bool(b)),
    "||": lambda a, b: float(bool(a) or bool(b)),
}
