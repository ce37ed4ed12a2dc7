"""Decode a request: HTTP API payload format 2.0 in, rows of numbers out, or a sentence that says what is wrong.

The straight way is short: one typed JSON parse, one array, two comparisons. Only when one of them fails is the body
parsed as whatever it is, and does `_explain` walk the rows to name the first fault. Rows and features are counted from
1 in what it says. true and false are 1 and 0; null is NaN for a model that takes missing values (`Tensor.missing`).

Nothing but numbers reaches numpy: it makes every cell as wide as the widest, so that one long text among numbers would
take gigabytes. A request takes memory in proportion to its body, whatever is in it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .body import body_of
from .errors import RequestRefused
from .tensors import is_finite

MAX_ROWS = 1_000
"""Rows of one request."""

_EXAMPLE = 'send {"features": [[…], …]}'

_Number = int | float | bool
_Rows = list[list[_Number] | _Number]
_Gapped = list[list[_Number | None] | _Number | None]


class _Body(msgspec.Struct):
    features: _Rows


class _GappedBody(msgspec.Struct):
    features: _Gapped


_decoder = msgspec.json.Decoder(_Body)
_gapped_decoder = msgspec.json.Decoder(_GappedBody)


def decode(event: Mapping[str, Any], features: int, dtype: np.dtype[Any], *, missing: bool = False) -> NDArray[Any]:
    """Return the rows of a request as an array of `dtype`, n by `features`.

    Args:
        event: the request.
        features: numbers in a row.
        dtype: of the model's numbers.
        missing: whether the model takes rows with gaps.

    Raises:
        RequestRefused: 400 or 413, in words.
    """
    body = body_of(event)
    if not body:
        raise RequestRefused(400, f"the request has no body; {_EXAMPLE}")
    try:
        given = (_gapped_decoder if missing else _decoder).decode(body).features
    except (ValueError, RecursionError) as error:  # msgspec's own errors and Unicode's are ValueErrors
        raise RequestRefused(400, _explain(_features(body), features)) from error
    return _array(given, features, dtype, missing=missing)


def rows_of(given: Any, features: int, dtype: np.dtype[Any], *, missing: bool = False) -> NDArray[Any]:
    """Return rows that came as any JSON as an array of `dtype`, n by `features`. Raises `RequestRefused` (400)."""
    try:
        return _array(msgspec.convert(given, _Gapped if missing else _Rows), features, dtype, missing=missing)
    except msgspec.ValidationError as error:
        raise RequestRefused(400, _explain(given, features)) from error


def _array(given: Any, features: int, dtype: np.dtype[Any], *, missing: bool) -> NDArray[Any]:
    """Numbers, in rows or in one row, as an array."""
    if not given or (isinstance(given[0], list) and len(given) > MAX_ROWS):
        raise RequestRefused(400, _explain(given, features))
    if dtype.kind == "f" and (packed := _packed(given, features, dtype)) is not None:
        return packed
    if missing:
        given = [[_filled(value) for value in row] if isinstance(row, list) else _filled(row) for row in given]
    try:
        rows = np.array(given)
    except ValueError:  # rows of different lengths
        rows = np.array(None)
    if rows.ndim == 1:
        rows = rows[np.newaxis]
    if rows.dtype.kind == "f" and dtype.kind != "f" and rows.ndim == 2:
        # Beside a float NumPy made floats of whole numbers too, and took their last digits.
        rows = np.array(
            [[_whole(value) for value in row] for row in (given if isinstance(given[0], list) else (given,))]
        )
    if rows.dtype.kind == "O" and rows.ndim == 2:
        rows = _widened(rows) if dtype.kind == "f" else _narrowed(rows, dtype)
    if rows.ndim != 2 or rows.shape[1] != features or rows.dtype.kind not in "fiub":
        raise RequestRefused(400, _explain(given, features))
    return _converted(rows, dtype, np.isnan(rows) if missing and rows.dtype.kind == "f" else None)


def _whole(value: Any) -> Any:
    """1.0 as 1; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _filled(value: _Number | None) -> _Number:
    return math.nan if value is None else value


