"""Entries of PutEvents: which are refused, how large they are, when they say that they happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def refusal(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why PutEvents refuses an entry: (code, message)."""
    for name in ("Source", "DetailType", "Detail"):
        if not entry.get(name):
            return "InvalidArgument", f"Parameter {name} is not valid. Reason: {name} is a required argument."
    if str(entry["Source"]).startswith("aws."):
        return "NotAuthorizedForSourceException", "Not authorized for the source."
    try:
        detail = json.loads(entry["Detail"])
    except ValueError:
        detail = None
    return None if isinstance(detail, dict) else ("MalformedDetail", "Detail is malformed.")


def entry_size(entry: Mapping[str, Any]) -> int:
    """The size that PutEvents counts, in bytes."""
    texts = [entry.get("Source"), entry.get("DetailType"), entry.get("Detail"), *(entry.get("Resources") or [])]
    return (14 if entry.get("Time") else 0) + sum(len(str(text or "").encode()) for text in texts)


def event_time(given: Any, now: datetime) -> str:
    """When an entry happened, in the form that events have; now, if it does not say."""
    if isinstance(given, datetime):
        at = given if given.tzinfo else given.replace(tzinfo=UTC)
    elif isinstance(given, int | float):
        at = datetime.fromtimestamp(given, UTC)
    else:
        at = datetime.fromisoformat(given) if isinstance(given, str) else now
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
