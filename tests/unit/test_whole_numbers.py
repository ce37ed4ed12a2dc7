"""Whole numbers in rows: a model of integers gets what was asked, to the last digit, or the request is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perch.predictor.decode import decode
from perch.predictor.errors import RequestRefused

INTEGERS = ["int8", "uint8", "int32", "int64", "uint64"]
ENDS = [sign * 2**bits + more for bits in (7, 8, 31, 53, 63, 64) for sign in (1, -1) for more in (-1, 0, 1)]
CELL = st.one_of(
    st.sampled_from(ENDS),
    st.sampled_from(ENDS).map(float),
    st.integers(-(2**65), 2**65),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
)


@given(st.lists(CELL, min_size=1, max_size=4), st.sampled_from(INTEGERS))
@example([-(2**63) - 1], "int64")  # as a float it is the smallest
@example([2**64, 1.5], "uint64")
@example([10**4000, 1], "int64")
def test_a_model_of_whole_numbers_gets_exactly_what_was_asked_or_nothing(row: list[float], name: str) -> None:
    """JSON tells 1 from 1.0, NumPy makes one kind of all: no number may become another one on the way."""
    dtype = np.dtype(name)
    limits = np.iinfo(dtype)
    fits = all(limits.min <= value <= limits.max and value == int(value) for value in row)
    event = {"body": json.dumps({"features": [row, row]})}
    if not fits:
        with pytest.raises(RequestRefused, match=f"which is no {name} number"):
            decode(event, len(row), dtype)
        return
    decoded = decode(event, len(row), dtype)
    assert decoded.dtype == dtype
    assert decoded.tolist() == [[int(value) for value in row]] * 2


@pytest.mark.parametrize("name", ["int64", "uint64"])
def test_the_number_after_the_largest_is_refused(name: str) -> None:
    """As a float it is the largest one rounded, and would turn into the smallest."""
    dtype = np.dtype(name)
    event = {"body": json.dumps({"features": [float(np.iinfo(dtype).max + 1), 1]})}
    with pytest.raises(RequestRefused, match=f"feature 1 in row 1 .* is no {name} number"):
        decode(event, 2, dtype)