def _packed(given: Any, features: int, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Rows as they usually come, in half the time that NumPy takes; None for whatever needs a closer look."""
    rows = given if isinstance(given[0], list) else (given,)
    try:
        if set(map(len, rows)) != {features}:
            return None
        packed = struct.pack(f"{len(rows) * features}{dtype.char}", *chain.from_iterable(rows))
    except (TypeError, struct.error, OverflowError):
        return None
    array = np.frombuffer(packed, dtype=dtype).reshape(len(rows), features)
    return array if is_finite(array) else None


def _features(body: str | bytes) -> Any:
    """Whatever stands under "features" in a body that the typed decoder did not take."""
    document = object_of(body, _EXAMPLE)
    if "features" not in document:
        raise RequestRefused(400, f'the body has no "features"; {_EXAMPLE}')
    return document["features"]


def object_of(body: str | bytes, example: str) -> dict[str, Any]:
    """Parse a body as a JSON object of anything; `example` says what to send. Raises `RequestRefused` (400)."""
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(400, not_json(body, error)) from error
    if not isinstance(document, dict):
        raise RequestRefused(400, f"the body is not a JSON object; {example}")
    return document


def not_json(body: str | bytes, error: Exception) -> str:
    """Say why a body is not JSON."""
    hint = " (NaN and Infinity are not JSON numbers)" if _mentions_nan(body) else ""
    return f"the body is not JSON: {_reason(error)}{hint}"


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    text = str(error).removeprefix("JSON is malformed: ").partition(" - at `")[0]
    return text[:1].lower() + text[1:]


def _mentions_nan(body: str | bytes) -> bool:
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    return "NaN" in text or "Infinity" in text


def _widened(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows as floats: nothing but whole numbers of more than 64 bits kept them from being numbers."""
    return np.array([[_float(value) for value in row] for row in rows])


def _narrowed(rows: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Rows as whole numbers, compared before any is rounded. Raises `RequestRefused` (400) for one that is none."""
    limits = np.iinfo(dtype)
    for place, value in np.ndenumerate(rows):
        if not (limits.min <= value <= limits.max and value == int(value)):
            raise _misfit(place, value, dtype)
    return rows.astype(dtype)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number has no largest
        return math.inf if value > 0 else -math.inf


def _converted(rows: NDArray[Any], dtype: np.dtype[Any], gaps: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Rows in the model's own type; a number that does not fit it is refused rather than bent. NaN may be in `gaps`."""
    if dtype.kind == "f":
        if rows.dtype.itemsize > dtype.itemsize:
            with np.errstate(over="ignore"):
                converted = rows.astype(dtype)
        else:
            converted = rows.astype(dtype, copy=False)
        fits = np.isfinite(converted)
        if gaps is not None:
            fits |= gaps
        if fits.all():
            return converted
        bad = np.argwhere(~fits)[0]
    else:
        limits = np.iinfo(dtype)
        if rows.dtype.kind == "f":
            # The largest number of 64 bits is none of a float, and would be rounded up; the one after it is.
            fits = (rows >= float(limits.min)) & (rows < float(limits.max + 1)) & (rows == np.floor(rows))
        else:
            rows = rows if rows.dtype.kind != "b" else rows.astype(dtype)
            fits = (rows >= limits.min) & (rows <= limits.max)
        if fits.all():
            return rows.astype(dtype)
        bad = np.argwhere(~fits)[0]
    raise _misfit(bad, rows[*bad], dtype)


def _misfit(place: Sequence[int], value: float, dtype: np.dtype[Any]) -> RequestRefused:
    row, column = place
    value = value if -(2**70) < value < 2**70 else _float(value)  # Python writes no number of thousands of digits
    return RequestRefused(400, f"feature {column + 1} in row {row + 1} is {value}, which is no {dtype.name} number")


def _explain(given: Any, features: int) -> str:
    """Say what is wrong with features that did not become rows of numbers."""
    if not isinstance(given, list) or not given:
        return f'"features" is {_named(given)}; {_EXAMPLE}'
    if isinstance(given[0], list) and len(given) > MAX_ROWS:
        return f"the request has {len(given):,} rows; at most {MAX_ROWS:,} are taken at once, send it in parts"
    return _first_fault(given, features)


def _first_fault(given: list[Any], features: int) -> str:
    rows = given if isinstance(given[0], list) else [given]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list):
            return f"row {number} is {_named(row)}; a row is a list of {features} numbers"
        for position, value in enumerate(row, start=1):
            if isinstance(value, list):
                return f"feature {position} in row {number} is a list; features are rows of numbers, two levels deep"
            if not isinstance(value, (int, float)):
                return f"feature {position} in row {number} is {_named(value)}; a feature is a number"
        if len(row) != features:
            return f"expected {features} features, got {len(row)} in row {number}"
    return f"the features are not rows of {features} numbers"


def _named(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (bool, int, float)):
        return "a single number"
    if isinstance(value, str):
        return "a string"
    return "an object" if isinstance(value, dict) else "empty"
