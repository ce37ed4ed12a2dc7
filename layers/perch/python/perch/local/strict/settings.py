"""What the strict extensions are told from outside: the clock, the random numbers, and who runs functions.

One value a process, because moto's backends are one a process too. `install(settings)` puts it in place; the extensions
read it through `current()` at each call, so the local cloud may fill in the invoker after the data plane has started.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from perch.local.ports import AsyncInvoker, Clock, Invoker


def _cache() -> Path:
    return Path(tempfile.gettempdir()) / "perch-local" / "code"


@dataclass
class StrictSettings:
    """The outside world of the strict extensions.

    `settle_s` is how long (in seconds of `clock`) a new or changed function stays Pending or InProgress; 0 makes it
    Active at once, and no clock is needed. `api_url` is what `ApiEndpoint` of an HTTP API gives, `image_store` the
    folder that the container stand-in pushes to (None: images are not looked up). `cache` holds unpacked code.
    """

    clock: Clock | None = None
    settle_s: float = 0.0
    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - routes requests, guards nothing
    invoker: Invoker | None = None
    async_invoker: AsyncInvoker | None = None
    api_url: str = "http://localhost:8080"
    cache: Path = field(default_factory=_cache)
    image_store: Path | None = None

    def now(self) -> datetime:
        """Return the clock's time, or the machine's when no clock was given."""
        return self.clock.now() if self.clock is not None else datetime.now(UTC)


_current = StrictSettings()


def current() -> StrictSettings:
    """Return the settings in force."""
    return _current


def use(settings: StrictSettings) -> None:
    """Put `settings` in force."""
    global _current  # noqa: PLW0603 - one value a process, as moto's backends are
    _current = settings
