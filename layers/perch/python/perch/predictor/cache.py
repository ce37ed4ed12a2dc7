"""The prediction cache: the same inputs to the same model give the outputs that it gave before, while they are fresh.

    inputs, decoded ─► key ─► this process's memory ─► the server behind it, if there is one ─► the model
                                  (bytes, LRU, TTL)        (`shared_cache`)

An endpoint opts in (`PERCH_CACHE`), for a model that is slow and asked the same again and again, and whose answer does
not change with time or chance. The key is a hash of what the model gets, tensor by tensor, so that requests which mean
the same hit, however they are written; and of the revision, the version and the artifact's SHA-256, so that no answer
outlives a rollout, and a candidate never answers with what another revision found out. What is kept are the model's
outputs: reading, checking and encoding an answer happen each time.

Nothing that failed is kept, nor an output with NaN. A whole request is one entry, and not each of its rows.

Time comes in as an argument, in seconds since 1970: the monotonic clock may stand still while Lambda freezes a process.
A clock may also be put back. An answer from a time to come is not fresh, so that one outlives its time by no more than
the step, and by no more than that time again: a clock that was a year ahead leaves nothing behind for a year.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from perch.domain.pointer import Pointer

from .tensors import is_finite, to_bytes

if TYPE_CHECKING:
    from .shared_cache import Fits, SharedCache

_OVERHEAD = 500
"""Bytes that an entry takes beside its arrays' elements: the key, the list, and the arrays themselves, about."""


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`PERCH_CACHE`: for how long an answer is fresh, how much memory they may take, and a server behind it."""

    ttl_s: int
    size_mb: int
    url: str = ""


class _Entry(NamedTuple):
    outputs: list[Any]
    since: float
    expires: float
    size: int


@dataclass
class Cache:
    """Outputs by key, in at most `size` bytes; those that were not used for the longest time go first."""

    size: int
    ttl_s: float
    shared: SharedCache | None = None
    held: int = 0
    _entries: OrderedDict[bytes, _Entry] = field(default_factory=OrderedDict)

    def get(self, key: bytes, now: float, fits: Fits = lambda _: True) -> list[Any] | None:
        """Return the outputs for a key, None if there are none or they are not fresh; `fits` as `SharedCache.get`."""
        entry = self._entries.get(key)
        if entry is not None:
            if entry.since <= now < entry.expires:
                self._entries.move_to_end(key)
                return entry.outputs
            self._drop(key)
        if self.shared is None or (found := self.shared.get(key, now, fits)) is None:
            return None
        outputs, expires = found
        if now >= expires:
            return None
        # Another process's clock may be ahead of ours, but nothing is fresh for longer than it is declared.
        self._keep(key, outputs, now, min(expires, now + self.ttl_s))
        return outputs

    def put(self, key: bytes, outputs: Sequence[Any], now: float) -> None:
        """Keep outputs, unless there is NaN or infinity in them."""
        if not all(map(_is_finite, outputs)):
            return
        # An engine may write into the same array again; and a view would hold on to all that it is a part of.
        kept = [output.copy() if isinstance(output, np.ndarray) else output for output in outputs]
        self._keep(key, kept, now, now + self.ttl_s)
        if self.shared is not None:
            self.shared.put(key, kept, now + self.ttl_s, now)

    def memo(self, revision: str, now: float, *, fresh: bool = False) -> Memo:
        """Return this cache as one request to a revision meets it."""
        return Memo(self, revision, now, fresh)

    def _keep(self, key: bytes, outputs: list[Any], now: float, expires: float) -> None:
        entry = _Entry(outputs, now, expires, _OVERHEAD + sum(map(_size, outputs)))
        if key in self._entries:
            self._drop(key)
        if entry.size > self.size:
            return
        self._entries[key] = entry
        self.held += entry.size
        while self.held > self.size:
            _, oldest = self._entries.popitem(last=False)
            self.held -= oldest.size

    def _drop(self, key: bytes) -> None:
        self.held -= self._entries.pop(key).size


class Memo(NamedTuple):
    """The cache as one request meets it: for one model of one revision, at one time.

    With `fresh`, the model answers whatever is kept: so does the first request of a process, which warms it.
    """

    cache: Cache
    revision: str
    now: float
    fresh: bool = False

    def key(self, pointer: Pointer, inputs: Mapping[str, NDArray[Any]]) -> bytes:
        """Return what stands for these inputs to this model."""
        found = sha256(f"{self.revision}\0{pointer.model}\0{pointer.version}\0{pointer.sha256}".encode())
        for name, array in sorted(inputs.items()) if len(inputs) > 1 else inputs.items():
            found.update(repr((name, array.dtype.str, array.shape)).encode("utf-8", "replace"))
            found.update(to_bytes(array) if array.dtype.kind in "OUS" else np.ascontiguousarray(array).data)
            if array.dtype.kind == "O":  # the text "None" is another than none
                found.update(bytes(one is None for one in array.flat))
        return found.digest()

    def get(self, key: bytes, fits: Fits) -> list[Any] | None:
        """Return what is kept for a key, if it `fits` or this process kept it itself."""
        return None if self.fresh else self.cache.get(key, self.now, fits)

    def put(self, key: bytes, outputs: Sequence[Any]) -> None:
        """Keep what the model gave."""
        self.cache.put(key, outputs, self.now)


def read_cache(environ: Mapping[str, str]) -> Cache | None:
    """Make the cache that PERCH_CACHE asks for, None without the variable. Raises ValueError if it does not say so."""
    text = environ.get("PERCH_CACHE")
    if not text:
        return None
    try:
        asked = msgspec.json.decode(text, type=CacheSettings)
    except msgspec.DecodeError as error:
        raise ValueError(f'PERCH_CACHE is not like {{"ttl_s": 300, "size_mb": 64}}: {error}') from error
    cache = Cache(size=asked.size_mb * 1_000_000, ttl_s=asked.ttl_s)
    if asked.url:
        from .shared_cache import connect  # noqa: PLC0415 - threads and sockets, for those who have a server

        # Another deployment may have an endpoint of that name, on the same server; it has another store.
        owner = f"{environ.get('PERCH_STORE', '')}/{environ.get('PERCH_ENDPOINT', '')}"
        cache.shared = connect(asked.url, prefix=f"perch:{owner}:")
    return cache


def _is_finite(output: Any) -> bool:
    """Whether an output may be kept; what is no array (a ZipMap) was read before, and found to be finite."""
    return not isinstance(output, np.ndarray) or output.dtype.kind != "f" or is_finite(output)


def _size(output: Any) -> int:
    """Bytes that an output takes, about."""
    if isinstance(output, np.ndarray):
        return output.nbytes + (sum(map(sys.getsizeof, output.flat)) if output.dtype.kind == "O" else 0)
    return 200 * sum(len(row) + 1 for row in output if isinstance(row, dict)) if isinstance(output, list) else 1_000
