"""Layers that torch does not have and that a served architecture may use: `Sum` and `ToIndex`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class Sum(nn.Module):  # type: ignore[misc]  # torch is not followed, see pyproject
    """Adds what its branches give for the same input; an empty branch is the input itself (a residual connection)."""

    def __init__(self, *branches: nn.Module | Iterable[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            branch if isinstance(branch, nn.Sequential) else nn.Sequential(*_modules(branch)) for branch in branches
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum over the branches."""
        first, *others = self.branches
        total: torch.Tensor = first(x)
        for branch in others:
            total = total + branch(x)
        return total


class ToIndex(nn.Module):  # type: ignore[misc]  # as above
    """Turns numbers into rows of an `Embedding`: floor(x * scale)."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return whole numbers (int64) of the same shape."""
        return torch.floor(x * self.scale).long()


def _modules(branch: nn.Module | Iterable[nn.Module]) -> Iterable[nn.Module]:
    return [branch] if isinstance(branch, nn.Module) else branch
