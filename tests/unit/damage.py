"""Damage to a file: as hypothesis draws it, or in one place that is named."""

from __future__ import annotations

import re

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The file with a byte that flipped anywhere, without its end, or with a few bytes twice."""
    raw = bytearray(data)
    at = draw(st.integers(0, len(raw) - 1))
    how = draw(st.sampled_from(["flip", "cut", "double"]))
    if how == "flip":
        raw[at] ^= draw(st.integers(1, 255))
    elif how == "cut":
        del raw[at:]
    else:
        raw[at:at] = raw[at : at + 9]
    return bytes(raw)


def spoilt(text: str, old: str, new: str) -> str:
    """The text with the first match of a pattern replaced; there has to be one."""
    changed, count = re.subn(old, new, text, count=1)
    assert count
    return changed
