"""CloudWatch metric math: expressions over metrics, parsed by hand and never run as code.

A value is a number, a time series (start of period -> value, epoch seconds) or an array of time series. Operators work
on points with the same time: a point that is missing on one side is missing in the result, and so is one that would
divide by zero. Comparisons give 1 or 0.

Supported: `+ - * / ^`, unary minus, parentheses, `< <= > >= == !=`, `AND OR` (also `&& ||`), `IF`, `FILL` (a number,
`REPEAT`, `LINEAR`), `METRICS()` and `METRICS("part of an id")`, `SUM AVG MAX MIN STDDEV METRIC_COUNT DATAPOINT_COUNT
FIRST LAST ABS CEIL FLOOR LOG LOG10 RUNNING_SUM RATE DIFF DIFF_TIME PERIOD TIME_SERIES`. `SUM AVG MAX MIN STDDEV` of one
series give a number, of an array a series. Anything else is a `MathError` in words (`SEARCH`, `SELECT`, anomaly
detection, sorting, time-of-day functions).
"""

from __future__ import annotations

import bisect
import itertools
import math
import operator
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TimeSeries = Mapping[int, float]
Value = float | TimeSeries | list[TimeSeries]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<text>\"[^\"]*\"|'[^']*')|(?P<sign><=|>=|==|!=|&&|\|\||[-+*/^()<>,\[\]]))"
)
_STRENGTH = {
    "OR": 1,
    "||": 1,
    "AND": 2,
    "&&": 2,
    "<": 3,
    "<=": 3,
    ">": 3,
    ">=": 3,
    "==": 3,
    "!=": 3,
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
    "^": 7,
}  # fmt: skip - one line for each strength
_UNARY = 6


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
class _Env:
    window: Window
    values: Mapping[str, Value]


Node = Callable[[_Env], Value]


@dataclass(frozen=True)
class Expression:
    """A parsed expression; `names` are the ids it refers to."""

    text: str
    names: frozenset[str]
    _node: Node

    def evaluate(self, values: Mapping[str, Value], window: Window) -> Value:
        """Compute it. `values` maps ids to series. Raises `MathError` for an id that is not there."""
        return self._node(_Env(window, values))


def parse(text: str) -> Expression:
    """Parse an expression. Raises `MathError`."""
    parser = _Parser(text)
    node = parser.expression(0)
    parser.expect_end()
    return Expression(text, frozenset(parser.names), node)


