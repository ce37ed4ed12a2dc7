"""The judge: from evidence to a verdict, in words and numbers.

A pure function of what was seen: the tally of both revisions over closed minutes, the alarms that are off, and what
replayed requests showed. It asks the guards (`guards.py`), which of the alarms speak of the candidate (`alarm_seen.py`)
and what traffic it may have (`pace.py`), and weighs what they say by these rules:

- an objection rolls back, at any time, before anything else is looked at;
- what both revisions suffer is not the candidate's doing: while stable fails too, nothing is taken back for it and no
  step is taken, unless the candidate is shown to be *better* (a fix must be able to ship into the incident it mends);
- no evidence never promotes (law 5): a step ends only when its hold is over, its requests were seen, and, where it asks
  for proof, the candidate was shown to be no worse than stable and within its service level;
- a step that outlives its deadline is inconclusive, which is not a promotion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from perch.domain.agreement import Replayed, ready
from perch.domain.alarm_seen import AlarmSeen, speaks_of
from perch.domain.evidence import Arm
from perch.domain.guards import (
    Finding,
    Says,
    beyond,
    say_failures,
    split_found_off,
    thresholds,
    weigh_up,
)
from perch.domain.names import STABLE_PROBES, parse_alarm
from perch.domain.pace import other_weight
from perch.domain.policy import who_answers
from perch.domain.proof import prove
from perch.domain.rollout import Rollout
from perch.domain.sequential import Share, enough
from perch.domain.tally import ERRORS, Tally, error_test, state_of


class Verdict(StrEnum):
    """What the evidence says, from best to worst."""

    PROMOTE = "promote"
    CONTINUE = "continue"
    INCONCLUSIVE = "inconclusive"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict with its reason: one sentence that a person can check against the evidence.

    `findings` is what each guard had to say. `only_hold` is whether nothing but the hold is lacking, `gate` whether
    only the step's gate is; `weight` is what the candidate's share should become while the step is undecided (None: as
    it is).
    """

    verdict: Verdict
    reason: str
    findings: tuple[Finding, ...] = ()
    gate: bool = False
    only_hold: bool = False
    weight: float | None = None


_CATCHING_UP = timedelta(minutes=30)  # and what metrics need to settle: older minutes are read before a step ends
_SURELY = 4  # standard deviations: a budget is looked at at every tick, and chance spends none of it


def judge(
    rollout: Rollout,
    tally: Tally,
    *,
    alarms: tuple[AlarmSeen, ...] = (),
    replayed: Replayed | None = None,
    paused: str = "",
    now: datetime,
) -> Judgement:
    """Say whether the step under way may end.

    Args:
        rollout: the rollout, with its policy, its guards and its step.
        tally: what was counted.
        alarms: the alarms of its endpoint.
        replayed: what replayed requests showed, if any were.
        paused: why the endpoint is paused, if it is: then no step is taken.
        now: the time of this look.

    Returns:
        PROMOTE when the step is passed (the caller moves to the next step, or to 100 % after the last).
    """
    weighed = weigh_up(rollout, tally, replayed)
    findings = (*weighed.findings, *thresholds(rollout, tally))

    def say(verdict: Verdict, reason: str, **more: object) -> Judgement:
        return Judgement(verdict=verdict, reason=reason, findings=findings, **more)  # type: ignore[arg-type]

    if objection := next(_objections(rollout, tally, alarms, findings, replayed, now), None):
        return say(Verdict.ROLL_BACK, f"{objection}{_minute(rollout, tally)}")
    verdict, reason, more = _of_the_step(rollout, tally, alarms, replayed, paused, now)
    overdue = now - rollout.phase_at >= timedelta(seconds=max(rollout.policy.deadline_s, rollout.current_step.hold_s))
    if verdict is Verdict.CONTINUE and overdue and not paused and rollout.policy.at_deadline == "roll back":
        limit = span(timedelta(seconds=rollout.policy.deadline_s))
        verdict, reason, more = Verdict.INCONCLUSIVE, f"not decided within its deadline of {limit}: {reason}", {}
    return say(verdict, f"{reason}; {say_failures(tally.candidate, tally.stable)}", **more)


def _of_the_step(
    rollout: Rollout,
    tally: Tally,
    alarms: tuple[AlarmSeen, ...],
    replayed: Replayed | None,
    paused: str,
    now: datetime,
) -> tuple[Verdict, str, dict[str, object]]:
    """Say whether the step is passed, or what it waits for."""
    step = rollout.current_step
    lacks = tuple(_lacking(rollout, tally, alarms, replayed, now))
    if lacks:
        weight = other_weight(rollout, tally) if lacks[0].raises and not paused else None
        only_hold = all(lack.hold for lack in lacks)
        return Verdict.CONTINUE, lacks[0].what, {"weight": weight, "only_hold": only_hold}
    if paused:
        return Verdict.CONTINUE, f"the step is passed, but the endpoint is paused: {paused}", {}
    if step.gate and rollout.answered < rollout.step:
        who = who_answers(step.gate)
        return Verdict.CONTINUE, f"the step has all its evidence and waits for {who}", {"gate": True}
    return Verdict.PROMOTE, _passed(rollout, tally, replayed, now - rollout.phase_at), {}


