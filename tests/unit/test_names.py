"""Names and keys: what is permitted, and that what is put together comes apart again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.domain.errors import Invalid
from perch.domain.names import AlarmName, UploadKey, check_name, parse_alarm, parse_key


def test_a_key_in_the_layout_splits_into_its_parts():
    """models/<model>/<version>/<file> is the whole layout."""
    assert parse_key("models/digits/v3/model.onnx") == UploadKey("digits", "v3", "model.onnx")


@pytest.mark.parametrize(
    "key",
    ["model.onnx", "models/digits/model.onnx", "models/digits/v1/deep/model.onnx", "other/digits/v1/m.onnx",
     "models//v1/model.onnx", "models/digits/v1/", ""],
)  # fmt: skip
def test_a_key_outside_the_layout_is_refused_with_the_layout(key):
    """The message shows where to upload instead."""
    with pytest.raises(Invalid, match=r"models/<model>/<version>/<file>"):
        parse_key(key)


@pytest.mark.parametrize("name", ["número", "two words", "-dash", "a" * 65, "émile", "semi;colon", "モデル"])
def test_a_name_that_would_not_fit_everywhere_is_refused(name):
    """Names become URL paths, metric dimensions and alarm names, so they are plain ASCII."""
    with pytest.raises(Invalid, match="ASCII"):
        check_name("model", name)


@given(st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True), st.one_of(st.none(), st.integers(1, 10**6).map(str)))
def test_an_alarm_name_comes_apart_as_it_was_put_together(endpoint, version):
    """parse_alarm(str(a)) == a, however many dashes the endpoint's name has."""
    name = AlarmName("perch", endpoint, "candidate-errors", version)

    assert parse_alarm(str(name)) == name


@pytest.mark.parametrize("text", ["CPU too high", "a/b", "a/b/c/d/e", "/b/c"])
def test_somebody_elses_alarm_is_not_taken_for_ours(text):
    """Anything of another shape is None."""
    assert parse_alarm(text) is None
