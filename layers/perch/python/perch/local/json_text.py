"""JSON as AWS's front doors read it: strictly (no NaN, UTF-8 only), whoever wrote it, and without taking harm."""

from __future__ import annotations

from typing import Any

import msgspec

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


class NotJson(ValueError):
    """The text is no JSON; the message says why."""


def parse(text: bytes) -> Any:
    """Return what the text says. Raises `NotJson`, also for text that is no UTF-8 or is nested too deep."""
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError) as error:  # msgspec's own errors and Unicode's are ValueErrors
        raise NotJson(str(error)) from error


def dump(document: Any) -> bytes:
    """Return the document as JSON, without spaces."""
    return _encoder.encode(document)
