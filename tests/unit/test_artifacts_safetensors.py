"""Safetensors files: the header, the tensors' ranges, and the layers that they belong to. No torch here."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import safetensors
from hypothesis import example, given
from hypothesis import strategies as st

from perch.artifacts import ArchitectureRefused, ArtifactRefused, inspect
from perch.artifacts.architecture import MAX_LAYERS, check_architecture
from perch.artifacts.layers import KINDS
from perch.artifacts.safetensors_file import MAX_HEADER

LAYERS: list[Any] = [{"type": "Linear", "in_features": 3, "out_features": 2}, {"type": "ReLU"}]
WEIGHT = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
BIAS = {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]}


def header(**changes: Any) -> dict[str, Any]:
    """The header of a good file, with changes; a change to None leaves the key out."""
    good = {"__metadata__": {"perch.architecture": json.dumps(LAYERS)}, "0.weight": WEIGHT, "0.bias": BIAS}
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def file(head: dict[str, Any] | bytes, size: int = 32) -> bytes:
    """A file with this header and `size` bytes of data."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


def refusal(data: bytes) -> str:
    """The reason why a file is refused."""
    with pytest.raises(ArtifactRefused) as refused:
        inspect("model.safetensors", data)
    return refused.value.reason


def unfit(*layers: Any) -> str:
    """The reason why an architecture is refused."""
    with pytest.raises(ArchitectureRefused) as refused:
        check_architecture(list(layers))
    return refused.value.reason


def layer(kind: str, **options: Any) -> dict[str, Any]:
    """One layer as JSON."""
    return {"type": kind, **options}


def linear(size: int, out: int) -> dict[str, Any]:
    """A Linear layer."""
    return layer("Linear", in_features=size, out_features=out)


def test_a_good_file_is_read() -> None:
    """Signature from the layers, details for people."""
    found = inspect("model.safetensors", file(header()))
    assert (found.format, found.runtimes) == ("safetensors", ("numpy", "onnx", "torch"))
    assert found.signature.features == 3
    assert found.signature.outputs[0].shape == (-1, 2)
    assert found.details == {"layers": "Linear → ReLU", "parameters": 8, "output": None}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x01\x00", "cut short"),
        ((2**62).to_bytes(8, "little") + b"{}", f"a header of {2**62} bytes (at most {MAX_HEADER})"),
        ((MAX_HEADER).to_bytes(8, "little") + b"{}", "cut short: it declares a header of"),
        (file(header())[:-1], "cut short: its tensors need 32 bytes of data and 31 are there"),
        (file(header(), 33), "1 bytes at the end of the file belong to no tensor"),
        (file(b"[]"), "does not begin with {"),
        (file(b"{" * 100_000), "header"),
        (file(b'{"a":' * 100_000), "nested too deeply"),
        (file(b'{"\xff":1}'), "header is not readable"),
        (file(b'{"a":1,"a":2}'), "a key is there twice"),
        (file(b'{"a":NaN}'), "NaN is not JSON"),
        (file(header(__metadata__=None)), "the header's metadata has no perch.architecture"),
        (file(header(__metadata__={"a": 1})), "map strings to strings"),
        (file(header(__metadata__={"perch.architecture": "["})), "not readable JSON"),
        (file(header(**{"0.bias": None})), "8 bytes at the end"),
        (file(header(**{"0.bias": None}), 24), "needs tensor '0.bias', which is not in the file"),
        (
            file(header(extra={"dtype": "F32", "shape": [1], "data_offsets": [32, 36]}), 36),
            "'extra' belongs to no layer",
        ),
        (file(header(**{"0.weight": {**WEIGHT, "shape": [3, 2]}})), "the architecture needs F32 [2, 3]"),
        (file(header(**{"0.weight": {**WEIGHT, "dtype": "F16"}})), "F32 is served"),
        (file(header(**{"0.weight": {**WEIGHT, "dtype": ["F32"]}})), "F32 is served"),
        (file(header(**{"0.weight": {**WEIGHT, "shape": [2, 4]}})), "its data has 24 bytes"),
        (file(header(**{"0.weight": {**WEIGHT, "shape": [-2, -3]}})), "positive whole numbers"),
        (file(header(**{"0.weight": {**WEIGHT, "shape": [0, 3], "data_offsets": [0, 0]}})), "positive whole numbers"),
        (file(header(**{"0.weight": {**WEIGHT, "shape": [True, 6]}})), "positive whole numbers"),
        (file(header(**{"0.weight": {**WEIGHT, "shape": [10**400]}})), "positive whole numbers"),
        (file(header(**{"0.weight": {**WEIGHT, "data_offsets": [24, 0]}})), "its data has -24 bytes"),
        (file(header(**{"0.weight": {**WEIGHT, "data_offsets": [0, 24, 24]}})), "not two whole numbers"),
        (file(header(**{"0.bias": {**BIAS, "data_offsets": [16, 24]}}), 24), "overlaps another"),
        (file(header(**{"0.bias": {**BIAS, "data_offsets": [28, 36]}}), 36), "leaves a gap before it"),
        (file(header(**{"0.weight": {**WEIGHT, "more": 1}})), "exactly dtype, shape and data_offsets"),
        (file(header(**{"0.weight": 5})), "exactly dtype, shape and data_offsets"),
    ],
)
def test_a_damaged_or_hostile_file_is_refused_in_words(data: bytes, words: str) -> None:
    """Every number of the header is checked before it is used."""
    assert words in refusal(data)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"type": "Linear"}, "layers has to be a list of layers"),
        ([["Linear"]], "layers[0] has to be an object"),
        ([layer("LSTM")], "layers[0] is a 'LSTM', which is not served; served are AvgPool1d"),
        ([layer("__class__")], "is not served"),
        ([layer("Linear", in_features=3)], "layers[0] (Linear): out_features has to be a whole number"),
        ([linear(3, 2**21)], "out_features has to be a whole number from 1 to 1048576"),
        ([linear(True, 2)], "in_features has to be a whole number"),
        ([{**linear(3, 2), "device": "cuda"}], "unknown option 'device'"),
        ([linear(3, 2), linear(3, 2)], "layer 1 (Linear) does not fit: it takes [3] and [2] reaches it"),
        ([layer("ReLU")], "the number of features cannot be told"),
        ([], "the number of features cannot be told"),
        ([linear(3, 2), layer("Unflatten", unflattened_size=[1, 2])], "a flat list of numbers is served (add Flatten)"),
        ([linear(3, 2), layer("ToIndex")], "the last layer gives row numbers"),
        ([linear(3, 2), layer("ToIndex"), layer("ReLU")], "row numbers reach it"),
        ([linear(3, 2), layer("Embedding", num_embeddings=4, embedding_dim=5)], "put a ToIndex before it"),
        ([linear(3, 2), layer("Dropout", p=2)], "p has to be a number from 0 to 1"),
        ([linear(3, 2), layer("GELU", approximate="exec")], "approximate has to be one of none, tanh"),
        ([layer("Sum", branches=[[linear(3, 2)]])], "two lists of layers or more"),
        ([layer("Sum", branches=[[linear(3, 2)], [linear(3, 4)]])], "its branches give [2] and [4]"),
        ([layer("Sum", branches=[[], []])], "the number of features cannot be told"),
        ([linear(3, 2**20), layer("ToIndex"), layer("Embedding", num_embeddings=9, embedding_dim=2)],
         "one row becomes 2097152 numbers here"),
        ([linear(3, 4), layer("Unflatten", unflattened_size=[1, 2, 2]),
          layer("Conv2d", in_channels=1, out_channels=1, kernel_size=3)], "a window of 3 is larger"),
        ([linear(3, 4), layer("MaxPool2d", kernel_size=2)], "it takes [channels, height, width]"),
        ([linear(3, 4), layer("Unflatten", unflattened_size=[1, 2, 2]), layer("MaxPool2d", kernel_size=2, padding=2)],
         "padding is more than half of the window"),
        ([linear(3, 4), layer("AvgPool1d", kernel_size=5)], "a window of 5 is larger"),
    ],
)  # fmt: skip
def test_an_architecture_that_cannot_be_served_is_refused_in_words(layers: Any, words: str) -> None:
    """The reason names the layer and what would be right."""
    with pytest.raises(ArchitectureRefused) as refused:
        check_architecture(layers)
    assert words in refused.value.reason


