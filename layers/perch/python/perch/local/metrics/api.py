"""CloudWatch's metrics API on the store: PutMetricData, GetMetricData, GetMetricStatistics, ListMetrics.

moto answers the HTTP requests, parses and serialises them; its backend's functions are replaced so that what is put
goes into the store and what is asked comes out of it. So a metric that a Lambda's log line made, and one that was put
by API, are the same to whoever asks.

As documented: a data point's timestamp is the start of its period; a start time is rounded down to the minute; a
period without data has no point; the newest point comes first unless `ScanBy` says otherwise.

Statistics are those that `statistic` reads; GetMetricStatistics wants the plain ones under Statistics and the others
under ExtendedStatistics.

Left out: cross-account and insight queries (`SELECT`, `SEARCH`), label expressions, PutMetricData's time limits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.cloudwatch.exceptions import InvalidParameterCombination, InvalidParameterValue, ValidationError
from moto.cloudwatch.models import CloudWatchBackend
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult

from perch.local.metrics import math as metric_math
from perch.local.metrics.math_values import TimeSeries, Value, Window
from perch.local.metrics.statistic import STATISTICS, read_statistic
from perch.local.metrics.store import MetricStore, Series, align, check_period
from perch.local.patches import Patches

_MAX_DATAPOINTS = 100_800
_PAGE = 500


@dataclass(frozen=True)
class Query:
    """One MetricDataQuery: a metric with a statistic, or an expression over other queries."""

    id: str
    label: str
    returns: bool
    series: Series | None = None
    stat: str = "Average"
    unit: str | None = None
    period_s: int | None = None
    expression: metric_math.Expression | None = None


def read_query(raw: Mapping[str, Any]) -> Query:
    """Read a query as the API has it. Raises ValueError (and `MathError`, which is one) in words."""
    identity = str(raw["Id"])
    if (expression := raw.get("Expression")) is not None:
        if str(expression).lstrip().upper().startswith("SELECT"):
            raise ValueError(f"{identity}: Metrics Insights queries (SELECT) are not supported here")
        period = raw.get("Period")
        return Query(
            id=identity,
            label=raw.get("Label") or identity,
            returns=raw.get("ReturnData", True) is not False,
            expression=metric_math.parse(str(expression)),
            period_s=int(period) if period else None,
        )
    metric_stat = raw["MetricStat"]
    metric, stat, period_s = metric_stat["Metric"], str(metric_stat["Stat"]), int(metric_stat["Period"])
    check_period(period_s)
    read_statistic(stat)
    return Query(
        id=identity,
        label=raw.get("Label") or str(metric["MetricName"]),
        returns=raw.get("ReturnData", True) is not False,
        series=Series.of(metric["Namespace"], metric["MetricName"], _dimensions(metric.get("Dimensions"))),
        stat=stat,
        unit=metric_stat.get("Unit"),
        period_s=period_s,
    )


def evaluate_queries(store: MetricStore, queries: Iterable[Query], begin: int, end: int) -> dict[str, TimeSeries]:
    """Compute every query over [begin, end) epoch seconds: id -> start of period -> value.

    Raises:
        ValueError: Two ids are the same; an expression refers to itself or to an unknown id, or gives no time series.
    """
    queries = list(queries)
    by_id = {query.id: query for query in queries}
    if len(by_id) < len(queries):
        raise ValueError("the ids of the queries must differ")
    metrics = {query.id: _read_metric(store, query, begin, end) for query in queries if query.series is not None}
    values: dict[str, Value] = dict(metrics)
    shared_s = math.lcm(*(query.period_s for query in queries if query.period_s))
    under_way: set[str] = set()

    def compute(query: Query) -> None:
        """Compute an expression after those that it refers to."""
        if query.expression is None or query.id in values:
            return
        if query.id in under_way:
            raise ValueError(f"{query.id}: the expression refers to itself")
        under_way.add(query.id)
        for name in query.expression.names & by_id.keys():
            compute(by_id[name])
        period_s = query.period_s or (shared_s if shared_s > 1 else 60)
        known = {name: values[name] for name in query.expression.names & values.keys()}
        window = Window(align(begin, period_s), end, period_s)
        values[query.id] = query.expression.evaluate({**metrics, **known}, window)

    for query in queries:
        compute(query)
    for query in queries:
        if query.returns and not isinstance(values[query.id], Mapping):
            raise ValueError(f"{query.id}: the expression must give one time series")
    return {name: value for name, value in values.items() if isinstance(value, Mapping)}


def _read_metric(store: MetricStore, query: Query, begin: int, end: int) -> TimeSeries:
    if query.series is None or query.period_s is None:
        return {}
    found = store.window(query.series, align(begin, query.period_s), end, query.period_s, query.stat, query.unit)
    return {at: value for at, (value, _) in found.items()}


class MetricsApi:
    """Puts the store behind moto's CloudWatch of one region while it is installed."""

    def __init__(self, store: MetricStore, *, now: Callable[[], datetime], region: str = "us-east-1") -> None:
        self._store = store
        self._now = now
        self._region = region
        self._patches = Patches()

    def install(self) -> None:
        """Take over. Works for `mock_aws` and for moto's server alike, in this process."""
        backend = CloudWatchBackend
        for name, mine in (
            ("put_metric_data", self._put_metric_data),
            ("get_metric_data", self._get_metric_data),
        ):
            self._patches.wrap(backend, name, self._for_region(mine))
        for name, answer in (
            ("get_metric_statistics", self._get_metric_statistics),
            ("get_metric_data", self._answer_metric_data),
            ("list_metrics", self._list_metrics),
        ):
            self._patches.wrap(CloudWatchResponse, name, self._for_region(answer, attribute="region"))

    def uninstall(self) -> None:
        """Give moto its own functions back."""
        self._patches.undo()

    def _for_region(self, mine: Callable[..., Any], attribute: str = "region_name") -> Callable[[Any], Any]:
        region = self._region

        def make(original: Any) -> Any:
            def replaced(this: Any, *args: Any, **kwargs: Any) -> Any:
                if getattr(this, attribute) != region:
                    return original(this, *args, **kwargs)
                return mine(this, *args, **kwargs)

            return replaced

        return make

    # -- in ----------------------------------------------------------------------------------------------------------

    def _put_metric_data(self, backend: Any, namespace: str, metric_data: list[dict[str, Any]]) -> None:
        for number, datum in enumerate(metric_data, 1):
            _check_datum(backend, datum, number)
        for datum in metric_data:
            at = aware(datum["Timestamp"]) if datum.get("Timestamp") else self._now()
            where = (namespace, datum["MetricName"], _dimensions(datum.get("Dimensions")))
            unit = datum.get("Unit") or "None"
            if values := datum.get("Values"):
                counts = datum.get("Counts") or [1.0] * len(values)
                for value, count in zip(values, counts, strict=True):
                    if float(count) > 0:
                        self._store.put(*where, float(value), at=at, unit=unit, count=float(count))
            elif sets := datum.get("StatisticValues"):
                self._store.put_statistics(
                    *where,
                    count=float(sets["SampleCount"]),
                    total=float(sets["Sum"]),
                    low=float(sets["Minimum"]),
                    high=float(sets["Maximum"]),
                    at=at,
                    unit=unit,
                )
            else:
                self._store.put(*where, float(datum["Value"]), at=at, unit=unit)

    # -- out ---------------------------------------------------------------------------------------------------------

    def _get_metric_data(
        self,
        _: Any,
        queries: list[dict[str, Any]],
        start_time: datetime,
        end_time: datetime,
        scan_by: str = "TimestampAscending",
    ) -> list[dict[str, Any]]:
        start, end = aware(start_time), aware(end_time)
        if start > end:
            raise ValidationError("The parameter EndTime must be greater than StartTime.")
        if start == end:
            raise ValidationError("The parameter StartTime must not equal parameter EndTime.")
        try:
            parsed = [read_query(query) for query in queries]
            found = evaluate_queries(self._store, parsed, int(start.timestamp()), math.ceil(end.timestamp()))
        except ValueError as error:
            raise ValidationError(str(error)) from error
        results = []
        for query in parsed:
            if query.returns:
                times = sorted(found[query.id], reverse=scan_by != "TimestampAscending")
                results.append(
                    {
                        "Id": query.id,
                        "Label": query.label,
                        "Timestamps": [datetime.fromtimestamp(at, UTC) for at in times],
                        "Values": [found[query.id][at] for at in times],
                        "StatusCode": "Complete",
                    }
                )
        return results

    def _answer_metric_data(self, response: Any) -> ActionResult:
        """GetMetricData with its pages: NextToken is the number of data points already given."""
        params = response._get_params()  # noqa: SLF001 - the way moto's responses read their request
        queries = params.get("MetricDataQueries", [])
        for number, query in enumerate(queries, 1):
            if "MetricStat" not in query and "Expression" not in query:
                raise ValidationError(f"The parameter MetricDataQueries.member.{number}.MetricStat is required.\n")
        results = response.cloudwatch_backend.get_metric_data(
            queries=queries,
            start_time=params["StartTime"],
            end_time=params["EndTime"],
            scan_by=params.get("ScanBy") or "TimestampDescending",
        )
        limit = min(int(params.get("MaxDatapoints") or _MAX_DATAPOINTS), _MAX_DATAPOINTS)
        skip = _read_token(params.get("NextToken"))
        total = sum(len(result["Values"]) for result in results)
        position = 0
        for result in results:
            size = len(result["Values"])
            low, high = (min(max(edge - position, 0), size) for edge in (skip, skip + limit))
            position += size
            result["Values"], result["Timestamps"] = result["Values"][low:high], result["Timestamps"][low:high]
            if high < size:
                result["StatusCode"] = "PartialData"
        page: dict[str, Any] = {"MetricDataResults": results, "Messages": []}
        if skip + limit < total:
            page["NextToken"] = json.dumps(skip + limit)
        return ActionResult(page)

    def _get_metric_statistics(self, response: Any) -> ActionResult:
        params = response._get_params()  # noqa: SLF001 - the way moto's responses read their request
        plain, extended = params.get("Statistics") or [], params.get("ExtendedStatistics") or []
        if not plain and not extended:
            raise InvalidParameterCombination("Must specify either Statistics or ExtendedStatistics")
        start, end = aware(params["StartTime"]), aware(params["EndTime"])
        if start >= end:
            raise InvalidParameterValue("The parameter StartTime must be less than the parameter EndTime.")
        series = Series.of(params["Namespace"], params["MetricName"], _dimensions(params.get("Dimensions")))
        rows: dict[datetime, dict[str, Any]] = {}
        for stat in [*plain, *extended]:
            try:
                points = self._store.statistics(
                    series, start, end, int(params["Period"]), stat, unit=params.get("Unit")
                )
            except ValueError as error:
                raise InvalidParameterValue(str(error)) from error
            for point in points:
                row = rows.setdefault(point.at, {"Timestamp": point.at, "Unit": params.get("Unit") or "None"})
                if stat in STATISTICS:
                    row[stat] = point.value
                else:
                    row.setdefault("ExtendedStatistics", {})[stat] = point.value
        return ActionResult({"Label": params["MetricName"], "Datapoints": [rows[at] for at in sorted(rows)]})

    def _list_metrics(self, response: Any) -> ActionResult:
        params = response._get_params()  # noqa: SLF001 - the way moto's responses read their request
        filters = {(item["Name"], item.get("Value")) for item in params.get("Dimensions") or []}
        recent = self._now() - timedelta(hours=3) if params.get("RecentlyActive") else None
        found = [
            {
                "Namespace": series.namespace,
                "MetricName": series.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in series.dimensions],
            }
            for series, last in self._store.series(params.get("Namespace"), params.get("MetricName"))
            if (recent is None or last >= recent)
            and all(
                any(name == wanted and value in (None, has) for wanted, has in series.dimensions)
                for name, value in filters
            )
        ]
        skip = _read_token(params.get("NextToken"))
        page: dict[str, Any] = {"Metrics": found[skip : skip + _PAGE]}
        if skip + _PAGE < len(found):
            page["NextToken"] = json.dumps(skip + _PAGE)
        return ActionResult(page)


def _check_datum(backend: Any, datum: Mapping[str, Any], number: int) -> None:
    backend._validate_parameters_put_metric_data(datum, number)  # noqa: SLF001 - moto's own checks, kept
    if not any(datum.get(name) is not None for name in ("Value", "Values", "StatisticValues")):
        raise InvalidParameterCombination(
            f"At least one of the parameters MetricData.member.{number}.Value, Values or StatisticValues is required."
        )
    values = [datum.get("Value", 0.0), *(datum.get("Values") or []), *(datum.get("StatisticValues") or {}).values()]
    if not all(math.isfinite(float(value)) for value in values):
        raise InvalidParameterValue(f"The values of MetricData.member.{number} must be finite numbers.")


def _dimensions(raw: Any) -> dict[str, str]:
    return {item["Name"]: item["Value"] for item in raw or []}


def aware(value: datetime) -> datetime:
    """Return a time of a request, which is in UTC where it does not say so."""
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _read_token(token: str | None) -> int:
    if not token:
        return 0
    if not token.isdigit():
        raise InvalidParameterValue("Request parameter NextToken is invalid")
    return int(token)
