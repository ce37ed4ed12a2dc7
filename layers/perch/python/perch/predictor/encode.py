"""Encode answers and log lines as JSON: what a model gave may stand in them as an array, or as one of numpy's numbers.

A float32 is written as the exact double that it is. NaN has no word in JSON and becomes null; answers hold none.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not go into JSON")


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def encode(document: Any) -> str:
    """Return the JSON text of a document. Raises TypeError, or UnicodeEncodeError for text that is no Unicode."""
    return _encoder.encode(document).decode()
