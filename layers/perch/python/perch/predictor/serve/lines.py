"""Standard output, one whole line at a time.

Python gathers what is printed to a pipe and writes it in blocks, which may end within a line: fatal when two workers
share the pipe, and late in any case. Here each line is one write. A pipe takes up to 4 KB at once as a whole; longer
lines (captured payloads) could be torn by another worker's while the pipe is full, so writers take turns by a lock,
which the kernel takes back if its holder dies.
"""

from __future__ import annotations

import fcntl
import io
import os


class Lines(io.TextIOBase):
    """Writes whole lines to a file descriptor."""

    def __init__(self, descriptor: int, lock: int | None = None) -> None:
        """Write to `descriptor`; `lock` is a file descriptor of this process's own, None for a single writer."""
        self._descriptor = descriptor
        self._lock = lock

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, text: str, /) -> int:
        """Write a text, which ends with its line."""
        data = text.encode("utf-8", "replace")
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        finally:
            if self._lock is not None:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
        return len(text)


def make_lock() -> int:
    """Return a descriptor of a file in memory, to be opened again by each process with `open_lock`."""
    return os.memfd_create("lines") if hasattr(os, "memfd_create") else -1


def open_lock(shared: int) -> int | None:
    """Open the lock for this process: only what was opened separately excludes one another."""
    return os.open(f"/proc/self/fd/{shared}", os.O_RDWR) if shared >= 0 else None
