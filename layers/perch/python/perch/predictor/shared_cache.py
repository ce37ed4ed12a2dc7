"""A cache that processes share: Valkey, Redis or what speaks their protocol, reached by the `redis` client.

    rediss://user:password@host:port/0      TLS; `redis://` without it

A prediction never depends on it. Whatever goes wrong is a miss; an answer that is not there after `PATIENCE_S` is not
waited for (connecting, and finding the host, count as well, which is why a thread of its own asks); and after trouble
the server is left alone for `REST_S`, so that one that is down or slow costs a request now and then, and not each of
them. Each trouble is one log line, `predictor.cache_trouble`.

Values are data, never code: an array is its type, its shape and its bytes, and what does not fit together, or not the
model that would have given it, is trouble.
Who can write to the server decides what is answered, so it has to be as private as the model store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from . import telemetry
from .tensors import KINDS

PATIENCE_S, REST_S = 0.05, 30.0
MAX_VALUE = 1_000_000
"""Bytes of outputs that are worth sending over a network."""

Fits = Callable[[Sequence[NDArray[Any]]], bool]
T = TypeVar("T")


class Client(Protocol):
    """What is needed of the server's client."""

    def get(self, name: str, /) -> bytes | None:
        """Return a value."""

    def set(self, name: str, value: bytes, /, *, px: int) -> object:
        """Keep a value for `px` milliseconds."""


class _Array(msgspec.Struct, array_like=True):
    datatype: str
    shape: list[int]
    data: bytes | list[str]


class _Value(msgspec.Struct, array_like=True):
    expires: float
    outputs: list[_Array]


_decoder = msgspec.msgpack.Decoder(_Value)
_NAMES = {kind.dtype: name for name, kind in KINDS.items()}


@dataclass
class SharedCache:
    """The server, asked with patience that ends; `prefix` keeps endpoints apart."""

    client: Client
    prefix: str
    patience_s: float = PATIENCE_S
    rest_s: float = REST_S
    _rests_until: float = -math.inf
    _asked: Future[Any] | None = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "perch-cache"))

    def get(self, key: bytes, now: float, fits: Fits = lambda _: True) -> tuple[list[Any], float] | None:
        """Return the outputs that are kept for a key and until when they are fresh, None for whatever reason.

        Args:
            key: what they are kept for.
            now: in seconds since 1970.
            fits: says whether outputs can be the model's; if not, that is trouble as well.
        """
        text = self._ask(lambda: self.client.get(self.prefix + key.hex()), now)
        if text is None:
            return None
        try:
            value = _decoder.decode(text)
            outputs = [_unpacked(array) for array in value.outputs]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            self._trouble(f"a value cannot be read: {type(error).__name__}: {error}", now)
            return None
        if fits(outputs):
            return outputs, value.expires
        self._trouble("a value is no answer of this model", now)
        return None

    def put(self, key: bytes, outputs: Sequence[Any], expires: float, now: float) -> None:
        """Keep outputs, if they are arrays and not large."""
        if self._is_resting(now) or (packed := _packed(outputs)) is None:
            return
        text, px = msgspec.msgpack.encode(_Value(expires, packed)), max(1, int((expires - now) * 1000))
        self._ask(lambda: self.client.set(self.prefix + key.hex(), text, px=px), now)

    def _ask(self, question: Callable[[], T], now: float) -> T | None:
        if self._is_resting(now):
            return None
        asked: Future[T] = self._thread.submit(question)
        self._asked = asked
        try:
            return asked.result(self.patience_s)
        except TimeoutError:
            self._trouble(f"no answer within {self.patience_s * 1000:g} ms", now)
        except Exception as error:  # noqa: BLE001 - whatever a network or a client may raise is a miss
            self._trouble(f"{type(error).__name__}: {error}"[:300], now)
        return None

    def _is_resting(self, now: float) -> bool:
        """Whether the server is left alone: after trouble, and while a question is still on its way.

        Trouble in a time to come is none: the clock was put back.
        """
        rests = self._rests_until - self.rest_s <= now < self._rests_until
        return rests or (self._asked is not None and not self._asked.done())

    def _trouble(self, reason: str, now: float) -> None:
        self._rests_until = now + self.rest_s
        telemetry.write(
            {"level": "WARNING", "event": "predictor.cache_trouble", "reason": reason, "rests_s": self.rest_s}
        )


def connect(url: str, *, prefix: str) -> SharedCache | None:
    """Return the server at an address, or None, with a log line, if this function cannot speak to it.

    Nothing is sent yet: a connection would not outlive the snapshot that Lambda makes after init.
    """
    try:
        import redis  # noqa: PLC0415 - for endpoints that name a server only

        client = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    except (ImportError, ValueError) as error:
        # Not what it says: an address holds a password.
        reason = f"{type(error).__name__}: the client of the cache's server is not there, or the address is none"
        telemetry.write({"level": "ERROR", "event": "predictor.cache_trouble", "reason": reason})
        return None
    return SharedCache(client, prefix)  # type: ignore[arg-type]  # its methods may be awaitable, in another class


def _packed(outputs: Sequence[Any]) -> list[_Array] | None:
    """Outputs as data; None if one of them is no array of a datatype, or all are too large."""
    found = []
    for output in outputs:
        datatype = _NAMES.get(output.dtype) if isinstance(output, np.ndarray) else None
        if datatype is None:
            return None
        if datatype == "BYTES":
            data: bytes | list[str] = output.ravel().tolist()
            if set(map(type, data)) - {str}:
                return None
        else:
            data = output.tobytes()
        found.append(_Array(datatype, list(output.shape), data))
    sizes = (len(array.data) if isinstance(array.data, bytes) else sum(map(len, array.data)) for array in found)
    return found if sum(sizes) <= MAX_VALUE else None


def _unpacked(array: _Array) -> NDArray[Any]:
    """Raises ValueError, KeyError or TypeError unless type, shape and data belong together."""
    dtype = KINDS[array.datatype].dtype
    if isinstance(array.data, bytes):
        return np.frombuffer(array.data, dtype=dtype).reshape(array.shape)
    if array.datatype != "BYTES":
        raise ValueError(f"texts in an array of {array.datatype}")
    texts = np.empty(len(array.data), dtype=np.object_)
    texts[:] = array.data
    return texts.reshape(array.shape)
