"""The tally: what a rollout's evidence adds up to, minute by minute, in a form small enough to keep.

`weigh` takes a tally and the minutes that came after it, and returns the next tally: counts of the whole rollout, of
the step under way and of the last minutes, and the states of the sequential tests. A minute is counted once (`until` is
the watermark) and by the weight that it had; the one in which the traffic was moved belongs to none and is left out.

What the numbers mean is for the guards to say (`guards.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache

from perch.domain.blast_radius import excess_failures
from perch.domain.evidence import Arm, Measures, Minute
from perch.domain.policy import GuardPolicy
from perch.domain.rollout import Rollout, Shift
from perch.domain.sequential import Comparison, Split, State, Table, contrasts
from perch.domain.sequential import Shift as ShiftTest

MINUTE = timedelta(minutes=1)
RECENT = 5  # minutes that an incident is looked for in
ERRORS, LATENCY, CUSTOM, SHIFT, SPLIT = "errors", "latency", "custom", "shift", "split"
USUAL = 3  # the first limits of the measures are stable's usual p50, p95 and p99


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Evidence up to `until`.

    `candidate` and `stable` count from the rollout's first step, the others only the minutes of `step`. `recent` are
    the last minutes, newest last. `tests` holds the states of the sequential tests by name; that of the split begins
    anew whenever the traffic is moved (`moved_at`). `excess` counts the candidate's failures beyond those that its
    requests would have had at stable's rate, minute by minute.
    """

    until: datetime
    step: int = -1
    moved_at: datetime | None = None
    candidate: Arm = Arm()
    stable: Arm = Arm()
    candidate_step: Arm = Arm()
    stable_step: Arm = Arm()
    recent: tuple[Minute, ...] = ()
    excess: float = 0.0
    tests: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def of_step(self, step: int) -> tuple[Arm, Arm]:
        """Counts of candidate and stable in a step; zeros if none of its minutes was counted yet."""
        return (self.candidate_step, self.stable_step) if step == self.step else (Arm(), Arm())


def weigh(tally: Tally, minutes: Iterable[Minute], rollout: Rollout) -> Tally:
    """Add minutes (ascending, closed) to a tally; those before its watermark are known and left out."""
    for minute in minutes:
        if minute.at < tally.until:
            continue
        shift = in_force(rollout, minute.at)
        if shift is not None:
            tally = _add(tally, minute, shift, rollout)
        tally = replace(tally, until=minute.at + MINUTE)
    return tally


def in_force(rollout: Rollout, at: datetime) -> Shift | None:
    """Return what the traffic was set to for the whole minute from `at`; None if it was moved in it, or not yet."""
    last = None
    for shift in rollout.shifts:
        if at <= shift.at < at + MINUTE and shift.at != at:
            return None
        if shift.at <= at:
            last = shift
    return last


def _add(tally: Tally, minute: Minute, shift: Shift, rollout: Rollout) -> Tally:
    fresh = shift.step != tally.step
    tally, tests = _alike(tally, minute), dict(tally.tests)
    if shift.at != tally.moved_at:
        tests.pop(SPLIT, None)
    for name, test in _tests(rollout.guards, rollout.measures, minute).items():
        comparison, table = test
        tests[name] = comparison.update(tests.get(name) or comparison.start(), table)
    if 0 < shift.weight < 1:
        split = split_test()
        state = tests.get(SPLIT) or split.start()
        tests[SPLIT] = split.update(state, minute.candidate.requests, minute.stable.requests, shift.weight)
    return replace(
        tally,
        step=shift.step,
        moved_at=shift.at,
        candidate=tally.candidate + minute.candidate,
        stable=tally.stable + minute.stable,
        candidate_step=minute.candidate if fresh else tally.candidate_step + minute.candidate,
        stable_step=minute.stable if fresh else tally.stable_step + minute.stable,
        excess=tally.excess + (excess_failures(minute.candidate, minute.stable) if minute.stable.requests else 0.0),
        recent=(*tally.recent, minute)[-RECENT:],
        tests=tests,
    )


