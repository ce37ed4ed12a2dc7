"""Guards: what each of them finds in a tally.

Two kinds. The *sequential* guards bet against "the candidate is as good as stable, and within its service level"; their
E values are joined into one by a weighted mean, which is an E value again however they depend on each other. So they
share one alpha: the chance that a candidate which is good in every respect is *ever* taken back by them stays below it,
at however many looks. A guard with the weight w among those that are on must reach 1/(w * alpha) if it speaks alone.
The weights are those of the policy, fixed before anything is seen; a guard that has seen nothing yet stands at 1.

The *thresholds* are what people know from elsewhere: a share, a multiple, a limit. They make no promise about chance.

Each finding is a sentence with its numbers. What follows from all of them together is for the judge to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from perch.domain.agreement import Replayed
from perch.domain.evidence import Arm, Measures
from perch.domain.latency_limits import USUAL, limits_of
from perch.domain.policy import GuardPolicy, RolloutPolicy
from perch.domain.rollout import Rollout
from perch.domain.sequential import Share, combine, enough
from perch.domain.tally import (
    CUSTOM,
    ERRORS,
    LATENCY,
    SHIFT,
    SPLIT,
    Tally,
    error_test,
    latency_test,
    log_e_errors,
    shift_test,
    split_test,
    state_of,
)

SLO, PAIRED = "slo", "paired"
# How the sequential guards share alpha. Errors get most: a small regression of errors is the hardest to see, and what
# the others look for is either plain or does not matter.
SHARES = {ERRORS: 10.0, SLO: 1.0, LATENCY: 1.0, SHIFT: 1.0, CUSTOM: 1.0, PAIRED: 1.0}
_PERCENTILES = ("p50", "p95", "p99")


class Says(StrEnum):
    """What a guard has to say."""

    FINE = "fine"
    OBJECTS = "objects"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one guard found: a sentence with its numbers, and for a sequential guard log E. A dry run stops nothing."""

    guard: str
    says: Says
    reason: str
    log_e: float | None = None
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """What the sequential guards found, and their joint evidence (`log_e`), to which those in a dry run add nothing."""

    findings: tuple[Finding, ...]
    log_e: float


def weigh_up(rollout: Rollout, tally: Tally, replayed: Replayed | None) -> Weighed:
    """Ask the sequential guards. One that objects is named by the largest part of the joint evidence."""
    guards = rollout.guards
    found = {finding.guard: finding for finding in _sequential(rollout, tally, replayed)}
    weights = shares(guards, rollout.policy)
    speaking = {name: found[name].log_e or 0.0 if name in found else 0.0 for name in weights}
    joint = combine(speaking, weights) if weights else 0.0
    objecting: set[str] = set()
    if enough(joint, guards.alpha):
        objecting.add(max(found.keys() & weights.keys(), key=lambda name: math.log(weights[name]) + speaking[name]))
    objecting |= {name for name, f in found.items() if f.dry_run and enough(f.log_e or 0.0, guards.alpha)}
    needed = 1 / guards.alpha
    findings = tuple(
        replace(
            f,
            says=Says.OBJECTS if f.guard in objecting else Says.FINE,
            reason=f.reason
            + (f", E = {say_e(f.log_e or 0.0 if f.dry_run else joint)} ≥ {needed:.4g}" if f.guard in objecting else ""),
        )
        for f in found.values()
    )
    return Weighed(findings=findings, log_e=joint)


def shares(guards: GuardPolicy, policy: RolloutPolicy) -> dict[str, float]:
    """Return the weights of the sequential guards that are on, by their names; those in a dry run have none.

    A rollout in which the two never share the traffic (blue-green) has nothing to compare, and stakes nothing on it.
    """
    weights = {SLO: SHARES[SLO]}
    if any(0 < step.weight < 1 for step in policy.steps):
        weights |= {name: SHARES[name] for name in (ERRORS, LATENCY)}
        weights |= {f"{CUSTOM}:{one.name}": SHARES[CUSTOM] / len(guards.custom) for one in guards.custom}
        if guards.shift_odds is not None:
            weights[SHIFT] = SHARES[SHIFT]
    if policy.paired or any(step.kind == "shadow" for step in policy.steps):
        weights[PAIRED] = SHARES[PAIRED]
    return {name: weight for name, weight in weights.items() if not _is_dry(guards, name)}


