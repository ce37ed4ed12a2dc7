"""The metric store: measurements in, statistics over periods out.

A series is a namespace, a name and a set of dimensions; series with other dimensions are strangers, as in CloudWatch.
Each measurement falls into a bucket of ten seconds that keeps the count, the sum, the extremes and a histogram;
asking for a period merges its buckets. After three hours the ten-second buckets are merged into minutes, after
`retention` the minutes are dropped, so memory is bounded by series and time, not by traffic.

The histogram's bins grow by 2 % each, so a percentile is within 1 % (relative) of the nearest-rank percentile of what
was put; `Minimum` and `Maximum` are exact and bound it. As in CloudWatch, a statistic set (`put_statistics`) has no
distribution, so a period that holds one has no percentiles (unless all its values are equal).

`put` is on the path of every request, so it is one dictionary look-up, one logarithm and a few additions.

Left out: trimmed and winsorised means (TM, WM, TC, TS, PR, IQM), periods below ten seconds, and the five-minute and
hourly tiers of long retention.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

FINE_S = 10
COARSE_S = 60
_FINE_FOR_S = 3 * 3600
_LOG_STEP = math.log(1.02)
_PER_LOG = 1 / _LOG_STEP
_SHIFT = 1 << 20  # keeps the bin number of every positive value positive, so that bins sort as their values do
_PERCENTILE = re.compile(r"[pP](\d{1,2}(?:\.\d{1,10})?|100(?:\.0+)?)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STATISTICS = ("SampleCount", "Sum", "Average", "Minimum", "Maximum")


@dataclass(frozen=True)
class Series:
    """What a metric is known by; `dimensions` are sorted by name."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, namespace: str, name: str, dimensions: Mapping[str, str] | None = None) -> Self:
        """Make the series of a mapping of dimensions."""
        return cls(namespace, name, tuple(sorted((dimensions or {}).items())))


@dataclass(frozen=True)
class Point:
    """One period's statistic. `at` is the start of the period; `samples` is how many measurements it holds."""

    at: datetime
    value: float
    samples: float


class _Bucket:
    __slots__ = ("bins", "count", "high", "low", "opaque", "total")

    def __init__(self) -> None:
        self.count = 0.0
        self.total = 0.0
        self.low = math.inf
        self.high = -math.inf
        self.opaque = False  # holds a statistic set, whose distribution nobody knows
        self.bins: dict[int, float] = {}

    def merge(self, other: _Bucket) -> None:
        self.count += other.count
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.opaque |= other.opaque
        for number, count in other.bins.items():
            self.bins[number] = self.bins.get(number, 0.0) + count

    def statistic(self, name: str, rank: float | None) -> float | None:
        if rank is not None:
            return self._percentile(rank)
        if name == "SampleCount":
            return self.count
        if name == "Sum":
            return self.total
        if name == "Average":
            return self.total / self.count
        return self.low if name == "Minimum" else self.high

    def _percentile(self, rank: float) -> float | None:
        if self.low == self.high:
            return self.low
        if self.opaque:
            return None
        wanted = rank / 100 * self.count
        seen = 0.0
        for number in sorted(self.bins):
            seen += self.bins[number]
            if seen >= wanted - 1e-9:
                return min(max(_value_of(number), self.low), self.high)
        return self.high


class _Stream:
    """The buckets of one series in one unit."""

    __slots__ = ("bucket", "coarse", "fine", "newest", "slot", "unit")

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.fine: dict[int, _Bucket] = {}  # number of the ten seconds -> bucket
        self.coarse: dict[int, _Bucket] = {}  # number of the minute -> bucket
        self.slot = -1  # the ten seconds that were written last, and their bucket
        self.bucket = _Bucket()
        self.newest = 0  # the newest ten seconds ever written


