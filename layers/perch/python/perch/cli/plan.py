"""`perch plan`: what a rollout's policy can hope to see at the endpoint's traffic, before anything moves."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from perch.cli.context import SETTINGS, Context
from perch.cli.declared import one_endpoint, read_settings
from perch.cli.show import Json, emit, line, table
from perch.domain.codec import dump
from perch.domain.errors import Invalid, NotFound, Refused
from perch.domain.outlook import TIMES, Seen, StepPlan, Traffic, say_minutes
from perch.domain.plan import Better, Plan, better
from perch.domain.plan import plan as make_plan
from perch.domain.policy import EndpointPolicy, RolloutPolicy
from perch.domain.policy_text import policy_text

_DAY = timedelta(days=1)
_RATE = re.compile(r"\s*([\d.,]+)\s*(?:/|a|per)\s*(s|sec|second|m|min|minute|h|hour|d|day)\s*")
_A_MINUTE = {"s": 60.0, "m": 1.0, "h": 1 / 60, "d": 1 / 1440}

Policy = Annotated[
    Path | None, typer.Option(help="Settings file with the policy [default: perch.toml here].", show_default=False)
]


def plan(
    ctx: typer.Context,
    endpoint: Annotated[str | None, typer.Argument(help="Name of an endpoint [default: the only one].")] = None,
    version: Annotated[
        str | None, typer.Option(help="Model version that would be rolled out; must be registered.")
    ] = None,
    policy: Policy = None,
    traffic: Annotated[
        str | None, typer.Option(help="Requests, as 600/min or 5/hour [default: of stable in the last day].")
    ] = None,
    error_rate: Annotated[
        str | None, typer.Option(help="Failed share of stable, as 0.5% [default: of stable in the last day].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a rollout could see, and when.

    Requests, the regressions that it would find, and whether it can end at all. Without --traffic it asks what stable
    got in the last day; with it nothing is asked of AWS. A plan without hope is refused (exit code 1), with a better
    policy where there is one.
    """
    declared = one_endpoint(read_settings(policy or SETTINGS), endpoint)
    if version:
        _check_version(ctx.obj, declared, version)
    expected = _expected(ctx.obj, declared, traffic, error_rate)
    found = make_plan(declared.rollout, declared.guards, expected)
    instead = better(declared.rollout, declared.guards, expected) if found.problem else None
    if as_json:
        emit(_document(declared, found, instead))
    else:
        _show(declared, found, instead)
    if found.problem:
        raise typer.Exit(1)


def parse_rate(text: str) -> float:
    """Return the requests a minute that a text names, as `600/min`. Raises Invalid for anything else."""
    match = _RATE.fullmatch(text.lower())
    try:
        return float(match[1].replace(",", "")) * _A_MINUTE[match[2][0]] if match else _no(text)
    except ValueError:
        return _no(text)


def parse_share(text: str) -> float:
    """Return the share that a text names, as `0.5%` or `0.005`. Raises Invalid for anything else."""
    try:
        share = float(text[:-1]) / 100 if text.strip().endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise Invalid(f"{text!r} is not a share; write it as 0.5% or 0.005")
    return share


def _no(text: str) -> float:
    raise Invalid(f"{text!r} is not a rate; write it like 600/min, 5/hour or 10000/day")


def _check_version(place: Context, declared: EndpointPolicy, version: str) -> None:
    """See to it that there is something to roll out. Raises NotFound or Refused."""
    found = place.world.registry.require_version(declared.model, version)
    if misfit := found.misfit(declared, place.settings.signing):
        raise Refused(misfit)


