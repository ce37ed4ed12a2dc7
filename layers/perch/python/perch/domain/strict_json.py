"""JSON that can be read in one way only: UTF-8, no key twice, nothing but JSON's own numbers."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def read(text: bytes) -> Any:
    """Read a document. Raises ValueError, saying what is wrong."""
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number, parse_float=_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _number(text: str) -> float:
    found = float(text)
    return found if math.isfinite(found) else _no_number(text)  # 1e999


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
