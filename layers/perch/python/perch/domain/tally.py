"""The tally: what a rollout's evidence adds up to, minute by minute, in a form small enough to keep.

`weigh` takes a tally and the minutes that came after it, and returns the next tally: counts of the whole rollout, of
the step under way and of the last minutes, and the states of the sequential tests. A minute is counted once (`until` is
the watermark) and by the weight that it had; the one in which the traffic was moved belongs to none and is left out.

What the numbers mean is for the guards to say (`guards.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache

from perch.domain.blast_radius import excess_failures
from perch.domain.evidence import Arm, Measures, Minute
from perch.domain.latency_limits import USUAL, limits_of
from perch.domain.policy import GuardPolicy
from perch.domain.rollout import Rollout, Shift
from perch.domain.sequential import Comparison, Split, State, Table, contrasts, log_sum
from perch.domain.sequential import Shift as ShiftTest

MINUTE = timedelta(minutes=1)
RECENT = 5  # minutes that an incident is looked for in
ERRORS, LATENCY, CUSTOM, SHIFT, SPLIT = "errors", "latency", "custom", "shift", "split"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Evidence up to `until`.

    `candidate` and `stable` count from the rollout's first step, the others only the minutes of `step`. `recent` are
    the last minutes, newest last. `dropped` counts minutes whose log lines never came.

    Totals of two revisions must not be compared: an incident weighs more in the one that had more traffic in it. What
    is compared is summed up minute by minute. `expected` is how many of the candidate's requests stable would have
    failed, `excess` how many more it did, with its `variance`; `odds` are the two sums of Mantel and Haenszel, whose
    ratio is the odds ratio within the minutes. `fair` are the candidate's counts of minutes in which
    stable kept its own limits: what the candidate broke there is nobody else's doing.

    `tests` holds the states of the sequential tests by name; that of the split begins anew whenever the traffic is
    moved (`moved_at`). Errors are also bet on from later beginnings (`late`, the number of the bet, and `late_from`,
    how many minutes were counted when it began): what goes wrong after a good week need not use that up first.
    """

    until: datetime
    step: int = -1
    moved_at: datetime | None = None
    candidate: Arm = Arm()
    stable: Arm = Arm()
    candidate_step: Arm = Arm()
    stable_step: Arm = Arm()
    recent: tuple[Minute, ...] = ()
    minutes: int = 0
    dropped: int = 0
    expected: float = 0.0
    excess: float = 0.0
    variance: float = 0.0
    odds: tuple[float, float] = (0.0, 0.0)
    fair: Arm = Arm()
    late: int = 0
    late_from: int = 0
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
        if shift is not None and minute.complete:
            tally = _add(tally, minute, shift, rollout)
        elif shift is not None:
            tally = replace(tally, dropped=tally.dropped + 1)
        tally = replace(tally, until=minute.at + MINUTE)
    return tally


def in_force(rollout: Rollout, at: datetime) -> Shift | None:
    """Return what the traffic was set to for the whole minute from `at`; None if it was moved in it, or not yet."""
    last = None
    for shift in rollout.shifts:
        if at <= shift.at < at + MINUTE:
            return None
        if shift.at <= at:
            last = shift
    return last


def _add(tally: Tally, minute: Minute, shift: Shift, rollout: Rollout) -> Tally:
    fresh = shift.step != tally.step
    tally = _begin_late(_alike(tally, minute), rollout.guards, fresh=fresh)
    tests = dict(tally.tests)
    if shift.at != tally.moved_at:
        tests.pop(SPLIT, None)
    for name, (comparison, table) in _tests(rollout.guards, rollout.measures, minute).items():
        tests[name] = comparison.update(tests.get(name) or comparison.start(), table)
        if name == ERRORS and tally.late:
            tests[LATE] = comparison.update(tests.get(LATE) or comparison.start(), table)
    if 0 < shift.weight < 1:
        split = split_test()
        state = tests.get(SPLIT) or split.start()
        tests[SPLIT] = split.update(state, minute.candidate.requests, minute.stable.requests, shift.weight)
    ours, theirs = minute.candidate, minute.stable
    share = (ours.failures + theirs.failures) / max(ours.requests + theirs.requests, 1)
    both = bool(theirs.requests)
    return replace(
        tally,
        step=shift.step,
        moved_at=shift.at,
        minutes=tally.minutes + 1,
        candidate=tally.candidate + ours,
        stable=tally.stable + theirs,
        candidate_step=ours if fresh else tally.candidate_step + ours,
        stable_step=theirs if fresh else tally.stable_step + theirs,
        expected=tally.expected + (ours.requests * theirs.rate if both else 0.0),
        excess=tally.excess + (excess_failures(ours, theirs) if both else 0.0),
        variance=tally.variance
        + (ours.requests * share * (1 - share) * (1 + ours.requests / theirs.requests) if both else 0.0),
        odds=_odds(tally.odds, ours, theirs),
        fair=tally.fair + _fair(minute, rollout),
        recent=(*tally.recent, minute)[-RECENT:],
        tests=tests,
    )