class _Parser:
    """Precedence climbing over a list of tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self._tokens = list(_tokens(text))
        self._next = 0

    def expression(self, least: int) -> Node:
        left = self._operand()
        while (sign := self._peek().upper()) in _STRENGTH and _STRENGTH[sign] >= least:
            self._take()
            strength = _STRENGTH[sign]
            right = self.expression(strength if sign == "^" else strength + 1)
            left = _binary(_OPERATORS[sign], left, right)
        return left

    def expect_end(self) -> None:
        if self._peek():
            raise self._error(f"did not expect {self._peek()!r}")

    def _operand(self) -> Node:
        token = self._take()
        if token == "-":  # noqa: S105 - a minus sign, no password
            inner = self.expression(_UNARY)
            return lambda env: _map(operator.neg, inner(env))
        if token == "(":  # noqa: S105 - a bracket, no password
            inner = self.expression(0)
            self._expect(")")
            return inner
        if token == "[":  # noqa: S105 - a bracket, no password
            items = self._arguments("]")
            return lambda env: [series for item in items for series in _many(item(env))]
        if token[:1].isdigit() or token[:1] == ".":
            number = float(token)
            return lambda _: number
        if token[:1].isalpha() or token[:1] == "_":
            return self._function(token) if self._peek() == "(" else self._id(token)
        raise self._error(f"did not expect {token!r}" if token else "the expression ends too soon")

    def _id(self, name: str) -> Node:
        self.names.add(name)

        def read(env: _Env) -> Value:
            if name not in env.values:
                raise MathError(f"{self.text}: there is no metric with the id {name!r}")
            return env.values[name]

        return read

    def _function(self, name: str) -> Node:
        upper = name.upper()
        self._take()
        if upper == "METRICS":
            return self._metrics()
        if upper == "FILL":
            return self._fill()
        if upper not in _FUNCTIONS:
            known = ", ".join(sorted([*_FUNCTIONS, "FILL", "METRICS"]))
            raise self._error(f"the function {name} is not supported; supported are {known}")
        arguments = self._arguments(")")
        count, function = _FUNCTIONS[upper]
        if len(arguments) != count:
            raise self._error(f"{upper} takes {count} argument{'s' * (count != 1)}, not {len(arguments)}")
        return lambda env: function(env, *(argument(env) for argument in arguments))

    def _metrics(self) -> Node:
        part = ""
        if self._peek() != ")":
            part = self._take()
            if part[:1] not in ("'", '"'):
                raise self._error("METRICS takes a part of an id in quotes, or nothing")
        self._expect(")")
        part = part[1:-1]
        return lambda env: [value for name, value in env.values.items() if part in name and isinstance(value, Mapping)]

    def _fill(self) -> Node:
        source = self.expression(0)
        self._expect(",")
        mode = self._peek().upper()
        if mode in ("REPEAT", "LINEAR"):
            self._take()
            filler: Node | None = None
        else:
            filler = self.expression(0)
        self._expect(")")
        return lambda env: _fill(env, source(env), filler(env) if filler else mode)

    def _arguments(self, closing: str) -> list[Node]:
        found: list[Node] = []
        if self._peek() == closing:
            self._take()
            return found
        while True:
            found.append(self.expression(0))
            token = self._take()
            if token == closing:
                return found
            if token != ",":  # noqa: S105 - a comma, no password
                raise self._error(f"expected , or {closing} and found {token or 'the end'!r}")

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _expect(self, wanted: str) -> None:
        token = self._take()
        if token != wanted:
            raise self._error(f"expected {wanted!r} and found {token or 'the end'!r}")

    def _error(self, what: str) -> MathError:
        return MathError(f"{self.text}: {what}")


def _tokens(text: str) -> Iterable[str]:
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise MathError(f"{text}: did not expect {text[at:].lstrip()[:1]!r}")
        yield found[0].strip()
        at = found.end()


# -- values ----------------------------------------------------------------------------------------------------------


def _many(value: Value) -> list[TimeSeries]:
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, list):
        return value
    raise MathError("an array holds metrics, not numbers")


def _map(function: Callable[[float], float], value: Value) -> Value:
    if isinstance(value, Mapping):
        results = ((at, _real(function, one)) for at, one in value.items())
        return {at: result for at, result in results if result is not None}
    if isinstance(value, list):
        return [series for one in value if isinstance(series := _map(function, one), Mapping)]
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


def _binary(function: Callable[[float, float], float], left: Node, right: Node) -> Node:
    def combine(one: Value, other: Value) -> Value:
        if isinstance(one, list):
            return [series for each in one if isinstance(series := combine(each, other), Mapping)]
        if isinstance(other, list):
            return [series for each in other if isinstance(series := combine(one, each), Mapping)]
        if not isinstance(one, Mapping) and not isinstance(other, Mapping):
            result = _real(function, one, other)
            if result is None:
                raise MathError("the expression has no real value")
            return result
        times = sorted(set.intersection(*(set(side) for side in (one, other) if isinstance(side, Mapping))))
        results = ((at, _real(function, _value(one, at), _value(other, at))) for at in times)
        return {at: result for at, result in results if result is not None}

    return lambda env: combine(left(env), right(env))


def _value(value: Value, at: int) -> float:
    if isinstance(value, Mapping):
        return value[at]
    if isinstance(value, list):
        raise MathError("an array cannot be used here")
    return value


_OPERATORS: dict[str, Callable[[float, float], float]] = {
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


# -- functions -------------------------------------------------------------------------------------------------------


def _over(function: Callable[[Sequence[float]], float]) -> Callable[[_Env, Value], Value]:
    """A number of one series; of an array, a series of what its members have at each time."""

    def apply(_: _Env, value: Value) -> Value:
        if isinstance(value, list):
            times = sorted({at for series in value for at in series})
            return {at: function([series[at] for series in value if at in series]) for at in times}
        if isinstance(value, Mapping):
            return function(list(value.values())) if value else {}
        return function([value])

    return apply


def _if(_: _Env, condition: Value, then: Value, otherwise: Value) -> Value:
    if isinstance(condition, list):
        raise MathError("the condition of IF must be one metric or a number")
    if not isinstance(condition, Mapping):
        return then if condition else otherwise
    chosen: dict[int, float] = {}
    for at, holds in condition.items():
        branch = then if holds else otherwise
        if not isinstance(branch, Mapping) or at in branch:
            chosen[at] = _value(branch, at)
    return chosen


def _fill(env: _Env, source: Value, filler: Value | str) -> Value:
    if isinstance(source, list):
        return [series for one in source if isinstance(series := _fill(env, one, filler), Mapping)]
    if not isinstance(source, Mapping):
        return source
    known = sorted(source)
    filled = ((at, source[at] if at in source else _filler(source, known, at, filler)) for at in env.window.times())
    return {at: value for at, value in filled if value is not None}


def _filler(source: TimeSeries, known: list[int], at: int, filler: Value | str) -> float | None:
    """What stands for the missing point `at`; None when it stays missing."""
    if not isinstance(filler, str):
        return filler.get(at) if isinstance(filler, Mapping) else _value(filler, at)
    place = bisect.bisect(known, at)
    before = known[place - 1] if place else None
    if before is None:
        return None
    if filler == "REPEAT":
        return source[before]
    if place == len(known):
        return None
    after = known[place]
    return source[before] + (source[after] - source[before]) * (at - before) / (after - before)


def _running_sum(_: _Env, value: Value) -> Value:
    def one(series: TimeSeries) -> TimeSeries:
        total = 0.0
        return {at: (total := total + series[at]) for at in sorted(series)}

    return _each(one, value)


def _steps(function: Callable[[float, float], float]) -> Callable[[_Env, Value], Value]:
    """From each point and the one before it: f(change of value, seconds between)."""

    def one(series: TimeSeries) -> TimeSeries:
        times = sorted(series)
        return {now: function(series[now] - series[before], now - before) for before, now in itertools.pairwise(times)}

    return lambda _, value: _each(one, value)


def _each(function: Callable[[TimeSeries], TimeSeries], value: Value) -> Value:
    if isinstance(value, Mapping):
        return function(value)
    if isinstance(value, list):
        return [function(series) for series in value]
    raise MathError("this function takes a metric, not a number")


def _constant(env: _Env, value: Value) -> Value:
    if isinstance(value, Mapping | list):
        raise MathError("TIME_SERIES takes a number")
    return dict.fromkeys(env.window.times(), value)


def _mapped(function: Callable[[float], float]) -> Callable[[_Env, Value], Value]:
    return lambda _, value: _map(function, value)


_FUNCTIONS: dict[str, tuple[int, Callable[..., Value]]] = {
    "SUM": (1, _over(math.fsum)),
    "AVG": (1, _over(statistics.fmean)),
    "MAX": (1, _over(max)),
    "MIN": (1, _over(min)),
    "STDDEV": (1, _over(statistics.pstdev)),
    "METRIC_COUNT": (1, lambda _, value: float(len(_many(value)))),
    "DATAPOINT_COUNT": (1, _over(lambda values: float(len(values)))),
    "FIRST": (1, lambda _, value: _many(value)[0]),
    "LAST": (1, lambda _, value: _many(value)[-1]),
    "ABS": (1, _mapped(abs)),
    "CEIL": (1, _mapped(math.ceil)),
    "FLOOR": (1, _mapped(math.floor)),
    "LOG": (1, _mapped(math.log)),
    "LOG10": (1, _mapped(math.log10)),
    "IF": (3, _if),
    "RUNNING_SUM": (1, _running_sum),
    "DIFF": (1, _steps(lambda change, _: change)),
    "DIFF_TIME": (1, _steps(lambda _, seconds: seconds)),
    "RATE": (1, _steps(lambda change, seconds: change / seconds)),
    "PERIOD": (1, lambda env, _: float(env.window.period_s)),
    "TIME_SERIES": (1, _constant),
}
