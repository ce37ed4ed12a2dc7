"""Fetch the artifact from the store: the only AWS call of the predictor, made once, at init.

Exactly the S3 version that was registered is read, and never more than its registered size, straight into one piece of
memory: there is no second copy of the weights.

    small   one ranged GET, hashed as it comes
    large   parts ─► threads, each with a connection and the next part that nobody has ─► their place in the memory
            this thread hashes the parts behind them, in order; after the last byte there is one part left to hash

Each part names the object version, and the ETag that the first answer had. A part that fails or ends early goes on from
where it stopped, over a new connection.

A store that answers "no" (no such version, access denied) is a fact about this revision: `ModelUnavailable`. A store
that does not answer is not: `ArtifactUnreachable` is raised, the init fails, and Lambda tries again in a fresh
environment instead of keeping one that would answer 503 for hours.
"""

from __future__ import annotations

import hashlib
import http.client
import mmap
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from perch.domain.pointer import Pointer

from .errors import ArtifactUnreachable, ModelUnavailable
from .s3 import NoCredentials, S3Object
from .verify import Hashed

ONE_GET = 32 << 20
"""Bytes up to which one connection is as good as several: its first byte is most of the wait."""

PART = 16 << 20
"""Bytes of a part; S3 advises 8 to 16 MB."""

CONNECTIONS = 8
ATTEMPTS = 3
"""Tries of one part that bring nothing; a try that brings bytes starts the count again."""

_CHUNK = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_CODE = re.compile(rb"<Code>(\w+)</Code>")
_PASSING = frozenset({"RequestTimeout", "ExpiredToken", "RequestTimeTooSkewed"})
"""Refusals of this moment (a slow connection, old credentials, a clock) and not of the object."""


def fetch_artifact(
    bucket: str,
    pointer: Pointer,
    *,
    environ: Mapping[str, str] = os.environ,
    one_get: int = ONE_GET,
    part: int = PART,
    connections: int = CONNECTIONS,
    wait: Callable[[float], None] = time.sleep,
    source: S3Object | None = None,
) -> Hashed:
    """Read the bytes that a pointer names, and hash them.

    Args:
        bucket: of the model store.
        pointer: which object version, and its size.
        environ: where endpoint, region and credentials are looked up.
        one_get: bytes up to which an object is read over one connection.
        part: bytes of a part of a larger one.
        connections: parts that are under way at once.
        wait: waits some seconds before a part is tried again.
        source: the object as `locate` found it, if it was asked.

    Returns:
        The whole object as a read-only view, and its SHA-256, which is still to be compared (`verify`).

    Raises:
        ModelUnavailable: S3 refused, or the object is not of the registered size.
        ArtifactUnreachable: S3 could not be asked, after retries.
    """
    where = _where(bucket, pointer)
    size = pointer.size
    if size < 1:
        raise ModelUnavailable(f"{where} was registered with {size} bytes, so it was not read")
    source = source or locate(bucket, pointer, environ)
    memory = memoryview(_memory(size))
    download = _Download(source, where, memory, wait)
    digest = hashlib.sha256()
    if size <= max(one_get, part):
        download.in_one(digest.update)
    else:
        parts = [(begin, min(begin + part, size)) for begin in range(0, size, part)]
        for piece in download.in_parts(parts, connections):
            digest.update(piece)
    return Hashed(data=memory.toreadonly(), sha256=digest.hexdigest())


def locate(bucket: str, pointer: Pointer, environ: Mapping[str, str] = os.environ) -> S3Object:
    """Find out where an object is and who may read it. Raises `ArtifactUnreachable`."""
    try:
        return S3Object(bucket, pointer.key, pointer.version_id, environ)
    except (NoCredentials, OSError) as error:
        raise ArtifactUnreachable(f"{_where(bucket, pointer)} could not be fetched: {error}") from error


def _where(bucket: str, pointer: Pointer) -> str:
    return f"s3://{bucket}/{pointer.key} (version {pointer.version_id})"


def _memory(size: int) -> mmap.mmap:
    """Pages of the process's own; unlike those of a bytearray none is touched before its bytes come.

    Small pages: several threads that each have two megabytes cleared for their first byte take three times as long.
    """
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class _Again(Exception):
    """The store did not answer as it should; it may if it is asked again."""


