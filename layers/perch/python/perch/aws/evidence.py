"""Counts of requests and failures of both revisions, from CloudWatch, over closed minutes.

Requests are `AWS/Lambda Invocations` of the alias by ExecutedVersion. Failures are crashes and time-outs (`AWS/Lambda
Errors`, the same dimensions) plus answers with a 5xx status (`Perch Failures` by Revision): a function that answers 500
did not fail in Lambda's eyes, and one that was killed could not log its own failure, so the two never count twice.

One call for a span of up to three hours, three for any longer one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from perch.aws.functions import ALIAS
from perch.domain.errors import NotReady
from perch.domain.judge import Counts

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
Query = tuple[str, str, str, dict[str, str]]


class RevisionMetrics:
    """CloudWatch metrics of revisions, in our words."""

    def __init__(self, client: CloudWatchClient) -> None:
        self._client = client

    def counts(
        self, endpoint: str, function: str, versions: tuple[str, ...], *, since: tuple[datetime, ...], until: datetime
    ) -> dict[tuple[str, datetime], Counts]:
        """Count each version's requests from each time in `since` up to `until`.

        Only whole minutes count: the first begins at or after `since` (so the minute in which the weight changed is
        left out), the last ends at or before `until`.

        Args:
            endpoint: name of the endpoint.
            function: name of its function.
            versions: Lambda version numbers.
            since: one or more starting times.
            until: the end; minutes younger than the metrics' settling time should lie after it.

        Returns:
            Counts by (version, starting time).

        Raises:
            NotReady: CloudWatch could not give all that was asked for.
        """
        starts = {s: _ceil(s, _MINUTE) for s in since}
        last = until.replace(second=0, microsecond=0)
        queries = [q for n, version in enumerate(versions) for q in _queries(n, endpoint, function, version)]
        points: dict[str, dict[datetime, float]] = {q: {} for q, *_ in queries}
        for begin, end, period in _windows(min(starts.values()), max(starts.values()), last):
            self._read(points, queries, begin, end, period)
        return {
            (v, s): Counts(
                requests=_total(points[f"i{n}"], starts[s]),
                failures=_total(points[f"e{n}"], starts[s]) + _total(points[f"f{n}"], starts[s]),
            )
            for n, v in enumerate(versions)
            for s in since
        }

    def _read(
        self,
        points: dict[str, dict[datetime, float]],
        queries: list[Query],
        begin: datetime,
        end: datetime,
        period: int,
    ) -> None:
        pages = self._client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[_sum(query, period) for query in queries],
            StartTime=begin,
            EndTime=end,
            ScanBy="TimestampAscending",
        )
        status = dict.fromkeys(points, "missing")
        for page in pages:
            for series in page["MetricDataResults"]:
                points[series["Id"]].update(zip(series["Timestamps"], series["Values"], strict=True))
                status[series["Id"]] = series.get("StatusCode", "missing")  # of the last page, which completes it
        if unread := [f"{identity}: {code}" for identity, code in status.items() if code != "Complete"]:
            # Failures that could not be read are not failures that did not happen.
            raise NotReady(f"CloudWatch did not answer completely ({', '.join(unread)})")


def _windows(first: datetime, latest: datetime, last: datetime) -> list[tuple[datetime, datetime, int]]:
    """Cut [first, last) into minutes, hours, minutes, so that a step of days needs no more points than one of hours.

    Every starting time lies in the minutes at the front (`latest` is the last of them); hours are whole hours.
    """
    if last - first <= 3 * _HOUR:
        return [(first, last, 60)] if first < last else []
    front, back = _ceil(latest, _HOUR), last.replace(minute=0)
    cuts = [(first, front, 60), (front, back, 3600), (back, last, 60)]
    return [(begin, end, period) for begin, end, period in cuts if begin < end]


def _queries(n: int, endpoint: str, function: str, version: str) -> list[Query]:
    """Name the three series of one version: requests, crashes and failed answers."""
    executed = {"FunctionName": function, "Resource": f"{function}:{ALIAS}", "ExecutedVersion": version}
    ours = {"Endpoint": endpoint, "Revision": version}
    return [
        (f"i{n}", "AWS/Lambda", "Invocations", executed),
        (f"e{n}", "AWS/Lambda", "Errors", executed),
        (f"f{n}", "Perch", "Failures", ours),
    ]


def _sum(query: Query, period: int) -> Any:
    identity, namespace, name, dimensions = query
    return {
        "Id": identity,
        "MetricStat": {
            "Metric": {
                "Namespace": namespace,
                "MetricName": name,
                "Dimensions": [{"Name": k, "Value": v} for k, v in dimensions.items()],
            },
            "Period": period,
            "Stat": "Sum",
        },
    }


def _ceil(at: datetime, unit: timedelta) -> datetime:
    whole = at.replace(second=0, microsecond=0) if unit == _MINUTE else at.replace(minute=0, second=0, microsecond=0)
    return whole if whole == at else whole + unit


def _total(points: Mapping[datetime, float], since: datetime) -> int:
    return round(sum(value for at, value in points.items() if at >= since))