def _alike(tally: Tally, minute: Minute) -> Tally:
    """Begin anew to count what is slow, and predictions, if they are counted by other limits from this minute on."""
    ours, new = tally.candidate, minute.candidate
    if all(
        len(a) in (0, len(b)) for a, b in ((ours.slower, new.slower), (ours.bins, new.bins), (ours.custom, new.custom))
    ):
        return tally

    def only(arm: Arm) -> Arm:
        return Arm(requests=arm.requests, failures=arm.failures, cold=arm.cold)

    kept = {name: state for name, state in tally.tests.items() if name in (ERRORS, SPLIT)}
    recent = (replace(one, candidate=only(one.candidate), stable=only(one.stable)) for one in tally.recent)
    return replace(
        tally,
        candidate=only(tally.candidate),
        stable=only(tally.stable),
        candidate_step=only(tally.candidate_step),
        stable_step=only(tally.stable_step),
        recent=tuple(recent),
        tests=kept,
    )


def _tests(guards: GuardPolicy, measures: Measures | None, minute: Minute) -> dict[str, tuple[Comparison, Table]]:
    """Name every comparison of two counts that a minute has something for."""
    ours, theirs = minute.candidate, minute.stable
    found = {ERRORS: (error_test(guards), Table(ours.failures, ours.requests, theirs.failures, theirs.requests))}
    if measures is None:
        return found
    if measures.usual:
        for i, (slow, other) in enumerate(zip(ours.slower[:USUAL], theirs.slower[:USUAL], strict=True)):
            found[f"{LATENCY}-{i}"] = (latency_test(guards), Table(slow, ours.timed, other, theirs.timed))
    for metric, seen, other in zip(measures.custom, ours.custom, theirs.custom, strict=False):
        # A count above the requests cannot be one of requests; what such a minute says is left out.
        if seen <= ours.requests and other <= theirs.requests:
            found[f"{CUSTOM}-{metric.name}"] = (error_test(guards), Table(seen, ours.requests, other, theirs.requests))
    shift = shift_test(guards, len(ours.bins))
    if shift and len(ours.bins) == len(theirs.bins):
        trials, others = sum(ours.bins), sum(theirs.bins)
        for i, one in enumerate(shift.sets):
            hits, other_hits = sum(ours.bins[b] for b in one), sum(theirs.bins[b] for b in one)
            found[f"{SHIFT}-{i}"] = (shift.comparison, Table(hits, trials, other_hits, others))
    return found


def error_test(guards: GuardPolicy) -> Comparison:
    """The comparison of failures, whose grid also holds the margin that "not worse" rules out."""
    return _comparison(guards.margin)


def latency_test(guards: GuardPolicy) -> Comparison:
    """The comparison of slow requests."""
    return _comparison(guards.latency_odds)


def split_test() -> Split:
    """The test of the share of requests that the candidate got."""
    return _SPLIT


def shift_test(guards: GuardPolicy, bins: int) -> ShiftTest | None:
    """The test of predictions over a number of bins; a small grid, since there is one state a contrast."""
    return None if guards.shift_odds is None or bins < 2 else _shift(guards.shift_odds, bins)


# Tests hold no evidence, so they are made once: making them costs as much as asking them.
_SPLIT = Split()


@lru_cache(maxsize=64)
def _comparison(null: float) -> Comparison:
    return Comparison().including(null)


@lru_cache(maxsize=64)
def _shift(margin: float, bins: int) -> ShiftTest:
    odds = (1 / (4 * margin), 1 / (2 * margin), 1 / margin, 1.0, margin, 2 * margin, 4 * margin)
    return ShiftTest(contrasts(bins), margin, Comparison(odds, (1.0,) * len(odds)))


def state_of(tally: Tally, name: str, test: Comparison | Split) -> State:
    """Return the state of a test; that of one which saw nothing yet if there is none."""
    return tally.tests.get(name) or test.start()