def level(rollout: Rollout) -> float:
    """The service level that a candidate is held to: the configured one, or what stable itself just failed to keep."""
    return min(max(rollout.guards.error_rate, rollout.measures.failing if rollout.measures else 0.0), 0.95)


def _sequential(rollout: Rollout, tally: Tally, replayed: Replayed | None) -> Iterator[Finding]:
    guards, measures = rollout.guards, rollout.measures or Measures()
    ours, theirs = tally.candidate, tally.stable
    worse, limit, fair = error_test(guards), level(rollout), tally.fair
    yield _finding(guards, ERRORS, say_compared(tally), log_e_errors(tally, guards))
    yield _finding(
        guards,
        SLO,
        f"{_of(fair.failures, fair.requests)} candidate requests failed while stable kept its level, where "
        f"{limit:.2%} may",
        Share(limit).log_e_beyond(fair.failures, fair.requests),
    )
    if measures.usual:
        yield _latency(rollout, tally, measures)
    yield from _shift(rollout, tally, measures)
    for i, metric in enumerate(measures.custom):
        seen, other = _at(ours.custom, i), _at(theirs.custom, i)
        state = state_of(tally, f"{CUSTOM}-{metric.name}", worse)
        text = f"{metric.name}: {_of(seen, ours.requests)} candidate requests against {_of(other, theirs.requests)}"
        yield _finding(guards, f"{CUSTOM}:{metric.name}", text, worse.log_e_above(state, 1.0))
    if replayed is not None:
        yield _finding(guards, PAIRED, f"replayed to both: {replayed.summary()}", replayed.log_e_worse())


def _latency(rollout: Rollout, tally: Tally, measures: Measures) -> Finding:
    """The mean of three comparisons: slower than stable's usual p50, p95 and p99."""
    guards, test = rollout.guards, latency_test(rollout.guards)
    logs = [test.log_e_above(state_of(tally, f"{LATENCY}-{i}", test), guards.latency_odds) for i in range(USUAL)]
    worst = max(range(USUAL), key=lambda i: logs[i])
    ours, theirs = tally.candidate, tally.stable
    return _finding(
        guards,
        LATENCY,
        f"{_of(_at(ours.slower, worst), ours.timed)} candidate requests took longer than stable's usual "
        f"{_PERCENTILES[worst]} of {measures.limits_ms[worst]:.4g} ms against "
        f"{_of(_at(theirs.slower, worst), theirs.timed)} on stable",
        combine({str(i): one for i, one in enumerate(logs)}, {str(i): 1.0 for i in range(USUAL)}),
    )


def _shift(rollout: Rollout, tally: Tally, measures: Measures) -> Iterator[Finding]:
    """The mean over contrasts of predictions; none without bins."""
    guards, bins = rollout.guards, len(measures.edges) + 1
    test = shift_test(guards, bins) if measures.edges else None
    if test is None:
        return
    states = tuple(state_of(tally, f"{SHIFT}-{i}", test.comparison) for i in range(len(test.sets)))
    logs = test.log_es(states)
    worst = test.sets[max(range(len(logs)), key=lambda i: logs[i])]
    ours, theirs = tally.candidate.bins, tally.stable.bins
    where = _say_bins(measures.edges, worst)
    yield _finding(
        guards,
        SHIFT,
        f"{_of(sum(_at(ours, b) for b in worst), sum(ours))} candidate predictions were {where} against "
        f"{_of(sum(_at(theirs, b) for b in worst), sum(theirs))} on stable",
        test.log_e(states),
    )


def thresholds(rollout: Rollout, tally: Tally) -> tuple[Finding, ...]:
    """Ask the thresholds that are on."""
    return tuple(_thresholds(rollout, tally))