class MetricStore:
    """All series of a local cloud; a `MetricSink`. Safe to call from any thread.

    Args:
        retention: How long minutes are kept, counted back from the newest measurement of the series.
    """

    def __init__(self, *, retention: timedelta = timedelta(days=15)) -> None:
        self._retention_s = int(retention.total_seconds())
        self._lock = threading.Lock()
        self._by_call: dict[tuple[object, ...], _Stream] = {}  # as put() is called, whatever the order of dimensions
        self._streams: dict[Series, list[_Stream]] = {}

    # -- in ----------------------------------------------------------------------------------------------------------

    def put(
        self,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        value: float,
        *,
        at: datetime,
        unit: str = "None",
        count: float = 1.0,
    ) -> None:
        """Record `value`, seen `count` times at `at`, for one series."""
        number = (
            int(math.log(value) * _PER_LOG + _SHIFT)
            if value > 0
            else 0
            if value == 0
            else -int(math.log(-value) * _PER_LOG + _SHIFT)
        )
        call = (namespace, name, unit, *dimensions.items())
        slot = int(at.timestamp()) // FINE_S
        with self._lock:
            stream = self._by_call.get(call)
            if stream is None:
                stream = self._stream(call, namespace, name, dimensions, unit)
            bucket = stream.bucket if slot == stream.slot else self._bucket(stream, slot)
            bucket.count += count
            bucket.total += value * count
            if value < bucket.low:  # noqa: PLR1730 - half the time of min()
                bucket.low = value
            if value > bucket.high:  # noqa: PLR1730 - as above
                bucket.high = value
            bins = bucket.bins
            bins[number] = bins.get(number, 0.0) + count

    def put_statistics(
        self,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        *,
        count: float,
        total: float,
        low: float,
        high: float,
        at: datetime,
        unit: str = "None",
    ) -> None:
        """Record a statistic set: `count` measurements with this sum and these extremes."""
        if low == high:
            self.put(namespace, name, dimensions, low, at=at, unit=unit, count=count)
            return
        call = (namespace, name, unit, *dimensions.items())
        with self._lock:
            stream = self._by_call.get(call) or self._stream(call, namespace, name, dimensions, unit)
            bucket = self._bucket(stream, int(at.timestamp()) // FINE_S)
            bucket.count += count
            bucket.total += total
            bucket.low = min(bucket.low, low)
            bucket.high = max(bucket.high, high)
            bucket.opaque = True

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._by_call.clear()
            self._streams.clear()

    # -- out ---------------------------------------------------------------------------------------------------------

    def statistics(
        self, series: Series, start: datetime, end: datetime, period_s: int, stat: str, *, unit: str | None = None
    ) -> list[Point]:
        """Return one point for each period that has data, oldest first.

        Args:
            series: Which metric.
            start: Where the first period begins; rounded down to the minute (to ten seconds for periods under 60 s).
            end: Periods that begin at `end` or later are not included.
            period_s: 10, 20, 30 or a multiple of 60.
            stat: SampleCount, Sum, Average, Minimum, Maximum, or a percentile such as p99 or p99.9.
            unit: Only measurements in this unit; None for all.

        Raises:
            ValueError: The period or the statistic is not one of these.
        """
        begin, finish = align(int(start.timestamp()), period_s), math.ceil(end.timestamp())
        found = self.window(series, begin, finish, period_s, stat, unit)
        return [Point(_EPOCH + timedelta(seconds=at), value, samples) for at, (value, samples) in found.items()]

    def window(
        self, series: Series, begin: int, end: int, period_s: int, stat: str, unit: str | None = None
    ) -> dict[int, tuple[float, float]]:
        """`statistics` in epoch seconds: start of period -> (value, samples). `begin` must be aligned already."""
        check_period(period_s)
        rank = percentile_rank(stat)
        merged: dict[int, _Bucket] = {}
        with self._lock:
            for stream in self._streams.get(series, ()):
                if unit is not None and stream.unit != unit:
                    continue
                if stream.newest * FINE_S + FINE_S <= begin:
                    continue
                for size, buckets in ((COARSE_S, stream.coarse), (FINE_S, stream.fine)):
                    for slot in _slots(buckets, begin, end, size):
                        at = begin + (slot * size - begin) // period_s * period_s
                        if at < end and slot * size >= begin:
                            merged.setdefault(at, _Bucket()).merge(buckets[slot])
        values = ((at, merged[at].statistic(stat, rank), merged[at].count) for at in sorted(merged) if merged[at].count)
        return {at: (value, samples) for at, value, samples in values if value is not None}

    def series(self, namespace: str | None = None, name: str | None = None) -> list[tuple[Series, datetime]]:
        """Return the series that are known, in order of first measurement, each with when it was last measured."""
        with self._lock:
            return [
                (series, _EPOCH + timedelta(seconds=max(stream.newest for stream in streams) * FINE_S))
                for series, streams in self._streams.items()
                if namespace in (None, series.namespace) and name in (None, series.name)
            ]

    # -- inside (the lock is held) -----------------------------------------------------------------------------------

    def _stream(
        self, call: tuple[object, ...], namespace: str, name: str, dimensions: Mapping[str, str], unit: str
    ) -> _Stream:
        streams = self._streams.setdefault(Series.of(namespace, name, dimensions), [])
        stream = next((stream for stream in streams if stream.unit == unit), None)
        if stream is None:
            stream = _Stream(unit)
            streams.append(stream)
        self._by_call[call] = stream
        return stream

    def _bucket(self, stream: _Stream, slot: int) -> _Bucket:
        """The bucket of a slot, made if need be; the moment to tidy up, because time has moved on."""
        if slot > stream.newest:
            stream.newest = slot
            self._tidy(stream)
        if slot <= stream.newest - _FINE_FOR_S // FINE_S:
            return stream.coarse.setdefault(slot * FINE_S // COARSE_S, _Bucket())
        bucket = stream.fine.get(slot)
        if bucket is None:
            bucket = stream.fine[slot] = _Bucket()
        stream.slot, stream.bucket = slot, bucket
        return bucket

    def _tidy(self, stream: _Stream) -> None:
        fine_from = stream.newest - _FINE_FOR_S // FINE_S
        while stream.fine and (slot := next(iter(stream.fine))) <= fine_from:
            stream.coarse.setdefault(slot * FINE_S // COARSE_S, _Bucket()).merge(stream.fine.pop(slot))
        coarse_from = (stream.newest * FINE_S - self._retention_s) // COARSE_S
        while stream.coarse and (minute := next(iter(stream.coarse))) < coarse_from:
            del stream.coarse[minute]


def check_period(period_s: int) -> None:
    """Raise ValueError unless `period_s` is 10, 20, 30 or a multiple of 60."""
    if period_s not in (10, 20, 30) and (period_s < COARSE_S or period_s % COARSE_S):
        raise ValueError(f"a period must be 10, 20, 30 or a multiple of 60 seconds, not {period_s}")


def align(begin: int, period_s: int) -> int:
    """Round a start time down to the minute, or to ten seconds for a period of less than a minute."""
    step = COARSE_S if period_s >= COARSE_S else FINE_S
    return begin // step * step


def percentile_rank(stat: str) -> float | None:
    """Return 99.0 for "p99" and None for a plain statistic. Raises ValueError for anything else."""
    if stat in STATISTICS:
        return None
    if found := _PERCENTILE.fullmatch(stat):
        return float(found[1])
    raise ValueError(
        f"the statistic {stat!r} is not supported: use {', '.join(STATISTICS)} or a percentile such as p99"
    )


def _slots(buckets: Mapping[int, _Bucket], begin: int, end: int, size: int) -> Iterable[int]:
    """The numbers of existing buckets that may lie in a window, by the shorter of two ways."""
    first, last = begin // size, -(-end // size)
    if last - first < len(buckets):
        return [slot for slot in range(first, last) if slot in buckets]
    return [slot for slot in buckets if first <= slot < last]


def _value_of(number: int) -> float:
    """The middle of a bin."""
    if number == 0:
        return 0.0
    middle = math.exp((abs(number) - _SHIFT + 0.5) * _LOG_STEP)
    return middle if number > 0 else -middle
