"""What CloudWatch counted of an experiment's variants, from the lines that the predictor logs of its requests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from perch.domain.brake import Counts
from perch.domain.errors import NotReady

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_METRICS = ("Requests", "Failures")
Found = dict[tuple[str, str], dict[datetime, float]]


class VariantMetrics:
    """Requests and failures by {Endpoint, Variant}."""

    def __init__(self, client: CloudWatchClient) -> None:
        self._client = client

    def minutes(
        self, endpoint: str, experiment: str, variants: Sequence[str], *, since: datetime, until: datetime
    ) -> list[dict[str, Counts]]:
        """Count each variant's requests in each whole minute of [since, until) that had any; one call.

        Raises:
            NotReady: CloudWatch could not give all that was asked for.
        """
        found = self._read(endpoint, experiment, variants, since, until, _MINUTE)
        return [
            {
                variant: Counts(requests=round(requests), failures=round(found[variant, "Failures"].get(at, 0)))
                for variant in variants
                if (requests := found[variant, "Requests"].get(at))
            }
            for at in sorted({at for points in found.values() for at in points})
        ]

    def requests(
        self, endpoint: str, experiment: str, variants: Sequence[str], *, since: datetime, until: datetime
    ) -> dict[str, float]:
        """Count each variant's requests in the hours from that of `since` to the last whole one before `until`.

        Raises:
            NotReady: CloudWatch could not give all that was asked for.
        """
        begin, end = (at.replace(minute=0, second=0, microsecond=0) for at in (since, until))
        found = self._read(endpoint, experiment, variants, begin, end, _HOUR)
        return {variant: sum(found[variant, "Requests"].values()) for variant in variants}

    def _read(
        self,
        endpoint: str,
        experiment: str,
        variants: Sequence[str],
        begin: datetime,
        end: datetime,
        period: timedelta,
    ) -> Found:
        asked = {f"{metric.lower()}{i}": (v, metric) for i, v in enumerate(variants) for metric in _METRICS}
        found: Found = {series: {} for series in asked.values()}
        if begin >= end:
            return found
        status = dict.fromkeys(asked, "missing")
        pages = self._client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[
                _query(identity, metric, endpoint, f"{experiment}/{variant}", period)
                for identity, (variant, metric) in asked.items()
            ],
            StartTime=begin,
            EndTime=end,
            ScanBy="TimestampAscending",
        )
        for page in pages:
            for series in page["MetricDataResults"]:
                found[asked[series["Id"]]].update(zip(series["Timestamps"], series["Values"], strict=True))
                status[series["Id"]] = series.get("StatusCode", "missing")  # of the last page, which completes it
        if unread := [f"{identity}: {code}" for identity, code in status.items() if code != "Complete"]:
            raise NotReady(f"CloudWatch did not answer completely ({', '.join(unread)})")
        return found


def _query(identity: str, metric: str, endpoint: str, variant: str, period: timedelta) -> Any:
    dimensions = {"Endpoint": endpoint, "Variant": variant}
    return {
        "Id": identity,
        "MetricStat": {
            "Metric": {
                "Namespace": "Perch",
                "MetricName": metric,
                "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
            },
            "Period": round(period.total_seconds()),
            "Stat": "Sum",
        },
    }