def _expected(place: Context, declared: EndpointPolicy, traffic: str | None, error_rate: str | None) -> Traffic:
    """Take the traffic that is given, else what stable got in the last day."""
    rate = parse_rate(traffic) if traffic else None
    failed = parse_share(error_rate) if error_rate else None
    if rate is not None:
        return Traffic(requests_a_minute=rate, failure_rate=failed or 0.0, captured=declared.capture)
    world, now = place.world, place.now()
    state = world.registry.endpoint(declared.name)
    if state.stable is None:
        raise NotFound(
            f"endpoint {declared.name} serves nothing yet, so its traffic is not known; give it with --traffic 600/min"
        )
    since = max(now - _DAY, state.retired[-1].at) if state.retired else now - _DAY
    function = world.function(declared.name)
    habits = world.metrics.habits(declared.name, function, state.stable.lambda_version, since=since, until=now)
    seen = habits.failures / habits.requests if habits.requests else 0.0
    return Traffic(
        requests_a_minute=habits.requests / habits.minutes if habits.minutes else 0.0,
        failure_rate=seen if failed is None else failed,
        captured=declared.capture,
    )


# -- for machines -------------------------------------------------------------------------------------------------


def _document(declared: EndpointPolicy, found: Plan, instead: Better | None) -> dict[str, Any]:
    proposal = instead and {
        "changes": instead.changes,
        "toml": policy_text(declared.name, instead.policy, instead.guards),
    }
    return {"endpoint": declared.name, **_plain(dump(found)), "better": proposal}


def _plain(value: Any) -> Any:
    """Replace what JSON has no number for: the odds ratio of failing always."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return "always" if isinstance(value, float) and math.isinf(value) else value


# -- for people ---------------------------------------------------------------------------------------------------


def _show(declared: EndpointPolicy, found: Plan, instead: Better | None) -> None:
    traffic = found.traffic
    line(
        f"{declared.name}: {declared.rollout.strategy} at {traffic.requests_a_minute:,.4g} requests a minute, of which "
        f"stable fails {100 * traffic.failure_rate:.3g} %",
        "bold",
    )
    columns = ("step", "share", "hold", "requests in it", "failures", "finds by then", "ends after")
    table(columns, (_row(step, declared.rollout) for step in found.steps), empty="no steps")
    shown = [step for step in found.steps if step.seen]
    if shown:
        line("A regression that begins with a step is taken back, 4 times out of 5, within … (failures it costs)")
        heads = [f"{times:.0f} times the failures" if math.isfinite(times) else "fails always" for times in TIMES]
        rows = ((str(step.number), *map(_say_seen, step.seen)) for step in shown)
        table(("step", *heads), rows, empty="")
    for remark in found.remarks:
        line(f"Note: {remark}.")
    if found.problem is None:
        line(f"It can end after {say_minutes(found.minutes)}, if the candidate is as good as stable.", "green")
        return
    line(f"Hopeless: {found.problem}.", "bold red")
    if instead is None:
        line("No change of the policy that was tried helps; this endpoint needs more traffic, or a person to promote.")
        return
    line(f"Better: {'; '.join(instead.changes)}. In perch.toml:")
    line(policy_text(declared.name, instead.policy, instead.guards))


def _row(step: StepPlan, policy: RolloutPolicy) -> tuple[str, ...]:
    low, high = step.requests_range
    if step.problem:
        end = f"deadline of {say_minutes(policy.deadline_s / 60)}"
    else:
        end = say_minutes(step.minutes) + (f" ({step.chance:.0%})" if step.chance < 0.995 else "")
    smallest = f"{step.smallest:g} times the failures" if step.smallest else "-"
    return (
        f"{step.number}{'' if step.kind == 'canary' else ' ' + step.kind}",
        f"{100 * step.weight:.4g} %",
        say_minutes(step.hold_minutes),
        f"{step.requests:,.0f} ({low:,} to {high:,})",
        f"{step.failures:,.0f}" if step.failures >= 10 else f"{step.failures:.2g}",
        smallest,
        end,
    )


def _say_seen(seen: Seen) -> str:
    when = say_minutes(seen.minutes) if seen.minutes is not None else "not in time"
    return f"{when} ({seen.cost:,.0f})"
