"""Torch pickles and TorchScript, read in plain Python: values and tensors, and nothing that could run."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from perch.artifacts import ArtifactRefused, inspect
from perch.artifacts.state_dict_file import read_state_dict
from perch.artifacts.torch_pickle import PickledTensor, read_pickle
from tests.hostile.made import members, zipped
from tests.hostile.torch_files import script, state_dict

ANSWER = '{"name": "y", "datatype": "FP32", "shape": [-1]}'

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


def pickled(document: Any, protocol: int = 2) -> bytes:
    """The pickle that torch.save writes."""
    buffer = io.BytesIO()
    torch.save(document, buffer, pickle_protocol=protocol)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read("archive/data.pkl")


@given(plain, st.sampled_from([2, 3, 4, 5]))
def test_plain_values_are_what_unpickling_gives(value: Any, protocol: int) -> None:
    """Of every protocol that torch can be told to write."""
    assert read_pickle(pickle.dumps(value, protocol), "here") == value


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_are_told_and_not_made(protocol: int) -> None:
    """Where the numbers are, of which type, and how they lie."""
    value = torch.arange(12.0).reshape(3, 4)
    document = OrderedDict(w=nn.Parameter(value), t=value.t()[1:], n=torch.tensor(3))
    found = read_pickle(pickled(document, protocol), "here")
    assert found["w"] == PickledTensor(dtype="F32", key="0", elements=12, offset=0, shape=(3, 4), strides=(4, 1))
    assert found["t"] == PickledTensor(dtype="F32", key="0", elements=12, offset=1, shape=(3, 3), strides=(1, 4))
    assert found["n"] == PickledTensor(dtype="I64", key="1", elements=1, offset=0, shape=(), strides=())


@given(st.data())
def test_no_bytes_lead_to_another_error(data: st.DataObject) -> None:
    """Flipped bits of a real pickle: a value or a refusal."""
    whole = bytearray(members(state_dict())["archive/data.pkl"])
    for position in data.draw(st.lists(st.integers(0, len(whole) * 8 - 1), min_size=1, max_size=4)):
        whole[position // 8] ^= 1 << position % 8
    with suppress(ArtifactRefused):
        read_pickle(bytes(whole), "here")


@given(st.lists(st.sampled_from([chr(i).encode("latin-1") for i in range(256)]), max_size=12))
def test_no_instructions_lead_to_another_error(instructions: list[bytes]) -> None:
    """Whatever the order in which they come."""
    with suppress(ArtifactRefused):
        read_pickle(b"\x80\x02" + b"".join(instructions) + b".", "here")


def test_an_instruction_is_known_or_refused() -> None:
    """Of those that Python has, the ones that import, call or set are refused by name."""
    refused = set()
    for opcode in pickletools.opcodes:
        with pytest.raises(ArtifactRefused) as found:
            read_pickle(opcode.code.encode("latin-1") + b"\x00\x00\x00\x00\x00\x00\x00\x00\n0\n.", "here")
        if "holds the pickle instruction" in found.value.reason:
            refused.add(opcode.name)
    assert {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "PERSID", "REDUCE"} & refused == {
        "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "PERSID",
    }  # fmt: skip


def test_the_weights_of_a_state_dict_are_placed_in_the_file() -> None:
    """Each tensor's bytes are where the table says."""
    data = state_dict()
    header = read_state_dict(data)
    loaded = torch.load(io.BytesIO(data), weights_only=True)
    assert header.metadata == {key: value for key, value in loaded.items() if key != "state_dict"}
    for name, tensor in loaded["state_dict"].items():
        begin, end = header.places[name]
        assert data[begin:end] == tensor.numpy().tobytes()


def test_a_state_dict_is_inspected_like_a_safetensors_file() -> None:
    """The same layers, the same signature."""
    found = inspect("model.pt", state_dict())
    assert (found.format, found.runtimes, found.code) == ("state_dict", ("torch",), "")
    assert found.signature.features == 3
    assert found.details["layers"] == "Linear → BatchNorm1d → ReLU → Linear"
    assert inspect("model.PTH", state_dict()) == found


def test_a_tensor_of_another_shape_is_refused() -> None:
    """The layers own exactly the tensors of the file."""
    layers = '[{"type": "Linear", "in_features": 3, "out_features": 2}]'
    for state, words in (
        (nn.Linear(2, 2).state_dict(prefix="0."), "the architecture needs F32 [2, 3]"),
        (nn.Linear(3, 2, bias=False).state_dict(prefix="0."), "needs tensor '0.bias'"),
        ({**nn.Linear(3, 2).state_dict(prefix="0."), "x": torch.zeros(1)}, "belongs to no layer"),
        ({"0.weight": 3}, "is not a dict of tensors"),
    ):
        buffer = io.BytesIO()
        torch.save({"perch.architecture": layers, "state_dict": state}, buffer)
        with pytest.raises(ArtifactRefused) as refused:
            inspect("model.pt", buffer.getvalue())
        assert words in refused.value.reason


def test_a_script_is_told_by_its_operators_and_never_called_harmless() -> None:
    """It needs a trusted signature, under either name."""
    found = inspect("model.ts", script())
    assert (found.format, found.runtimes) == ("torchscript", ("torch",))
    assert found.code.startswith("TorchScript is a program")
    assert found.signature.features == 3
    assert {"linear", "relu"} <= set(found.details["operators"])
    assert inspect("model.pt", script()) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no signature"),
        ("[]", "is no signature"),
        ('{"inputs": [], "outputs": []}', "no input or no output"),
        ('{"inputs": [{"name": "x", "datatype": "FP32", "shape": null}], "outputs": []}', "without a shape"),
        (
            '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [4, 3]}], "outputs": [' + ANSWER + "]}",
            "a fixed batch of 4",
        ),
        (
            '{"inputs": [{"name": "x", "datatype": "COMPLEX", "shape": [-1, 3]}], "outputs": [' + ANSWER + "]}",
            "of type COMPLEX",
        ),
    ],
)
def test_a_declared_signature_is_checked(text: str, words: str) -> None:
    """It is a claim of its author, and has to be one that can be served."""
    entries = members(script()) | {"archive/extra/perch.signature": text.encode()}
    folder = next(iter(members(script()))).split("/")[0]
    entries = {name.replace("archive/", folder + "/", 1): value for name, value in entries.items()}
    with pytest.raises(ArtifactRefused, match=words):
        inspect("model.ts", zipped(entries))


def test_ranges_are_read_from_the_archive() -> None:
    """As from every other format."""
    ranges = json.dumps({"inputs": {"1": {"min": 0}}})
    folder = next(iter(members(script()))).split("/")[0]
    data = zipped(members(script()) | {f"{folder}/extra/perch.ranges": ranges.encode()})
    found = inspect("model.ts", data).signature.ranges
    assert found is not None
    assert found.to_json() == {"features": [], "inputs": {"1": {"min": 0}}}
