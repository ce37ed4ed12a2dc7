"""Frozen values to plain JSON documents and back.

`dump` and `load` are inverse for every value of the domain: dataclasses of text, numbers, booleans, times (aware, UTC),
enumerations, tuples, dictionaries and optional fields. A document may lack fields that have defaults, so that a value
written by an older release can still be read.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_SCALARS: dict[Any, Any] = {str: str, int: int, float: (int, float), bool: bool}


def dump(value: Any) -> Any:
    """Return `value` as JSON-able data; times become ISO 8601 text in UTC."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: dump(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return {str(k): dump(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [dump(v) for v in value]
    return value


def load(kind: type[T], document: Any) -> T:
    """Return the value of type `kind` that `document` describes.

    Raises:
        TypeError: a required field is missing.
        ValueError: a field holds something of another type, or a time or an enumeration something else.
    """
    return _load(kind, document)  # type: ignore[no-any-return]


def iso(at: datetime) -> str:
    """Return a time as ISO 8601 text in UTC, always with microseconds, so that text order is time order."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> datetime:
    """Return the aware UTC time that an ISO 8601 text names. Raises ValueError for anything else."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _load(kind: Any, data: Any) -> Any:  # noqa: PLR0911 - one return a kind of type reads as a table
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if data is None:
            return None
        return _load(next(a for a in get_args(kind) if a is not type(None)), data)
    if origin is tuple:
        return tuple(_load(get_args(kind)[0], item) for item in data)
    if origin in (dict, Mapping):
        return {k: _load(get_args(kind)[1], v) for k, v in data.items()}
    if dataclasses.is_dataclass(kind):
        hints = _hints(kind)  # type: ignore[arg-type]
        return kind(**{k: _load(hints[k], v) for k, v in data.items() if k in hints})  # type: ignore[operator]
    if kind is datetime:
        return parse_time(data)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    if kind in _SCALARS:
        if not isinstance(data, _SCALARS[kind]) or (isinstance(data, bool) and kind is not bool):
            raise ValueError(f"{data!r} is not {kind.__name__}")
        return float(data) if kind is float else data
    return data
