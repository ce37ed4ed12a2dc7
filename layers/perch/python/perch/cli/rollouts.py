"""`perch rollouts` and `perch rollback`: what moves, the story of one rollout, starting one, taking one back."""

from __future__ import annotations

from typing import Annotated

import typer

from perch.cli.context import Context
from perch.cli.ledger import entries_of, show_entries
from perch.cli.replayed import shadow
from perch.cli.show import Json, emit, line, say, table, when
from perch.domain.codec import dump
from perch.domain.errors import NotFound
from perch.domain.ledger import Entry
from perch.domain.rollout import LEGAL, Phase, Rollout

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, show and start rollouts.")
app.command()(shadow)

Endpoint = Annotated[str, typer.Argument(help="Name of an endpoint.")]
Actor = Annotated[str | None, typer.Option(help="Who does it, for the ledger [default: you].")]


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
    """Tell the story of one rollout: when, what, why, who."""
    place: Context = ctx.obj
    endpoint, _, number = rollout.rpartition("-")
    found = place.world.registry.rollout(endpoint, rollout) if endpoint and number.isdigit() else None
    if found is None:
        raise NotFound(f"there is no rollout {rollout!r}; `perch rollouts list` lists those that there are")
    story = _story(place, found)
    if as_json:
        emit(dump(found) | {"ledger": dump(story)})
        return
    line(f"{found.id}: {found.candidate.label} instead of {found.stable.label}, {found.policy.strategy}", "bold")
    for i, step in enumerate(found.policy.steps):
        mark = "→" if i == found.step and LEGAL[found.phase] else " "
        line(f" {mark} step {i + 1}: {step.weight:.0%} for {step.hold_s / 3600:g} h and {step.requests} requests")
    show_entries(story, empty="its ledger entries are gone")


@app.command()
def start(
    ctx: typer.Context,
    endpoint: Endpoint,
    version: Annotated[str, typer.Argument(help="A registered version of the endpoint's model.")],
    reason: Annotated[str | None, typer.Option(help="Why, for the ledger.")] = None,
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """Start the rollout of a registered version.

    This approves one that waits, and tries one again that was taken back.
    """
    from perch.app.start import start as start_rollout

    place: Context = ctx.obj
    who = actor or place.actor()
    said = start_rollout(place.world, endpoint, version, actor=who, now=place.now(), reason=reason or "")
    _done(place, {"endpoint": endpoint, "version": version, "reason": said}, said, as_json=as_json)


def rollback(
    ctx: typer.Context,
    endpoint: Endpoint,
    reason: Annotated[str, typer.Option(help="Why, for the ledger.")],
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """Take back the rollout under way.

    With none under way, go back to the revision before, at once.
    """
    from perch.app.roll_back import roll_back_by_hand

    place: Context = ctx.obj
    place.settings.endpoint(endpoint)
    outcome = roll_back_by_hand(place.world, endpoint, reason=reason, actor=actor or place.actor(), now=place.now())
    document = {"endpoint": endpoint, "rolled_back": outcome.rolled_back, "reason": outcome.reason}
    _done(place, document, outcome.reason, as_json=as_json)


def step_of(rollout: Rollout) -> str:
    """Say which step a rollout is at (or ended at), with its share of traffic."""
    steps = rollout.policy.steps
    if not steps:
        return "direct"
    if rollout.step < 0:
        return f"before step 1 of {len(steps)}"
    return f"step {rollout.step + 1} of {len(steps)}, {steps[rollout.step].weight:.0%}"


def share_of(rollout: Rollout) -> float:
    """Return the share of traffic that the candidate has now, 0 to 1."""
    if rollout.phase is Phase.SHIFTING:
        return rollout.current_step.weight
    return 1.0 if rollout.phase in (Phase.PROMOTING, Phase.PROMOTED) else 0.0


def _story(place: Context, rollout: Rollout) -> list[Entry]:
    """Return the ledger entries of a rollout. Its id carries the number of the first; the last one has ended it."""
    story: list[Entry] = []
    for entry in entries_of(place.world.registry, rollout.endpoint, after=int(rollout.id.rpartition("-")[2]) - 1):
        if entry.rollout == rollout.id:
            story.append(entry)
        if entry.kind == "RolloutStarted" and entry.rollout != rollout.id:
            break
    return story


def _done(place: Context, document: dict[str, object], sentence: str, *, as_json: bool) -> None:
    taken_up = place.nudge()
    if as_json:
        emit(document)
        say(taken_up)
    else:
        typer.echo(f"{sentence}; {taken_up}")
