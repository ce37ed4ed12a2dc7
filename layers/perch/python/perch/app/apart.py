"""Apart: call a function in a child process that may die, so that its death is an answer.

Inspecting a file is plain Python for most formats; ONNX's parser and checker are native, and bytes that anybody may
have made could end them, or keep them busy for ever. The child has the parent's memory as it was (fork, so nothing is
copied or imported again), writes what it found into a pipe, and ends. Fork is there on Lambda as on Linux everywhere;
`multiprocessing` is not used, because its locks need shared memory, which Lambda has not.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

Found = TypeVar("Found")


class DiedApart(Exception):
    """The child ended without an answer; the message says how."""


def apart(function: Callable[[], Found], *, limit_s: float) -> Found:
    """Return what a function without side effects returns, or raise what it raises.

    Args:
        function: called in the child; what it returns or raises has to be picklable.
        limit_s: seconds of wall time that it may take.

    Raises:
        DiedApart: it took longer, or the child died.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(function, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = _read(pipe.fileno(), time.monotonic() + limit_s)
    if answer is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if answer is None:
        raise DiedApart(f"it took longer than {limit_s:g} s")
    if os.WIFSIGNALED(status):
        raise DiedApart(f"it ended the process that did it ({signal.Signals(os.WTERMSIG(status)).name})")
    if os.WEXITSTATUS(status):
        raise DiedApart(f"it ended the process that did it (exit code {os.WEXITSTATUS(status)})")
    returned, value = pickle.loads(answer)  # noqa: S301 - from our own child
    if not returned:
        raise value
    found: Found = value
    return found


def _answer(function: Callable[[], object], writing: int) -> NoReturn:
    """In the child: write the outcome and end, without anything that the parent has set up for its own end."""
    code = 1
    try:
        try:
            outcome: tuple[bool, object] = (True, function())
        except Exception as error:  # noqa: BLE001 - it belongs to the caller
            outcome = (False, error)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(outcome))
        code = 0
    finally:
        os._exit(code)


def _read(reading: int, end: float) -> bytes | None:
    """Read a pipe until its other side is closed; None if that did not happen in time."""
    pieces: list[bytes] = []
    while (left := end - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            piece = os.read(reading, 1 << 16)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
    return None
