"""Log lines of functions, written to moto's CloudWatch Logs where `FilterLogEvents` reads them.

Lines are gathered and written in batches by whoever writes the line that fills a batch, or asks to `flush()`; groups
and streams are made as Lambda makes them. A group keeps its newest lines up to a cap, because a local cloud runs for
days of virtual time. Lines go into the stream directly: PutLogEvents refuses times that are far from this machine's
clock, and virtual time is.

Left out: subscription filters and metric filters (the metric store reads EMF lines by itself).
"""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict, deque
from datetime import datetime
from typing import Any, Self

from moto.logs import models

from perch.local.patches import Patches
from perch.local.strict.functions import DEFAULT_ACCOUNT, DEFAULT_REGION


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


def install(patches: Patches) -> None:
    """Let every read of logs see the lines that are still waiting."""
    for name in ("filter_log_events", "get_log_events", "describe_log_streams", "describe_log_groups"):
        patches.set(models.LogsBackend, name, _flushing(getattr(models.LogsBackend, name)))
