"""How often judges take back a good candidate, and how soon a bad one: ours beside what people use, on the same traces.

    python -m benchmarks.judge_rates [--quick]

Five tables, saved as benchmarks/results/judge_rates.json and .md: false roll-backs within an hour of one-minute looks,
bad candidates caught, minutes to show "not worse", what an adaptive weight gains and costs, answers that shift; and the
time that one minute takes to judge. Shares are given with Wilson's 95 % interval. Every table has fixed seeds. With
`--quick` a tenth of the runs are played and nothing is saved.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from benchmarks.judge_adaptive import adaptive, adaptive_sharing, fixed
from benchmarks.judge_rules import ALPHA, COMPARISON, SHARED, first_looks
from benchmarks.judge_traces import Scenario
from benchmarks.report import RESULTS, save
from perch.domain.blast_radius import BUDGET, CEILING
from perch.domain.sequential import Shift, Table, contrasts, enough

PROCESSES, CHUNK = 2, 50
INCIDENT = (20, 29)
GOOD = (
    Scenario(per_minute=60, stable=0.005, candidate=0.005),
    Scenario(per_minute=600, stable=0.001, candidate=0.001),
    Scenario(per_minute=600, stable=0.005, candidate=0.005),
    Scenario(per_minute=6000, stable=0.001, candidate=0.001),
    Scenario(per_minute=600, stable=0.005, candidate=0.005, incident=INCIDENT),
)
BAD = (
    Scenario(per_minute=60, stable=0.005, candidate=0.05),
    Scenario(per_minute=60, stable=0.005, candidate=0.5),
    Scenario(per_minute=600, stable=0.005, candidate=0.01),
    Scenario(per_minute=600, stable=0.005, candidate=0.01, weight=0.5),
    Scenario(per_minute=600, stable=0.005, candidate=0.02),
    Scenario(per_minute=600, stable=0.005, candidate=0.05),
    Scenario(per_minute=6000, stable=0.001, candidate=0.003),
    Scenario(per_minute=6000, stable=0.001, candidate=0.01),
)
EQUAL = (
    Scenario(per_minute=60, stable=0.005, candidate=0.005, looks=240),
    Scenario(per_minute=600, stable=0.005, candidate=0.005, looks=120),
    Scenario(per_minute=600, stable=0.005, candidate=0.005, weight=0.5, looks=120),
    Scenario(per_minute=6000, stable=0.005, candidate=0.005, looks=60),
)
TWICE = Scenario(
    per_minute=600, stable=0.005, candidate=0.00995, looks=120
)  # odds ratio 2: "not twice as bad" is false
MARGINS = (1.5, 2.0, 3.0)
ADAPTIVE = (
    Scenario(per_minute=600, stable=0.005, candidate=0.005),
    Scenario(per_minute=600, stable=0.005, candidate=0.005, incident=INCIDENT),
    Scenario(per_minute=600, stable=0.005, candidate=0.01),
    Scenario(per_minute=600, stable=0.005, candidate=0.05),
    Scenario(per_minute=60, stable=0.005, candidate=0.05),
    Scenario(per_minute=6000, stable=0.001, candidate=0.003),
)
WEIGHTS: dict[str, Callable[..., dict[str, float]]] = {
    "fixed": fixed,
    "adaptive": adaptive,
    f"adaptive, {SHARED}": adaptive_sharing,
}
SHIFT = Shift(contrasts(10), margin=1.25)
SHIFT_LOOKS = 60


def main() -> None:
    """Simulate, time, print, save."""
    load, started = os.getloadavg(), time.perf_counter()
    many, few = (100, 50) if "--quick" in sys.argv else (1000, 400)
    with ProcessPoolExecutor(PROCESSES) as pool:
        run = _Runner(pool)
        shares: dict[str, dict[str, Any]] = {
            "false_roll_backs": {str(one): _by_name(run(_looks, one, many)) for one in GOOD},
            "caught": {str(one): _by_name(run(_looks, one, few)) for one in BAD},
            "not_worse": {str(one): _by_name(run(_proofs, one, few)) for one in (*EQUAL, TWICE)},
            "adaptive": {
                str(one): {name: _cost(run(play, one, many)) for name, play in WEIGHTS.items()} for one in ADAPTIVE
            },
            "shift": {f"{odds:g}": _by_name(run(_shift, odds, few // 2))["shift"] for odds in (1.0, 1.2, 2.0, 3.0)},
        }
    shares["microseconds"] = _timed()
    text = _markdown(shares, many, few)
    print(text)
    if "--quick" in sys.argv:
        return
    workload = (
        f"{many} runs for false roll-backs and adaptive weight, {few} for detection and proofs, {few // 2} for shift"
    )
    results = {"workload": workload, "seconds": round(time.perf_counter() - started), "results": shares}
    save("judge_rates", results, packages=("numpy",), load=load)
    (RESULTS / "judge_rates.md").write_text(text)


class _Runner:
    """Plays a case many times, in chunks over the processes; run i of a case always has the same seed."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self.pool = pool

    def __call__(self, play: Callable[..., dict[str, Any]], case: Any, runs: int) -> list[dict[str, Any]]:
        starts = range(0, runs, CHUNK)
        chunks = [self.pool.submit(_chunk, play, case, range(i, min(i + CHUNK, runs))) for i in starts]
        return [outcome for chunk in chunks for outcome in chunk.result()]


