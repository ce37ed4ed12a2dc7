"""CloudWatch's metrics API, on the store."""

from __future__ import annotations

from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from tests.local.machines import START, client, world

DIMENSIONS = [{"Name": "Endpoint", "Value": "digits"}]
HOUR = timedelta(hours=1)


@pytest.fixture
def it(monkeypatch):
    with world(monkeypatch) as started:
        yield started


@pytest.fixture
def cloudwatch(it):
    return client("cloudwatch")


def put(cloudwatch, name="Latency", **datum):
    data = {"MetricName": name, "Dimensions": DIMENSIONS, "Timestamp": START, **datum}
    cloudwatch.put_metric_data(Namespace="Perch", MetricData=[data])


def query(identity="m", name="Latency", stat="Sum", period=60, **more):
    metric = {"Namespace": "Perch", "MetricName": name, "Dimensions": DIMENSIONS}
    return {"Id": identity, "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}, **more}


def data(cloudwatch, *queries, start=START, end=START + HOUR, **more):
    answer = cloudwatch.get_metric_data(MetricDataQueries=list(queries), StartTime=start, EndTime=end, **more)
    return {one["Id"]: one for one in answer["MetricDataResults"]}


def test_every_form_of_put_metric_data_counts(it, cloudwatch):
    """Value, Values with Counts, StatisticValues; without a timestamp it is now, in virtual time."""
    it.advance(60)
    put(cloudwatch, Value=5)
    put(cloudwatch, Values=[1, 2], Counts=[3, 1])
    put(cloudwatch, StatisticValues={"SampleCount": 2, "Sum": 10, "Minimum": 4, "Maximum": 6})
    cloudwatch.put_metric_data(
        Namespace="Perch", MetricData=[{"MetricName": "Latency", "Dimensions": DIMENSIONS, "Value": 7}]
    )
    found = data(cloudwatch, query(), query("n", stat="SampleCount"), ScanBy="TimestampAscending")
    assert found["m"]["Timestamps"] == [START, START + timedelta(minutes=1)]
    assert found["m"]["Values"] == [20, 7]
    assert found["n"]["Values"] == [7, 1]
    assert found["m"]["StatusCode"] == "Complete"


def test_the_data_planes_measurements_and_the_apis_are_one_series(it, cloudwatch):
    """Whoever puts, everybody sees."""
    it.store.put("Perch", "Latency", {"Endpoint": "digits"}, 3, at=START)
    put(cloudwatch, Value=4)
    assert data(cloudwatch, query())["m"]["Values"] == [7]


def test_the_newest_point_comes_first_and_empty_periods_are_absent(cloudwatch):
    """Unless ScanBy says otherwise."""
    put(cloudwatch, Value=1)
    put(cloudwatch, Value=2, Timestamp=START + timedelta(minutes=5))
    assert data(cloudwatch, query())["m"]["Values"] == [2, 1]
    assert data(cloudwatch, query(), ScanBy="TimestampAscending")["m"]["Values"] == [1, 2]


def test_math_runs_over_hidden_metrics_and_other_expressions(cloudwatch):
    """In whatever order they are listed."""
    put(cloudwatch, "Errors", Value=1)
    put(cloudwatch, "Requests", Value=4)
    found = data(
        cloudwatch,
        {"Id": "percent", "Expression": "rate * 100", "Label": "error rate"},
        {"Id": "rate", "Expression": "FILL(errors, 0) / requests", "ReturnData": False},
        query("errors", "Errors", ReturnData=False),
        query("requests", "Requests", ReturnData=False),
    )
    assert list(found) == ["percent"]
    assert found["percent"]["Values"] == [25]
    assert found["percent"]["Label"] == "error rate"


def test_counts_over_a_range_are_read_like_any_statistic(cloudwatch):
    """By both calls; the lower bound is exclusive, the upper inclusive."""
    put(cloudwatch, Values=[0, 1, 12.5, 13], Counts=[4, 3, 2, 1])
    found = data(
        cloudwatch,
        query("zeros", stat="TC(:0.5)"),
        query("slow", stat="TC(12.5:)"),
        query("quick", stat="TC(0:12.5)"),
        query("share", stat="PR(:12.5)"),
    )
    assert {name: one["Values"] for name, one in found.items()} == {
        "zeros": [4],
        "slow": [1],
        "quick": [5],
        "share": [90],
    }
    answer = cloudwatch.get_metric_statistics(
        Namespace="Perch",
        MetricName="Latency",
        Dimensions=DIMENSIONS,
        StartTime=START,
        EndTime=START + HOUR,
        Period=60,
        ExtendedStatistics=["TC(0.5:1.5)", "PR(:0)"],
    )
    [point] = answer["Datapoints"]
    assert point["ExtendedStatistics"] == {"TC(0.5:1.5)": 3, "PR(:0)": 40}


def test_pages_hold_as_many_points_as_asked_for(cloudwatch):
    """NextToken goes on where the page ended."""
    for minute in range(5):
        put(cloudwatch, Value=minute, Timestamp=START + timedelta(minutes=minute))
    asked = {"MetricDataQueries": [query()], "StartTime": START, "EndTime": START + HOUR, "MaxDatapoints": 2}
    pages, token = [], None
    while True:
        answer = cloudwatch.get_metric_data(**asked, **({"NextToken": token} if token else {}))
        pages.append([value for one in answer["MetricDataResults"] for value in one["Values"]])
        if not (token := answer.get("NextToken")):
            break
    assert pages == [[4, 3], [2, 1], [0]]


@pytest.mark.parametrize(
    ("queries", "reason"),
    [
        ([{"Id": "e", "Expression": "SEARCH('x', 'Sum')"}], "SEARCH is not supported"),
        ([{"Id": "e", "Expression": "SELECT AVG(x) FROM y", "Period": 60}], "Insights"),
        ([{"Id": "e", "Expression": "nope * 2"}], "no metric with the id 'nope'"),
        ([{"Id": "a", "Expression": "b"}, {"Id": "b", "Expression": "a"}], "refers to itself"),
        ([{"Id": "e", "Expression": "1 + 1"}], "one time series"),
        ([query(period=45)], "period"),
        ([query(stat="tm99")], "statistic"),
        ([query(), query()], "ids"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused_in_words(cloudwatch, queries, reason):
    """ValidationError."""
    with pytest.raises(ClientError, match=reason) as error:
        data(cloudwatch, *queries)
    assert error.value.response["Error"]["Code"] == "ValidationError"


def test_get_metric_statistics_gives_plain_and_extended_statistics(cloudwatch):
    """One row a period."""
    put(cloudwatch, Values=[1, 2, 3, 4], Unit="Milliseconds")
    [row] = cloudwatch.get_metric_statistics(
        Namespace="Perch",
        MetricName="Latency",
        Dimensions=DIMENSIONS,
        StartTime=START,
        EndTime=START + HOUR,
        Period=300,
        Statistics=["Average", "Maximum"],
        ExtendedStatistics=["p50"],
    )["Datapoints"]
    assert (row["Timestamp"], row["Average"], row["Maximum"]) == (START, 2.5, 4)
    assert row["ExtendedStatistics"]["p50"] == pytest.approx(2, rel=0.01)


def test_list_metrics_filters_by_name_and_dimension(cloudwatch):
    """A dimension without a value asks for its presence."""
    put(cloudwatch, "Latency", Value=1)
    put(cloudwatch, "Requests", Value=1, Dimensions=[])
    names = lambda **filters: {m["MetricName"] for m in cloudwatch.list_metrics(**filters)["Metrics"]}  # noqa: E731
    assert names() == {"Latency", "Requests"}
    assert names(Namespace="Other") == set()
    assert names(MetricName="Requests") == {"Requests"}
    assert names(Dimensions=[{"Name": "Endpoint"}]) == {"Latency"}
    assert names(Dimensions=[{"Name": "Endpoint", "Value": "other"}]) == set()


def test_data_that_is_not_valid_is_refused(cloudwatch):
    """Nothing, infinity, sizes that differ."""
    for datum in ({}, {"Value": float("inf")}, {"Values": [1, 2], "Counts": [1]}):
        with pytest.raises(ClientError, match="InvalidParameter"):
            put(cloudwatch, **datum)
