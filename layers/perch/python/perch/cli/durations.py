"""Spans of time as people type and read them: `90s`, `10m`, `6 hours`, `1 day 12 hours`."""

from __future__ import annotations

import re
from datetime import timedelta

from perch.domain.errors import Invalid

_SECONDS = {"s": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86_400, "day": 86_400}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)


def parse_span(text: str) -> timedelta:
    """Return the span that a text names. Raises Invalid for anything else, and for nothing."""
    total, end = 0.0, 0
    while part := _PART.match(text, end):
        unit = part[2].lower()
        size = _SECONDS.get(unit) or _SECONDS.get(unit.removesuffix("s"))
        if size is None:
            break
        total, end = total + float(part[1]) * size, part.end()
    if end != len(text) or not 0 < total < 1e10:
        raise Invalid(f"{text!r} is not a span of time; write it like 90s, 10m, '6 hours' or '1 day 12 hours'")
    return timedelta(seconds=total)


def span(length: timedelta) -> str:
    """Say a span in its two largest units."""
    left, parts = int(length.total_seconds()), []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
