"""The metric store: measurements in, statistics over periods out.

A series is a namespace, a name and a set of dimensions; series with other dimensions are strangers, as in CloudWatch.
Each measurement falls into a bucket of ten seconds that keeps the count, the sum, the extremes and a histogram;
asking for a period merges its buckets. After three hours the ten-second buckets are merged into minutes, after
`retention` the minutes are dropped, so memory is bounded by series and time, not by traffic.

A bucket keeps its first 128 distinct values as they are, and whole numbers up to 1000 always; further ones fall into
bins that grow by 2 % each and are counted at the middle of their bin. So

- a percentile is within 1 % (relative) of the nearest-rank percentile of what was put, and mostly exact;
- a count over a range (TC, PR) is exact while no bucket has more distinct values than that; in one that has, a value
  within 2 % of a bound may count on its wrong side. CloudWatch interpolates: its counts may even have decimals.

`Minimum` and `Maximum` are exact. As in CloudWatch, a statistic set (`put_statistics`) has no distribution, so a period
that holds one has no percentiles, counts over ranges and ranks (unless all its values are equal).

What every request measures comes through a `recorder`: its rows are kept as they are, some at a time, and are added up
column by column when there are enough of them, when the ten seconds are over, or when somebody asks the store anything.

Left out: statistics that `statistic` does not know, periods below ten seconds, and the five-minute and hourly tiers of
long retention.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from perch.local.metrics.statistic import Statistic, read_statistic
from perch.local.ports import Metric

FINE_S = 10
COARSE_S = 60
_FINE_FOR_S = 3 * 3600
_LOG_STEP = math.log(1.02)
_PER_LOG = 1 / _LOG_STEP
_SHIFT = 1 << 20  # keeps the bin number of every positive value positive, so that bins sort as their values do
_DISTINCT = 128  # values of a bucket that are kept as they are
_WHOLE = 1000  # so are whole numbers up to this one: classes, sizes and counts are compared for equality
_ROWS = 64  # a recorder adds up so many at once: they cost little each then, and none has to wait for long
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    __slots__ = ("bins", "count", "high", "low", "opaque", "total", "values")

    def __init__(self) -> None:
        self.count = 0.0
        self.total = 0.0
        self.low = math.inf
        self.high = -math.inf
        self.opaque = False  # holds a statistic set, whose distribution nobody knows
        self.values: dict[float, float] = {}  # value -> how often it was seen
        self.bins: dict[int, float] = {}  # number of the bin -> how many values that are not kept fell into it

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Make one that keeps all of these; there must be some."""
        bucket = cls()
        bucket.count, bucket.total = float(len(values)), math.fsum(values)
        bucket.low, bucket.high = min(values), max(values)
        bucket.values = Counter(values)  # type: ignore[assignment]  # whole numbers are numbers
        return bucket

    def see(self, value: float, count: float) -> None:
        """Add a value that is not among the kept ones. Raises ValueError unless it is finite."""
        if not math.isfinite(value):
            raise ValueError(f"{value} is no measurement")
        if len(self.values) < _DISTINCT or (-_WHOLE <= value <= _WHOLE and value == int(value)):
            self.values[value] = count
        else:
            number = _number(value)
            self.bins[number] = self.bins.get(number, 0.0) + count

    def merge(self, other: _Bucket, *, lossless: bool = False) -> None:
        """Add another bucket; `lossless` keeps every value that it kept."""
        self.count += other.count
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.opaque |= other.opaque
        values = self.values
        for value, count in other.values.items():
            if lossless or value in values:
                values[value] = values.get(value, 0.0) + count
            else:
                self.see(value, count)
        for number, count in other.bins.items():
            self.bins[number] = self.bins.get(number, 0.0) + count

    def statistic(self, wanted: Statistic) -> float | None:
        """Compute it; None where it needs a distribution that is not known. The bucket must not be empty."""
        match wanted.kind:
            case "SampleCount":
                found = self.count
            case "Sum":
                found = self.total
            case "Average":
                found = self.total / self.count
            case "Minimum":
                found = self.low
            case "Maximum":
                found = self.high
            case _ if self.opaque:
                return None
            case "p":
                found = self._percentile(wanted.rank)
            case "TC":
                found = self._within(wanted)
            case _:
                found = 100 * self._within(wanted) / self.count
        return found

    def _within(self, wanted: Statistic) -> float:
        return math.fsum(count for value, count in self._counted() if wanted.above < value <= wanted.up_to)

    def _counted(self) -> Iterable[tuple[float, float]]:
        """What was seen: (value, how often)."""
        yield from self.values.items()
        for number, count in self.bins.items():
            yield min(max(_value_of(number), self.low), self.high), count

    def _percentile(self, rank: float) -> float:
        wanted = rank / 100 * self.count
        seen = 0.0
        for value, count in sorted(self._counted()):
            seen += count
            if seen >= wanted - 1e-9:
                return value
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


