"""What moto looks up on disk at every request, looked up once: the list of its modules, which names its services."""

from __future__ import annotations

from moto import backends

from perch.local.patches import Patches


def install(patches: Patches) -> None:
    """Let moto's server know its services by heart."""
    names = tuple(backends.list_of_moto_modules())
    patches.set(backends, "list_of_moto_modules", lambda: names)
