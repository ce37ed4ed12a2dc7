"""What the users of the demo saw: every answer of the traffic, counted by endpoint and model version as it comes in."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Seen:
    """The answers of one endpoint: `order` is the version of each in turn, `bad` the positions of failed ones."""

    order: list[str] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def add(self, status: int, version: str, right: bool, milliseconds: float) -> None:
        """Count one answer. A failed one names the version whose turn it was only if the predictor said so."""
        if status == 200:
            self.served[version] += 1
            self.right[version] += right
        else:
            self.bad.append(len(self.order))
        self.order.append(version if status == 200 else "failed")
        self.latencies.append(milliseconds)

    def accuracy(self, version: str) -> float:
        """The share of right answers of a version, over the answers it gave."""
        return self.right[version] / self.served[version] if self.served[version] else float("nan")


class Audience:
    """The traffic process and what came back; a context manager that stops it."""

    def __init__(self, url: str, endpoints: list[str], *, rate: float, environment: Mapping[str, str]) -> None:
        self.seen = {endpoint: Seen() for endpoint in endpoints}
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "examples.digits.traffic", url, *endpoints, "--rate", str(rate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
        )
        self._reader = threading.Thread(target=self._read, name="audience", daemon=True)
        self._reader.start()

    @property
    def total(self) -> int:
        """All answers so far."""
        return sum(len(seen.order) for seen in self.seen.values())

    @property
    def failed(self) -> int:
        """All failed requests so far."""
        return sum(len(seen.bad) for seen in self.seen.values())

    def check(self) -> None:
        """Raise RuntimeError if the traffic has stopped by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the traffic stopped by itself with exit code {self._process.returncode}")

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            endpoint, status, version, right, milliseconds = line.split()
            self.seen[endpoint].add(int(status), version, right == "1", float(milliseconds))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(timeout=5)
