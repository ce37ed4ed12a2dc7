"""A look: what the judge saw at one tick and what it said, kept so that anybody can check it, or judge it again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from perch.domain.agreement import Replayed
from perch.domain.alarm_seen import AlarmSeen
from perch.domain.evidence import Minute
from perch.domain.judge import Judgement


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a rollout: the minutes that were new, the alarms that were off, and the judgement.

    `weight` is the candidate's share of the traffic at that time. All that the judge takes is here or in the rollout,
    so the same look can be judged again, by another policy (`perch replay`).
    """

    at: datetime
    rollout: str
    step: int
    weight: float
    minutes: tuple[Minute, ...]
    judgement: Judgement
    alarms: tuple[AlarmSeen, ...] = ()
    replayed: Replayed | None = None
    paused: str = ""
