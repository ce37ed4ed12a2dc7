"""A cold start in the order that gets it over with: begin what waits, import what is slow, then put both together.

    thread    connect ─► ask ─► read ─► hash ───────────────────┐
    here      handler's modules ─► the engine, the loader ──────┴─► verify ─► load ─► warm ─► handler

The thread only moves bytes and hashes them: all that it needs is imported before, because two threads that import may
each wait for the other. Its bytes are parsed by nobody before `verify` has compared them (law 2), and what must not be
loaded here is not even fetched (`wanted`). Of an experiment the champion is fetched ahead, the challengers in their
turn.

Importing an engine makes hundreds of thousands of objects and next to no garbage, and Python's collector would walk
over them again and again: a tenth of the import. So it is off until the model is loaded, and what is there by then is
left out of its walks for good, which requests are spared, too.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .errors import ArtifactUnreachable, ModelUnavailable
from .fetch import fetch_artifact, locate
from .wanted import wanted

if TYPE_CHECKING:
    from perch.domain.pointer import Pointer

    from .handler import Handler
    from .loading import Fetch
    from .s3 import S3Object
    from .verify import Hashed


def start(*, runtime: str, environ: Mapping[str, str] = os.environ) -> Handler:
    """Return the handler of a predictor, with its model loaded.

    Args:
        runtime: one of `perch.domain.formats.RUNTIMES`.
        environ: environment variables (contracts.md).

    Raises:
        ArtifactUnreachable, ValueError: as `make_handler`.
    """
    gc.disable()
    try:
        fetch = fetch_ahead(runtime, environ)
        from .handler import make_handler  # noqa: PLC0415 - NumPy and more, while the bytes come

        return make_handler(runtime=runtime, environ=environ, fetch=fetch)
    finally:
        gc.freeze()
        gc.enable()


def fetch_ahead(runtime: str, environ: Mapping[str, str]) -> Fetch:
    """Begin to fetch the model that the environment names; return what fetches it, and any other.

    If there is none, or its store cannot be asked, nothing is begun, and whoever loads it finds out why.
    """
    try:
        bucket, pointer = wanted(runtime, environ)
        source = locate(bucket, pointer, environ)
    except (ModelUnavailable, ArtifactUnreachable):
        return fetch_artifact
    return _Ahead(bucket, pointer, source)


class _Ahead:
    """A fetch that is under way; called like `fetch_artifact`."""

    def __init__(self, bucket: str, pointer: Pointer, source: S3Object) -> None:
        self._asked = bucket, pointer
        self._found: Hashed | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(source,), name="fetch", daemon=True)
        self._thread.start()

    def __call__(self, bucket: str, pointer: Pointer) -> Hashed:
        """Wait for the bytes that were asked for, once; fetch any others. Raises as `fetch_artifact`."""
        if (bucket, pointer) != self._asked:
            return fetch_artifact(bucket, pointer)
        self._thread.join()
        found, self._found = self._found, None  # the model holds on to its bytes, if it does
        if self._error is not None:
            raise self._error
        return fetch_artifact(bucket, pointer) if found is None else found

    def _run(self, source: S3Object) -> None:
        try:
            self._found = fetch_artifact(*self._asked, source=source)
        except Exception as error:  # noqa: BLE001 - it is for whoever loads the model
            self._error = error
