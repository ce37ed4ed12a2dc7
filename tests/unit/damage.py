"""Damage to a file, as hypothesis draws it."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The file with a byte that flipped anywhere, or without its end."""
    raw = bytearray(data)
    at = draw(st.integers(0, len(raw) - 1))
    if draw(st.booleans()):
        raw[at] ^= draw(st.integers(1, 255))
    else:
        del raw[at:]
    return bytes(raw)
