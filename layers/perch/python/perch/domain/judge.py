"""The judge: from evidence to a verdict, in words and numbers.

A pure function of what was seen: request and failure counts of both revisions over closed minutes, the alarms that are
off, and the last health check. It answers with one of four verdicts, each carrying its reason. The guards below are
thresholds; a statistical comparison of the two arms takes its place among them by adding one more function to `GUARDS`.

Rules that hold whatever the guards say:
- an objection rolls back, at any time, before anything else is looked at;
- no evidence never promotes (law 5): a step ends only when its hold is over *and* its requests were seen;
- a step that outlives its deadline without its requests is inconclusive, which is not a promotion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from perch.domain.names import STABLE_PROBES, AlarmName, parse_alarm
from perch.domain.policy import GuardPolicy, RolloutPolicy, Step


class Verdict(StrEnum):
    """What the evidence says, from best to worst."""

    PROMOTE = "promote"
    CONTINUE = "continue"
    INCONCLUSIVE = "inconclusive"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict with its reason: one sentence that a person can check against the evidence."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Requests and failures (5xx answers, crashes, time-outs) of one revision."""

    requests: int = 0
    failures: int = 0

    @property
    def rate(self) -> float:
        """The failed share; 0 without requests."""
        return self.failures / self.requests if self.requests else 0.0

    def __add__(self, other: Counts) -> Counts:
        """Add two disjoint spans."""
        return Counts(requests=self.requests + other.requests, failures=self.failures + other.failures)


@dataclass(frozen=True, kw_only=True)
class AlarmSeen:
    """An alarm of the endpoint: its name, whether it is off, since when, and the reason that CloudWatch gives."""

    name: str
    in_alarm: bool
    since: datetime
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one look at a rollout saw.

    `candidate` and `stable` count from the first step; `candidate_step` from the beginning of the current one. All
    count closed minutes up to `until` only, so two looks at the same minute see the same numbers. `revision` is the
    candidate's Lambda version.
    """

    candidate: Counts = Counts()
    stable: Counts = Counts()
    candidate_step: Counts = Counts()
    until: datetime | None = None
    alarms: tuple[AlarmSeen, ...] = ()
    revision: str = ""


# How far back the endpoint's own alarms look: 3 minutes, and the 2 that metrics may take to arrive.
ALARM_MEMORY = timedelta(minutes=5)

Guard = Callable[[GuardPolicy, Evidence, datetime], str | None]


def judge(
    rollout: RolloutPolicy,
    guards: GuardPolicy,
    step: Step,
    *,
    evidence: Evidence,
    traffic_at: datetime,
    step_at: datetime,
    now: datetime,
) -> Judgement:
    """Say whether the current step may end.

    Args:
        rollout: the policy of the rollout (its deadline).
        guards: thresholds of the guards.
        step: the step under way.
        evidence: what was seen.
        traffic_at: when the candidate first got traffic; what alarms say of the time before is not held against it.
        step_at: when the step began.
        now: the time of this look.

    Returns:
        PROMOTE when the step is passed (the caller moves to the next step, or to 100 % after the last).
    """
    for guard in GUARDS:
        if objection := guard(guards, evidence, traffic_at):
            return Judgement(verdict=Verdict.ROLL_BACK, reason=objection)
    held = now - step_at
    seen = evidence.candidate_step.requests
    numbers = (
        f"{evidence.candidate.failures:,} of {evidence.candidate.requests:,} candidate requests failed "
        f"against {evidence.stable.failures:,} of {evidence.stable.requests:,} on stable"
    )
    if held < timedelta(seconds=step.hold_s):
        left = timedelta(seconds=step.hold_s) - held
        return Judgement(verdict=Verdict.CONTINUE, reason=f"{_span(left)} of the hold are left; {numbers}")
    if seen < max(step.requests, 1):
        if held >= timedelta(seconds=max(rollout.deadline_s, step.hold_s)):
            return Judgement(
                verdict=Verdict.INCONCLUSIVE,
                reason=f"the step saw {seen:,} of the {max(step.requests, 1):,} requests it needs "
                f"within its deadline of {_span(timedelta(seconds=rollout.deadline_s))}",
            )
        return Judgement(
            verdict=Verdict.CONTINUE, reason=f"needs {max(step.requests, 1):,} requests on the candidate, has {seen:,}"
        )
    return Judgement(
        verdict=Verdict.PROMOTE,
        reason=f"held {_span(held)} at {step.weight:.0%} with {seen:,} requests and no objection; {numbers}",
    )


def alarm_guard(_policy: GuardPolicy, evidence: Evidence, traffic_at: datetime) -> str | None:
    """Object to any alarm that is off because of this candidate (`speaks_of`)."""
    for alarm in evidence.alarms:
        name = parse_alarm(alarm.name)
        if alarm.in_alarm and name and speaks_of(name, alarm.since, evidence.revision, traffic_at) is None:
            return f"alarm {alarm.name} went off at {alarm.since:%Y-%m-%d %H:%M:%S}: {alarm.reason}"
    return None


def speaks_of(alarm: AlarmName, since: datetime, revision: str, traffic_at: datetime) -> str | None:
    """Say why an alarm that went off at `since` says nothing of a candidate; None if it does.

    An alarm of one revision speaks of that revision. One of the whole endpoint speaks of the candidate only if it went
    off when all that it looks back at had the candidate in it: an alarm that was off before must not block the fix, and
    the failures of the candidate before must not take back this one. Stable's own probes never speak of a candidate.
    """
    if alarm.guard == STABLE_PROBES:
        return "the probes of the stable revision say nothing of the candidate"
    if alarm.version:
        return None if alarm.version == revision else f"it is of revision {alarm.version}, the candidate is {revision}"
    if since < traffic_at + ALARM_MEMORY:
        return "it looks back at minutes from before the candidate had traffic"
    return None


def error_guard(policy: GuardPolicy, evidence: Evidence, _traffic_at: datetime) -> str | None:
    """Object when more than the permitted share of the candidate's requests failed, and at least `min_errors` did."""
    counts = evidence.candidate
    if counts.failures >= policy.min_errors and counts.rate > policy.error_rate:
        return (
            f"{counts.failures:,} of {counts.requests:,} candidate requests failed ({counts.rate:.1%}, "
            f"limit {policy.error_rate:.1%}) against {evidence.stable.failures:,} of "
            f"{evidence.stable.requests:,} on stable"
        )
    return None


GUARDS: tuple[Guard, ...] = (alarm_guard, error_guard)


def _span(span: timedelta) -> str:
    """Say a time span in its largest fitting unit."""
    seconds = span.total_seconds()
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds:.0f} seconds"
