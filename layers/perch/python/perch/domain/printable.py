"""Texts that others wrote, made fit for a terminal and a log.

A model's file, a manifest and an exception's message hold names that anybody may have chosen. Printed as they are, some
characters are orders to a terminal (move the cursor, rename the window, write into the clipboard) or turn the direction
of writing around; here each of them is written out as JSON writes it, so that a JSON text stays one.
"""

from __future__ import annotations

import json

_KEPT = "\n\t"


def printable(text: str) -> str:
    """Return a text without control and format characters, ends of line and tabs apart; nearly always the same text."""
    if text.isprintable():
        return text
    from unicodedata import category  # noqa: PLC0415 - a megabyte of tables, for the few texts that need them

    def acts(letter: str) -> bool:
        kind = category(letter)
        return letter not in _KEPT and (kind.startswith("C") or kind in ("Zl", "Zp"))

    return "".join(json.dumps(letter)[1:-1] if acts(letter) else letter for letter in text)
