"""Event patterns match as EventBridge documents it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.local.events.patterns import EventPattern, InvalidPatternError

EC2 = {
    "version": "0",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "time": "2017-10-02T16:24:49Z",
    "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-000000aaaaaa00000", "arn:other"],
    "detail": {
        "c-count": 5,
        "d-count": 3,
        "x-limit": 301.8,
        "source-ip": "10.0.0.33",
        "state": "running",
        "nothing": None,
        "empty": "",
        "none": [],
        "file": "dir/a/b.png",
        "flag": True,
        "nested": {"deep": 1},
        "items": [{"id": 1, "kind": "a"}, {"id": 2, "kind": "b"}],
        "matrix": [[1, 2], [3]],
    },
}

MATCHES = [
    {"source": ["aws.ec2"]},
    {"source": ["aws.s3", "aws.ec2"]},
    {"resources": ["arn:x", "arn:other"]},
    {"time": [{"prefix": "2017-10-02"}]},
    {"source": [{"suffix": "ec2"}]},
    {"source": [{"prefix": {"equals-ignore-case": "AWS."}}]},
    {"source": [{"suffix": {"equals-ignore-case": "EC2"}}]},
    {"source": [{"equals-ignore-case": "AWS.EC2"}]},
    {"detail": {"state": [{"anything-but": "initializing"}]}},
    {"detail": {"x-limit": [{"anything-but": 123}]}},
    {"detail": {"state": [{"anything-but": ["stopped", "overloaded"]}]}},
    {"detail": {"x-limit": [{"anything-but": [100, 200, 300]}]}},
    {"detail": {"state": [{"anything-but": {"prefix": "init"}}]}},
    {"detail": {"state": [{"anything-but": {"prefix": ["init", "stop"]}}]}},
    {"detail": {"file": [{"anything-but": {"suffix": ".jpg"}}]}},
    {"detail": {"state": [{"anything-but": {"equals-ignore-case": ["INITIALIZING", "STOPPED"]}}]}},
    {"detail": {"file": [{"anything-but": {"wildcard": "*/lib/*"}}]}},
    {"detail": {"c-count": [{"numeric": [">", 0, "<=", 5]}], "d-count": [{"numeric": ["<", 10]}]}},
    {"detail": {"x-limit": [{"numeric": ["=", 3.018e2]}]}},
    {"detail": {"source-ip": [{"cidr": "10.0.0.0/24"}]}},
    {"detail": {"c-count": [{"exists": True}]}},
    {"detail": {"missing": [{"exists": False}]}},
    {"detail": {"nested": [{"exists": False}]}},  # not a leaf
    {"detail": {"none": [{"exists": False}]}},  # an empty array holds no value
    {"detail": {"gone": {"further": [{"exists": False}]}}},
    {"detail": {"nothing": [None]}},
    {"detail": {"empty": [""]}},
    {"detail": {"flag": [True]}},
    {"detail": {"file": [{"wildcard": "dir/*.png"}]}},
    {"detail": {"items": {"id": [2], "kind": ["b"]}}},
    {"detail": {"matrix": [3]}},
    {"source": ["aws.s3"], "$or": [{"x": [1]}, {"y": [2]}]}
    | {"source": ["aws.ec2"], "$or": [{"x": [1]}, {"version": ["0"]}]},
    {"detail": {"$or": [{"c-count": [{"numeric": [">", 100]}]}, {"d-count": [{"numeric": ["<", 10]}]}]}},
    {"$or": [{"source": ["no"]}, {"source": ["aws.ec2"], "$or": [{"version": ["1"]}, {"version": ["0"]}]}]},
    {"detail": {"state": [{"prefix": "run"}, {"numeric": ["=", 1]}]}},
    {"detail": {"nothing": [{"exists": True}]}},
]

DIFFERS = [
    {"source": ["aws.s3"]},
    {"source": ["AWS.EC2"]},
    {"source": ["aws.ec2"], "detail": {"state": ["stopped"]}},
    {"detail": {"c-count": ["5"]}},
    {"detail": {"c-count": [5.0]}},  # exact numbers match by how they are written
    {"detail": {"flag": [1]}},
    {"detail": {"c-count": [True]}},
    {"detail": {"missing": [{"anything-but": "x"}]}},  # anything-but needs the field
    {"detail": {"missing": [None]}},
    {"detail": {"empty": [None]}},
    {"detail": {"state": [{"anything-but": {"prefix": "run"}}]}},
    {"detail": {"file": [{"anything-but": {"wildcard": "dir/*"}}]}},
    {"detail": {"x-limit": [{"anything-but": 301.8}]}},
    {"detail": {"c-count": [{"numeric": [">", 5]}]}},
    {"detail": {"state": [{"numeric": [">", 0]}]}},
    {"detail": {"source-ip": [{"cidr": "10.0.1.0/24"}]}},
    {"detail": {"state": [{"cidr": "10.0.0.0/8"}]}},
    {"detail": {"nested": [{"exists": True}]}},
    {"detail": {"none": [{"exists": True}]}},
    {"detail": {"items": {"id": [1], "kind": ["b"]}}},  # from two different elements
    {"detail": {"file": [{"wildcard": "dir/*.jpg"}]}},
    {"$or": [{"source": ["a"]}, {"version": ["1"]}]},
    {"$or": {"source": ["aws.ec2"]}},  # an object under $or is a plain field
    {"detail": {"c-count": [{"prefix": "5"}]}},
]

INVALID = [
    ("[]", "object"),
    ("{", "not JSON"),
    ("{}", "empty"),
    ('{"source": "aws.ec2"}', "'source' must be an object or an array"),
    ('{"detail": {}}', "empty objects"),
    ('{"source": []}', "empty arrays"),
    ('{"source": [["a"]]}', "array"),
    ('{"source": [{"prefix": "a", "suffix": "b"}]}', "exactly one key"),
    ('{"source": [{"begins": "a"}]}', "unrecognised match type 'begins'"),
    ('{"source": [{"prefix": 5}]}', "string"),
    ('{"source": [{"exists": "yes"}]}', "true or false"),
    ('{"source": [{"numeric": [">"]}]}', "pairs"),
    ('{"source": [{"numeric": [">", "5"]}]}', "number"),
    ('{"source": [{"numeric": ["<", 10, ">", 5]}]}', "lower bound and then"),
    ('{"source": [{"numeric": [">", 10, "<", 5]}]}', "below"),
    ('{"source": [{"numeric": ["~", 10]}]}', "operator"),
    ('{"source": [{"numeric": [">", 6e9]}]}', "within"),
    ('{"source": [{"cidr": "10.0.0"}]}', "address block"),
    ('{"source": [{"anything-but": ["a", 1]}]}', "only strings or only numbers"),
    ('{"source": [{"anything-but": []}]}', "empty arrays"),
    ('{"source": [{"anything-but": {"numeric": ["=", 1]}}]}', "anything-but takes"),
    ('{"source": [{"wildcard": "a**b"}]}', "two asterisks"),
    ('{"source": [{"wildcard": "a\\\\b"}]}', "backslash"),
    ('{"$or": [{"source": ["a"]}]}', "unrecognised match type"),
]


@pytest.mark.parametrize("pattern", MATCHES, ids=json.dumps)
def test_the_event_matches(pattern):
    """Each of these selects the documentation's example event."""
    assert EventPattern.parse(json.dumps(pattern)).matches(EC2)


