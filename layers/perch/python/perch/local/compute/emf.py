"""CloudWatch's embedded metric format: metrics that a function writes as a line of JSON in its log.

`EmbeddedMetrics` reads log lines by the published specification. A document that breaks a rule, or lacks a member that
one of its directives names, yields nothing at all, as in CloudWatch, and a function is never disturbed by it. The
storage resolution is checked and otherwise ignored: the metric store here keeps what it is given.

A function writes the same directives with every line, so what they say is read once and looked up by their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from perch.local.json_text import NotJson, parse
from perch.local.ports import Metric, MetricSink, Recorder

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

_TEXT, _NUMBER = frozenset([str]), frozenset([int, float])  # true and false are no numbers
_KEPT = 256  # how many texts of directives are remembered, and how many recorders for each


class _Metadata(msgspec.Struct):
    directives: msgspec.Raw = msgspec.field(name="CloudWatchMetrics")


class _Document(msgspec.Struct):
    metadata: _Metadata = msgspec.field(name="_aws")


_document = msgspec.json.Decoder(_Document)


class _MalformedError(Exception):
    """The document breaks the specification."""


class _Definition(NamedTuple):
    """One metric of one directive, with the names of its dimensions."""

    namespace: str
    name: str
    unit: str
    dimensions: tuple[tuple[str, ...], ...]


class _Directives:
    """What one text of directives says, and what records the metrics of it: by the values of the dimensions."""

    def __init__(self, text: bytes) -> None:
        self.definitions = tuple(
            definition for directive in _of(parse(text), list) for definition in _definitions(_of(directive, dict))
        )
        sets = (names for definition in self.definitions for names in definition.dimensions)
        self.dimensions = tuple(dict.fromkeys(name for names in sets for name in names))
        self.recorders: dict[tuple[Any, ...], Recorder] = {}

    def metrics(self, root: dict[str, Any]) -> tuple[Metric, ...]:
        """Return the metrics as a document has them."""
        texts = {name: _text(root.get(name), MAX_DIMENSION_LENGTH) for name in self.dimensions}
        return tuple(
            Metric(
                namespace=one.namespace,
                name=one.name,
                unit=one.unit,
                dimensions=tuple({name: texts[name] for name in names} for names in one.dimensions),
            )
            for one in self.definitions
        )


class EmbeddedMetrics:
    """Records what log lines measure; belongs to one thread."""

    def __init__(self, sink: MetricSink) -> None:
        """Record with `sink`."""
        self._sink = sink
        self._known: dict[bytes, _Directives] = {}

    def take(self, line: bytes, now: datetime) -> None:
        """Record what a log line measures; nothing for an ordinary or malformed line.

        Args:
            line: One log line without its line end. It must be the JSON document and nothing else.
            now: The time of ingestion; a timestamp over two weeks older or two hours newer is not accepted.
        """
        if b'"_aws"' not in line:  # the usual line is no JSON, let alone EMF
            return
        try:
            root = _of(parse(line), dict)
            directives = self._read(bytes(_document.decode(line).metadata.directives))
            at = _time(root["_aws"].get("Timestamp"), now)
            values = [_values(root.get(one.name)) for one in directives.definitions]
            recorder = self._recorder(directives, root)
        except (NotJson, msgspec.ValidationError, _MalformedError):
            return
        if all(len(found) == 1 for found in values):
            recorder.record([found[0] for found in values], at)
        else:
            for metric, found in zip(directives.metrics(root), values, strict=True):
                alone = self._sink.recorder((metric,))
                for value in found:
                    alone.record((value,), at)

    def _read(self, text: bytes) -> _Directives:
        found = self._known.get(text)
        if found is None:
            if len(self._known) == _KEPT:
                self._known.clear()
            found = self._known[text] = _Directives(text)
        return found

    def _recorder(self, directives: _Directives, root: dict[str, Any]) -> Recorder:
        found = None
        texts = tuple(map(root.get, directives.dimensions))
        if _TEXT.issuperset(map(type, texts)):
            found = directives.recorders.get(texts)
        if found is None:
            if len(directives.recorders) == _KEPT:
                directives.recorders.clear()
            found = directives.recorders[texts] = self._sink.recorder(directives.metrics(root))
        return found


def _definitions(directive: dict[str, Any]) -> list[_Definition]:
    namespace = _text(directive.get("Namespace"), 1024)
    metrics = _of(directive.get("Metrics"), list)
    if len(metrics) > MAX_METRICS:
        raise _MalformedError
    dimensions = tuple(_names(names) for names in _of(directive.get("Dimensions"), list))
    return [_definition(namespace, _of(metric, dict), dimensions) for metric in metrics]


def _definition(namespace: str, metric: dict[str, Any], dimensions: tuple[tuple[str, ...], ...]) -> _Definition:
    name, unit = _text(metric.get("Name"), 1024), _text(metric.get("Unit", "None"), 32)
    if unit not in _UNITS or metric.get("StorageResolution", 60) not in (1, 60):
        raise _MalformedError
    return _Definition(namespace, name, unit, dimensions)


def _names(names: Any) -> tuple[str, ...]:
    if len(_of(names, list)) > MAX_DIMENSIONS:
        raise _MalformedError
    return tuple(_text(name, 255) for name in names)


def _values(target: Any) -> Sequence[float]:
    """The values of one metric: its number, or its numbers."""
    values = target if type(target) is list else (target,)
    if len(values) > MAX_VALUES or not _NUMBER.issuperset(map(type, values)):
        raise _MalformedError
    try:
        return tuple(map(float, values))
    except OverflowError as error:  # a whole number has no largest, a measurement has
        raise _MalformedError from error


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
