"""S3, a range of an object at what the range costs.

moto reads the whole object for each ranged GET and then takes a piece of it: an object of 500 MB in parts of 16 MB
takes it half a minute, and S3 no longer than the bytes do. Here only the piece is read.

Everything else about ranges is moto's own: which headers it answers with, and what it makes of a range that is none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from moto.s3.models import FakeKey
from moto.s3.responses import S3Response

from perch.local.patches import Patches

_asked = threading.local()


class _Unread:
    """The bytes of an object that are read when a piece of them is taken."""

    def __init__(self, key: FakeKey) -> None:
        self._key = key

    def __len__(self) -> int:
        return int(self._key.contentsize)

    def __getitem__(self, piece: slice) -> bytes:
        begin, end, _ = piece.indices(len(self))
        with self._key.lock:
            self._key._value_buffer.seek(begin)
            read: bytes = self._key._value_buffer.read(max(0, end - begin))
        return read


def _lazily(value: Any) -> property:
    def read(self: FakeKey) -> Any:
        return _Unread(self) if getattr(_asked, "range", False) else value.fget(self)

    return property(read, value.fset)


def _leaving_unread(get: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def get_object(self: Any) -> Any:
        _asked.range = bool(self.headers.get("range"))
        try:
            return get(self)
        finally:
            _asked.range = False

    return get_object


def _read_at_last(answer: Callable[..., Any]) -> Callable[..., Any]:
    def key_response(self: Any, request: Any, full_url: str, headers: dict[str, Any]) -> Any:
        status, answered, content = answer(self, request, full_url, headers)
        return status, answered, content[:] if isinstance(content, _Unread) else content

    return key_response


def install(patches: Patches) -> None:
    """Let a ranged GET read no more than its range."""
    patches.wrap(FakeKey, "value", _lazily)
    patches.wrap(S3Response, "get_object", _leaving_unread)
    patches.wrap(S3Response, "key_response", _read_at_last)
