"""Made-up traffic: how many requests a minute of the day brings, and what both revisions do with them.

Requests arrive as a Poisson process, the alias sends each to the candidate with the weight's probability, and they fail
independently of each other. Latencies and predictions are drawn from one fixed distribution for both revisions, so that
the guards on them are under way as they are in earnest; only failures are ever made worse.

Left out: bursts, retries, cold starts, and metrics that arrive late.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import NormalDist

import numpy as np

from perch.domain.errors import Invalid
from perch.local.metrics.store import MetricStore

DAY_MINUTES = 1440
# Latencies (ms): the middles of twenty equally likely parts of a log-normal law with median 20.
_LATENCIES = tuple(20 * math.exp(0.5 * NormalDist().inv_cdf((n + 0.5) / 20)) for n in range(20))
_CLASSES = 10


@dataclass(frozen=True)
class Profile:
    """Requests of every minute of the day, and the failed share of stable in it; a single value stands for all."""

    requests: tuple[float, ...]
    failure_rate: tuple[float, ...]

    @classmethod
    def steady(cls, requests_a_minute: float, failure_rate: float) -> Profile:
        """The same traffic all day."""
        return cls((requests_a_minute,), (failure_rate,))

    @property
    def varies(self) -> bool:
        """Whether the time of day matters."""
        return len(self.requests) > 1

    def at(self, minute: int) -> tuple[float, float]:
        """Requests expected in a minute (of any day), and stable's failed share."""
        return self.requests[minute % len(self.requests)], self.failure_rate[minute % len(self.failure_rate)]


def read_profile(path: Path, failure_rate: float) -> Profile:
    """Read a CSV file with the columns minute-of-day, requests and (optional) failures.

    Minutes that are left out are as the last one before them; a first line of names is skipped.

    Args:
        path: the file.
        failure_rate: stable's failed share where the file has no failures.

    Raises:
        Invalid: a line is not of that form, or there is none.
    """
    known: dict[int, tuple[float, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            cells = [cell.strip() for cell in row if cell.strip()]
            if not cells or (number == 1 and not cells[0].isdigit()):
                continue
            known |= _line(path, number, cells, failure_rate)
    if not known:
        raise Invalid(f"{path} has no line like 540,600,3 (minute of the day, requests, failures)")
    last, requests, rates = known[max(known)], [], []
    for minute in range(DAY_MINUTES):
        last = known.get(minute, last)
        requests.append(last[0])
        rates.append(last[1])
    return Profile(tuple(requests), tuple(rates))


def _line(path: Path, number: int, cells: list[str], failure_rate: float) -> Mapping[int, tuple[float, float]]:
    try:
        minute, requests = int(cells[0]), float(cells[1])
        failures = float(cells[2]) if len(cells) > 2 else requests * failure_rate
    except (ValueError, IndexError):
        minute, requests, failures = -1, 0.0, 0.0
    if not 0 <= minute < DAY_MINUTES or not 0 <= failures <= requests:
        raise Invalid(
            f"{path}, line {number}: {','.join(cells)} is not minute-of-day (0 to 1439), requests and failures"
        )
    return {minute: (requests, failures / requests if requests else failure_rate)}


def count(
    store: MetricStore,
    random: np.random.Generator,
    *,
    at: datetime,
    endpoint: str,
    function: str,
    version: str,
    requests: int,
    failures: int,
) -> None:
    """Write down what one revision did in a minute, as Lambda and the predictor's log lines would."""
    if not requests:
        return
    executed = {"FunctionName": function, "Resource": f"{function}:live", "ExecutedVersion": version}
    ours = {"Endpoint": endpoint, "Revision": version}
    store.put("AWS/Lambda", "Invocations", executed, 1.0, at=at, count=requests)
    store.put("Perch", "Failures", ours, float(failures), at=at)
    for values, name in ((_LATENCIES, "Latency"), (tuple(map(float, range(_CLASSES))), "Prediction")):
        numbers = random.multinomial(requests, [1 / len(values)] * len(values)).tolist()
        for value, number in zip(values, numbers, strict=True):
            if number:
                store.put("Perch", name, ours, value, at=at, count=number)
