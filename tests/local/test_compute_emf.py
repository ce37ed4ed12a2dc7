"""Log lines become metrics by CloudWatch's embedded metric format, and by nothing else."""

import json
from copy import deepcopy
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.local.compute.emf import measurements
from tests.local.compute_fakes import NOON

AT_MS = int(NOON.timestamp() * 1000)
DOCUMENT = {
    "_aws": {
        "Timestamp": AT_MS,
        "CloudWatchMetrics": [
            {
                "Namespace": "Perch",
                "Dimensions": [["Endpoint"], ["Endpoint", "Revision"]],
                "Metrics": [{"Name": "Latency", "Unit": "Milliseconds", "StorageResolution": 1}, {"Name": "Requests"}],
            }
        ],
    },
    "Endpoint": "digits",
    "Revision": "7",
    "Latency": [1.5, 2],
    "Requests": 1,
    "text": "anything else",
}


def read(document):
    line = document if isinstance(document, bytes) else json.dumps(document).encode()
    return [
        (found.namespace, found.name, found.dimensions, found.value, found.unit, found.at)
        for found in measurements(line, NOON)
    ]


def changed(path, value):
    """Return the document with one member replaced (or removed, for `...`)."""
    document = deepcopy(DOCUMENT)
    *parents, last = path
    inner = document
    for key in parents:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return document


def test_each_metric_is_measured_in_each_dimension_set():
    """An array is several values; a missing unit is None."""
    first, second = {"Endpoint": "digits"}, {"Endpoint": "digits", "Revision": "7"}

    assert read(DOCUMENT) == [
        ("Perch", name, dimensions, value, unit, NOON)
        for dimensions in (first, second)
        for name, value, unit in (
            ("Latency", 1.5, "Milliseconds"),
            ("Latency", 2.0, "Milliseconds"),
            ("Requests", 1.0, "None"),
        )
    ]


def test_an_empty_dimension_set_is_a_metric_without_dimensions():
    """It is allowed, and not the same as no set at all."""
    path = ("_aws", "CloudWatchMetrics", 0, "Dimensions")

    assert {repr(found[2]) for found in read(changed(path, [[]]))} == {"{}"}
    assert read(changed(path, [])) == []


def test_the_timestamp_is_the_documents_own():
    """Within two weeks before and two hours after its arrival."""
    for offset in (timedelta(days=-14), timedelta(hours=2), timedelta(milliseconds=-1)):
        at = NOON + offset
        found = read(changed(("_aws", "Timestamp"), AT_MS + int(offset / timedelta(milliseconds=1))))
        assert {entry[5] for entry in found} == {at}
    for offset in (timedelta(days=-14, seconds=-1), timedelta(hours=2, seconds=1)):
        assert read(changed(("_aws", "Timestamp"), AT_MS + int(offset / timedelta(milliseconds=1)))) == []


DIRECTIVE = ("_aws", "CloudWatchMetrics", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("_aws", "Timestamp"), ...),
        (("_aws", "Timestamp"), str(AT_MS)),
        (("_aws", "Timestamp"), True),
        (("_aws", "Timestamp"), 1e300),
        (("_aws", "CloudWatchMetrics"), {}),
        (DIRECTIVE, "text"),
        ((*DIRECTIVE, "Namespace"), ...),
        ((*DIRECTIVE, "Namespace"), ""),
        ((*DIRECTIVE, "Namespace"), 7),
        ((*DIRECTIVE, "Dimensions"), ...),
        ((*DIRECTIVE, "Dimensions"), ["Endpoint"]),
        ((*DIRECTIVE, "Dimensions"), [["Endpoint", "Missing"]]),
        ((*DIRECTIVE, "Dimensions"), [["Requests"]]),
        ((*DIRECTIVE, "Dimensions"), [["Endpoint"] * 31]),
        ((*DIRECTIVE, "Metrics"), ...),
        ((*DIRECTIVE, "Metrics"), [{"Name": "Missing"}]),
        ((*DIRECTIVE, "Metrics"), [{"Unit": "Count"}]),
        ((*DIRECTIVE, "Metrics"), [{"Name": "Requests", "Unit": "Furlongs"}]),
        ((*DIRECTIVE, "Metrics"), [{"Name": "Requests", "Unit": ["Count"]}]),
        ((*DIRECTIVE, "Metrics"), [{"Name": "Requests", "StorageResolution": 5}]),
        ((*DIRECTIVE, "Metrics"), [{"Name": "Requests"}] * 101),
        (("Endpoint",), ""),
        (("Endpoint",), "x" * 1025),
        (("Latency",), "fast"),
        (("Latency",), None),
        (("Latency",), True),
        (("Latency",), [1, "2"]),
        (("Latency",), [1] * 101),
    ],
)
def test_a_document_that_breaks_a_rule_measures_nothing(path, value):
    """The whole document is ignored."""
    assert read(changed(path, value)) == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"an ordinary line",
        b'{"message": "json, but nothing to measure"}',
        b"2026-11-21 INFO " + json.dumps(DOCUMENT).encode(),
        json.dumps(DOCUMENT).encode() + b" trailing",
        json.dumps(DOCUMENT).encode()[:-1],
        json.dumps([DOCUMENT]).encode(),
        b'"_aws" "CloudWatchMetrics":',
    ],
)
def test_a_line_that_is_not_a_document_measures_nothing(line):
    """The line must be the document and nothing else."""
    assert read(line) == []


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    [
        *((name,) for name in DOCUMENT),
        *(("_aws", name) for name in ("Timestamp", "CloudWatchMetrics")),
        DIRECTIVE,
        *((*DIRECTIVE, name) for name in ("Namespace", "Dimensions", "Metrics")),
        (*DIRECTIVE, "Dimensions", 0),
        (*DIRECTIVE, "Metrics", 0),
        *((*DIRECTIVE, "Metrics", 0, name) for name in ("Name", "Unit", "StorageResolution")),
    ]
)


@given(path=MEMBERS, value=ANYTHING)
def test_no_document_disturbs_the_reader(path, value):
    """Whatever stands where, it is measured or ignored; all values are numbers and all dimensions text."""
    for found in measurements(json.dumps(changed(path, value)).encode(), NOON):
        assert isinstance(found.value, float)
        assert all(isinstance(text, str) and text for text in found.dimensions.values())


@pytest.mark.parametrize("inner", ["[" * 5000, "NaN", '"\\ud800"', "1e999", "\xff"])
def test_a_line_that_is_no_json_yields_nothing(inner):
    """However it fails to be JSON, the function that wrote it is not disturbed."""
    line = json.dumps({**DOCUMENT, "text": "here"}).replace('"here"', inner)

    assert read(line.encode("latin-1")) == []


def test_a_value_too_large_to_measure_yields_nothing():
    """JSON's whole numbers have no end."""
    assert read({**DOCUMENT, "Requests": 10**400}) == []
