"""The functions of CloudWatch metric math, by their names (`FILL` and `METRICS` are read by the parser)."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from perch.local.metrics.math_values import Env, MathError, TimeSeries, Value, mapped, members, value_at


def _over(function: Callable[[Sequence[float]], float]) -> Callable[[Env, Value], Value]:
    """A number of one series; of an array, a series of what its members have at each time."""

    def apply(_: Env, value: Value) -> Value:
        if isinstance(value, list):
            times = sorted({at for series in value for at in series})
            return {at: function([series[at] for series in value if at in series]) for at in times}
        if isinstance(value, Mapping):
            return function(list(value.values())) if value else {}
        return function([value])

    return apply


def _if(_: Env, condition: Value, then: Value, otherwise: Value) -> Value:
    if isinstance(condition, list):
        raise MathError("the condition of IF must be one metric or a number")
    if not isinstance(condition, Mapping):
        return then if condition else otherwise
    chosen: dict[int, float] = {}
    for at, holds in condition.items():
        branch = then if holds else otherwise
        if not isinstance(branch, Mapping) or at in branch:
            chosen[at] = value_at(branch, at)
    return chosen


def fill(env: Env, source: Value, filler: Value | str) -> Value:
    """Give a series the points that it lacks; `filler` is REPEAT, LINEAR, or what stands for them."""
    if isinstance(source, list):
        return [series for one in source if isinstance(series := fill(env, one, filler), Mapping)]
    if not isinstance(source, Mapping):
        return source
    known = sorted(source)
    filled = ((at, source[at] if at in source else _filler(source, known, at, filler)) for at in env.window.times())
    return {at: value for at, value in filled if value is not None}


def _filler(source: TimeSeries, known: list[int], at: int, filler: Value | str) -> float | None:
    """What stands for the missing point `at`; None when it stays missing."""
    if not isinstance(filler, str):
        return filler.get(at) if isinstance(filler, Mapping) else value_at(filler, at)
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


def _running_sum(_: Env, value: Value) -> Value:
    def one(series: TimeSeries) -> TimeSeries:
        total = 0.0
        return {at: (total := total + series[at]) for at in sorted(series)}

    return _each(one, value)


def _steps(function: Callable[[float, float], float]) -> Callable[[Env, Value], Value]:
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


def _constant(env: Env, value: Value) -> Value:
    if isinstance(value, Mapping | list):
        raise MathError("TIME_SERIES takes a number")
    return dict.fromkeys(env.window.times(), value)


def _mapped(function: Callable[[float], float]) -> Callable[[Env, Value], Value]:
    return lambda _, value: mapped(function, value)


FUNCTIONS: dict[str, tuple[int, Callable[..., Value]]] = {
    "SUM": (1, _over(math.fsum)),
    "AVG": (1, _over(statistics.fmean)),
    "MAX": (1, _over(max)),
    "MIN": (1, _over(min)),
    "STDDEV": (1, _over(statistics.pstdev)),
    "METRIC_COUNT": (1, lambda _, value: float(len(members(value)))),
    "DATAPOINT_COUNT": (1, _over(lambda values: float(len(values)))),
    "FIRST": (1, lambda _, value: members(value)[0]),
    "LAST": (1, lambda _, value: members(value)[-1]),
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
