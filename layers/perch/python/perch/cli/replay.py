"""`perch replay`: judge the looks of a rollout again, by the rollout policy and the guards of another settings file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perch.cli.context import Context
from perch.cli.find import rollout_named
from perch.cli.show import Json, emit, line, say, table
from perch.domain.errors import NotFound, Refused

if TYPE_CHECKING:
    from perch.domain.rejudge import Rejudged
    from perch.domain.rollout import Rollout


def replay(
    ctx: typer.Context,
    rollout: Annotated[str, typer.Argument(help="Id of a rollout, as `perch rollouts list` shows it.")],
    policy: Annotated[Path, typer.Option(help="The settings file to judge by, such as perch.toml.")],
    endpoint_policy: Annotated[
        str | None, typer.Option(help="The endpoint of that file [default: the rollout's, else its only one].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge a rollout again by another policy.

    Every look that is kept is judged in its minute and with the traffic that it had, and what would have been said is
    held against what was. What cannot be known is said too.
    """
    from perch.cli.declared import one_endpoint, read_settings
    from perch.domain.rejudge import differences, rejudge

    settings = read_settings(policy)
    place: Context = ctx.obj
    found = rollout_named(place, rollout)
    own = any(one.name == found.endpoint for one in settings.endpoints)
    declared = one_endpoint(settings, endpoint_policy or (found.endpoint if own else None))
    if not declared.rollout.steps:
        raise Refused(f"{declared.name} of {policy} goes direct: it has no step that could be judged")
    looks = tuple(place.world.registry.looks(found.endpoint, found.id))
    if not looks:
        raise NotFound(f"no look at {found.id} is kept: it never had traffic in a step, or that is 90 days ago")
    again = rejudge(found, looks, declared.rollout, declared.guards)
    differs = differences(found, again, declared.rollout)
    if as_json:
        emit(
            {
                "rollout": found.id,
                "policy": str(policy),
                "endpoint_policy": declared.name,
                "differences": differs,
                "unknown": again.unknown,
                "looks": again.looks,
            }
        )
        return
    line(f"{found.id} ({found.phase.value}) judged again by {declared.name} of {policy}", "bold")
    _show(found, again, differs)


def _show(found: Rollout, again: Rejudged, differs: Sequence[str]) -> None:
    from perch.domain.rejudge import minute_of

    for sentence in differs:
        line(f"It {sentence}.")
    if not differs:
        line(f"It would have gone the same way: {len(again.looks)} looks, none that would have changed the course.")
    table(
        ("minute", "step", "it was", "it would have been", "why"),
        (
            (f"{minute_of(found, a.at):.0f}", a.step + 1, a.was.verdict, a.now.verdict, a.now.reason)
            for a in again.looks
            if a.differs
        ),
        empty="",
    )
    for sentence in again.unknown:
        line(f"Not known: {sentence}.", "yellow")
    if again.unknown and not differs:
        say("what is not known may still have made a difference")