def _chunk(play: Callable[..., dict[str, Any]], case: Any, runs: Iterable[int]) -> list[dict[str, Any]]:
    return [play(case, np.random.default_rng([2026, run])) for run in runs]


def _looks(scenario: Scenario, random: np.random.Generator) -> dict[str, Any]:
    return dict(first_looks(scenario, scenario.trace(random)))


def _proofs(scenario: Scenario, random: np.random.Generator) -> dict[str, Any]:
    """When each "not worse than" is shown."""
    state = COMPARISON.start()
    found = {f"{margin:g}": 0 for margin in MARGINS}
    for look, row in enumerate(scenario.trace(random).tolist(), start=1):
        state = COMPARISON.update(state, Table(*row))
        for margin in MARGINS:
            if not found[f"{margin:g}"] and enough(COMPARISON.log_e_below(state, margin), ALPHA):
                found[f"{margin:g}"] = look
    return found


def _shift(odds: float, random: np.random.Generator) -> dict[str, Any]:
    """When a shift is shown: ten classes, 60 and 540 answers a minute, the odds of the first times `odds`."""
    stable = np.full(10, 0.1)
    tilted = stable * np.array([odds, *[1.0] * 9])
    states = SHIFT.start()
    for look in range(1, SHIFT_LOOKS + 1):
        ours = random.multinomial(random.poisson(60), tilted / tilted.sum())
        states = SHIFT.update(states, ours.tolist(), random.multinomial(random.poisson(540), stable).tolist())
        if enough(SHIFT.log_e(states), ALPHA):
            return {"shift": look}
    return {"shift": 0}


def _share(looks: Sequence[int]) -> dict[str, Any]:
    """Share of runs with a look, Wilson's interval (95 %), and the median look of those."""
    hits, runs = sum(1 for one in looks if one), len(looks)
    z, p = 1.96, hits / runs
    middle, half = p + z * z / (2 * runs), z * math.sqrt(p * (1 - p) / runs + z * z / (4 * runs * runs))
    low, high = ((middle + sign * half) / (1 + z * z / runs) for sign in (-1, 1))
    median = int(np.median([one for one in looks if one])) if hits else None
    return {"share": p, "low": round(max(low, 0.0), 4), "high": round(min(high, 1.0), 4), "median": median}


def _by_name(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: _share([one[name] for one in outcomes]) for name in outcomes[0]}


