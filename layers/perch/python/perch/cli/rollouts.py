"""`perch rollouts`: the group of its commands; here, what is listed and shown.

What people say to a rollout is in `commands.py`, the live view in `watch.py`, the story in `explain.py`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from perch.cli import commands
from perch.cli.context import Context
from perch.cli.explain import explain
from perch.cli.find import rollout_named, story_of
from perch.cli.ledger import show_entries
from perch.cli.replayed import shadow
from perch.cli.saying import say_rules, step_of
from perch.cli.show import Json, emit, line, table, when
from perch.cli.watch import watch
from perch.domain.codec import dump
from perch.domain.rollout import LEGAL

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Start, watch, explain and answer rollouts.")
rollback = commands.rollback


@app.command(name="list")
def list_(
    ctx: typer.Context,
    endpoint: Annotated[str | None, typer.Argument(help="Name of an endpoint [default: all].")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Rollouts an endpoint, at most.")] = 20,
    as_json: Json = False,
) -> None:
    """List rollouts, newest first."""
    place: Context = ctx.obj
    names = [policy.name for policy in place.policies(endpoint)]
    found = [rollout for name in names for rollout in place.world.registry.rollouts(name, limit=limit)]
    if as_json:
        emit(found)
        return
    table(
        ("rollout", "candidate", "instead of", "phase", "at", "started (UTC)", "why"),
        ((r.id, r.candidate.label, r.stable.label, r.phase, step_of(r), when(r.started_at), r.reason) for r in found),
        empty=f"no rollout of {', '.join(names) or 'any endpoint'} yet; `perch push` uploads a model",
    )


@app.command()
def show(
    ctx: typer.Context,
    rollout: Annotated[str, typer.Argument(help="Id of a rollout, as `perch rollouts list` shows it.")],
    as_json: Json = False,
) -> None:
    """Show the ledger of one rollout: when, what, why, who."""
    place: Context = ctx.obj
    found = rollout_named(place, rollout)
    story = story_of(place.world.registry, found)
    if as_json:
        emit(dump(found) | {"ledger": dump(story)})
        return
    line(f"{found.id}: {found.candidate.label} instead of {found.stable.label}, {found.policy.strategy}", "bold")
    for i, rules in enumerate(say_rules(found.policy)):
        mark = "→" if i == found.step and LEGAL[found.phase] else " "
        line(f" {mark} step {i + 1}: {rules}")
    show_entries(story, empty="its ledger entries are gone")


for command in (commands.start, watch, explain, shadow, *commands.OF_A_ROLLOUT):
    app.command()(command)
