"""What the environment says about serving; which model is said by PERCH_POINTER with PERCH_STORE, or by PERCH_MODEL.

| variable | default | meaning |
|---|---|---|
| PORT | 8080 | where to listen, on all addresses (HOST: another one) |
| PERCH_WORKERS | usable processors | processes, each with its own copy of the model |
| PERCH_CONNECTIONS | 1000 | clients of one worker at a time; more are told 503 |
| PERCH_RECEIVE_S | 30 | from a request's first byte to its last; then 408 |
| PERCH_REQUEST_S | 60 | for the model to answer one request; then the worker ends, as one that hangs |
| PERCH_IDLE_S | 75 | between two requests of a connection; keep it above the load balancer's |
| PERCH_DRAIN_S | 2 | after SIGTERM: still serving, but not ready, so that load balancers look elsewhere |
| PERCH_STOP_S | 20 | after that: for requests in flight, at most |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How to serve; all times in seconds."""

    host: str = "0.0.0.0"  # noqa: S104 - a container's own network
    port: int = 8080
    workers: int = 1
    connections: int = 1000
    receive_s: float = 30.0
    request_s: float = 60.0
    idle_s: float = 75.0
    drain_s: float = 2.0
    stop_s: float = 20.0

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be meant."""
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"PORT is {self.port}; it is 0 to 65535")
        for name in ("workers", "connections", "receive_s", "request_s", "idle_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"PERCH_{name.upper()} is {getattr(self, name)}; it has to be more than 0")
        for name in ("drain_s", "stop_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"PERCH_{name.upper()} is {getattr(self, name)}; it has to be 0 or more")


def read_settings(environ: Mapping[str, str]) -> ServeSettings:
    """Return what the environment says. Raises ValueError, which names the variable."""

    def number(name: str, default: float) -> float:
        text = environ.get(name) or default
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{name} is {text!r}, which is no number") from None

    def whole(name: str, default: int) -> int:
        found = number(name, default)
        if not found.is_integer():
            raise ValueError(f"{name} is {environ[name]!r}, which is no whole number")
        return int(found)

    plain = ServeSettings()
    return ServeSettings(
        host=environ.get("HOST") or plain.host,
        port=whole("PORT", plain.port),
        workers=whole("PERCH_WORKERS", usable_processors()),
        connections=whole("PERCH_CONNECTIONS", plain.connections),
        receive_s=number("PERCH_RECEIVE_S", plain.receive_s),
        request_s=number("PERCH_REQUEST_S", plain.request_s),
        idle_s=number("PERCH_IDLE_S", plain.idle_s),
        drain_s=number("PERCH_DRAIN_S", plain.drain_s),
        stop_s=number("PERCH_STOP_S", plain.stop_s),
    )


def usable_processors(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many processors this container may use: by affinity, and by its cgroup's quota, rounded up."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        return min(found, max(1, -(-int(allowed) // int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return found
