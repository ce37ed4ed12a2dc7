"""Rejudge: what another policy would have said at each look of a rollout that was.

    kept looks ─► the rollout as it was at each ─► the other policy in its place ─► weigh ─► judge ─► compare

Each look is judged in the step, at the time and with the traffic that history had. So what is said is exact up to the
first judgement that would have changed the course, and after it "if the traffic had been as it was". A policy is never
asked of what was not counted then: such limits and metrics are left out, and named (`unknown`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from perch.domain.evidence import Arm, CustomMetric, Measures, Minute
from perch.domain.judge import Judgement, Verdict, judge
from perch.domain.latency_limits import USUAL, limits_ms, thresholds, usual_of
from perch.domain.look import Look
from perch.domain.policy import GuardPolicy, RolloutPolicy
from perch.domain.rollout import Phase, Rollout, Shift
from perch.domain.tally import LATENCY, Tally, weigh


@dataclass(frozen=True, kw_only=True)
class Again:
    """One look judged again: at which time and in which step (from 0), what was said, and what would have been."""

    at: datetime
    step: int
    was: Judgement
    now: Judgement

    @property
    def differs(self) -> bool:
        """Whether the course would have been another: other verdict, or a gate that opened in the one only."""
        return (self.was.verdict, self.was.gate) != (self.now.verdict, self.now.gate)


@dataclass(frozen=True, kw_only=True)
class Rejudged:
    """All looks judged again, in order, up to where the other policy has no more steps; and what cannot be known."""

    looks: tuple[Again, ...]
    unknown: tuple[str, ...]


def rejudge(rollout: Rollout, looks: Iterable[Look], policy: RolloutPolicy, guards: GuardPolicy) -> Rejudged:
    """Judge the looks of a rollout by another policy.

    Args:
        rollout: the rollout as it is now, or as it ended.
        looks: those that are kept, in order.
        policy: the steps and rules to judge by.
        guards: the guards to judge by.

    Returns:
        By the rollout's own policy and guards, exactly the judgements that were stored.
    """
    kept, found = tuple(looks), []
    tally: Tally | None = None
    for look in kept:
        if look.step >= len(policy.steps):
            break
        then = as_it_was(rollout, look)
        counting = _Counting.of(then, guards)
        other = replace(then, policy=policy, guards=counting.guards, measures=counting.measures)
        tally = tally or Tally(until=look.minutes[0].at if look.minutes else look.at)
        tally = weigh(tally, map(counting.recount, look.minutes), other)
        said = judge(other, tally, alarms=look.alarms, replayed=look.replayed, paused=look.paused, now=look.at)
        found.append(Again(at=look.at, step=look.step, was=look.judgement, now=said))
    return Rejudged(looks=tuple(found), unknown=tuple(_unknown(rollout, kept, policy, guards)))


def as_it_was(rollout: Rollout, look: Look) -> Rollout:
    """Return a rollout as the judge had it at a look.

    A gate counts as answered where the judge passed the step. What was usual is what is usual now, unless the look
    shows that it was not known yet (then, with the traffic of that time, `requests_a_minute` is as it became).
    """
    shifts = _shifts_until(rollout, look)
    entered = next((shift.at for shift in shifts if shift.step == look.step), rollout.started_at)
    passed = look.judgement.verdict is Verdict.PROMOTE and look.step < len(rollout.policy.steps)
    answered = look.step if passed and rollout.policy.steps[look.step].gate else look.step - 1
    return replace(
        rollout,
        phase=Phase.SHIFTING,
        phase_at=entered,
        step=look.step,
        shifts=shifts,
        measures=_measures_at(rollout, look),
        shifted_at=rollout.shifted_at if any(shift.weight for shift in shifts) else None,
        answered=answered,
    )


def _shifts_until(rollout: Rollout, look: Look) -> tuple[Shift, ...]:
    """The traffic up to a look: the shifts before it, up to the last of the step and weight that it names.

    What the look itself led to bears its time too, but another step or weight.
    """
    fitting = [i for i, s in enumerate(rollout.shifts) if (s.step, s.weight) == (look.step, look.weight)]
    before = [i for i in fitting if rollout.shifts[i].at <= look.at]
    last = before[-1] if before else fitting[0] if fitting else -1
    return rollout.shifts[: last + 1]


def _measures_at(rollout: Rollout, look: Look) -> Measures | None:
    measures = rollout.measures
    knew = any(finding.guard == LATENCY for finding in look.judgement.findings)
    if measures is None or not measures.usual or knew:
        return measures
    return replace(measures, limits_ms=limits_ms(rollout.guards, ()), usual=False, edges=())


# -- what was counted, and what another policy would have counted --------------------------------------------------


@dataclass(frozen=True)
class _Counting:
    """How minutes that were counted by one policy serve another: which columns to take, and what is left of it."""

    measures: Measures | None
    guards: GuardPolicy
    slower: tuple[int, ...]
    custom: tuple[int, ...]
    unknown: tuple[str, ...] = ()

    @staticmethod
    def of(then: Rollout, guards: GuardPolicy) -> _Counting:
        """Match another policy's guards with what was counted."""
        old = then.measures
        if old is None:
            return _Counting(None, guards, (), ())
        columns = list(range(USUAL)) if old.usual else []
        lost: dict[str, Any] = {}
        unknown = []
        for name, wanted, _ in thresholds(guards, usual_of(old)):
            column = next((i for i, limit in enumerate(old.limits_ms) if math.isclose(limit, wanted)), None)
            if column is None:
                lost[name] = None
                unknown.append(f"{name}: how many requests took longer than {wanted:.4g} ms was not counted")
            else:
                columns.append(column)
        shown = _shown(guards.custom, old.custom)
        unknown += [f"custom metric {m.name} was not counted" for m in guards.custom if m not in old.custom]
        if guards.shift_odds is not None and then.guards.shift_odds is None:
            unknown.append("prediction shift: predictions were not counted")
        measures = replace(
            old,
            limits_ms=tuple(old.limits_ms[i] for i in columns),
            custom=tuple(old.custom[i] for i in shown),
            edges=old.edges if guards.shift_odds is not None else (),
        )
        return _Counting(measures, replace(guards, **lost), tuple(columns), shown, tuple(unknown))

    def recount(self, minute: Minute) -> Minute:
        """Return a minute as the other policy counts it."""
        return replace(minute, stable=self._arm(minute.stable), candidate=self._arm(minute.candidate))

    def _arm(self, arm: Arm) -> Arm:
        bins = arm.bins if self.measures is None or self.measures.edges else ()
        if self.measures is None:
            return arm
        return replace(arm, slower=_picked(arm.slower, self.slower), custom=_picked(arm.custom, self.custom), bins=bins)


