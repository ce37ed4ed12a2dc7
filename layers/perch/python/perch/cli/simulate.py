"""`perch simulate`: a policy's false roll-backs, detections and times, from rollouts played with the real driver.

Nothing is asked of AWS. The exit code is for continuous integration: 1 when the policy is *shown* to take back more
good candidates than allowed (the lower end of the 95 % interval lies above it), or fewer bad ones than `--detect` wants
(the upper end lies below it).
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perch.cli.context import SETTINGS
from perch.cli.declared import one_endpoint, read_settings
from perch.cli.plan import Policy, parse_rate, parse_share
from perch.cli.show import line, progress, say, table
from perch.domain.codec import dump
from perch.domain.errors import Invalid, NotFound
from perch.domain.outlook import say_minutes
from perch.domain.policy import EndpointPolicy
from perch.domain.trial import Outcome, Scenario, Summary, failings, summary

if TYPE_CHECKING:
    from perch.local.simulation import Trial
    from perch.local.traffic import Profile

_LOOKS = 240  # that a rollout should have at most, unless said otherwise
_INCIDENT = 3.0


def simulate(
    traffic: Annotated[
        str, typer.Option(help="Requests, as 600/min; or a CSV file of minute-of-day,requests[,failures].")
    ],
    policy: Policy = None,
    endpoint: Annotated[str | None, typer.Option(help="Name of an endpoint [default: the only one].")] = None,
    error_rate: Annotated[str, typer.Option(help="Failed share of stable.")] = "0.5%",
    regression: Annotated[
        str, typer.Option(help="Bad candidates: by how many times the odds of failing are higher.")
    ] = "2,5",
    runs: Annotated[int, typer.Option(min=1, max=100_000, help="Rollouts of each kind of candidate.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same rollouts.")] = 1,
    max_false_rollback: Annotated[str, typer.Option(help="Share of good candidates that may be taken back.")] = "5%",
    detect: Annotated[
        str | None, typer.Option(help="Share of bad candidates that must be taken back [default: no target].")
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(min=1, help="Minutes between two looks [default: 1, and more where that makes over 240 looks]."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Minutes after which a rollout is undecided [default: twice its holds].")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Processes at once [default: the processors].")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw when verdicts fell, into this PNG or SVG file.")] = None,
) -> None:
    """Try a policy on good and on bad candidates.

    It plays rollouts of each, and says how often and when they are taken back or promoted. Exit code 1 if more good
    candidates are taken back than may be, or fewer bad ones than must be.
    """
    declared = one_endpoint(read_settings(policy or SETTINGS), endpoint)
    if plot:
        _check_matplotlib()
    trials = _trials(
        declared, traffic=traffic, error_rate=error_rate, regression=regression, runs=runs, seed=seed, every=every,
        limit=limit,
    )  # fmt: skip
    allowed, wanted = parse_share(max_false_rollback), parse_share(detect) if detect else None
    title = f"{len(trials):,} rollouts of {declared.name}"
    outcomes = _play(title, trials, processes or min(os.cpu_count() or 1, 8))
    kinds = dict.fromkeys(trial.scenario for trial in trials)
    found = [summary([one for one in outcomes if one.scenario == kind]) for kind in kinds]
    failed = list(failings(found, allowed=allowed, detects=wanted))
    _show(found, outcomes, trials[0], failed)
    if json_file:
        json_file.write_text(json.dumps(_document(trials[0], found, outcomes, failed), indent=2) + "\n", "utf-8")
        say(f"{json_file} holds every rollout")
    if plot:
        from perch.cli.picture import draw

        holds = [step.hold_s / 60 for step in trials[0].policy.rollout.steps]
        draw(found, outcomes, plot, title=_title(declared, trials[0]), ends=list(itertools.accumulate(holds)))
        say(f"{plot} shows when the verdicts fell")
    if failed:
        raise typer.Exit(1)


# -- playing ------------------------------------------------------------------------------------------------------


def _trials(
    declared: EndpointPolicy, *, traffic: str, error_rate: str, regression: str, runs: int, seed: int,
    every: int | None, limit: int | None,
) -> list[Trial]:  # fmt: skip
    """Say what is to be played. Raises Invalid if there is nothing to judge."""
    from perch.local.simulation import Trial, playable, shortest

    policy = playable(declared)
    if not policy.rollout.steps:
        raise Invalid(f"{declared.name} goes direct: no step of its rollout has live traffic that could be judged")
    if policy.rollout != declared.rollout:
        say("shadow steps and paired replays are left out: there are no requests here to replay")
    minutes = shortest(policy)
    looks = every or max(math.ceil(minutes / _LOOKS), 1)
    kinds = [Scenario(), Scenario(incident=_INCIDENT), *(Scenario(times=times) for times in _times(regression))]
    return [
        Trial(
            policy=policy,
            profile=_profile(traffic, parse_share(error_rate)),
            scenario=kind,
            seed=seed + run,
            limit=limit or 2 * minutes + 60,
            every=looks,
        )
        for kind in kinds
        for run in range(runs)
    ]


def _times(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = [0.0]
    if any(not 1 < times < math.inf for times in found):
        raise Invalid(f"{text!r} does not fit; write how many times the odds of failing are higher, as 2,5")
    return found


def _profile(traffic: str, failure_rate: float) -> Profile:
    from perch.local.traffic import Profile, read_profile

    if Path(traffic).is_file():
        return read_profile(Path(traffic), failure_rate)
    if "/" not in traffic or traffic.endswith(".csv"):
        raise NotFound(f"{traffic!r} is neither a rate like 600/min nor a file that exists")
    return Profile.steady(parse_rate(traffic), failure_rate)


def _play(title: str, trials: Sequence[Trial], processes: int) -> list[Outcome]:
    """Play all of them, the same kind of candidate in one go; the order of outcomes is that of the trials."""
    from perch.local.simulation import play_all

    outcomes: list[Outcome] = []
    with progress(title) as tell:
        for outcome in play_all(trials, processes=min(processes, len(trials))):
            outcomes.append(outcome)
            if len(outcomes) * 10 // len(trials) > (len(outcomes) - 1) * 10 // len(trials):
                tell(f"{len(outcomes):,} played")
    order = {(trial.scenario, trial.seed): n for n, trial in enumerate(trials)}
    return sorted(outcomes, key=lambda one: order[one.scenario, one.seed])


def _check_matplotlib() -> None:
    """See to it that there is something to draw with, before anything is played. Raises NotFound."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise NotFound("a picture needs matplotlib; install it with: pip install 'perch[simulate]'")


