"""Replacing parts of moto while a local cloud is up, and putting them back after.

moto keeps the state of the services; where it is too kind, or does nothing, a part of the local cloud puts its own
function in moto's place. A `Patches` remembers what was there, so that taking a local cloud down leaves moto as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_MISSING = object()


class Patches:
    """A set of replaced attributes; `undo` restores them, the last first."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any]] = []

    def wrap(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Put `make(original)` in the place of `owner.name` (original is None where there was nothing)."""
        original = vars(owner).get(name, _MISSING)
        inherited = getattr(owner, name, None)
        setattr(owner, name, make(inherited))
        self._done.append((owner, name, original))

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Put `value` in the place of `owner.name`."""
        self.wrap(owner, name, lambda _: value)

    def set_all(self, owner: Any, values: Mapping[str, Any]) -> None:
        """Put several values in the places of one owner."""
        for name, value in values.items():
            self.set(owner, name, value)

    def undo(self) -> None:
        """Restore every attribute. Does nothing the second time."""
        while self._done:
            owner, name, original = self._done.pop()
            if original is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, original)
