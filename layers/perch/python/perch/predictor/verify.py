"""Verify bytes before anything parses them (law 2)."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from perch.artifacts.data import Data
from perch.domain.pointer import Pointer

from .errors import ModelUnavailable


class Hashed(NamedTuple):
    """A whole file and the SHA-256 (hexadecimal) of those very bytes, computed while they came in."""

    data: Data
    sha256: str


def verify(found: Data | Hashed, pointer: Pointer) -> Data:
    """Compare size and SHA-256 with what was registered, and return the bytes. Raises `ModelUnavailable`."""
    data = found.data if isinstance(found, Hashed) else found
    if len(data) != pointer.size:
        raise ModelUnavailable(f"the artifact has {len(data)} bytes; {pointer.size} were registered")
    digest = found.sha256 if isinstance(found, Hashed) else hashlib.sha256(data).hexdigest()
    if digest != pointer.sha256.lower():
        raise ModelUnavailable(
            f"the artifact's SHA-256 is {digest[:12]}…; {pointer.sha256[:12]}… was registered, so it was not loaded"
        )
    return data
