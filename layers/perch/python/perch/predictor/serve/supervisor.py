"""Several workers on one port: start them, replace one that dies, pass signals on, wait for the last.

    fork n times, before anything heavy is imported ─► each binds the port (SO_REUSEPORT), loads, says "started"

The kernel spreads new clients over the workers. A worker that dies after it has served is replaced: a crash in native
code costs the requests that it had, not the container. One that dies before ends everything, because a model that
cannot be loaded will not be loadable a second later; whoever runs the container decides what then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

Work = Callable[[Callable[[], object]], int]
"""What a worker does: calls its argument once it serves, returns its exit code."""

STOPS = {signal.SIGTERM, signal.SIGINT}
"""Signals that end it, with every request answered; also that of a terminal that closes, unless `nohup` said not to."""
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
    STOPS.add(signal.SIGHUP)

_PR_SET_PDEATHSIG = 1
_PAUSE_S = 1.0
"""Between a worker's death and its replacement, so that one that always dies does not take the machine."""


def supervise(work: Work, workers: int) -> int:
    """Run `work` in so many processes until a signal ends them. Returns the exit code: 0 when all ended well."""
    return _Supervisor(work).run(workers)


def end_at_once() -> None:
    """Let signals end this process as it is: before it serves there is nothing to finish."""
    for one in STOPS:
        signal.signal(one, lambda *_: os._exit(0))


class _Supervisor:
    """The processes under way, each with the pipe in which it says that it serves."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._running: dict[int, int] = {}
        self._stopping = False
        self._code = 0

    def run(self, workers: int) -> int:
        with _held_back():
            for one in STOPS:
                signal.signal(one, self._stop)
            for _ in range(workers):
                self._start()
        while self._running:
            pid, status = os.wait()
            if pid in self._running:  # a container's first process also inherits orphans, which are only reaped
                self._ended(pid, os.waitstatus_to_exitcode(status))
        return self._code

    def _stop(self, number: int, _: FrameType | None) -> None:
        self._stopping = True
        for pid in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _ended(self, pid: int, code: int) -> None:
        pipe = self._running.pop(pid)
        served = os.read(pipe, 1) == b"1"
        os.close(pipe)
        if self._stopping:
            self._code = self._code or (1 if code else 0)
        elif served:
            _say(f"worker {pid} ended with {code} and is replaced")
            time.sleep(_PAUSE_S)
            with _held_back():
                if not self._stopping:
                    self._start()
        else:
            _say(f"worker {pid} ended with {code} before it served; there will be no other")
            self._code = max(code, 1)
            self._stop(signal.SIGTERM, None)

    def _start(self) -> None:
        reader, writer = os.pipe()
        if pid := os.fork():
            os.close(writer)
            self._running[pid] = reader
            return
        os.close(reader)
        code = 1
        _end_with_parent()
        try:
            end_at_once()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            code = self._work(lambda: os.write(writer, b"1"))
        except BaseException as error:  # noqa: BLE001 - a fork never returns into its parent's stack
            _say(f"{type(error).__name__}: {error}")
        os._exit(code)


def _end_with_parent() -> None:
    """Let Linux send this worker SIGTERM when the supervisor dies, so that none is left alone with the port."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Keep signals back while processes are made, so that none misses one or answers it with another's handler."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def _say(sentence: str) -> None:
    sys.stderr.write(f"perch: {sentence}\n")
    sys.stderr.flush()