def test_size_and_depth_are_bounded() -> None:
    """Many layers, and layers within layers, end in words and not in a full stack."""
    assert f"more than {MAX_LAYERS} layers" in unfit(linear(3, 3), *[layer("ReLU")] * MAX_LAYERS)
    nested: list[Any] = [linear(3, 3)]
    for _ in range(50):
        nested = [layer("Sum", branches=[nested, []])]
    assert "nested deeper than" in unfit(*nested)


def test_a_residual_connection_is_an_empty_branch() -> None:
    """And tensors are named as torch's state dict names them."""
    found = check_architecture([layer("Sum", branches=[[], [linear(3, 3)]]), linear(3, 1)])
    assert (found.features, found.outputs) == (3, 1)
    assert found.summary == "Sum(identity | Linear) → Linear"
    assert set(found.tensors) == {"0.branches.1.0.weight", "0.branches.1.0.bias", "1.weight", "1.bias"}


@given(st.data())
def test_a_cut_file_is_refused(data: st.DataObject) -> None:
    """No prefix of a file is a file."""
    whole = file(header())
    assert refusal(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.data())
def test_what_is_accepted_the_library_accepts_too(data: st.DataObject) -> None:
    """Whatever bits are flipped, this parser is at least as strict as the one that loads the tensors."""
    whole = bytearray(file(header()))
    for position in data.draw(st.lists(st.integers(0, len(whole) * 8 - 1), min_size=1, max_size=3)):
        whole[position // 8] ^= 1 << position % 8
    with suppress(ArtifactRefused):
        inspect("model.safetensors", bytes(whole))
        assert len(safetensors.deserialize(bytes(whole))) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([*KINDS, "Sum"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "branches", "in_features", "out_features", "kernel_size", "p"]), inner
        )
    ),
    max_leaves=12,
)


@given(json_values)
@example([{"type": "Sum", "branches": [[{"type": "Sum", "branches": [[], []]}], []]}])
@example([{"type": "Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": [1, 10**30]}])
def test_any_json_is_an_architecture_or_refused(value: Any) -> None:
    """Nothing that JSON can say leads to another error."""
    with suppress(ArchitectureRefused):
        assert check_architecture(value).features >= 1
