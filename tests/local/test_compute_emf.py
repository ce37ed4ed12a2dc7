"""Log lines become metrics by CloudWatch's embedded metric format, and by nothing else."""

import json
from copy import deepcopy
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.local.compute.emf import EmbeddedMetrics
from tests.local.compute_fakes import NOON, RecordedMetrics

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


def read(*documents):
    """Return what documents measure, written one after the other."""
    sink = RecordedMetrics()
    embedded = EmbeddedMetrics(sink)
    for document in documents:
        embedded.take(document if isinstance(document, bytes) else json.dumps(document).encode(), NOON)
    return [
        (namespace, name, dimensions, value, unit, at) for namespace, name, dimensions, value, at, unit in sink.points
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
        for name, value, unit in (
            ("Latency", 1.5, "Milliseconds"),
            ("Latency", 2.0, "Milliseconds"),
            ("Requests", 1.0, "None"),
        )
        for dimensions in (first, second)
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
        (("Latency",), [1, True]),
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
    for _, _, dimensions, measured, _, _ in read(changed(path, value)):
        assert isinstance(measured, float)
        assert all(isinstance(text, str) and text for text in dimensions.values())


@given(path=MEMBERS, value=ANYTHING)
def test_what_a_document_measures_does_not_depend_on_those_before_it(path, value):
    """What directives say is remembered; whatever stands in the next document, it is read as if it were the first."""
    document = changed(path, value)

    assert read(DOCUMENT, document, DOCUMENT) == [*read(DOCUMENT), *read(document), *read(DOCUMENT)]


@pytest.mark.parametrize("value", ["8", 8, True, ["8"], {"8": 8}, None, ""])
def test_each_document_has_its_own_dimensions(value):
    """With directives that are known: another value is another series, and what is no text measures nothing."""
    found = read(DOCUMENT, changed(("Revision",), value))[len(read(DOCUMENT)) :]

    assert {entry[2].get("Revision") for entry in found} == ({None, "8"} if value == "8" else set())


def test_functions_that_never_repeat_themselves_are_read_and_forgotten():
    """What is remembered has an end: neither directives nor values of dimensions that never come again fill memory."""
    sink = RecordedMetrics()
    embedded = EmbeddedMetrics(sink)
    for number in range(2_000):
        directives = changed((*DIRECTIVE, "Namespace"), f"N{number}")
        for document in (directives, changed(("Revision",), f"r{number}")):
            embedded.take(json.dumps(document).encode(), NOON)

    assert len(sink.points) == 2_000 * 2 * len(read(DOCUMENT))
    assert len(embedded._known) <= 256
    assert all(len(known.recorders) <= 256 for known in embedded._known.values())


@pytest.mark.parametrize("inner", ["[" * 5000, "NaN", '"\\ud800"', "1e999", "\xff"])
def test_a_line_that_is_no_json_yields_nothing(inner):
    """However it fails to be JSON, the function that wrote it is not disturbed."""
    line = json.dumps({**DOCUMENT, "text": "here"}).replace('"here"', inner)

    assert read(line.encode("latin-1")) == []


def test_a_value_too_large_to_measure_yields_nothing():
    """JSON's whole numbers have no end."""
    assert read({**DOCUMENT, "Requests": 10**400}) == []