# -- saying -------------------------------------------------------------------------------------------------------


def _show(found: Sequence[Summary], outcomes: Sequence[Outcome], trial: Trial, failed: Iterable[str]) -> None:
    columns = (
        "candidate",
        "taken back",
        "promoted",
        "undecided",
        "median",
        "90 % by",
        "failures it cost",
        "because of",
    )
    table(columns, (_row(one) for one in found), empty="")
    ticks = sum(one.ticks for one in outcomes)
    cost = 1000 * sum(one.seconds for one in outcomes) / max(ticks, 1)
    every = "" if trial.every == 1 else f", one look every {trial.every} minutes"
    say(f"{ticks:,} ticks of the driver at {cost:.0f} ms{every}")
    for problem in failed:
        line(f"Fails: {problem}.", "bold red")


def _row(one: Summary) -> tuple[str, ...]:
    reasons = ", ".join(f"{what} {number}" for what, number in one.reasons.items())
    minutes = [f"minute {m:.0f}" if m is not None else "-" for m in (one.median_minute, one.p90_minute)]
    cost = "-" if one.scenario.good else f"{one.excess:,.1f} (95 % below {one.excess_p95:,.0f})"
    return (
        str(one.scenario),
        str(one.rolled_back),
        f"{one.promoted.share:.1%}",
        f"{one.undecided.share:.1%}",
        *minutes,
        cost,
        reasons or "-",
    )


def _title(declared: EndpointPolicy, trial: Trial) -> str:
    steps = " · ".join(f"{100 * s.weight:.4g} % for {say_minutes(s.hold_s / 60)}" for s in trial.policy.rollout.steps)
    requests, rate = trial.profile.at(0)
    traffic = "a day's profile" if trial.profile.varies else f"{requests:,.4g} requests a minute"
    return f"{declared.name}: {steps}; {traffic}, {100 * rate:.3g} % of stable fail"


def _document(
    trial: Trial, found: Sequence[Summary], outcomes: Sequence[Outcome], failed: Sequence[str]
) -> dict[str, Any]:
    return {
        "endpoint": trial.policy.name,
        "rollout": dump(trial.policy.rollout),
        "guards": dump(trial.policy.guards),
        "every_minutes": trial.every,
        "limit_minutes": trial.limit,
        "passes": not failed,
        "failures": list(failed),
        "summaries": dump(list(found)),
        "rollouts": dump(list(outcomes)),
    }
