"""`perch clock`: read and move the time of the local cloud. AWS has no such command."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from perch.cli.durations import parse_span, span
from perch.cli.running import Running, require_running
from perch.cli.show import Json, emit, progress, when
from perch.domain.codec import parse_time
from perch.domain.errors import Invalid

_STRIDE = timedelta(hours=1)  # so that a long way shows how far it is


def clock(
    advance: Annotated[
        str | None, typer.Option(help="Step this far ahead ('6 hours', '2d'); all that is due on the way happens.")
    ] = None,
    speed: Annotated[float | None, typer.Option(help="Let this many virtual seconds pass in a real one.")] = None,
    as_json: Json = False,
) -> None:
    """Show, step or speed up the time of the local cloud."""
    if speed is not None and not 0 < speed < 1e6:
        raise Invalid(f"--speed {speed:g} cannot be; give virtual seconds a real second, above 0 and below 1,000,000")
    far = parse_span(advance) if advance else None
    cloud = require_running()
    if speed is not None:
        cloud.set_clock(speed=speed)
    if far:
        _advance(cloud, far)
    told = cloud.clock()
    if as_json:
        emit(told)
        return
    pace = f"running at {told['speed']:g} virtual seconds a second" if told["running"] else "standing still"
    typer.echo(f"{when(parse_time(told['now']))} UTC, {pace}")


def _advance(cloud: Running, far: timedelta) -> None:
    left = far
    with progress(f"advancing {span(far)}") as tell:
        while left:
            step = min(left, _STRIDE)
            cloud.set_clock(advance_s=step.total_seconds())
            left -= step
            if left:
                tell(f"{span(left)} left")
