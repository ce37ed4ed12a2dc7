"""`perch status`: what serves, what moves, what waits, and what is wrong, for each endpoint."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perch.cli.context import Context
from perch.cli.durations import span
from perch.cli.saying import share_of, step_of, waits_at_gate
from perch.cli.show import Json, emit, line, table, when
from perch.domain.codec import dump, parse_time
from perch.domain.errors import NotFound
from perch.domain.policy import EndpointPolicy, who_answers
from perch.domain.rollout import Revision, Rollout

if TYPE_CHECKING:
    from perch.app.world import World

_REFUSED = 5  # of the newest, shown


def status(
    ctx: typer.Context,
    endpoint: Annotated[str | None, typer.Argument(help="Name of an endpoint [default: all].")] = None,
    as_json: Json = False,
) -> None:
    """Show what each endpoint serves and does.

    Its stable revision, rollout, queue, health and alarms, and the newest refused uploads.
    """
    place: Context = ctx.obj
    policies = place.policies(endpoint)
    now = place.now()
    found = {
        "name": place.name,
        "place": place.place,
        "at": dump(now),
        "endpoints": [look(place.world, policy) for policy in policies],
        "refused_uploads": _refused(place.world, [p.model for p in policies] if endpoint else None),
    }
    if as_json:
        emit(found)
    else:
        _show(found, now)


def look(world: World, policy: EndpointPolicy) -> dict[str, Any]:
    """Return all that is known of an endpoint as a JSON document (four calls, and one for each model that serves)."""
    state = world.registry.endpoint(policy.name)
    checks = world.registry.health(policy.name, limit=2)
    newest = [c for c in checks if c["at"] == checks[0]["at"]]  # one check probes stable and candidate
    return {
        "endpoint": policy.name,
        "model": policy.model,
        "runtime": policy.runtime,
        "stable": _stable(world, policy, state.stable) if state.stable else None,
        "alias": _alias(world, policy.name),
        "paused": state.paused,
        "rollout": _rollout(state.rollout) if state.rollout else None,
        "queue": [{"version": c.pointer.version, "cause": c.cause, "actor": c.actor} for c in state.queue],
        "health": newest,
        "alarms": dump([a for a in world.alarms.of(policy.name) if a.in_alarm]),
    }


def _stable(world: World, policy: EndpointPolicy, stable: Revision) -> dict[str, Any]:
    """What serves; `misfit` says why it would not be put into service today."""
    from perch.app.qualify import misfit

    found: dict[str, Any] = {"version": None, "revision": stable.lambda_version, "misfit": None}
    if stable.pointer:
        against = misfit(world, policy, stable.pointer, stable.experiment)
        found |= {"version": stable.pointer.version, "misfit": against}
    return found


def _alias(world: World, endpoint: str) -> str | None:
    try:
        return str(world.functions.alias(world.function(endpoint)).routing)
    except NotFound:
        return None


def _rollout(rollout: Rollout) -> dict[str, Any]:
    return {
        "id": rollout.id,
        "candidate": rollout.candidate.pointer.version,
        "revision": rollout.revision.lambda_version if rollout.revision else None,
        "cause": rollout.candidate.cause,
        "phase": rollout.phase.value,
        "step": rollout.step + 1,
        "steps": len(rollout.policy.steps),
        "at_step": step_of(rollout),
        "weight": share_of(rollout),
        "gate": rollout.current_step.gate if waits_at_gate(rollout) else "",
        "since": dump(rollout.phase_at),
        "reason": rollout.reason,
    }


def _refused(world: World, models: list[str] | None) -> list[dict[str, Any]]:
    """Return the newest refused uploads of some models, or of all and outside the layout."""
    prefixes = [f"models/{model}/" for model in models] if models is not None else [""]
    found = [r for prefix in prefixes for r in world.registry.rejections(prefix=prefix)]
    first = {(r.event or f"{r.key}#{r.version_id}"): r for r in reversed(found)}  # one file of each refused version
    return [dump(r) for r in sorted(first.values(), key=lambda r: r.at, reverse=True)[:_REFUSED]]


# -- for people ---------------------------------------------------------------------------------------------------


def _show(found: dict[str, Any], now: datetime) -> None:
    line(f"{found['name']} on {found['place']}, {when(now)} UTC", "bold")
    table(
        ("endpoint", "model", "serves", "rollout", "waiting", "health", "alarms"),
        (_row(e) for e in found["endpoints"]),
        empty="no endpoint is declared in perch.toml",
    )
    for endpoint in found["endpoints"]:
        for remark, style in _remarks(endpoint, now):
            line(f"{endpoint['endpoint']}: {remark}", style)
    for refused in found["refused_uploads"]:
        line(f"refused {when(parse_time(refused['at']))}  {refused['key']}: {refused['reason']}", "red")


def _row(e: dict[str, Any]) -> tuple[str, ...]:
    stable, rollout, health = e["stable"], e["rollout"], e["health"]
    serves = f"{stable['version'] or 'placeholder'} (revision {stable['revision']})" if stable else "nothing yet"
    moving = f"{rollout['phase']} ({rollout['candidate']}, {rollout['weight']:.0%})" if rollout else "-"
    waiting = ", ".join(c["version"] for c in e["queue"]) or "-"
    well = "-" if not health else "healthy" if all(c["healthy"] for c in health) else "failing"
    return e["endpoint"], f"{e['model']} ({e['runtime']})", serves, moving, waiting, well, str(len(e["alarms"]) or "-")


def _remarks(e: dict[str, Any], now: datetime) -> list[tuple[str, str]]:
    """Return sentences (with a colour) about what a row has no room for."""
    remarks = []
    if e["stable"] and e["stable"]["misfit"]:
        remarks.append(
            (f"what serves would not be put into service today, and serves on: {e['stable']['misfit']}", "bold red")
        )
    if e["paused"]:
        remarks.append((f"paused until `perch rollouts resume {e['endpoint']}`: {e['paused']}", "bold yellow"))
    if rollout := e["rollout"]:
        since = span(now - parse_time(rollout["since"]))
        remarks.append(
            (
                f"{rollout['id']} has been {rollout['phase']} ({rollout['at_step']}) for {since}: {rollout['reason']}",
                "yellow",
            )
        )
        if rollout["gate"]:
            answer = f"perch rollouts answer {rollout['id']} {rollout['step']} --yes --reason …"
            remarks.append((f"its gate is open and waits for {who_answers(rollout['gate'])}: {answer}", "bold yellow"))
    elif not e["stable"]:
        remarks.append((f"answers 503 until its first model: perch push FILE --model {e['model']} --version v1", ""))
    remarks += [
        (
            f"{c['role']} revision {c['revision']} failed its probes at {c['at'][:19]}: {c['report']['failure']}",
            "bold red",
        )
        for c in e["health"]
        if not c["healthy"]
    ]
    remarks += [
        (f"alarm {a['name']} since {when(parse_time(a['since']))}: {a['reason']}", "bold red") for a in e["alarms"]
    ]
    return remarks
