"""Gather the evidence of a rollout that has traffic: its alarms, and counts of requests over closed minutes."""

from __future__ import annotations

from datetime import datetime, timedelta

from perch.app.world import World
from perch.domain.judge import Evidence
from perch.domain.rollout import Endpoint


def gather(world: World, state: Endpoint, *, now: datetime) -> Evidence:
    """Read what the judge needs of a rollout that has traffic: alarms, and counts over closed minutes.

    The counts of the steps before stand in the rollout; only what came after is read.
    """
    rollout = state.rollout
    assert rollout is not None and rollout.revision is not None and rollout.shifted_at is not None  # noqa: S101, PT018
    stable, candidate = rollout.stable.lambda_version, rollout.revision.lambda_version
    until = (now - timedelta(seconds=rollout.policy.settle_s)).replace(second=0, microsecond=0)
    uncounted, step = rollout.counted_until or rollout.shifted_at, rollout.phase_at
    counts = world.metrics.counts(
        state.name, world.function(state.name), (stable, candidate), since=(uncounted, step), until=until
    )
    return Evidence(
        candidate=rollout.candidate_before + counts[candidate, uncounted],
        stable=rollout.stable_before + counts[stable, uncounted],
        candidate_step=counts[candidate, step],
        until=until,
        alarms=world.alarms.of(state.name),
        revision=candidate,
    )
