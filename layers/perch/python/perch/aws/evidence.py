"""What CloudWatch counted of revisions: minute by minute for the judge, and over a day for what is usual.

A request is an invocation of the alias by ExecutedVersion (`AWS/Lambda Invocations`). A failure is a crash or a
time-out (`AWS/Lambda Errors`, the same dimensions) or an answer with a 5xx status (`Perch Failures` by Revision): a
function that answers 500 did not fail in Lambda's eyes, and one that was killed could not log its own failure, so none
counts twice. All else is counted from the metrics of the predictor's log line: how many requests were slower than a
limit (a trimmed count of Latency), and how many predictions fell into a bin (a trimmed count of Prediction).

CloudWatch interpolates trimmed counts, so they are rounded. The two sources may disagree: for a while, when one is
published later, and about a request on the edge of a minute, which Lambda and the gateway date differently. Then the
larger number of requests counts, so that failures never exceed requests and none of them is dropped.

An answer out of a predictor's cache says nothing of the revision: it is fast, and cannot fail. A candidate, whose cache
is empty, would look slow and frail beside a stable revision that answers half of its requests so. Such hits are taken
out of the requests; their predictions stay, because they are what users asked for, and that is alike on both sides.

Any other request is cold, or timed, or a crash. What of the invocations is neither is `unlogged`: its log line has not
arrived yet, or never will, and nobody knows whether it failed. That is not the same as that it did not.

Minutes are kept for 15 days; older ones read as minutes without requests.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from perch.aws.functions import ALIAS
from perch.domain.errors import NotReady
from perch.domain.evidence import QUANTILES, Arm, Habits, Measures, Minute

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient


_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_STRETCH = timedelta(hours=3)
_QUERIES_A_CALL = 500

Points = Mapping[str, Mapping[datetime, float]]
"""Answers by the id of their query: values by the beginning of their period."""


class Query(NamedTuple):
    """One series and what is asked of it."""

    id: str
    namespace: str
    metric: str
    dimensions: dict[str, str]
    stat: str = "Sum"


class RevisionMetrics:
    """CloudWatch metrics of revisions, in our words."""

    def __init__(self, client: CloudWatchClient) -> None:
        self._client = client

    def minutes(
        self,
        endpoint: str,
        function: str,
        *,
        stable: str,
        candidate: str,
        measures: Measures,
        since: datetime,
        until: datetime,
    ) -> tuple[Minute, ...]:
        """Count what two revisions did in each minute.

        Only whole minutes count: the first begins at or after `since` (so the minute in which the weight changed is
        left out), the last ends at or before `until`. None is missing: one without requests has zeros.

        Args:
            endpoint: name of the endpoint.
            function: name of its function.
            stable: Lambda version of the stable revision.
            candidate: Lambda version of the candidate.
            measures: what to count besides requests and failures.
            since: where to begin.
            until: the end; minutes younger than the metrics' settling time should lie after it.

        Returns:
            The minutes in order, at most those of 3 hours (a look at them has to fit into an item of the registry); the
            next call begins where they end.

        Raises:
            NotReady: CloudWatch could not give all that was asked for.
        """
        first = _ceil(since, _MINUTE)
        last = min(until.replace(second=0, microsecond=0), first + _STRETCH)
        if first >= last:
            return ()
        versions = {"stable": stable, "candidate": candidate}
        queries = [
            query
            for name, version in versions.items()
            for query in (*_traffic(name, endpoint, function, version), *_measured(name, endpoint, version, measures))
        ]
        points = self._read(queries, first, last, 60)
        times = [first + n * _MINUTE for n in range((last - first) // _MINUTE)]
        return tuple(
            Minute(
                at=at, stable=_arm(points, "stable", measures, at), candidate=_arm(points, "candidate", measures, at)
            )
            for at in times
        )

    def habits(self, endpoint: str, function: str, version: str, *, since: datetime, until: datetime) -> Habits:
        """Sum up what one revision did in [since, until), in whole minutes, and not more than the last 24 hours of it.

        Args:
            endpoint: name of the endpoint.
            function: name of its function.
            version: Lambda version of the revision.
            since: where to begin.
            until: the end.

        Raises:
            NotReady: CloudWatch could not give all that was asked for.
        """
        last = until.replace(second=0, microsecond=0)
        first = max(_ceil(since, _MINUTE), last - _DAY)
        if first >= last:
            return Habits()
        ours = {"Endpoint": endpoint, "Revision": version}
        queries = [
            *_traffic("its", endpoint, function, version),
            *(Query(f"its_p{rank}", "Perch", "Latency", ours, f"p{rank}") for rank in (50, 95, 99)),
            *(Query(f"its_quantile_{rank}", "Perch", "Prediction", ours, f"p{rank}") for rank in QUANTILES),
        ]
        points = self._read(queries, first, last, round((last - first).total_seconds()))
        # CloudWatch's periods begin at StartTime, so that one covers it all. Were it cut all the same: counts add up,
        # and the part with the most requests speaks for the distributions.
        times = sorted({at for series in points.values() for at in series})
        total = sum((_requests(points, "its", at) for at in times), Arm())
        best = max(times, key=lambda at: points["its_timed"].get(at, 0), default=first)
        quantiles = tuple(points[f"its_quantile_{rank}"].get(best) for rank in QUANTILES)
        return Habits(
            minutes=(last - first) // _MINUTE,
            requests=total.requests,
            failures=total.failures,
            p50_ms=points["its_p50"].get(best),
            p95_ms=points["its_p95"].get(best),
            p99_ms=points["its_p99"].get(best),
            quantiles=() if None in quantiles else tuple(q for q in quantiles if q is not None),
        )

    def _read(self, queries: list[Query], begin: datetime, end: datetime, period: int) -> Points:
        """Ask for all series at once (500 a call); raises NotReady unless all of them are answered completely."""
        points: dict[str, dict[datetime, float]] = {query.id: {} for query in queries}
        status = dict.fromkeys(points, "missing")
        for at in range(0, len(queries), _QUERIES_A_CALL):
            pages = self._client.get_paginator("get_metric_data").paginate(
                MetricDataQueries=[_raw(query, period) for query in queries[at : at + _QUERIES_A_CALL]],
                StartTime=begin,
                EndTime=end,
                ScanBy="TimestampAscending",
            )
            for series in itertools.chain.from_iterable(page["MetricDataResults"] for page in pages):
                points[series["Id"]].update(zip(series["Timestamps"], series["Values"], strict=True))
                status[series["Id"]] = series.get("StatusCode", "missing")  # of the last page, which completes it
        if unread := [f"{identity}: {code}" for identity, code in status.items() if code != "Complete"]:
            # Failures that could not be read are not failures that did not happen.
            raise NotReady(f"CloudWatch did not answer completely ({', '.join(unread)})")
        return points


# -- what is asked ------------------------------------------------------------------------------------------------


def _traffic(name: str, endpoint: str, function: str, version: str) -> list[Query]:
    """Name the series that every arm has: requests, failures, which of them were warm, and which from a cache."""
    executed = {"FunctionName": function, "Resource": f"{function}:{ALIAS}", "ExecutedVersion": version}
    ours = {"Endpoint": endpoint, "Revision": version}
    return [
        Query(f"{name}_invocations", "AWS/Lambda", "Invocations", executed),
        Query(f"{name}_crashes", "AWS/Lambda", "Errors", executed),
        Query(f"{name}_failures", "Perch", "Failures", ours),
        Query(f"{name}_cold", "Perch", "ColdStarts", ours),
        Query(f"{name}_timed", "Perch", "Latency", ours, "SampleCount"),
        Query(f"{name}_hits", "Perch", "CacheHits", ours),
    ]


def _measured(name: str, endpoint: str, version: str, measures: Measures) -> Iterable[Query]:
    """Name the series that the measures ask for."""
    ours = {"Endpoint": endpoint, "Revision": version}
    for i, limit in enumerate(measures.limits_ms):
        yield Query(f"{name}_slower_{i}", "Perch", "Latency", ours, f"TC({_bound(limit)}:)")
    if measures.edges:
        bounds = ["", *map(_bound, measures.edges), ""]
        for i, (above, up_to) in enumerate(itertools.pairwise(bounds)):
            yield Query(f"{name}_bin_{i}", "Perch", "Prediction", ours, f"TC({above}:{up_to})")
    for i, custom in enumerate(measures.custom):
        yield Query(f"{name}_custom_{i}", custom.namespace, custom.metric, ours)


def _bound(value: float) -> str:
    """Write a number as a trimmed statistic takes it: at most ten decimals, no exponent."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


