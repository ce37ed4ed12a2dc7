"""The picture of a simulation: when verdicts fell, one row a kind of candidate, drawn with matplotlib.

Each row is the share of rollouts that were taken back by each minute, and of those that were promoted: two curves that
only rise. A good candidate should rise to 100 % promoted and never be taken back; a bad one the other way round. At the
right stand the 95 % intervals; dashed lines are where the steps' holds end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perch.domain.trial import PROMOTED, ROLLED_BACK, Outcome, Summary

# A pair that people with any colour vision tell apart, and that differs in lightness as well.
_BACK, _FORTH, _GREY = "#c44e1c", "#2b6ca3", "#666666"


def draw(
    found: Sequence[Summary], outcomes: Sequence[Outcome], file: Path, *, title: str, ends: Sequence[float] = ()
) -> None:
    """Draw the summaries of a simulation, with the outcomes behind them.

    Args:
        found: one summary a kind of candidate.
        outcomes: all rollouts.
        file: where to, as PNG or SVG by its name.
        title: what was simulated.
        ends: the minutes at which the holds of the steps end.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    last = max([*ends, *(outcome.minute for outcome in outcomes)]) * 1.03 + 1
    figure, axes = plt.subplots(
        len(found), 1, figsize=(9, 1.1 + 1.55 * len(found)), sharex=True, squeeze=False, layout="constrained"
    )
    for axis, one in zip(axes[:, 0], found, strict=True):
        runs = [outcome for outcome in outcomes if outcome.scenario == one.scenario]
        for end in ends:
            axis.axvline(end, color=_GREY, linewidth=0.8, linestyle=(0, (4, 4)))
        _row(axis, one, runs, last)
    axes[-1, 0].set_xlabel("minutes since the candidate first got traffic")
    legend = [Line2D([], [], color=colour, linewidth=3) for colour in (_FORTH, _BACK)]
    figure.legend(legend, ["promoted by then", "taken back by then"], loc="outside lower right", ncols=2, fontsize=9)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _row(axis: Any, one: Summary, runs: Sequence[Outcome], last: float) -> None:
    for verdict, colour, rate in ((PROMOTED, _FORTH, one.promoted), (ROLLED_BACK, _BACK, one.rolled_back)):
        minutes = sorted(run.minute for run in runs if run.verdict == verdict)
        if not minutes:
            continue
        shares = [n / len(runs) for n in range(len(minutes) + 1)]
        xs, ys = [minutes[0], *minutes, last], [*shares, shares[-1]]
        axis.step(xs, ys, where="post", color=colour, linewidth=1.8, clip_on=False)
        axis.fill_between(xs, ys, step="post", color=colour, alpha=0.12, linewidth=0)
        spread = [[rate.share - rate.low], [rate.high - rate.share]]
        axis.errorbar([last], [rate.share], yerr=spread, color=colour, capsize=3, clip_on=False)
    axis.set_title(str(one.scenario), loc="left", fontsize=10, fontweight="bold")
    axis.set_title(_said(one), loc="right", fontsize=9, color=_GREY)
    axis.set_ylim(0, 1.04)
    axis.set_xlim(0, last * 1.01)
    axis.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axis.grid(axis="both", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _said(one: Summary) -> str:
    what = "; promoted at" if one.scenario.good else ", at"
    when = f"{what} minute {one.median_minute:.0f} (median)" if one.median_minute is not None else ""
    return f"{one.rolled_back} taken back{when}"
