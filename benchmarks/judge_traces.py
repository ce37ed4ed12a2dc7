"""Made-up traffic for judges: minutes of requests and failures of a candidate and of stable, as numpy arrays.

Requests arrive as a Poisson process, go to the candidate with the weight's probability each, and fail independently of
each other. What is left out: cold starts, retries, late metrics, callers that come in bursts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Trace = NDArray[np.int64]
"""One rollout: a row a minute, columns candidate failures, candidate requests, stable failures, stable requests."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Traffic of both revisions together; `incident` minutes (first, last) multiply both rates by `times`."""

    per_minute: float
    stable: float
    candidate: float
    weight: float = 0.10
    looks: int = 60
    incident: tuple[int, int] | None = None
    times: float = 3.0

    def __str__(self) -> str:
        """How the tables name it."""
        rates = f"{self.stable:.4g}" if self.good else f"{self.stable:.4g} → {self.candidate:.4g}"
        weight = "" if self.weight == 0.10 else f", weight {self.weight:.2g}"
        shared = (
            f", both {self.times:g} times as high for {self.incident[1] - self.incident[0] + 1} min"
            if self.incident
            else ""
        )
        return f"{self.per_minute:.0f}/min, {rates}{weight}{shared}"

    @property
    def good(self) -> bool:
        """Whether the candidate fails as often as stable."""
        return self.stable == self.candidate

    def rates(self, minute: int) -> tuple[float, float]:
        """Failure rates of candidate and stable in a minute (the first is 1)."""
        first, last = self.incident or (1, 0)
        by = self.times if first <= minute <= last else 1.0
        return self.candidate * by, self.stable * by

    def minute(self, random: np.random.Generator, minute: int, weight: float) -> tuple[int, int, int, int]:
        """One minute's counts at a weight."""
        candidate, stable = self.rates(minute)
        requests = int(random.poisson(self.per_minute))
        trials = int(random.binomial(requests, weight))
        other = requests - trials
        return int(random.binomial(trials, candidate)), trials, int(random.binomial(other, stable)), other

    def trace(self, random: np.random.Generator) -> Trace:
        """One rollout at the scenario's weight."""
        return np.array([self.minute(random, m, self.weight) for m in range(1, self.looks + 1)], dtype=np.int64)