def _cost(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    excess = [one["excess"] for one in outcomes]
    return {
        **_share([one["look"] for one in outcomes]),
        "excess_mean": round(float(np.mean(excess)), 1),
        "excess_p95": round(float(np.quantile(excess, 0.95)), 1),
        "over_budget": sum(1 for one in excess if one > BUDGET) / len(excess),
        "last_weight": round(float(np.mean([one["weight"] for one in outcomes])), 2),
    }


def _timed() -> dict[str, dict[str, float]]:
    """Microseconds (best of 20) to add a minute: errors, requests beyond three latencies, answers in ten bins."""
    found = {}
    for requests in (600, 6000, 60_000):
        n1, n0 = requests // 10, requests - requests // 10
        cases: dict[str, Callable[[], object]] = {
            f"of {part:.1%} of requests": partial(
                COMPARISON.update, COMPARISON.start(), Table(round(n1 * part), n1, round(n0 * part), n0)
            )
            for part in (0.005, 0.01, 0.05, 0.5)
        }
        cases["of answers in ten bins"] = partial(SHIFT.update, SHIFT.start(), [n1 // 10] * 10, [n0 // 10] * 10)
        best = {name: round(min(_clock(case) for _ in range(20)), 1) for name, case in cases.items()}
        found[f"{requests:,}"] = {**best, "whole minute": round(sum(best.values()), 1)}
    return found


def _clock(case: Callable[[], object]) -> float:
    started = time.perf_counter_ns()
    case()
    return (time.perf_counter_ns() - started) / 1000


def _markdown(shares: Mapping[str, Any], many: int, few: int) -> str:
    """The tables as text."""
    return "\n".join(
        [
            "# Judges on the same traces",
            "",
            "Made by `python -m benchmarks.judge_rates`; what the rules are is said in `benchmarks/judge_rules.py`.",
            "Weight 0.10 unless said otherwise; alpha 5 %; shares with Wilson's 95 % interval.",
            *_rules(f"A good candidate taken back within 60 looks ({many} runs)", shares["false_roll_backs"]),
            *_rules(f"A bad candidate caught within 60 looks, median minute ({few} runs)", shares["caught"]),
            *_table(
                f"Shown to be not worse, share and median minute ({few} runs); the last row is as bad as 2",
                ["traffic, failure rates", *(f"than {margin:g} times the odds" for margin in MARGINS)],
                [
                    [name, *(_cell(one, median=True) for one in row.values())]
                    for name, row in shares["not_worse"].items()
                ],
            ),
            *_table(
                f"Weight 0.10, fixed or adaptive up to {CEILING:.2f} within a budget of {BUDGET:g}; "
                f"metrics two minutes late ({many} runs)",
                [
                    "traffic, failure rates",
                    "weight",
                    "taken back",
                    "excess failures: mean",
                    "95 % below",
                    "over budget",
                ],
                [
                    [
                        name,
                        how,
                        _cell(one, median=True),
                        one["excess_mean"],
                        one["excess_p95"],
                        f"{one['over_budget']:.1%}",
                    ]
                    for name, both in shares["adaptive"].items()
                    for how, one in both.items()
                ],
            ),
            *_table(
                "Answers in ten classes, margin 1.25, 600 a minute: a shift shown within 60 looks",
                ["odds of one class", "shown"],
                [[f"{odds} times as high", _cell(one, median=True)] for odds, one in shares["shift"].items()],
            ),
            *_table(
                "Microseconds to add a minute (best of 20)",
                ["requests a minute", *next(iter(shares["microseconds"].values()))],
                [
                    [requests, *(f"{one:,.0f}" for one in row.values())]
                    for requests, row in shares["microseconds"].items()
                ],
            ),
            "",
        ]
    )


def _rules(title: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rules = list(dict.fromkeys(rule for row in found.values() for rule in row))
    rows = [[rule, *(_cell(row.get(rule), median="caught" in title) for row in found.values())] for rule in rules]
    return _table(title, ["rule", *found], rows)


def _cell(one: Mapping[str, Any] | None, *, median: bool) -> str:
    if one is None:
        return ""
    when = f", min {one['median']}" if median and one["median"] else ""
    return f"{one['share']:.1%} ({one['low']:.1%} to {one['high']:.1%}){when}"


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in (head, *rows)]
    return ["", f"## {title}", "", lines[0], "|" + "---|" * len(head), *lines[1:]]


if __name__ == "__main__":
    main()