def _thresholds(rollout: Rollout, tally: Tally) -> Iterator[Finding]:
    guards, ours, fair = rollout.guards, tally.candidate, tally.fair
    if guards.error_threshold is not None:
        yield _threshold(
            guards,
            "error_threshold",
            f"{_of(fair.failures, fair.requests)} candidate requests failed ({fair.rate:.1%}, limit "
            f"{guards.error_threshold:.1%}) while stable kept its level",
            over=_counted(guards, fair.failures, fair.requests) and fair.rate > guards.error_threshold,
        )
    if guards.error_increase is not None:
        # One failure more than stable's: without any, every first failure would be infinitely many times as many.
        usual = tally.expected + 1
        yield _threshold(
            guards,
            "error_increase",
            f"{_of(ours.failures, ours.requests)} candidate requests failed, of which stable would have failed "
            f"{tally.expected:.3g}, limit {guards.error_increase:.4g} times as many",
            over=_counted(guards, ours.failures, ours.requests) and tally.excess > (guards.error_increase - 1) * usual,
        )
    for i, (name, ms, allowed) in limits_of(guards, rollout.measures or Measures()):
        slow = _at(fair.slower, i)
        yield _threshold(
            guards,
            name,
            f"{_of(slow, fair.timed)} candidate requests took longer than {ms:.4g} ms while stable kept that limit, "
            f"where {allowed:.0%} may",
            over=_counted(guards, slow, fair.timed) and slow > allowed * fair.timed,
        )


def _counted(guards: GuardPolicy, hits: int, trials: int) -> bool:
    return hits >= guards.min_errors and trials >= guards.min_requests


def beyond(guards: GuardPolicy, arm: Arm) -> bool:
    """Whether a revision fails more than the service level permits, by more than a few requests."""
    return arm.failures >= guards.min_errors and arm.rate > guards.error_rate


def split_found_off(rollout: Rollout, tally: Tally) -> str | None:
    """Say how the realised split differs from the configured weight; None while it may be chance."""
    if SPLIT not in tally.tests or not 0 < rollout.weight < 1 or SPLIT in rollout.guards.dry_run:
        return None
    test, state = split_test(), tally.tests[SPLIT]
    log_e = test.log_e_outside(state, SPLIT_ODDS)
    if not enough(log_e, SPLIT_ALPHA):
        return None
    return (
        f"the candidate gets about {test.likeliest(state):.3g} times its share of the requests, which should be "
        f"{rollout.weight:.4g} (E = {say_e(log_e)} ≥ {1 / SPLIT_ALPHA:.4g}): some callers are pinned to a version, or "
        "somebody else changes the weights"
    )


# A rollout is only held for its split, but it should not be held for nothing, nor for a little.
SPLIT_ALPHA, SPLIT_ODDS = 0.001, 1.5


def say_failures(ours: Arm, theirs: Arm) -> str:
    """Say the failures of both."""
    return (
        f"{_of(ours.failures, ours.requests)} candidate requests failed against "
        f"{_of(theirs.failures, theirs.requests)} on stable"
    )


def say_compared(tally: Tally) -> str:
    """Say the failures of both, and the odds ratio within the minutes."""
    said, (worse, better) = say_failures(tally.candidate, tally.stable), tally.odds
    return f"{said}: odds ratio {worse / better:.3g}" if worse and better else said


def say_e(log_e: float) -> str:
    """Say an E value."""
    return f"{math.exp(log_e):.2g}" if log_e < 700 else f"1e{log_e / math.log(10):.0f}"


def _finding(guards: GuardPolicy, name: str, reason: str, log_e: float) -> Finding:
    return Finding(guard=name, says=Says.FINE, reason=reason, log_e=log_e, dry_run=_is_dry(guards, name))


def _is_dry(guards: GuardPolicy, name: str) -> bool:
    return name in guards.dry_run or name.partition(":")[0] in guards.dry_run


def _threshold(guards: GuardPolicy, name: str, reason: str, *, over: bool) -> Finding:
    dry = name in guards.dry_run
    return Finding(guard=name, says=Says.OBJECTS if over else Says.FINE, reason=reason, dry_run=dry)


def _say_bins(edges: tuple[float, ...], bins: tuple[int, ...]) -> str:
    """Say which predictions lie in some bins that follow one another."""
    low, high = min(bins), max(bins)
    below, above = (edges[low - 1] if low else None), (edges[high] if high < len(edges) else None)
    if below is None:
        return f"at most {above:.4g}"
    return f"above {below:.4g}" + (f" and at most {above:.4g}" if above is not None else "")


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}"


def _at(values: tuple[int, ...], index: int) -> int:
    return values[index] if index < len(values) else 0
