"""`python -m perch.predictor.serve`: read the environment, then serve; see the package for the story.

Exit codes: 0 stopped by a signal with every request answered, 1 some were cut off or a worker could not start, 2 the
environment makes no sense.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from .lines import Lines, make_lock, open_lock
from .port import bind
from .settings import ServeSettings, read_settings
from .supervisor import end_at_once, supervise

if TYPE_CHECKING:
    from perch.predictor.handler import Handler

REVISION = "local"
"""The revision in answers and metrics, unless PERCH_REVISION says another."""


def main() -> int:
    """Serve until a signal comes; returns the exit code."""
    environ = os.environ
    end_at_once()
    try:
        settings = read_settings(environ)
    except ValueError as error:
        sys.stderr.write(f"perch: {error}\n")
        return 2
    try:
        with bind(settings.host, settings.port):  # alone: workers share the port with each other, and with nobody else
            pass
        if settings.workers == 1:
            return _work(settings, environ, None, lambda: None)
        with bind(settings.host, settings.port, share=True) as held:
            found = replace(settings, port=held.getsockname()[1])  # the same for all, also if any would do
            lock = make_lock()
            return supervise(lambda started: _work(found, environ, lock, started), found.workers)
    except OSError as error:
        sys.stderr.write(f"perch: {settings.host} port {settings.port} cannot be listened at: {error.strerror}\n")
        return 1


def _work(settings: ServeSettings, environ: Mapping[str, str], lock: int | None, started: Callable[[], object]) -> int:
    """Load the model and serve it, in this process."""
    sys.stdout = Lines(1, None if lock is None else open_lock(lock))
    from perch.domain.errors import PerchError  # noqa: PLC0415 - heavy: after the fork, each worker its own

    from .worker import Worker  # noqa: PLC0415 - as above

    try:
        handler = _handler(environ)
    except (PerchError, ValueError) as error:  # a ValueError names a variable
        sys.stderr.write(f"perch: {error}\n")
        return 1 if isinstance(error, PerchError) else 2
    worker = Worker(handler, settings, revision=environ.get("PERCH_REVISION") or REVISION, random=Random())  # noqa: S311 - names
    with bind(settings.host, settings.port, share=lock is not None) as sock:
        return 0 if worker.run(sock, started) else 1


def _handler(environ: Mapping[str, str]) -> Handler:
    from perch.predictor.handler import make_handler  # noqa: PLC0415 - as above

    from .local_file import read_local  # noqa: PLC0415 - as above

    if (local := read_local(environ)) is not None:
        return make_handler(runtime=local.runtime, environ=local.environ, fetch=local.fetch)
    return make_handler(runtime=environ.get("PERCH_RUNTIME") or "onnx", environ=environ)


if __name__ == "__main__":
    sys.exit(main())
