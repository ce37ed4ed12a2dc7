"""Policies: what perch.toml declares of each endpoint, in the canonical form that is deployed beside the functions.

The text comes from the `perch_settings` package (written at synth, see docs/contracts.md); here it becomes frozen
values. Weights are fractions of traffic in (0, 1); times are seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from perch.domain.codec import load
from perch.domain.errors import NotFound


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a rollout: a share of traffic, held for a time, until enough requests were seen."""

    weight: float
    hold_s: int
    requests: int = 0


@dataclass(frozen=True, kw_only=True)
class RolloutPolicy:
    """How traffic moves: the steps in order, then 100 %. No steps means all at once.

    `settle_s` is how old a minute of metrics must be before it counts (CloudWatch publishes late, up to 3 minutes);
    `deadline_s` how long one step may wait for its requests before the rollout ends as inconclusive.
    """

    strategy: str = "direct"
    steps: tuple[Step, ...] = ()
    settle_s: int = 120
    deadline_s: int = 604_800


@dataclass(frozen=True, kw_only=True)
class GuardPolicy:
    """What is watched. `error_rate` is the largest failed share; it needs `min_errors` failures to speak."""

    error_rate: float = 0.05
    min_errors: int = 3
    latency_p99_ms: float | None = None
    probe_failures: int = 1


@dataclass(frozen=True, kw_only=True)
class EndpointPolicy:
    """One endpoint as declared. `approval` is `auto` (an upload starts a rollout) or `manual` (a person does).

    `capture` is the share of requests whose payload is written to the log.
    """

    name: str
    model: str
    runtime: str
    memory_mb: int = 1024
    timeout_s: int = 10
    approval: str = "auto"
    health_check_s: int = 300
    max_artifact_mb: int = 200
    capture: float = 0.0
    rollout: RolloutPolicy = RolloutPolicy()
    guards: GuardPolicy = GuardPolicy()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that is declared."""

    name: str
    endpoints: tuple[EndpointPolicy, ...]

    def endpoint(self, name: str) -> EndpointPolicy:
        """Return one endpoint's policy. Raises NotFound, naming those that exist."""
        for policy in self.endpoints:
            if policy.name == name:
                return policy
        known = ", ".join(p.name for p in self.endpoints) or "none"
        raise NotFound(f"no endpoint {name!r} is declared; declared: {known}")

    def serving(self, model: str) -> tuple[EndpointPolicy, ...]:
        """Return the endpoints that serve a model."""
        return tuple(p for p in self.endpoints if p.model == model)


def load_settings(text: str) -> Settings:
    """Read the canonical document. Raises ValueError or TypeError if it is not one."""
    return load(Settings, json.loads(text))
