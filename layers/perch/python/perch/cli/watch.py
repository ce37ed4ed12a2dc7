"""`perch rollouts watch`: rollouts under way, drawn anew every few seconds until they have ended.

Each endpoint's first rollout is followed (one that waits in a queue from when it begins); when all have ended, so does
the command. It reads only: the judge is asked what it would say now, of what the driver has counted so far.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from perch.cli.context import Context
from perch.cli.find import Present, present
from perch.cli.show import Json, console, emit, say
from perch.domain.codec import dump
from perch.domain.errors import Invalid
from perch.domain.rollout import LEGAL, Phase

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import RenderableType

_WIDE = 110  # of a picture where there is no terminal


def watch(
    ctx: typer.Context,
    endpoint: Annotated[str | None, typer.Argument(help="Name of an endpoint [default: all].")] = None,
    every: Annotated[float, typer.Option(help="Seconds between two pictures.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Draw one picture and end, as without a terminal.")] = False,
    as_json: Json = False,
) -> None:
    """Watch rollouts until they have ended.

    Exit code 0 if all were promoted, 1 if one was not. Ctrl-C leaves; the rollout goes on. Without a terminal there is
    one picture, and always exit code 0.
    """
    place: Context = ctx.obj
    if not 0.1 <= every <= 3600:
        raise Invalid(f"--every {every:g} cannot be; give seconds from 0.1 to 3600")
    following = Following(place, [policy.name for policy in place.policies(endpoint)])
    shown = following.look()
    if not shown and not following.waiting:
        where = endpoint or "any endpoint"
        say(f"no rollout of {where} is under way; `perch rollouts list` shows those that were")
        if as_json:
            emit([])
        return
    if as_json:
        emit([dump(one) | {"paused": following.paused.get(one.rollout.endpoint, "")} for one in shown])
    elif once or not _on_terminal():
        console(_WIDE).print(_picture(following, shown))
    else:
        _live(following, shown, every)


def _on_terminal() -> bool:
    return sys.stdout.isatty()


@dataclass
class Following:
    """Which rollout of each endpoint is followed, and how each ended."""

    place: Context
    endpoints: list[str]
    followed: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    paused: dict[str, str] = field(default_factory=dict)
    ended: dict[str, Phase] = field(default_factory=dict)
    now: datetime | None = None

    def look(self) -> list[Present]:
        """Read every endpoint; return what is to be drawn."""
        self.now = self.place.now()
        return [found for name in self.endpoints if (found := self._look(name, self.now))]

    @property
    def over(self) -> bool:
        """Whether all that was followed has ended and nothing is waited for."""
        return not self.waiting and len(self.ended) == len(self.followed)

    def _look(self, name: str, now: datetime) -> Present | None:
        registry = self.place.world.registry
        state = registry.endpoint(name)
        self.paused[name] = state.paused
        if name not in self.followed:
            if state.rollout is None:
                self.waiting.pop(name, None)
                if state.queue:
                    self.waiting[name] = ", ".join(candidate.label for candidate in state.queue)
                return None
            self.followed[name] = state.rollout.id
            self.waiting.pop(name, None)
        if state.rollout and state.rollout.id == self.followed[name]:
            return present(self.place, state, state.rollout, now)
        done = registry.rollout(name, self.followed[name])
        if done is None:  # the endpoint was forgotten with all that was known of it
            self.ended[name] = Phase.REFUSED
            return None
        if not LEGAL[done.phase]:
            self.ended[name] = done.phase
        return Present(rollout=done, tally=registry.tally(name, done.id), look=None)


def _live(following: Following, shown: list[Present], every: float) -> None:
    from rich.live import Live

    with Live(_picture(following, shown), console=console(), auto_refresh=False) as live:
        while not following.over:
            time.sleep(every)
            live.update(_picture(following, following.look()), refresh=True)
    if any(phase is not Phase.PROMOTED for phase in following.ended.values()):
        raise typer.Exit(1)


def _picture(following: Following, shown: list[Present]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from perch.cli.scene import scene

    assert following.now is not None  # noqa: S101 - it has looked
    drawn: list[RenderableType] = [
        scene(one.rollout, one.tally, one.look, following.now, paused=following.paused.get(one.rollout.endpoint, ""))
        for one in shown
    ]
    for name, queue in following.waiting.items():
        why = f", paused: {following.paused[name]}" if following.paused.get(name) else ""
        drawn.append(Text(f"{name}: {queue} waits to begin{why}", style="yellow"))
    return Group(*drawn)
