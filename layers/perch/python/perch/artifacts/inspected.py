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
        format: `onnx` or `safetensors`.
        runtime: which predictor runs it: `onnx` or `torch`.
        signature: what it takes and gives.
        details: JSON-able facts for people (operator sets, producer, layers, parameters).
    """

    format: str
    runtime: str
    signature: Signature
    details: Mapping[str, Any] = field(default_factory=dict)