class Recorder:
    """Records metrics that are always measured together; made by `MetricStore.recorder`."""

    __slots__ = ("_metrics", "_rows", "_slot", "_store")

    def __init__(self, store: MetricStore, metrics: Sequence[Metric]) -> None:
        self._store = store
        self._metrics = tuple(metrics)
        self._rows: list[Sequence[float]] = []
        self._slot = 0  # the ten seconds that they were measured in

    def record(self, values: Sequence[float], at: datetime) -> None:
        """Record one value of each metric, in their order. Raises ValueError unless all are finite."""
        if not all(map(math.isfinite, values)) or len(values) != len(self._metrics):
            raise ValueError(f"{values} are no measurements of {len(self._metrics)} metrics")
        slot = int(at.timestamp()) // FINE_S
        with self._store.lock:
            if slot != self._slot or len(self._rows) == _ROWS:
                self.add_up()
                self._slot = slot
            if not self._rows:
                self._store.unread.add(self)
            self._rows.append(values)

    def add_up(self) -> None:
        """Put the rows where they count (the store's lock is held)."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        for metric, column in zip(self._metrics, zip(*rows, strict=True), strict=True):
            seen = _Bucket.of(column)
            for dimensions in metric.dimensions:
                self._store.merge(metric, dimensions, self._slot, seen)

    def forget(self) -> None:
        """Drop the rows (the store's lock is held)."""
        self._rows.clear()


class MetricStore:
    """All series of a local cloud; a `MetricSink`. Safe to call from any thread.

    Args:
        retention: How long minutes are kept, counted back from the newest measurement of the series.
    """

    def __init__(self, *, retention: timedelta = timedelta(days=15)) -> None:
        self._retention_s = int(retention.total_seconds())
        self.lock = threading.Lock()
        self.unread: set[Recorder] = set()  # which have rows that are not added up
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
        call = (namespace, name, unit, *dimensions.items())
        slot = int(at.timestamp()) // FINE_S
        with self.lock:
            stream = self._by_call.get(call)
            if stream is None:
                stream = self._stream(call, namespace, name, dimensions, unit)
            bucket = stream.bucket if slot == stream.slot else self._bucket(stream, slot)
            values = bucket.values
            if value in values:
                values[value] += count
            else:
                bucket.see(value, count)
            bucket.count += count
            bucket.total += value * count
            if value < bucket.low:  # noqa: PLR1730 - half the time of min()
                bucket.low = value
            if value > bucket.high:  # noqa: PLR1730 - as above
                bucket.high = value

    def recorder(self, metrics: Sequence[Metric]) -> Recorder:
        """Return what records these metrics together."""
        return Recorder(self, metrics)

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
        with self.lock:
            stream = self._by_call.get(call) or self._stream(call, namespace, name, dimensions, unit)
            bucket = self._bucket(stream, int(at.timestamp()) // FINE_S)
            bucket.count += count
            bucket.total += total
            bucket.low = min(bucket.low, low)
            bucket.high = max(bucket.high, high)
            bucket.opaque = True

    def clear(self) -> None:
        """Forget everything."""
        with self.lock:
            for recorder in self.unread:
                recorder.forget()
            self.unread.clear()
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
            stat: What `read_statistic` reads: Sum, p99.9, TC(:300) and so on.
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
        wanted = read_statistic(stat)
        merged: dict[int, _Bucket] = {}
        with self.lock:
            self._add_up()
            for stream in self._streams.get(series, ()):
                if unit is not None and stream.unit != unit:
                    continue
                if stream.newest * FINE_S + FINE_S <= begin:
                    continue
                for size, buckets in ((COARSE_S, stream.coarse), (FINE_S, stream.fine)):
                    for slot in _slots(buckets, begin, end, size):
                        at = begin + (slot * size - begin) // period_s * period_s
                        if at < end and slot * size >= begin:
                            merged.setdefault(at, _Bucket()).merge(buckets[slot], lossless=True)
        values = ((at, merged[at].statistic(wanted), merged[at].count) for at in sorted(merged) if merged[at].count)
        return {at: (value, samples) for at, value, samples in values if value is not None}

    def series(self, namespace: str | None = None, name: str | None = None) -> list[tuple[Series, datetime]]:
        """Return the series that are known, in order of first measurement, each with when it was last measured."""
        with self.lock:
            self._add_up()
            return [
                (series, _EPOCH + timedelta(seconds=max(stream.newest for stream in streams) * FINE_S))
                for series, streams in self._streams.items()
                if namespace in (None, series.namespace) and name in (None, series.name)
            ]

    # -- inside (the lock is held) -----------------------------------------------------------------------------------

    def merge(self, metric: Metric, dimensions: Mapping[str, str], slot: int, seen: _Bucket) -> None:
        """Add what a recorder saw of one series in one slot."""
        call = (metric.namespace, metric.name, metric.unit, *dimensions.items())
        stream = self._by_call.get(call)
        if stream is None:
            stream = self._stream(call, metric.namespace, metric.name, dimensions, metric.unit)
        bucket = stream.bucket if slot == stream.slot else self._bucket(stream, slot)
        bucket.merge(seen)

    def _add_up(self) -> None:
        for recorder in self.unread:
            recorder.add_up()
        self.unread.clear()

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


def _slots(buckets: Mapping[int, _Bucket], begin: int, end: int, size: int) -> Iterable[int]:
    """The numbers of existing buckets that may lie in a window, by the shorter of two ways."""
    first, last = begin // size, -(-end // size)
    if last - first < len(buckets):
        return [slot for slot in range(first, last) if slot in buckets]
    return [slot for slot in buckets if first <= slot < last]


def _number(value: float) -> int:
    """The bin of a value: bins sort as their values do."""
    if value > 0:
        return int(math.log(value) * _PER_LOG + _SHIFT)
    return 0 if value == 0 else -int(math.log(-value) * _PER_LOG + _SHIFT)


def _value_of(number: int) -> float:
    """The middle of a bin."""
    if number == 0:
        return 0.0
    middle = math.exp((abs(number) - _SHIFT + 0.5) * _LOG_STEP)
    return middle if number > 0 else -middle
