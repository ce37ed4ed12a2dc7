"""Compare the inputs of a request with the ranges that the model's author declared.

Everything is prepared at init: of a matrix the lowest and the highest value of each column, in the model's own type, so
that a request costs two comparisons of arrays however many columns have a range. A bound is rounded to that type as a
request's number is: 0.1 is not above a max of 0.1. Only a request that is refused is looked at closely, to name the
field, the row and the limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perch.artifacts.signature import Range, Signature

from .errors import RequestRefused
from .tensors import KINDS


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Of one input: the lowest and highest values (None: none is declared), each one number or one a column."""

    low: Any
    high: Any


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """The only values that an input may have, or one column of it."""

    values: NDArray[Any]
    column: int | None


@dataclass(frozen=True)
class Limits:
    """The ranges of a model, ready to be compared with."""

    signature: Signature
    bounds: Mapping[str, Bounds]
    allowed: Mapping[str, tuple[Allowed, ...]]

    def check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Make sure that all values lie in their ranges. Raises `RequestRefused` (400)."""
        for name, bounds in self.bounds.items():
            array = inputs[name]
            if bounds.low is not None and (array < bounds.low).any():
                raise self._fault(inputs)
            if bounds.high is not None and (array > bounds.high).any():
                raise self._fault(inputs)
        for name, sets in self.allowed.items():
            for one in sets:
                given = inputs[name] if one.column is None else inputs[name][:, one.column]
                if not _among(given, one.values).all():
                    raise self._fault(inputs)

    def _fault(self, inputs: Mapping[str, NDArray[Any]]) -> RequestRefused:
        """Name the first value that is outside of its range."""
        for field, rule in _rules(self.signature):
            name, column = _place(self.signature, field)
            array = inputs[name] if column is None else inputs[name][:, column]
            bad = np.argwhere(_outside(array, rule))
            if len(bad):
                where = f"row {bad[0][0] + 1}" if array.ndim else "the request"
                named = f"column {column + 1}" if column is not None and field.isdecimal() else f"{field!a}"
                value = array[tuple(bad[0])]
                shown = f"{str(value)[:40]!a}" if isinstance(value, str) else f"{value}"
                return RequestRefused(400, f"{named} in {where} is {shown}; {_said(rule)}")
        raise AssertionError("a comparison of arrays found what a closer look does not")


def limits_of(signature: Signature) -> Limits | None:
    """Prepare the ranges of a model, None if it declares none."""
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    allowed: dict[str, tuple[Allowed, ...]] = {}
    types = {tensor.name: KINDS[tensor.datatype].dtype for tensor in signature.inputs}
    for field, rule in _rules(signature):
        name, column = _place(signature, field)
        if rule.min is not None:
            low = _rounded(rule.min, types[name])
            lows[name] = _with_bound(lows.get(name), low, signature, column, highest=False)
        if rule.max is not None:
            high = _rounded(rule.max, types[name])
            highs[name] = _with_bound(highs.get(name), high, signature, column, highest=True)
        if rule.values is not None:
            values = np.array([_rounded(value, types[name]) for value in rule.values], dtype=types[name])
            allowed[name] = (*allowed.get(name, ()), Allowed(values=values, column=column))
    bounds = {name: Bounds(low=lows.get(name), high=highs.get(name)) for name in lows.keys() | highs.keys()}
    return Limits(signature, bounds, allowed) if bounds or allowed else None


def _with_bound(known: Any, bound: Any, signature: Signature, column: int | None, *, highest: bool) -> Any:
    """The bounds of an input and one more; of a matrix they are one a column, and the tighter of two counts."""
    if not signature.is_matrix:
        return bound
    if known is None:
        known = np.full(signature.features, _end(bound.dtype, highest=highest))
    place = slice(None) if column is None else column
    known[place] = (np.minimum if highest else np.maximum)(known[place], bound)
    return known


def _rules(signature: Signature) -> Iterable[tuple[str, Range]]:
    return () if signature.ranges is None else signature.ranges.rules


def _place(signature: Signature, field: str) -> tuple[str, int | None]:
    """The input that a range is about, and which column of it."""
    return (signature.inputs[0].name, signature.column(field)) if signature.is_matrix else (field, None)


def _rounded(value: Any, dtype: np.dtype[Any]) -> Any:
    """A value as it would be if it came in a request; a declared one fits into its type."""
    return value if dtype.kind == "O" else dtype.type(value)


def _end(dtype: np.dtype[Any], *, highest: bool) -> Any:
    """The end of a type, of a column that has no bound."""
    if dtype.kind == "f":
        return dtype.type(np.inf if highest else -np.inf)
    return dtype.type(np.iinfo(dtype).max if highest else np.iinfo(dtype).min)


def _outside(array: NDArray[Any], rule: Range) -> NDArray[Any]:
    found = np.zeros(array.shape, dtype=np.bool_)
    if rule.min is not None:
        found |= array < _rounded(rule.min, array.dtype)
    if rule.max is not None:
        found |= array > _rounded(rule.max, array.dtype)
    if rule.values is not None:
        values = np.array([_rounded(value, array.dtype) for value in rule.values], dtype=array.dtype)
        found |= ~_among(array, values)
    return found


def _among(array: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which elements are one of the values; what is missing (NaN, None) breaks no rule, where it may be missing."""
    found = np.isin(array, values)
    if array.dtype.kind == "O":
        return found | np.array([one is None for one in array.flat], dtype=np.bool_).reshape(array.shape)
    return found | np.isnan(array) if array.dtype.kind == "f" else found


def _said(rule: Range) -> str:
    """A range in words."""
    if rule.values is not None:
        shown = ", ".join(f"{value!a}" for value in rule.values[:10])
        return f"{shown}{f' and {len(rule.values) - 10} more' if len(rule.values) > 10 else ''} are taken"
    low, high = (str(bound).removesuffix(".0") for bound in (rule.min, rule.max))  # in full: one more may be too many
    if rule.min is None:
        return f"at most {high} is taken"
    return f"at least {low} is taken" if rule.max is None else f"{low} to {high} is taken"