def _odds(odds: tuple[float, float], ours: Arm, theirs: Arm) -> tuple[float, float]:
    """Add a minute to the estimate of Mantel and Haenszel (J. Natl. Cancer Inst. 22, 1959): sums of ad/n and bc/n."""
    n = max(ours.requests + theirs.requests, 1)
    worse = ours.failures * (theirs.requests - theirs.failures) / n
    better = theirs.failures * (ours.requests - ours.failures) / n
    return odds[0] + worse, odds[1] + better


def _fair(minute: Minute, rollout: Rollout) -> Arm:
    """The candidate's counts, so far as stable kept the limits in the same minute (or had no requests in it)."""
    ours, theirs, guards = minute.candidate, minute.stable, rollout.guards
    failing = theirs.failures > 1 and theirs.rate > guards.error_rate
    slow = any(
        i < len(theirs.slower) and theirs.slower[i] > max(1.0, allowed * theirs.timed)
        for i, (_, _, allowed) in limits_of(guards, rollout.measures or Measures())
    )
    return Arm(
        requests=0 if failing else ours.requests,
        failures=0 if failing else ours.failures,
        timed=0 if slow else ours.timed,
        slower=tuple(0 for _ in ours.slower) if slow else ours.slower,
    )


# -- errors, bet on from several beginnings -----------------------------------------------------------------------

LATE, BANKED = "errors-late", "errors-banked"
LATE_PART = 0.1  # of what is staked on errors
LATE_EVERY, LATE_LEAST = 360, 60  # minutes: a bet is replaced when it is so old, or so old and a step begins


def _late_part(number: int) -> float:
    """The part of the late stake that bet `number` (from 1) gets; all of them together get all of it."""
    return 6 / (math.pi * number) ** 2


def _begin_late(tally: Tally, guards: GuardPolicy, *, fresh: bool) -> Tally:
    """Cash in the late bet under way and begin the next one, if it is time."""
    age = tally.minutes - tally.late_from
    if not (age >= LATE_EVERY or (fresh and age >= LATE_LEAST)):
        return tally
    tests = dict(tally.tests)
    if tally.late:
        test = error_test(guards)
        won = math.log(_late_part(tally.late)) + test.log_e_above(tests.pop(LATE, ()) or test.start(), 1.0)
        tests[BANKED] = (log_sum((*tests.get(BANKED, ()), won)),)
    return replace(tally, late=tally.late + 1, late_from=tally.minutes, tests=tests)


def log_e_errors(tally: Tally, guards: GuardPolicy) -> float:
    """Log evidence that the candidate fails more often than stable: the mean of bets from several beginnings.

    Nine tenths are staked at the first minute. The last tenth is dealt out to bets that begin later, the k-th getting
    6/(pi k)^2 of it; what is not staked yet is kept. When each begins depends on nothing that it bets on, so the whole
    is the capital of one fair game, an E value at every minute.
    """
    test = error_test(guards)
    begun = test.log_e_above(state_of(tally, ERRORS, test), 1.0)
    held = 1.0 - sum(_late_part(k) for k in range(1, tally.late + 1))
    late = [math.log(max(held, 1e-300)), *tally.tests.get(BANKED, ())]
    if tally.late:
        late.append(math.log(_late_part(tally.late)) + test.log_e_above(state_of(tally, LATE, test), 1.0))
    return log_sum((math.log(1 - LATE_PART) + begun, math.log(LATE_PART) + log_sum(late)))


def _alike(tally: Tally, minute: Minute) -> Tally:
    """Begin anew to count what is slow, and predictions, if they are counted by other limits from this minute on."""
    ours, new = tally.candidate, minute.candidate
    if all(len(a) in (0, len(b)) for a, b in ((ours.slower, new.slower), (ours.bins, new.bins))):
        return tally

    def only(arm: Arm) -> Arm:
        return replace(arm, timed=0, slower=(), bins=())

    recent = (replace(one, candidate=only(one.candidate), stable=only(one.stable)) for one in tally.recent)
    return replace(
        tally,
        candidate=only(tally.candidate),
        stable=only(tally.stable),
        candidate_step=only(tally.candidate_step),
        stable_step=only(tally.stable_step),
        fair=only(tally.fair),
        recent=tuple(recent),
        tests={name: state for name, state in tally.tests.items() if not name.startswith((LATENCY, SHIFT))},
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
        for i, table in enumerate(shift.tables(ours.bins, theirs.bins)):
            found[f"{SHIFT}-{i}"] = (shift.comparison, table)
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
