"""Which alarms speak of a candidate, and which are of another, of both revisions, or of the time before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from perch.domain.names import STABLE_PROBES, AlarmName
from perch.domain.rollout import Phase, Rollout

# How far back the endpoint's own alarms look: 3 minutes, and the 2 that metrics may take to arrive.
ALARM_MEMORY, PROBE_MEMORY = timedelta(minutes=5), timedelta(minutes=1)
CANDIDATE_PROBES = "probes-candidate"


@dataclass(frozen=True, kw_only=True)
class AlarmSeen:
    """An alarm of the endpoint: its name, whether it is off, since when, and the reason that CloudWatch gives."""

    name: str
    in_alarm: bool
    since: datetime
    reason: str = ""


def speaks_of(alarm: AlarmName, since: datetime, rollout: Rollout, now: datetime) -> str | None:
    """Say why an alarm that went off at `since`, and is off `now`, is no objection to a candidate; None if it is one.

    An alarm of one revision speaks of that revision, if it went off in this rollout. One of the whole endpoint speaks
    of the candidate only while that has all the traffic; before, only a comparison can tell whose failures they are.
    What went off before the candidate had its traffic must not block the fix; what went off soon after may look back at
    the time before, and speaks when it is still off once that is past. Stable's own probes never speak of a candidate.
    """
    revision = rollout.revision.lambda_version if rollout.revision else ""
    if alarm.guard == STABLE_PROBES:
        return "the probes of the stable revision say nothing of the candidate"
    if alarm.version:
        another = f"it is of revision {alarm.version}, the candidate is {revision}" * (alarm.version != revision)
        earlier = f"it went off before {rollout.id} began" * (since < rollout.started_at)
        return another or earlier or None
    probes = alarm.guard == CANDIDATE_PROBES
    if not probes and (rollout.weight < 1 or not rollout.shifts):
        return "it is of both revisions; the judge compares them"
    began = (rollout.shifted_at if probes else rollout.shifts[-1].at) or rollout.started_at
    memory = PROBE_MEMORY if probes else ALARM_MEMORY
    if rollout.phase is Phase.PROMOTING and not probes:
        began = rollout.phase_at
    if since < began:
        return "it went off before the candidate had this traffic"
    if now < began + memory:
        return "it still looks back at minutes from before the candidate had this traffic"
    return None
