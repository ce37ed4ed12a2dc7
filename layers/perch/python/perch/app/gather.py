"""Gather the evidence of a rollout: closed minutes of both revisions, alarms, replays; and what is usual for stable.

A look costs the same whatever lies behind it: the tally holds what was counted, and only what came after is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from perch.app.world import World
from perch.domain import moves
from perch.domain.agreement import Replayed
from perch.domain.alarm_seen import AlarmSeen
from perch.domain.baseline import say_measures, usual, usual_latencies
from perch.domain.evidence import Measures, Minute
from perch.domain.rollout import Change, Endpoint, Rollout
from perch.domain.tally import Tally, weigh

_LOOK_BACK = timedelta(days=1)  # what is usual is what was, a day long
_JUST_NOW = timedelta(minutes=15)
_PATIENCE = timedelta(minutes=15)  # how long log lines may take that the requests of a minute left


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one look saw: the tally as it was (None before the first look) and as it is, and the minutes between."""

    before: Tally | None
    tally: Tally
    minutes: tuple[Minute, ...]
    alarms: tuple[AlarmSeen, ...]
    replayed: Replayed | None


def gather(world: World, state: Endpoint, rollout: Rollout, *, now: datetime) -> Seen:
    """Read what the judge needs of a rollout in one of its steps."""
    assert rollout.revision is not None  # noqa: S101 - it was published long ago
    before = world.registry.tally(state.name, rollout.id)
    tally = before or Tally(until=_minute(rollout.shifts[0].at))
    until = _minute(now - timedelta(seconds=rollout.policy.settle_s))
    minutes: tuple[Minute, ...] = ()
    if until - tally.until >= timedelta(seconds=max(rollout.guards.check_s, 60)):
        minutes = world.metrics.minutes(
            state.name,
            world.function(state.name),
            stable=rollout.stable.lambda_version,
            candidate=rollout.revision.lambda_version,
            measures=rollout.measures or Measures(),
            since=tally.until,
            until=until,
        )
    minutes = tuple(takewhile(lambda one: one.complete or one.at < now - _PATIENCE, minutes))
    replays = rollout.policy.paired or rollout.current_step.kind == "shadow"
    return Seen(
        before=before,
        tally=weigh(tally, minutes, rollout),
        minutes=minutes,
        alarms=world.alarms.of(state.name),
        replayed=world.registry.replayed(state.name, rollout.id) if replays else None,
    )


def freeze(world: World, state: Endpoint, rollout: Rollout, *, until: datetime, now: datetime) -> Change | None:
    """Fix what counts as slow and which predictions belong together, from what stable did up to `until`.

    None if that is known already, or if stable still had too little traffic to say more than before.
    """
    if rollout.measures and (rollout.measures.usual or not state.stable):
        return None
    since = max(until - _LOOK_BACK, state.stable_at or until - _LOOK_BACK)
    function, version = world.function(state.name), rollout.stable.lambda_version
    habits = world.metrics.habits(state.name, function, version, since=since, until=until)
    if rollout.measures and not usual_latencies(habits):
        return None
    recent = world.metrics.habits(state.name, function, version, since=max(since, until - _JUST_NOW), until=until)
    measures = usual(habits, recent, rollout.guards, minutes=max((until - since).total_seconds() / 60, 1.0))
    return moves.measured(state, measures, say_measures(measures), now=now, inputs=habits)


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
