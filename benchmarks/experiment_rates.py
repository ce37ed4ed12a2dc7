"""How many rewards an experiment needs, and how often it claims what is not so.

    python -m benchmarks.experiment_rates

Users earn a reward of 1 one after another; each is the challenger's with the probability that its share and its true
effect give. After every one of them somebody looks, and stops at the first claim. One challenger, alpha 5 %.
"""

from __future__ import annotations

import math
import os
import statistics

import numpy as np

from benchmarks.report import save
from perch.domain.experiment import PARTS, Split
from perch.domain.model import Pointer
from perch.domain.ramp import ramp, whole
from perch.domain.significance import BETS, tally_of

ALPHA, RUNS = 0.05, 400
CASES = [  # share of the challenger, how many times as much it earns, rewards at most
    (0.5, 1.0, 10_000),
    (0.1, 1.0, 10_000),
    (0.5, 3.0, 10_000),
    (0.1, 3.0, 10_000),
    (0.5, 1.5, 10_000),
    (0.1, 1.5, 10_000),
    (0.5, 1.1, 20_000),
    (0.1, 1.1, 60_000),
    (0.5, 0.7, 10_000),
    (0.1, 0.7, 10_000),
]


def bets_of(share: float) -> dict[bool, np.ndarray]:
    """Return what a reward of a user adds to the logarithm of each bet, by whether he is the challenger's."""
    pointer = Pointer(model="m", version="v", key="k", version_id="i", sha256="0" * 64, size=1, format="onnx")
    segments = ramp(whole("c"), "c", {"a": round(share * PARTS)})
    split = Split(id="x", salt="", champion="c", segments=segments, challengers={"a": pointer})
    users = {split.variant_of(str(i)): str(i) for i in range(200)}
    return {own: np.array(tally_of(split, users["a" if own else "c"], 1.0).versus[0].capital) for own in (True, False)}


def first_claim(chance: np.random.Generator, share: float, times: float, limit: int) -> int | None:
    """Return after how many rewards a claim is made; None if none is."""
    bets = bets_of(share)
    own = chance.random(limit) < times * share / (times * share + 1 - share)
    mine, theirs = np.cumsum(own)[:, None], np.cumsum(~own)[:, None]
    log_e = np.logaddexp.reduce(mine * bets[True] + theirs * bets[False], axis=1) - math.log(len(BETS))
    claims = np.flatnonzero(log_e >= math.log(1 / ALPHA))
    return int(claims[0]) + 1 if claims.size else None


def main() -> None:
    """Simulate all cases and write them down."""
    load, rows = os.getloadavg(), []
    for share, times, limit in CASES:
        chance = np.random.default_rng([round(share * 100), round(times * 100)])
        found = [n for _ in range(RUNS) if (n := first_claim(chance, share, times, limit))]
        rows.append(
            {
                "share": share,
                "earns_times": times,
                "rewards_at_most": limit,
                "claimed": len(found) / RUNS,
                "median_rewards": round(statistics.median(found)) if len(found) > RUNS / 2 else None,
            }
        )
        print(rows[-1])
    save("experiment_rates", {"alpha": ALPHA, "runs": RUNS, "cases": rows}, packages=("numpy",), load=load)


if __name__ == "__main__":
    main()