def _objections(
    rollout: Rollout,
    tally: Tally,
    alarms: tuple[AlarmSeen, ...],
    findings: tuple[Finding, ...],
    replayed: Replayed | None,
    now: datetime,
) -> Iterator[str]:
    """Say what speaks against the candidate, the gravest first."""
    for alarm in alarms:
        name = parse_alarm(alarm.name)
        if alarm.in_alarm and name and speaks_of(name, alarm.since, rollout, now) is None:
            yield f"alarm {alarm.name} went off at {alarm.since:%Y-%m-%d %H:%M:%S}: {alarm.reason}"
    for finding in findings:
        if finding.says is Says.OBJECTS and not finding.dry_run:
            yield finding.reason
    if rollout.current_step.kind == "shadow" and replayed is not None:
        # Looked at at every tick: only what cannot be chance ends a shadow before its time.
        differing = Share(min(max(1 - rollout.policy.agreement, 1e-6), 0.95))
        if enough(differing.log_e_beyond(replayed.compared - replayed.agreed, replayed.compared), rollout.guards.alpha):
            yield _agreement(rollout, replayed)[1]
    budget = rollout.policy.budget
    if budget is not None and tally.excess - _SURELY * math.sqrt(tally.variance) > budget:
        yield (
            f"{say_failures(tally.candidate, tally.stable)}: {tally.excess:,.0f} more than stable would have failed, "
            f"surely more than the budget of {budget:,}"
        )


class _Lack(NamedTuple):
    """What a step still lacks, whether more traffic would help, and whether it is only time."""

    what: str
    raises: bool = False
    hold: bool = False


def _lacking(
    rollout: Rollout, tally: Tally, alarms: tuple[AlarmSeen, ...], replayed: Replayed | None, now: datetime
) -> Iterator[_Lack]:
    """Say what the step still lacks, what stands in the way most first."""
    step, held = rollout.current_step, now - rollout.phase_at
    if incident := _incident(rollout, tally, alarms):
        yield _Lack(incident)
    if off := split_found_off(rollout, tally):
        yield _Lack(f"held: {off}")
    proof = prove(rollout, tally, replayed) if step.proof else None
    unproved = proof is not None and not proof.shown
    if held < timedelta(seconds=step.hold_s):
        left = timedelta(seconds=step.hold_s) - held
        yield _Lack(f"{span(left)} of the hold are left", raises=unproved, hold=True)
    if step.kind == "shadow":
        well, why = _agreement(rollout, replayed) if replayed else (None, "no answers were compared yet")
        if not well:
            yield _Lack(why)
        return
    needed, seen, pairs = max(step.requests, 1), tally.of_step(rollout.step)[0].requests, _pairs(rollout, replayed)
    if seen + pairs < needed or not seen:
        said = f"needs {needed:,} requests on the candidate, has {seen:,}" + f" and {pairs:,} replayed" * bool(pairs)
        yield _Lack(f"{said}{_say_dropped(tally)}", raises=True)
    behind = now - tally.until
    if behind > timedelta(seconds=rollout.policy.settle_s + rollout.guards.check_s) + _CATCHING_UP:
        yield _Lack(f"what happened in the last {span(behind)} is not read yet")
    if proof and unproved:
        yield _Lack(f"neither worse nor shown to be no worse: {proof.said}{_say_dropped(tally)}", raises=True)


def _say_dropped(tally: Tally) -> str:
    return f"; {tally.dropped:,} minutes do not count, since log lines of theirs never came" * bool(tally.dropped)


def _pairs(rollout: Rollout, replayed: Replayed | None) -> int:
    """Replayed pairs stand in for requests once: in the first step that has traffic."""
    first = next(i for i, step in enumerate(rollout.policy.steps) if step.kind != "shadow")
    return replayed.pairs if replayed and rollout.policy.paired and rollout.step == first else 0


def _agreement(rollout: Rollout, replayed: Replayed) -> tuple[bool | None, str]:
    step = rollout.current_step
    return ready(replayed, pairs_needed=max(step.requests, 1), agreement=rollout.policy.agreement)


def _incident(rollout: Rollout, tally: Tally, alarms: tuple[AlarmSeen, ...]) -> str | None:
    """Say that both revisions suffer; None if they do not, or if the candidate is shown to mend it."""
    if _better(rollout, tally):
        return None
    stable = sum((minute.stable for minute in tally.recent), Arm())
    candidate = sum((minute.candidate for minute in tally.recent), Arm())
    if beyond(rollout.guards, stable):
        return (
            f"held, since stable fails as well: {stable.failures:,} of {stable.requests:,} requests to it in the last "
            f"{len(tally.recent)} minutes, {candidate.failures:,} of {candidate.requests:,} to the candidate"
        )
    for alarm in alarms:
        name = parse_alarm(alarm.name)
        whole = alarm.in_alarm and name and not name.version and name.guard != STABLE_PROBES
        if whole and rollout.shifted_at and alarm.since >= rollout.shifted_at:
            return f"held while alarm {alarm.name} is off: {alarm.reason}"
    return None


def _better(rollout: Rollout, tally: Tally) -> bool:
    test = error_test(rollout.guards)
    return enough(test.log_e_below(state_of(tally, ERRORS, test), 1.0), rollout.guards.alpha)


def _passed(rollout: Rollout, tally: Tally, replayed: Replayed | None, held: timedelta) -> str:
    step = rollout.current_step
    if step.kind == "shadow" and replayed is not None:
        return f"shadowed for {span(held)}: {replayed.summary()}"
    seen = tally.of_step(rollout.step)[0].requests
    proved = f", and shown: {prove(rollout, tally, replayed).said}" if step.proof else ""
    return f"held {span(held)} at {rollout.weight:.4g} with {seen:,} requests and no objection{proved}"


def span(length: timedelta) -> str:
    """Say a time span in its largest fitting unit."""
    seconds = length.total_seconds()
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds:.0f} seconds"


def _minute(rollout: Rollout, tally: Tally) -> str:
    if rollout.shifted_at is None or tally.until <= rollout.shifted_at:
        return ""
    return f"; seen at minute {(tally.until - rollout.shifted_at).total_seconds() / 60:.0f}"
