"""Open files: a connection is one, and a process may have only so many (`ulimit -n`).

At the start a process takes all that it is allowed to. Where that is less than its clients need, it takes fewer of them
and says so: the next one is told 503, which needs a file for a moment. When none is left (a crowd of those who are told
503, or a model that opens files), libuv accepts who comes and closes at once, without a word: it does not spin, and who
is inside is served. That is said in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource

from perch.predictor import telemetry

_SPARE = 64
"""Files beside those of clients that are served: for who is told 503, and for the model."""
_LOOK_S, _SILENT_S = 1.0, 60.0
_REMEDY = "allow it more: docker run --ulimit nofile=65536:65536, ulimits of an ECS container, LimitNOFILE of systemd"


def make_room(clients: int) -> int:
    """Let this process open as many files as it may, and return how many clients it serves at a time.

    That is the given number, or, which is logged with what to do, as many as there are files for.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS calls it infinite, and takes less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return clients
    room = max(1, min(clients, limit - _open_one() - _SPARE))
    if room < clients:
        sentence = f"{room:,} clients are taken at a time and not {clients:,}: this process may open {limit:,} files"
        telemetry.write({"level": "WARNING", "event": "predictor.few_files", "error": f"{sentence}; {_REMEDY}"})
    return room


async def watch_files() -> None:
    """Say when no more files can be opened, once a minute, until cancelled."""
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            _open_one()
        except OSError as error:
            sentence = f"clients are turned away without an answer: {error.strerror}; {_REMEDY}"
            telemetry.write({"level": "ERROR", "event": "predictor.no_files", "error": sentence})
            await asyncio.sleep(_SILENT_S)


def _open_one() -> int:
    """Return the number of files that are open: the next one gets the lowest that is free. Raises OSError: no more."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor
