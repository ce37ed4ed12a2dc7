"""Replacing whole methods of moto, and taking it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perch.local import patches


class Patches(patches.Patches):
    """Patches that put a finished function in moto's place, rather than one made around the original."""

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace one attribute of a class or a module."""
        self.replace(owner, name, lambda _: value)

    def set_all(self, owner: Any, methods: Mapping[str, Callable[..., Any]]) -> None:
        """Replace several methods of one owner."""
        for name, method in methods.items():
            self.set(owner, name, method)
