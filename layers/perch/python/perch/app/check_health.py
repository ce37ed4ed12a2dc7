"""Check health: send an endpoint's probes to its stable and its candidate revision, keep and report the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from perch.app.probe import ProbeReport, faces, probe_revision
from perch.app.world import World
from perch.domain.codec import dump
from perch.domain.policy import EndpointPolicy
from perch.domain.rollout import Endpoint, Phase, Revision


@dataclass(frozen=True, kw_only=True)
class Health:
    """One revision's check: `role` is stable or candidate."""

    role: str
    revision: str
    model_version: str
    report: ProbeReport

    @property
    def healthy(self) -> bool:
        """Whether every probe passed."""
        return self.report.failure is None


def check_health(
    world: World, policy: EndpointPolicy, *, now: datetime, timer: Callable[[], float] = time.monotonic
) -> Iterator[Health]:
    """Probe what serves, and what is about to; record each result, and yield it before the next is asked for.

    Yields nothing before the first model.

    Raises:
        NotReady: Lambda is busy; the event is retried.
    """
    state = world.registry.endpoint(policy.name)
    for role, revision in _revisions(state):
        if revision.pointer is None:
            continue
        report = probe_revision(
            world.functions,
            world.function(policy.name),
            revision.lambda_version,
            faces(world.registry, revision.pointer, revision.experiment),
            endpoint=policy.name,
            now=now,
            timer=timer,
        )
        version = revision.pointer.version
        health = Health(role=role, revision=revision.lambda_version, model_version=version, report=report)
        world.registry.record_health(policy.name, role, at=now, document=dump(health) | {"healthy": health.healthy})
        yield health


def _revisions(state: Endpoint) -> list[tuple[str, Revision]]:
    found = [("stable", state.stable)] if state.stable else []
    if state.rollout and state.rollout.revision and state.rollout.phase in (Phase.SHIFTING, Phase.PROMOTING):
        found.append(("candidate", state.rollout.revision))
    return found
