"""What an inspection found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .signature import Signature


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """An accepted artifact.

    Attributes:
        format: its name in the table of formats.
        runtimes: the predictors that can run this very file, the one that suits it best first.
        signature: what it takes and gives.
        details: JSON-able facts for people (operator sets, producer, layers, parameters).
        code: what in it could run code, in a sentence; empty when it is proved that nothing can. Such a file is only
            registered where its endpoint opted in, with a signature of a trusted key.
    """

    format: str
    runtimes: tuple[str, ...]
    signature: Signature
    details: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
