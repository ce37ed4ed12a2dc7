"""Rules that may take a candidate back, side by side: each says at which look (minute, from 1) it fires, 0 for never.

Ours and two relatives bet on odds ratios: the plain mixture (24 points from 1.25 to 64, all alike) is where this test
began, the oracle stakes all on the true ratio and so is the best that betting can do. The others are what people use:
a z-test looked at each minute as if it were the only look, the alarm of the SAM documentation (an error in each of two
minutes), a threshold of 5 % in one minute, and Kayenta's judge: Mann-Whitney on rates a minute. The last is written
from its description: the 98 % interval of the Hodges-Lehmann shift lies beyond a quarter of that shift's size; no
verdict when half of the canary's minutes have no data; normal approximation, whole history at every look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.judge_traces import Scenario, Trace
from perch.domain.guards import SHARES
from perch.domain.hypergeometric import log_means
from perch.domain.sequential import Comparison, Table, enough
from perch.domain.tally import LATE_PART

ALPHA = 0.05
# What is left of alpha for errors, from the first minute on, when the guards that are on by default and the later bets
# on errors hold the rest; and what that is called.
SHARE = (1 - LATE_PART) * SHARES["errors"] / sum(SHARES[guard] for guard in ("errors", "slo", "latency", "shift"))
SHARED = f"{SHARE:.0%} of alpha"
UNIFORM = tuple(float(one) for one in np.geomspace(1.25, 64, 24))
COMPARISON = Comparison()


def first_looks(scenario: Scenario, trace: Trace) -> Mapping[str, int]:
    """When each rule fires on a trace."""
    x, n1, y, n0 = trace.T
    return {
        **_bets(scenario, trace),
        "z-test, peeking": _first(_z(x, n1, y, n0) > 1.6449),
        "SAM alarm: errors > 0, 2 of 2": _first(_again(x > 0)),
        "rate > 5 %, 1 of 1": _first(x > 0.05 * n1),
        "rate > 5 %, ≥ 20 requests": _first((x > 0.05 * n1) & (n1 >= 20)),
        "Kayenta, once, at the end": len(trace) if _kayenta(trace) else 0,
        "Kayenta, every minute from 10": _kayenta_peeking(trace),
    }


def _bets(scenario: Scenario, trace: Trace) -> dict[str, int]:
    """Ours, with all of alpha and with its share, the plain mixture and the oracle: all go on until all have fired."""
    ratio = _odds(scenario.candidate) / _odds(scenario.stable)
    odds = (*UNIFORM, ratio) if ratio > 1 else UNIFORM
    logs = tuple(math.log(one) for one in odds)
    state, plain = COMPARISON.start(), np.zeros(len(odds))
    names = ["Perch", f"Perch, {SHARED}", "plain mixture of 24", *(["oracle"] if ratio > 1 else [])]
    found = dict.fromkeys(names, 0)
    for look, row in enumerate(trace.tolist(), start=1):
        x, n1, y, n0 = row
        state = COMPARISON.update(state, Table(x, n1, y, n0))
        if 0 < x + y < n1 + n0:
            plain += x * np.array(logs) - np.array(log_means(logs, n1, n0, x + y))
        log_e = COMPARISON.log_e_above(state, 1.0)
        fired = {
            "Perch": enough(log_e, ALPHA),
            f"Perch, {SHARED}": enough(log_e, ALPHA * SHARE),
            "plain mixture of 24": enough(float(np.logaddexp.reduce(plain[:24])) - math.log(24), ALPHA),
            "oracle": enough(float(plain[-1]), ALPHA),
        }
        for name in names:
            found[name] = found[name] or (look if fired[name] else 0)
        if all(found.values()):
            break
    return found


def _odds(rate: float) -> float:
    return rate / (1 - rate)


def _z(x: Trace, n1: Trace, y: Trace, n0: Trace) -> NDArray[np.float64]:
    """The pooled two-proportion statistic of all minutes so far, at every look."""
    hits, trials, other_hits, other = (np.cumsum(one) for one in (x, n1, y, n0))
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (hits + other_hits) / (trials + other)
        spread = np.sqrt(pooled * (1 - pooled) * (1 / trials + 1 / other))
        return np.asarray(np.nan_to_num((hits / trials - other_hits / other) / spread), dtype=np.float64)


def _kayenta_peeking(trace: Trace) -> int:
    """The same judge at every look from the tenth; ranks of few points say nothing."""
    return next((look for look in range(10, len(trace) + 1) if _kayenta(trace[:look])), 0)


def _kayenta(trace: Trace) -> bool:
    """Whether the error rate a minute is classed High (direction: increase)."""
    x, n1, y, n0 = trace.T
    canary, baseline = x[n1 > 0] / n1[n1 > 0], y[n0 > 0] / n0[n0 > 0]
    if len(canary) <= len(trace) / 2 or not len(baseline):
        return False
    shifts = np.sort((canary[:, None] - baseline[None, :]).ravel())
    lower = shifts[_rank(len(canary), len(baseline))]
    return bool(lower > 0.25 * abs(float(np.median(shifts))))


@cache
def _rank(m: int, n: int) -> int:
    """Index of the ordered shift that bounds a 98 % interval from below."""
    return max(int(m * n / 2 - 2.3263 * math.sqrt(m * n * (m + n + 1) / 12)), 0)


def _again(fired: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return fired & np.concatenate(([False], fired[:-1]))


def _first(fired: NDArray[np.bool_]) -> int:
    return int(fired.argmax()) + 1 if fired.any() else 0
