"""A turn: one endpoint at one time, as the parts of the driver pass it on, and what a look at it showed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from perch.app.world import World
from perch.aws.functions import Alias, Configuration
from perch.domain.policy import EndpointPolicy
from perch.domain.rollout import Endpoint


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The world, the endpoint as declared, the time that it is, and what measures seconds.

    `woken` is the time of the event that woke us. `now` is later where another run decided something since; evidence
    is read as of `woken` alone, so that no time that stands in the state can carry the reading ahead of the metrics.
    """

    world: World
    policy: EndpointPolicy
    now: datetime
    woken: datetime
    timer: Callable[[], float]

    @property
    def function(self) -> str:
        """The name of the endpoint's function."""
        return self.world.function(self.policy.name)


@dataclass(frozen=True, kw_only=True)
class View:
    """One look at an endpoint: its alias, `$LATEST`, its state, its model's last number, and what was announced."""

    alias: Alias
    latest: Configuration
    endpoint: Endpoint
    last_number: int
    announced: int
