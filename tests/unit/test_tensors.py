"""Tensors of the Open Inference Protocol: what goes in is what comes out, in JSON and in bytes, of every datatype."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from perch.artifacts.signature import DATATYPES
from perch.predictor.errors import RequestRefused
from perch.predictor.tensors import KINDS, datatype_of, from_bytes, from_json, to_bytes, to_flat_list

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)
NUMERIC = sorted(set(KINDS) - {"BYTES"})


def arrays(datatype: str) -> st.SearchStrategy[NDArray[Any]]:
    """Arrays of a datatype, of any value that is finite."""
    if datatype == "BYTES":
        texts = st.text(st.characters(codec="utf-8"), max_size=8)
        return SHAPES.flatmap(
            lambda shape: st.lists(texts, min_size=math.prod(shape), max_size=math.prod(shape)).map(
                lambda values: _texts(values).reshape(shape)
            )
        )
    kind = KINDS[datatype].dtype
    elements = {"allow_nan": False, "allow_infinity": False} if kind.kind == "f" else None
    return hnp.arrays(kind, SHAPES, elements=elements)


def _texts(values: list[str]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def attempt(make: Callable[[], NDArray[Any]]) -> tuple[NDArray[Any], RequestRefused | None]:
    """A tensor, or why there is none; whatever else is raised fails the test."""
    try:
        return make(), None
    except RequestRefused as refused:
        return np.empty(0), refused


def test_every_datatype_that_a_signature_may_have_can_be_sent() -> None:
    """The inspection of artifacts and the request path have the same list."""
    assert set(KINDS) == DATATYPES


@pytest.mark.parametrize("datatype", sorted(KINDS))
@given(data=st.data())
def test_a_tensor_comes_back_from_json_as_it_went(datatype: str, data: st.DataObject) -> None:
    """Flat, and nested as its shape is."""
    array = data.draw(arrays(datatype))
    flat = json.loads(json.dumps(to_flat_list(array)))
    nested = json.loads(json.dumps(array.tolist()))
    for values in (flat, nested):
        back = from_json("x", datatype, list(array.shape), values)
        assert (back.dtype, back.shape, datatype_of(back)) == (KINDS[datatype].dtype, array.shape, datatype)
        assert np.array_equal(back, array)


@pytest.mark.parametrize("datatype", sorted(KINDS))
@given(data=st.data(), offset=st.integers(0, 7))
def test_a_tensor_comes_back_from_bytes_as_it_went(datatype: str, data: st.DataObject, offset: int) -> None:
    """Wherever in the body it begins."""
    array = data.draw(arrays(datatype))
    body = memoryview(b"\1" * offset + to_bytes(array))[offset:]
    back = from_bytes("x", datatype, list(array.shape), body)
    assert (back.dtype, back.shape) == (KINDS[datatype].dtype, array.shape)
    assert np.array_equal(back, array)
    assert back.flags.aligned


@pytest.mark.parametrize("datatype", sorted(KINDS))
@given(shape=st.lists(st.integers(1, 9), max_size=3), body=st.binary(max_size=64))
def test_any_bytes_are_a_tensor_or_a_refusal(datatype: str, shape: list[int], body: bytes) -> None:
    """Nothing else is raised, and what is taken writes the same bytes again."""
    array, refusal = attempt(lambda: from_bytes("x", datatype, shape, memoryview(body)))
    assert (refusal.status == 400 and "'x'" in str(refusal)) if refusal else to_bytes(array) == body


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | st.just({}),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("datatype", sorted(KINDS))
@given(shape=st.lists(st.integers(1, 3), max_size=3), data=st.lists(values, max_size=6))
def test_any_json_is_a_tensor_or_a_refusal(datatype: str, shape: list[int], data: list[Any]) -> None:
    """Nothing else is raised."""
    array, refusal = attempt(lambda: from_json("x", datatype, shape, data))
    assert (refusal.status == 400 and "'x'" in str(refusal)) if refusal else array.shape == tuple(shape)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "sentence"),
    [
        ("FP32", [2], [1, "2"], "element 2 of input 'x' is '2', which is no FP32"),
        ("FP32", [2], [1, None], "element 2 of input 'x' is null, which is no FP32"),
        ("FP32", [2], [1, [2]], "element 2 of input 'x' is a list, which is no FP32"),
        ("FP32", [2], [{}, 1], "element 1 of input 'x' is an object, which is no FP32"),
        ("FP32", [2], [1, 1e300], "element 2 of input 'x' is inf; elements have to be finite"),
        ("FP16", [1], [1e6], "element 1 of input 'x' is 1000000.0, which is no FP16"),
        ("FP64", [1], [10**400], "a whole number of more than 128 bits, which is no FP64"),
        ("UINT8", [2], [1, 256], "element 2 of input 'x' is 256, which is no UINT8"),
        ("UINT8", [1], [-1], "is -1, which is no UINT8"),
        ("INT64", [1], [2**63], "which is no INT64"),
        ("INT8", [2], [1, 0.5], "element 2 of input 'x' is 0.5, which is no INT8"),
        ("BOOL", [2], [True, 2], "element 2 of input 'x' is 2, which is no BOOL"),
        ("BOOL", [1], ["true"], "is 'true', which is no BOOL"),
        ("BYTES", [2], ["a", 1], "element 2 of input 'x' is 1, which is no BYTES"),
        ("FP32", [3], [1, 2], "input 'x' has 2 elements; its shape [3] has 3"),
        ("FP32", [2, 2], [[1, 2], [3]], "is not nested as its shape [2, 2] is"),
        ("FP32", [2, 2], [[1, 2], 3], "is not nested as its shape [2, 2] is"),
        ("FP32", [2, 2], [[1, 2, 3, 4]], "is not nested as its shape [2, 2] is"),
        ("BYTES", [1, 2], ["ab"], "has 1 elements; its shape [1, 2] has 2"),
        ("BYTES", [2, 1], [["a"], "b"], "is not nested as its shape [2, 1] is"),
    ],
)
def test_what_is_wrong_with_an_element_is_said(datatype: str, shape: list[int], data: list[Any], sentence: str) -> None:
    """Which input, which element, what it is and what it should be."""
    with pytest.raises(RequestRefused) as refused:
        from_json("x", datatype, shape, data)
    assert sentence in str(refused.value)


def test_whole_numbers_may_be_written_with_a_point() -> None:
    """A client that knows one kind of number writes 1.0; and true is 1."""
    assert from_json("x", "INT8", [3], [1.0, True, -3]).tolist() == [1, 1, -3]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "sentence"),
    [
        ("FP32", [2], b"1234", "input 'x' has 4 bytes of data; FP32 of shape [2] takes 8"),
        ("FP32", [1], struct.pack("<f", math.nan), "element 1 of input 'x' is nan; elements have to be finite"),
        ("BOOL", [2], b"\0\2", "a byte that is neither 0 nor 1"),
        ("BYTES", [1], b"\5\0\0\0ab", "element 1 of input 'x' is cut short"),
        ("BYTES", [1], b"\1\0", "element 1 of input 'x' is cut short"),
        ("BYTES", [2], b"\1\0\0\0a", "has 1 elements in its data; its shape has 2"),
        ("BYTES", [1], b"\1\0\0\0a" * 2, "more than the 1 elements"),
        ("BYTES", [1], b"\1\0\0\0\xff", "element 1 of input 'x' is no UTF-8 text"),
    ],
)
def test_bytes_that_are_no_tensor_are_refused_in_words(
    datatype: str, shape: list[int], data: bytes, sentence: str
) -> None:
    """Cut short, too many, not of the type."""
    with pytest.raises(RequestRefused) as refused:
        from_bytes("x", datatype, shape, memoryview(data))
    assert sentence in str(refused.value)


@pytest.mark.parametrize("datatype", ["FP32", "INT8", "BOOL", "BYTES"])
def test_a_huge_shape_takes_no_memory(datatype: str) -> None:
    """Sizes are multiplied, never allocated; one long text makes no other element long."""
    shape, tail = [2**40, 2**40], b"\x40\0\0\0" + b"x" * 64 + b"\0\0\0\0" * 9_999
    tracemalloc.start()
    try:
        for make in (lambda: from_json("x", datatype, shape, [1]), lambda: from_bytes("x", datatype, shape, tail)):
            with pytest.raises(RequestRefused):
                make()
        from_json("x", "BYTES", [1001], ["x" * 100_000, *[""] * 1000])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