class _Download:
    """One object on its way into memory."""

    def __init__(self, source: S3Object, where: str, memory: memoryview, wait: Callable[[float], None]) -> None:
        self.source = source
        self.where = where
        self.memory = memory
        self.wait = wait
        self.etag: str | None = None
        self._turn = threading.Condition()
        self._failure: BaseException | None = None

    def in_one(self, tell: Callable[[memoryview], object]) -> None:
        """Read all of it over one connection; `tell` gets the bytes in order."""
        reader = _Reader(self)
        try:
            reader.read(0, len(self.memory), tell)
        finally:
            reader.close()

    def in_parts(self, parts: Sequence[tuple[int, int]], connections: int) -> Iterator[memoryview]:
        """Read by several threads; give the parts in order, each as soon as it and all before it are there."""
        readers = [_Reader(self) for _ in range(min(connections, len(parts)))]
        # One asks alone at first: whether the object is what was registered is asked once, and its ETag is for all.
        readers[0].begin(*parts[0])
        waiting, there = iter(range(1, len(parts))), set[int]()

        def work(reader: _Reader, number: int | None) -> None:
            try:
                while number is not None and self._failure is None:
                    reader.read(*parts[number], self._go_on)
                    with self._turn:
                        there.add(number)
                        self._turn.notify_all()
                        number = next(waiting, None)
            except Exception as failure:  # noqa: BLE001 - it belongs to the thread that asked
                self._fail(failure)
            finally:
                reader.close()

        firsts = [0, *(next(waiting, None) for _ in readers[1:])]
        threads = [threading.Thread(target=work, args=pair) for pair in zip(readers, firsts, strict=True)]
        for thread in threads:
            thread.start()
        try:
            for number, (begin, end) in enumerate(parts):
                with self._turn:
                    while number not in there and self._failure is None:
                        self._turn.wait()
                if self._failure is not None:
                    raise self._failure
                yield self.memory[begin:end]
        finally:
            self._fail(_Again("nobody waits for it any more"))
            for thread in threads:
                thread.join()

    def _fail(self, failure: Exception) -> None:
        with self._turn:
            self._failure = self._failure or failure
            self._turn.notify_all()

    def _go_on(self, _: memoryview) -> None:
        if self._failure is not None:
            raise self._failure


class _Reader:
    """One connection, and the ranges that come over it one after the other."""

    def __init__(self, download: _Download) -> None:
        self._of = download
        self._connection: http.client.HTTPConnection | None = None
        self._answer: http.client.HTTPResponse | None = None
        self._at = 0

    def begin(self, begin: int, end: int) -> None:
        """Have the answer for a range begun, which `read` then takes up."""
        self._at = begin
        self._persist(lambda: self._open(end))

    def read(self, begin: int, end: int, tell: Callable[[memoryview], object]) -> None:
        """Read a range into its place; `tell` gets the bytes as they come.

        Raises:
            ModelUnavailable, ArtifactUnreachable: as `fetch_artifact`.
        """
        self._at = begin
        while self._at < end:
            self._persist(lambda: self._take(end, tell))

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._answer = None

    def _persist(self, act: Callable[[], None]) -> None:
        """Try until it works, or until `ATTEMPTS` in a row brought not one byte."""
        tries, seen = 0, self._at
        while True:
            try:
                return act()
            except (_Again, OSError, http.client.HTTPException) as error:
                self.close()
                tries, seen = (tries + 1, seen) if self._at == seen else (1, self._at)
                if tries >= ATTEMPTS:
                    said = str(error) or type(error).__name__
                    raise ArtifactUnreachable(f"{self._of.where} could not be fetched: {said}") from error
                self._of.wait(0.1 * 2**tries)

    def _take(self, end: int, tell: Callable[[memoryview], object]) -> None:
        if self._answer is None:
            self._open(end)
        assert self._answer is not None  # noqa: S101 - for the reader
        while self._at < end:
            place = self._of.memory[self._at : min(self._at + _CHUNK, end)]
            count = self._answer.readinto(place)
            if not count:
                raise _Again(f"the answer ended {end - self._at:,} bytes early")
            self._at += count
            tell(place[:count])
        self._answer = None

    def _open(self, end: int) -> None:
        """Ask for what is still missing of a range, and look at the answer's head before a byte of it is taken."""
        of = self._of
        if self._connection is None:
            self._connection = of.source.connect()
        answer = of.source.get(self._connection, self._at, end, at=datetime.now(UTC), etag=of.etag)
        if answer.status != 206:
            self._refuse(answer)
        found = _RANGE.fullmatch(answer.getheader("Content-Range", ""))
        begin, last, total = (int(number) for number in found.groups()) if found else (0, 0, 0)
        if found and total != len(of.memory):
            raise ModelUnavailable(
                f"{of.where} has {total} bytes; {len(of.memory)} were registered, so it was not read"
            )
        if (begin, last + 1) != (self._at, end) or answer.length not in (None, end - self._at):
            raise _Again("the store answered with another range than it was asked for")
        if of.etag is None:
            of.etag = answer.getheader("ETag")
        self._answer = answer

    def _refuse(self, answer: http.client.HTTPResponse) -> None:
        code = _CODE.search(answer.read(4096))
        said = code[1].decode() if code else f"HTTP {answer.status}"
        size = len(self._of.memory)
        if answer.status == 416:
            raise ModelUnavailable(f"{self._of.where} is shorter than the {size} bytes that were registered")
        if answer.status == 412:
            raise ModelUnavailable(f"{self._of.where} was changed while it was read")
        if 300 <= answer.status < 500 and answer.status not in (408, 429) and said not in _PASSING:
            raise ModelUnavailable(f"{self._of.where} cannot be read: {said}")
        raise _Again(f"S3 answered {said}")