def _shown(wanted: Sequence[CustomMetric], counted: Sequence[CustomMetric]) -> tuple[int, ...]:
    return tuple(counted.index(metric) for metric in wanted if metric in counted)


def _picked(values: tuple[int, ...], columns: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(values[i] for i in columns) if values and max(columns, default=-1) < len(values) else ()


# -- what differs, in words ----------------------------------------------------------------------------------------


def differences(rollout: Rollout, rejudged: Rejudged, policy: RolloutPolicy) -> tuple[str, ...]:
    """Say how the course would have differed, the end first; nothing if it would have been the same."""
    looks = rejudged.looks
    if len(policy.steps) == len(rollout.policy.steps) and not any(again.differs for again in looks):
        return ()
    ours = _history(rollout, looks)
    theirs = _course(looks, ours, len(policy.steps))
    found = []
    if (ours.how, ours.at) != (theirs.how, theirs.at) and (theirs.at or ours.judged):
        found.append(_say_end(rollout, looks, ours, theirs))
    last = theirs.at or looks[-1].at
    found += _say_steps(rollout, looks, ours, theirs, last)
    gates = (again for again in looks if again.now.gate and not again.was.gate and again.at <= last)
    if gate := next(gates, None):
        found.append(f"would have waited at the gate of step {gate.step + 1} from {_at(rollout, gate.at)}")
    return tuple(found)


@dataclass(frozen=True)
class _Course:
    """When the judge passed each step (from 0); how it ended (`promoted`, `rolled back`), when, why, by the judge?"""

    passed: dict[int, datetime]
    how: str = ""
    at: datetime | None = None
    reason: str = ""
    judged: bool = False


def _course(looks: Sequence[Again], history: _Course, steps: int) -> _Course:
    """Follow what would have been said. Whoever waits in a step that history's judge passed takes none after it."""
    passed: dict[int, datetime] = {}
    for again in looks:
        verdict, step = again.now.verdict, again.step
        if verdict in (Verdict.ROLL_BACK, Verdict.INCONCLUSIVE):
            return _Course(passed, "rolled back", again.at, again.now.reason, judged=True)
        held = any(before not in passed for before in history.passed if before < step)
        if verdict is Verdict.PROMOTE and not held and step not in passed:
            passed[step] = again.at
            if step == steps - 1:
                return _Course(passed, "promoted", again.at, again.now.reason, judged=True)
    return _Course(passed)


def _history(rollout: Rollout, looks: Sequence[Again]) -> _Course:
    """Follow what was said; the end is the rollout's own, for people and alarms end rollouts too."""
    passed: dict[int, datetime] = {}
    for again in looks:
        if again.was.verdict is Verdict.PROMOTE:
            passed.setdefault(again.step, again.at)
    how, ending = _ENDS.get(rollout.phase, ("", ()))
    judged = bool(looks) and looks[-1].was.verdict in ending
    at = (looks[-1].at if judged else rollout.phase_at) if how else None
    return _Course(passed, how, at, rollout.reason, judged=judged)


_BACK = ("rolled back", (Verdict.ROLL_BACK, Verdict.INCONCLUSIVE))
_ENDS = {
    Phase.PROMOTING: ("promoted", (Verdict.PROMOTE,)),
    Phase.PROMOTED: ("promoted", (Verdict.PROMOTE,)),
    Phase.ROLLING_BACK: _BACK,
    Phase.ROLLED_BACK: _BACK,
}


def _say_steps(
    rollout: Rollout, looks: Sequence[Again], ours: _Course, theirs: _Course, last: datetime
) -> Iterator[str]:
    for step in sorted(ours.passed.keys() | theirs.passed.keys()):
        was, now = ours.passed.get(step), theirs.passed.get(step)
        if was == now or (now is None and was is not None and was > last):
            continue
        here = f"step {step + 1}"
        if now is not None:
            instead = f" instead of {_at(rollout, was)}" if was else ", which the judge did not"
            yield f"would have passed {here} at {_at(rollout, now)}{instead}"
            continue
        then = next(again for again in looks if again.at == was and again.step == step)
        if then.now.verdict is not Verdict.PROMOTE:
            yield f"would not have passed {here} at {_at(rollout, was)}: {then.now.reason}"


def _say_end(rollout: Rollout, looks: Sequence[Again], ours: _Course, theirs: _Course) -> str:
    if theirs.at is None:
        instead = f", where it was {ours.how} at {_at(rollout, ours.at)}" if ours.at else ""
        return f"would not have ended by {_at(rollout, looks[-1].at)}{instead}: {looks[-1].now.reason}"
    said = f"would have {'been ' * (theirs.how == 'promoted')}{theirs.how} at {_at(rollout, theirs.at)}"
    if ours.at is None:
        return f"{said}, while it goes on: {theirs.reason}"
    if ours.how == theirs.how:
        return f"{said} instead of {_at(rollout, ours.at)}: {theirs.reason}"
    return f"{said}, where it was {ours.how} at {_at(rollout, ours.at)}: {theirs.reason}"


def minute_of(rollout: Rollout, at: datetime) -> float:
    """Return how many minutes after the first step a time lies."""
    began = rollout.shifts[0].at if rollout.shifts else rollout.started_at
    return (at - began).total_seconds() / 60


def _at(rollout: Rollout, at: datetime | None) -> str:
    return f"minute {minute_of(rollout, at):.0f}" if at else "no time"


def _unknown(rollout: Rollout, looks: Sequence[Look], policy: RolloutPolicy, guards: GuardPolicy) -> Iterator[str]:
    """Say what cannot be known of a policy that was not in force."""
    yield from _Counting.of(rollout, guards).unknown
    yield from _unknown_steps(rollout.policy, policy, reached=max((look.step for look in looks), default=-1) + 1)
    if policy.settle_s != rollout.policy.settle_s:
        yield f"the minutes were as old as they were then ({rollout.policy.settle_s} seconds)"
    if any(getattr(guards, of) != getattr(rollout.guards, of) for of in ("error_rate", "min_errors", "probe_failures")):
        yield "alarms went off by the limits that they had then"
    if looks and looks[0].minutes and rollout.shifts and looks[0].minutes[0].at > rollout.shifts[0].at:
        yield f"looks before {looks[0].at:%Y-%m-%d %H:%M} are no longer kept, so their minutes are missing"
    if looks and rollout.shifts and rollout.shifts[0].at > looks[0].at:
        yield f"how the traffic was moved before {rollout.shifts[0].at:%Y-%m-%d %H:%M} is no longer kept"


def _unknown_steps(ours: RolloutPolicy, theirs: RolloutPolicy, *, reached: int) -> Iterator[str]:
    """Say what cannot be known of the steps of a policy, of which history's first ones were reached."""
    both = list(zip(ours.steps[:reached], theirs.steps, strict=False))
    if any(a.weight != b.weight for a, b in both) or (ours.budget, ours.ceiling) != (theirs.budget, theirs.ceiling):
        weights = ", ".join(f"{100 * step.weight:.4g}%" for step in ours.steps)
        yield f"the traffic was shaped by the weights that history had ({weights})"
    if len(theirs.steps) < reached:
        yield f"the policy has only {len(theirs.steps)} steps: what came after them was not judged again"
    if len(theirs.steps) > len(ours.steps):
        yield f"history had only {len(ours.steps)} steps: what would have come after them is not known"
    if any(b.gate and not a.gate for a, b in both):
        yield "nobody was asked at a gate that history did not have"
    if any(b.kind == "shadow" != a.kind for a, b in both) or (theirs.paired and not ours.paired):
        yield "no requests were replayed then"
    elif (theirs.tolerance, theirs.paired) != (ours.tolerance, ours.paired):
        yield "answers were replayed and compared by the tolerance and number that history had"
