"""Log lines of functions, written to moto's CloudWatch Logs where `FilterLogEvents` reads them.

Lines are gathered and written in batches by whoever writes the line that fills a batch, or asks to `flush()`; groups
and streams are made as Lambda makes them. A group keeps its newest lines up to a cap, because a local cloud runs for
days of virtual time. Lines go into the stream directly: PutLogEvents refuses times that are far from this machine's
clock, and virtual time is.

`FilterLogEvents` reads JSON filter patterns (`log_patterns`) as well as terms, answers in order of time whatever the
stream, and in pages of at most 1 MB. moto returns every line for a pattern that it does not know; here such a pattern
is refused.

Left out: subscription filters and metric filters (the metric store reads EMF lines by itself); space-delimited and
regular-expression patterns; `startFromHead`.
"""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Self

from moto.logs import models
from moto.logs.exceptions import InvalidParameterException, ResourceNotFoundException
from moto.logs.utils import EventMessageFilter

from perch.local.patches import Patches
from perch.local.strict.functions import DEFAULT_ACCOUNT, DEFAULT_REGION
from perch.local.strict.log_patterns import InvalidPatternError, compile_json


class _Line(models.LogEvent):  # type: ignore[misc]  # moto carries no types
    """A log event that moto's instance tracker does not hold on to for ever."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004 - as the tracker's
        return object.__new__(cls)


class MotoLogSink:
    """`LogSink` on moto's logs backend of one account and region; safe to call from any thread.

    `batch` lines are gathered before they are written, and a group keeps at most `cap` lines.
    """

    def __init__(
        self,
        account_id: str = DEFAULT_ACCOUNT,
        region: str = DEFAULT_REGION,
        *,
        batch: int = 256,
        cap: int = 20_000,
    ) -> None:
        self._account_id = account_id
        self._region = region
        self._batch = batch
        self._cap = cap
        self._waiting: list[tuple[str, str, datetime, str]] = []
        self._lock = threading.Lock()
        self._order: dict[str, deque[Any]] = defaultdict(deque)
        _sinks.add(self)

    def write(self, group: str, stream: str, at: datetime, line: str) -> None:
        """Append one line; it is readable after the batch is full or `flush()` was called."""
        with self._lock:
            self._waiting.append((group, stream, at, line))
            if len(self._waiting) >= self._batch:
                self._write_all()

    def flush(self) -> None:
        """Write what is waiting."""
        with self._lock:
            self._write_all()

    def _write_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        gathered: dict[tuple[str, str], list[Any]] = defaultdict(list)
        for group, stream, at, line in waiting:
            milliseconds = int(at.timestamp() * 1000)
            gathered[(group, stream)].append(_Line(milliseconds, {"timestamp": milliseconds, "message": line}))
        for (group, stream), events in gathered.items():
            self._append(group, stream, events)

    def _append(self, group_name: str, stream_name: str, events: list[Any]) -> None:
        backend = models.logs_backends[self._account_id][self._region]
        if group_name not in backend.groups:
            backend.create_log_group(group_name, {})
            self._order[group_name].clear()
        group = backend.groups[group_name]
        if stream_name not in group.streams:
            group.create_log_stream(stream_name)
        stream = group.streams[stream_name]
        stream.events.extend(events)
        stream.stored_bytes += sum(len(event.message) for event in events)
        stream.last_ingestion_time = models.utcnow()
        stream.upload_sequence_token += 1
        order = self._order[group_name]
        order.append((stream_name, len(events)))
        self._trim(group, order)

    def _trim(self, group: Any, order: deque[Any]) -> None:
        excess = sum(len(stream.events) for stream in group.streams.values()) - self._cap
        while excess > 0 and order:
            name, count = order.popleft()
            stream = group.streams.get(name)
            if stream is None:
                continue
            drop = min(count, excess)
            del stream.events[:drop]
            excess -= drop
            if drop < count:
                order.appendleft((name, count - drop))
            elif not stream.events:
                del group.streams[name]


_sinks: weakref.WeakSet[MotoLogSink] = weakref.WeakSet()


def _flushing(method: Any) -> Any:
    def flushed(*args: Any, **kwargs: Any) -> Any:
        for sink in list(_sinks):
            sink.flush()
        return method(*args, **kwargs)

    return flushed


_PAGE_BYTES, _PAGE_EVENTS = 1_048_576, 10_000


def _filter_log_events(
    self: models.LogsBackend,
    log_group_name: str,
    log_stream_names: list[str],
    start_time: int | None,
    end_time: int | None,
    limit: int | None,
    next_token: str | None,
    filter_pattern: str | None,
    interleaved: bool,  # noqa: ARG001 - ignored since 2019: events are always interleaved
) -> tuple[list[dict[str, Any]], str | None, list[dict[str, Any]]]:
    for sink in list(_sinks):
        sink.flush()
    if log_group_name not in self.groups:
        raise ResourceNotFoundException
    if limit is not None and not 1 <= limit <= _PAGE_EVENTS:
        raise InvalidParameterException(
            constraint=f"Member must have value between 1 and {_PAGE_EVENTS}", parameter="limit", value=limit
        )
    matches = _test(filter_pattern or "")
    found = [
        (event, name)
        for name, stream in self.groups[log_group_name].streams.items()
        if not log_stream_names or name in log_stream_names
        for event in stream.events
        if (start_time is None or event.timestamp >= start_time) and (end_time is None or event.timestamp <= end_time)
    ]
    found.sort(key=_order)
    after = _position(next_token)
    page: list[dict[str, Any]] = []
    size = 0
    for event, name in found:
        if _order((event, name)) <= after or not matches(event.message):
            continue
        size += len(event.message.encode())
        if page and (size > _PAGE_BYTES or len(page) >= (limit or _PAGE_EVENTS)):
            last = page[-1]
            return page, f"{last['timestamp']}/{last['eventId']}", []
        page.append(event.to_filter_dict() | {"logStreamName": name})
    return page, None, []


def _order(found: tuple[Any, str]) -> tuple[int, int]:
    return found[0].timestamp, found[0].event_id


def _position(token: str | None) -> tuple[int, int]:
    try:
        at, _, event = (token or "-1/-1").partition("/")
        return int(at), int(event)
    except ValueError:
        raise InvalidParameterException(msg="The specified nextToken is invalid.") from None


def _test(pattern: str) -> Callable[[str], bool]:
    kind = pattern.strip()[:1]
    if kind == "{":
        try:
            return compile_json(pattern)
        except InvalidPatternError as error:
            raise InvalidParameterException(msg=str(error)) from None
    if kind in ("[", "%"):
        raise InvalidParameterException(msg=f"{pattern!r}: only terms and JSON patterns are understood here")
    terms = EventMessageFilter(pattern)
    return lambda message: bool(terms.matches(message))


def install(patches: Patches) -> None:
    """Let every read of logs see the lines that are still waiting, and filter as CloudWatch Logs does."""
    for name in ("get_log_events", "describe_log_streams", "describe_log_groups"):
        patches.set(models.LogsBackend, name, _flushing(getattr(models.LogsBackend, name)))
    patches.set(models.LogsBackend, "filter_log_events", _filter_log_events)
