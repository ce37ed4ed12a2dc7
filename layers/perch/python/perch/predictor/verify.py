"""Verify bytes before anything parses them (law 2)."""

from __future__ import annotations

import hashlib
import hmac

from perch.domain.model import Pointer

from .errors import ModelUnavailable


def verify(data: bytes, pointer: Pointer) -> None:
    """Compare size and SHA-256 with what was registered. Raises `ModelUnavailable`."""
    if len(data) != pointer.size:
        raise ModelUnavailable(f"the artifact has {len(data)} bytes; {pointer.size} were registered")
    digest = hashlib.sha256(data).hexdigest()
    if not hmac.compare_digest(digest, pointer.sha256.lower()):
        raise ModelUnavailable(
            f"the artifact's SHA-256 is {digest[:12]}…; {pointer.sha256[:12]}… was registered, so it was not loaded"
        )
