"""What one judgement costs: weighing one minute of evidence and judging it, with every guard on.

    python -m benchmarks.judgement_cost

Both revisions are alike (0.5 % failures, a log-normal latency, ten classes), the candidate has a tenth of the traffic,
and every guard is on: errors, service level, latency at p50, p95 and p99, prediction shift over ten bins, two metrics
of the user's own, replays, all thresholds and a budget. Rollouts are followed for an hour at each rate of traffic; the
first look, which fills caches, is measured apart. Times are of the processor, not of the clock on the wall.

Saved to benchmarks/results/judgement_cost.json and .md. The aim is 5 ms.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from benchmarks.report import RESULTS, save
from perch.domain.agreement import Replayed
from perch.domain.evidence import Arm, CustomMetric, Measures, Minute
from perch.domain.judge import judge
from perch.domain.model import Pointer
from perch.domain.policy import GuardPolicy, RolloutPolicy, Step
from perch.domain.rollout import Candidate, Phase, Revision, Rollout, Shift
from perch.domain.tally import Tally, weigh

RATES, MINUTES, ROLLOUTS = (600, 6_000, 60_000), 60, 5
WEIGHT, FAILED, CLASSES = 0.1, 0.005, 10
BEGIN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CUSTOM = tuple(CustomMetric(name=name, namespace="Shop", metric=name) for name in ("Refunds", "Clicks"))
SLOWER = (0.5, 0.05, 0.01, 0.02, 0.005, 0.01)  # the share beyond stable's p50, p95, p99, and beyond three thresholds
MEASURES = Measures(
    limits_ms=tuple(10.0 * (n + 1) for n in range(len(SLOWER))),
    usual=True,
    edges=tuple(float(n) for n in range(CLASSES - 1)),
    custom=CUSTOM,
)
GUARDS = GuardPolicy(
    custom=CUSTOM,
    error_threshold=0.2,
    error_increase=10.0,
    latency_p95_times=2.0,
    latency_p99_times=2.0,
    latency_p99_ms=500.0,
)


def main() -> None:
    """Measure, print, save."""
    load = os.getloadavg()
    results = {f"{rate:,} requests a minute": measure(rate) for rate in RATES}
    for name, found in results.items():
        print(f"{name:28}", "   ".join(f"{what} {ms:.2f} ms" for what, ms in found.items()))
    save(
        "judgement_cost",
        {"workload": f"{ROLLOUTS} rollouts of {MINUTES} minutes at each rate, every guard on", "results": results},
        packages=("numpy",),
        load=load,
    )
    (RESULTS / "judgement_cost.md").write_text(_table(results))


def measure(rate: int) -> dict[str, float]:
    """Follow some rollouts at a rate of requests a minute; return milliseconds of processor time a judgement."""
    rollouts = [_follow(np.random.default_rng(seed), rate) for seed in range(ROLLOUTS)]
    later = [one for times in rollouts for one in times[1:]]
    both = [weighing + judging for weighing, judging in later]
    return {
        "weigh": round(statistics.median(weighing for weighing, _ in later), 3),
        "judge": round(statistics.median(judging for _, judging in later), 3),
        "both": round(statistics.median(both), 3),
        "both, p99": round(float(np.quantile(both, 0.99)), 3),
        "first look": round(max(sum(times[0]) for times in rollouts), 3),
    }


def _follow(random: np.random.Generator, rate: int) -> list[tuple[float, float]]:
    """Time the weighing and the judging of each minute of a rollout."""
    rollout, tally, replayed = _rollout(), Tally(until=BEGIN), Replayed(pairs=200, agreed=200)
    times = []
    for n in range(MINUTES):
        minute = _minute(random, rate, BEGIN + n * timedelta(minutes=1))
        begin = time.process_time_ns()
        tally = weigh(tally, (minute,), rollout)
        weighed = time.process_time_ns()
        judge(rollout, tally, replayed=replayed, now=minute.at + timedelta(minutes=3))
        times.append(((weighed - begin) / 1e6, (time.process_time_ns() - weighed) / 1e6))
    return times


def _minute(random: np.random.Generator, rate: int, at: datetime) -> Minute:
    ours = int(random.poisson(rate * WEIGHT))
    return Minute(at=at, candidate=_arm(random, ours), stable=_arm(random, int(random.poisson(rate * (1 - WEIGHT)))))


def _arm(random: np.random.Generator, requests: int) -> Arm:
    failures = int(random.binomial(requests, FAILED))
    answered = requests - failures
    bins = random.multinomial(answered, [1 / CLASSES] * CLASSES)
    return Arm(
        requests=requests,
        failures=failures,
        timed=answered,
        slower=tuple(int(random.binomial(answered, share)) for share in SLOWER),
        bins=tuple(int(count) for count in bins),
        custom=tuple(int(random.binomial(requests, share)) for share in (0.02, 0.3)),
    )


def _rollout() -> Rollout:
    pointer = Pointer(model="m", version="v2", key="k", version_id="1", sha256="0" * 64, size=1, format="onnx")
    step = Step(weight=WEIGHT, hold_s=86_400, requests=100, proof=True)
    policy = RolloutPolicy(strategy="canary", steps=(step,), paired=100, budget=50)
    stable = Revision(lambda_version="2", pointer=replace(pointer, version="v1"))
    return Rollout(
        id="m-000001",
        endpoint="m",
        candidate=Candidate(pointer=pointer, number=2, cause="upload", actor="ada"),
        stable=stable,
        policy=policy,
        guards=GUARDS,
        phase=Phase.SHIFTING,
        phase_at=BEGIN,
        started_at=BEGIN,
        reason="",
        step=0,
        shifted_at=BEGIN,
        revision=replace(stable, lambda_version="3", pointer=pointer),
        shifts=(Shift(at=BEGIN, step=0, weight=WEIGHT),),
        measures=MEASURES,
    )


def _table(results: dict[str, dict[str, float]]) -> str:
    columns = list(next(iter(results.values())))
    lines = [
        "# What one judgement costs",
        "",
        "Made by `python -m benchmarks.judgement_cost`: milliseconds of processor time, with every guard on.",
        "",
        f"| traffic | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
        *(f"| {name} | {' | '.join(f'{found[c]:.2f}' for c in columns)} |" for name, found in results.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