def _raw(query: Query, period: int) -> Any:
    return {
        "Id": query.id,
        "MetricStat": {
            "Metric": {
                "Namespace": query.namespace,
                "MetricName": query.metric,
                "Dimensions": [{"Name": k, "Value": v} for k, v in query.dimensions.items()],
            },
            "Period": period,
            "Stat": query.stat,
        },
    }


# -- what was answered --------------------------------------------------------------------------------------------


def _arm(points: Points, name: str, measures: Measures, at: datetime) -> Arm:
    def counted(kind: str, number: int) -> tuple[int, ...]:
        return tuple(_count(points, f"{name}_{kind}_{i}", at) for i in range(number))

    arm = _requests(points, name, at)
    return Arm(
        requests=arm.requests,
        failures=arm.failures,
        cold=arm.cold,
        timed=arm.timed,
        slower=tuple(min(slower, arm.timed) for slower in counted("slower", len(measures.limits_ms))),
        bins=counted("bin", len(measures.edges) + 1 if measures.edges else 0),
        custom=counted("custom", len(measures.custom)),
        unlogged=arm.unlogged,
    )


def _requests(points: Points, name: str, at: datetime) -> Arm:
    """Reconcile Lambda's counts with those of the log lines, of which each is either cold or timed."""
    crashes, answered_badly = _count(points, f"{name}_crashes", at), _count(points, f"{name}_failures", at)
    cold, timed = _count(points, f"{name}_cold", at), _count(points, f"{name}_timed", at)
    failures = crashes + answered_badly
    invocations = max(0, _count(points, f"{name}_invocations", at) - _count(points, f"{name}_hits", at))
    return Arm(
        requests=max(invocations, cold + timed + crashes, failures),
        failures=failures,
        cold=cold,
        timed=timed,
        unlogged=max(0, invocations - cold - timed - crashes),
    )


def _count(points: Points, identity: str, at: datetime) -> int:
    return round(points[identity].get(at, 0.0))


def _ceil(at: datetime, unit: timedelta) -> datetime:
    whole = at.replace(second=0, microsecond=0) if unit == _MINUTE else at.replace(minute=0, second=0, microsecond=0)
    return whole if whole == at else whole + unit
