"""Counts of requests and failures of both revisions, from CloudWatch, over closed minutes, in one call.

Requests are `AWS/Lambda Invocations` of the alias by ExecutedVersion. Failures are crashes and time-outs (`AWS/Lambda
Errors`, the same dimensions) plus answers with a 5xx status (`Perch Failures` by Revision): a function that answers 500
did not fail in Lambda's eyes, and one that was killed could not log its own failure, so the two never count twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from perch.aws.functions import ALIAS
from perch.domain.judge import Counts

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

_MINUTE = timedelta(minutes=1)
Points = Mapping[str, Mapping[datetime, float]]


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
        """
        starts = {s: _ceil(s) for s in since}
        first, last = min(starts.values()), until.replace(second=0, microsecond=0)
        if first >= last:
            return {(v, s): Counts() for v in versions for s in since}
        points = self._points(endpoint, function, versions, first, last)
        return {
            (v, s): Counts(
                requests=_total(points[f"i{n}"], starts[s]),
                failures=_total(points[f"e{n}"], starts[s]) + _total(points[f"f{n}"], starts[s]),
            )
            for n, v in enumerate(versions)
            for s in since
        }

    def _points(
        self, endpoint: str, function: str, versions: tuple[str, ...], first: datetime, last: datetime
    ) -> Points:
        queries: list[Any] = []
        for n, version in enumerate(versions):
            executed = {"FunctionName": function, "Resource": f"{function}:{ALIAS}", "ExecutedVersion": version}
            ours = {"Endpoint": endpoint, "Revision": version}
            queries += [
                _query(f"i{n}", "AWS/Lambda", "Invocations", executed),
                _query(f"e{n}", "AWS/Lambda", "Errors", executed),
                _query(f"f{n}", "Perch", "Failures", ours),
            ]
        points: dict[str, dict[datetime, float]] = {q["Id"]: {} for q in queries}
        pages = self._client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, StartTime=first, EndTime=last, ScanBy="TimestampAscending"
        )
        for page in pages:
            for series in page["MetricDataResults"]:
                points[series["Id"]].update(zip(series["Timestamps"], series["Values"], strict=True))
        return points


def _query(identity: str, namespace: str, name: str, dimensions: dict[str, str]) -> dict[str, Any]:
    return {
        "Id": identity,
        "MetricStat": {
            "Metric": {
                "Namespace": namespace,
                "MetricName": name,
                "Dimensions": [{"Name": k, "Value": v} for k, v in dimensions.items()],
            },
            "Period": 60,
            "Stat": "Sum",
        },
    }


def _ceil(at: datetime) -> datetime:
    whole = at.replace(second=0, microsecond=0)
    return whole if whole == at else whole + _MINUTE


def _total(points: Mapping[datetime, float], since: datetime) -> int:
    return round(sum(value for at, value in points.items() if at >= since))
