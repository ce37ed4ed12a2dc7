"""CloudWatch's embedded metric format: metrics that a function writes as a line of JSON in its log.

`measurements` reads one log line by the published specification. A document that breaks a rule yields nothing at all,
as in CloudWatch, and a function is never disturbed by it. A member named by a directive but missing from the root
yields nothing for that metric or dimension set only. The storage resolution is checked and otherwise ignored: the
metric store here keeps what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from perch.local.json_text import NotJson, parse

MAX_METRICS = 100
MAX_VALUES = 100
MAX_DIMENSIONS = 30
MAX_DIMENSION_LENGTH = 1024
_OLDEST = timedelta(days=14)
_LATEST = timedelta(hours=2)

_SIZES = (
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
)
_UNITS = frozenset(
    [
        *_SIZES,
        *(f"{size}/Second" for size in _SIZES),
        *("Seconds", "Microseconds", "Milliseconds", "Percent", "Count", "Count/Second", "None"),
    ]
)

_MARK = re.compile(rb'"CloudWatchMetrics"\s*:')


class Measurement(NamedTuple):
    """One value of one metric in one dimension set; `at` is aware and in UTC."""

    namespace: str
    name: str
    dimensions: dict[str, str]
    value: float
    unit: str
    at: datetime


class _MalformedError(Exception):
    """The document breaks the specification."""


def measurements(line: bytes, now: datetime) -> tuple[Measurement, ...]:
    """Return what a log line measures; nothing for an ordinary or malformed line.

    Args:
        line: One log line without its line end. It must be the JSON document and nothing else.
        now: The time of ingestion; a timestamp over two weeks older or two hours newer is not accepted.
    """
    if b'"_aws"' not in line or not _MARK.search(line):  # the usual line is no JSON, let alone EMF
        return ()
    try:
        root = parse(line)
        return tuple(_read(root, now))
    except (NotJson, _MalformedError):
        return ()


def _read(root: Any, now: datetime) -> Iterator[Measurement]:
    metadata = _of(root, dict).get("_aws")
    at = _time(_of(metadata, dict).get("Timestamp"), now)
    for directive in _of(metadata.get("CloudWatchMetrics"), list):
        namespace = _text(_of(directive, dict).get("Namespace"), 1024)
        metrics = _of(directive.get("Metrics"), list)
        if len(metrics) > MAX_METRICS:
            raise _MalformedError
        definitions = [_definition(root, metric) for metric in metrics]
        for keys in _of(directive.get("Dimensions"), list):
            dimensions = _dimensions(root, _of(keys, list))
            for name, unit, values in definitions:
                for value in values:
                    yield Measurement(
                        namespace=namespace, name=name, dimensions=dimensions, value=value, unit=unit, at=at
                    )


def _definition(root: dict[str, Any], metric: Any) -> tuple[str, str, list[float]]:
    name = _text(_of(metric, dict).get("Name"), 1024)
    unit = _text(metric.get("Unit", "None"), 32)
    if unit not in _UNITS or metric.get("StorageResolution", 60) not in (1, 60) or name not in root:
        raise _MalformedError
    target = root[name]
    values = target if isinstance(target, list) else [target]
    if len(values) > MAX_VALUES or any(
        isinstance(value, bool) or not isinstance(value, int | float) for value in values
    ):
        raise _MalformedError
    try:
        return name, unit, [float(value) for value in values]
    except OverflowError as error:  # a whole number has no largest, a measurement has
        raise _MalformedError from error


def _dimensions(root: dict[str, Any], keys: list[Any]) -> dict[str, str]:
    if len(keys) > MAX_DIMENSIONS:
        raise _MalformedError
    names = [_text(key, 255) for key in keys]
    return {name: _text(root.get(name), MAX_DIMENSION_LENGTH) for name in names}


def _time(timestamp: Any, now: datetime) -> datetime:
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float):
        raise _MalformedError
    try:
        at = datetime.fromtimestamp(timestamp / 1000, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise _MalformedError from error
    if not now - _OLDEST <= at <= now + _LATEST:
        raise _MalformedError
    return at


def _text(value: Any, longest: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise _MalformedError
    return value


def _of(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise _MalformedError
    return value
