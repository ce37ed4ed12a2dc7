"""Standard output, one whole line at a time.

Python gathers what is printed to a pipe and writes it in blocks, which may end within a line: fatal when two workers
share the pipe, and late in any case. Here each line is one write. A pipe takes up to 4 KB at once as a whole; longer
lines (captured payloads) could be torn by another worker's while the pipe is full, so writers take turns by a lock,
which the kernel takes back if its holder dies.

A log that cannot be written (a full disk, a reader that is gone) costs its lines and no request; standard error says so
once, until a line can be written again.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import sys


class Lines(io.TextIOBase):
    """Writes whole lines to a file descriptor."""

    def __init__(self, descriptor: int, lock: int | None = None) -> None:
        """Write to `descriptor`; `lock` is a file descriptor of this process's own, None for a single writer."""
        self._descriptor = descriptor
        self._lock = lock
        self._failed = False
        self._torn = False

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, text: str, /) -> int:
        """Write a text, which ends with its line."""
        data = text.encode("utf-8", "replace")
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._write(b"\n" + data if self._torn else data)
        finally:
            if self._lock is not None:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
        return len(text)

    def _write(self, data: bytes) -> None:
        left = data
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            self._torn = self._torn or len(left) < len(data)
            if not self._failed:
                self._failed = True
                with contextlib.suppress(OSError):
                    sys.stderr.write(f"perch: log lines are lost: {error.strerror}\n")
        else:
            self._failed = self._torn = False


def make_lock() -> int:
    """Return a descriptor of a file in memory, to be opened again by each process with `open_lock`."""
    return os.memfd_create("lines") if hasattr(os, "memfd_create") else -1


def open_lock(shared: int) -> int | None:
    """Open the lock for this process: only what was opened separately excludes one another."""
    return os.open(f"/proc/self/fd/{shared}", os.O_RDWR) if shared >= 0 else None
