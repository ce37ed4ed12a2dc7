"""Find what a command names: a rollout by its id, its story in the ledger, and what the judge would say of it now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from perch.cli.ledger import entries_of
from perch.domain.agreement import Replayed
from perch.domain.errors import NotFound
from perch.domain.judge import judge
from perch.domain.ledger import Entry
from perch.domain.look import Look
from perch.domain.rollout import Endpoint, Phase, Rollout
from perch.domain.tally import Tally

if TYPE_CHECKING:
    from perch.aws.registry import Registry
    from perch.cli.context import Context


def rollout_named(place: Context, rollout: str) -> Rollout:
    """Return a rollout by its id. Raises NotFound, saying where ids are listed."""
    endpoint, _, number = rollout.rpartition("-")
    found = place.world.registry.rollout(endpoint, rollout) if endpoint and number.isdigit() else None
    if found is None:
        raise NotFound(f"there is no rollout {rollout!r}; `perch rollouts list` lists those that there are")
    return found


def story_of(registry: Registry, rollout: Rollout) -> list[Entry]:
    """Return the ledger entries of a rollout, in order; those of pauses in its time are among them."""
    return list(_story(registry, rollout))


def _story(registry: Registry, rollout: Rollout) -> Iterator[Entry]:
    """Its id carries the number of the first entry; whatever begins the next rollout has ended it."""
    for entry in entries_of(registry, rollout.endpoint, after=int(rollout.id.rpartition("-")[2]) - 1):
        if entry.rollout == rollout.id:
            yield entry
        if entry.kind == "RolloutStarted" and entry.rollout != rollout.id:
            return


@dataclass(frozen=True, kw_only=True)
class Present:
    """A rollout as it stands: the tally of the last look (None before it), and what the judge would say now."""

    rollout: Rollout
    tally: Tally | None
    look: Look | None


def present(place: Context, state: Endpoint, rollout: Rollout, now: datetime) -> Present:
    """Ask the judge of what was counted so far; nothing is counted, stored or decided by it (three calls)."""
    registry = place.world.registry
    tally = registry.tally(rollout.endpoint, rollout.id)
    if rollout.phase is not Phase.SHIFTING or not rollout.shifts:
        return Present(rollout=rollout, tally=tally, look=None)
    replayed: Replayed | None = None
    if rollout.policy.paired or rollout.current_step.kind == "shadow":
        replayed = registry.replayed(rollout.endpoint, rollout.id)
    alarms = place.world.alarms.of(rollout.endpoint)
    counted = tally or Tally(until=rollout.shifts[0].at)
    look = Look(
        at=now,
        rollout=rollout.id,
        step=rollout.step,
        weight=rollout.weight,
        minutes=(),
        judgement=judge(rollout, counted, alarms=alarms, replayed=replayed, paused=state.paused, now=now),
        alarms=tuple(alarm for alarm in alarms if alarm.in_alarm),
        replayed=replayed,
        paused=state.paused,
    )
    return Present(rollout=rollout, tally=tally, look=look)