@pytest.mark.parametrize("pattern", DIFFERS, ids=json.dumps)
def test_the_event_does_not_match(pattern):
    """Each of these looks close, and is not."""
    assert not EventPattern.parse(json.dumps(pattern)).matches(EC2)


@pytest.mark.parametrize(("text", "reason"), INVALID)
def test_a_pattern_that_is_not_valid_is_refused_with_its_reason(text, reason):
    """The message says what is wrong."""
    with pytest.raises(InvalidPatternError, match=reason):
        EventPattern.parse(text)


def test_a_wildcard_escapes_asterisks_and_backslashes():
    r"""`\*` is an asterisk and `\\` a backslash."""
    pattern = EventPattern.parse({"k": [{"wildcard": "a\\*b\\\\*"}]})
    assert pattern.matches({"k": "a*b\\c"})
    assert not pattern.matches({"k": "axb\\c"})


texts = st.text(alphabet="abAB/.*\\é", max_size=6)
leaves = st.one_of(texts, st.integers(-1000, 1000), st.booleans(), st.none())


@given(leaves, st.lists(leaves, max_size=4))
def test_a_value_matches_its_own_pattern_among_any_others(value, others):
    """Alternatives are an or: adding some never takes a match away."""
    assert EventPattern.parse({"k": [*others, value]}).matches({"k": value})


@given(st.lists(leaves, min_size=1, max_size=4), st.lists(leaves, min_size=1, max_size=4))
def test_arrays_match_when_they_have_a_value_in_common(event, pattern):
    """An event's array and a pattern's array intersect, or there is no match; types count."""
    common = {(type(one), one) for one in event} & {(type(one), one) for one in pattern}
    assert EventPattern.parse({"k": pattern}).matches({"k": event}) == bool(common)


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_anything_but_is_the_opposite_for_a_value_that_is_there(value, refused):
    """Never both, never neither."""
    plain, but = EventPattern.parse({"k": refused}), EventPattern.parse({"k": [{"anything-but": refused}]})
    assert plain.matches({"k": value}) != but.matches({"k": value})


@given(texts, texts)
def test_prefix_and_suffix_agree_with_their_wildcards(part, value):
    """A prefix is a wildcard that ends in an asterisk, a suffix one that begins with it."""
    escaped = part.replace("\\", "\\\\").replace("*", "\\*")
    for operator, wildcard in (("prefix", f"{escaped}*"), ("suffix", f"*{escaped}")):
        one = EventPattern.parse({"k": [{operator: part}]})
        other = EventPattern.parse({"k": [{"wildcard": wildcard}]})
        assert one.matches({"k": value}) == other.matches({"k": value})


@given(st.integers(-100, 100), st.integers(-100, 100), st.integers(-100, 100))
def test_a_range_is_both_of_its_bounds(low, high, value):
    """Half-open as written."""
    if low >= high:
        return
    pattern = EventPattern.parse({"k": [{"numeric": [">=", low, "<", high]}]})
    assert pattern.matches({"k": value}) == (low <= value < high)


@given(st.dictionaries(st.sampled_from("abc"), texts, min_size=1))
def test_fields_are_an_and_and_or_is_an_or(event):
    """A pattern of all fields matches; taking one field of it as alternatives does too."""
    assert EventPattern.parse({name: [value] for name, value in event.items()}).matches(event)
    assert EventPattern.parse({"$or": [{"zzz": ["no"]}, *({n: [v]} for n, v in event.items())]}).matches(event)
    assert not EventPattern.parse({name: [value] for name, value in event.items()} | {"zzz": ["no"]}).matches(event)
