"""Capture: a share of the answered requests is written to the log as asked and answered, to be replayed later.

`PERCH_CAPTURE` is the share, 0 to 1. Whether a request is captured follows from a hash of its id: nothing random
happens on the request path. Refusals and failures are not captured, nor are probes and replays.

The line is apart from the request's own, because it holds what clients sent; of the user, if the request names one,
only a pseudonym. What is too large is left out and said so:
`features` is null when the body has over 64 KB or the request over 20 rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from .encode import encode
from .telemetry import shown

EVENT = "predictor.captured"
MAX_BODY, MAX_ROWS = 64 * 1024, 20
MAX_LINE = 250_000
"""Characters of a line; Lambda hands on up to 256 KB in one piece."""


def read_share(environ: Mapping[str, str]) -> float:
    """Return the share of requests to capture, 0 without the variable. Raises ValueError unless it is 0 to 1."""
    text = environ.get("PERCH_CAPTURE") or "0"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"PERCH_CAPTURE is {text!r}; it is a share from 0 to 1")
    return share


def wanted(request_id: str, share: float) -> bool:
    """Decide whether a request is captured: always the same for the same id."""
    return crc32(request_id.encode("utf-8", "replace")) < share * 2**32


def captured(
    *,
    request_id: str,
    names: Mapping[str, str],
    revision: str,
    user: str | None = None,
    cache: str | None = None,
    body_size: int,
    features: Any,
    answer: Mapping[str, Any],
    ms: float,
    at: int,
) -> str:
    """Write the line of one request.

    Args:
        request_id: id of the request.
        names: model, version and, while an experiment runs, variant.
        revision: Lambda version.
        user: pseudonym of the user whom the request names.
        cache: whether it was answered from the cache ("hit"), which is why it was so fast.
        body_size: length of the request's body.
        features: the rows as the model got them, n by features.
        answer: the answer's body: `predictions` of n rows, maybe `probabilities`.
        ms: how long the answer took, in ms.
        at: the request's time in ms since 1970.

    Returns:
        JSON without a line end.
    """
    line = {
        "level": "INFO",
        "event": EVENT,
        "request_id": request_id,
        **names,
        "revision": revision,
        **({"user": user} if user else {}),
        **({"cache": cache} if cache else {}),
        "latency_ms": ms,
        "at": datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds"),
    }
    if body_size <= MAX_BODY and len(features) <= MAX_ROWS:
        answered = {name: answer[name] for name in ("predictions", "probabilities") if name in answer}
        text = encode({**line, "features": features, **answered})
        if len(text) <= MAX_LINE:
            return text
    return encode({**line, "features": None, "predictions": shown(answer["predictions"])})
