"""How much memory a predictor takes: its runtime, and each artifact some times its size.

Measured by `benchmarks/load_weights.py`. A file of weights is held once, as it was fetched: torch and ONNX Runtime use
the weights where they lie. ONNX Runtime runs faster with a copy of them in the order in which its matrix products read
them; it makes that copy where there is memory for it, and does without where there is not. Other formats are unpacked
or parsed beside the file.
"""

from __future__ import annotations

from collections.abc import Iterable

RUNTIME_MB = 300
"""Interpreter, engine and the numbers of a request."""

PREPARED_TIMES = 2.2
"""Times its size that an ONNX file takes with that copy."""

_HELD_TIMES = {"onnx": 1.2, "safetensors": 1.2}
_OTHERS = 3.0


def held_times(fmt: str) -> float:
    """How many times its size a file of this format takes at most, while it is loaded and after."""
    return _HELD_TIMES.get(fmt, _OTHERS)


def needed_mb(files: Iterable[tuple[str, float]]) -> float:
    """MB of memory for a predictor that serves files of these formats and sizes (in MB)."""
    return RUNTIME_MB + sum(held_times(fmt) * size for fmt, size in files)


def has_room_to_prepare(size_mb: float, memory_mb: float) -> bool:
    """Whether a predictor with so much memory may also hold the weights of an ONNX file in a faster order."""
    return RUNTIME_MB + PREPARED_TIMES * size_mb <= memory_mb
