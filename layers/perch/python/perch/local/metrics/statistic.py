"""The statistics that can be asked for, read from their names.

`SampleCount Sum Average Minimum Maximum`, percentiles (`p99`, `p99.9`), and two that ask about a range of values, whose
lower bound is exclusive and whose upper bound is inclusive; either may be missing:

    TC(0.5:1.5)   trimmed count: how many values lie in the range      TC(12.5:)  TC(:3)
    PR(0.5:1.5)   percentile rank: how many of a hundred do            PR(12.5:)  PR(:3)

A bound is a number that is not negative, with at most ten decimals, as CloudWatch documents it.

Left out: bounds in percent (`tc90`, `TC(10%:90%)`), trimmed and winsorised means and sums (TM, WM, TS, IQM).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

STATISTICS = ("SampleCount", "Sum", "Average", "Minimum", "Maximum")
_PERCENTILE = re.compile(r"[pP](\d{1,2}(?:\.\d{1,10})?|100(?:\.0+)?)")
_NUMBER = r"(\d+(?:\.\d{1,10})?)"
_RANGE = re.compile(rf"(TC|PR)\({_NUMBER}?:{_NUMBER}?\)")


@dataclass(frozen=True)
class Statistic:
    """One statistic: `kind` is a plain one's name, `p`, `TC` or `PR`.

    `rank` belongs to a percentile (0 to 100); the range (`above`, `up_to`] to the other two.
    """

    kind: str
    rank: float = 0.0
    above: float = -math.inf
    up_to: float = math.inf


@lru_cache(maxsize=1024)
def read_statistic(stat: str) -> Statistic:
    """Read "Sum", "p99" or "TC(0.5:1.5)". Raises ValueError, naming what is supported, for anything else."""
    if stat in STATISTICS:
        return Statistic(stat)
    if found := _PERCENTILE.fullmatch(stat):
        return Statistic("p", rank=float(found[1]))
    if (found := _RANGE.fullmatch(stat)) and (found[2] or found[3]):
        above, up_to = float(found[2] or -math.inf), float(found[3] or math.inf)
        if above < up_to:
            return Statistic(found[1], above=above, up_to=up_to)
    raise ValueError(
        f"the statistic {stat!r} is not supported: use {', '.join(STATISTICS)}, a percentile such as p99, "
        "or a range such as TC(0.5:1.5) or PR(:300)"
    )


def percentile_rank(stat: str) -> float | None:
    """Return 99.0 for "p99" and None for any other statistic. Raises ValueError as `read_statistic` does."""
    found = read_statistic(stat)
    return found.rank if found.kind == "p" else None
