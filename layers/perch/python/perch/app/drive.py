"""Drive rollouts: one tick. Advance every declared endpoint; one that fails does not keep the others from moving."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime

from perch.app.advance import Progress, advance
from perch.app.world import World

_log = logging.getLogger(__name__)


class TickFailed(Exception):
    """Some endpoints could not be advanced; the others were."""


def drive(
    world: World, *, now: datetime, owner: str, timer: Callable[[], float] = time.monotonic, nudge: bool = False
) -> tuple[Progress, ...]:
    """Advance all endpoints as far as they can go now; on a mere `nudge`, only take note of uploads.

    Raises:
        TickFailed: after all were tried, naming those that failed and why (so that the function's own alarm sees it).
    """
    done, failed = [], []
    # Each endpoint comes first in its turn: one whose probes take all the time there is must not starve the others.
    endpoints = world.settings.endpoints
    first = int(now.timestamp() // 60) % max(1, len(endpoints))
    for policy in (*endpoints[first:], *endpoints[:first]):
        try:
            done.append(advance(world, policy, now=now, owner=owner, timer=timer, nudge=nudge))
        except Exception as error:  # noqa: BLE001 - one endpoint's trouble is not another's
            _log.exception("endpoint %s could not be advanced", policy.name)
            failed.append(f"{policy.name}: {type(error).__name__}: {error}")
    if failed:
        raise TickFailed("; ".join(failed))
    return tuple(done)
