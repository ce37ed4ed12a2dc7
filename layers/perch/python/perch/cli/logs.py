"""`perch logs`: what a function wrote, from CloudWatch Logs (`/aws/lambda/<name>-<NAME>`).

Following asks again every second for what is newer; a line that is written late, with an older time than the newest
shown, is still shown as long as it is no more than `_LATE` behind.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from perch.cli.context import Context
from perch.cli.durations import parse_span
from perch.cli.show import Json, emit, say, tell
from perch.domain.errors import NotFound
from perch.domain.names import function_name

CONTROL = (
    "register-model",
    "drive-rollouts",
    "roll-back",
    "check-health",
    "replay-requests",
    "describe-api",
    "record-rewards",
)
_LATE = timedelta(seconds=30)


def logs(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help=f"An endpoint, or a control function: {', '.join(CONTROL)}.")],
    since: Annotated[str, typer.Option(help="How far back.")] = "10m",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show what an endpoint or a control function logged."""
    place: Context = ctx.obj
    group = f"/aws/lambda/{function_name(place.name, name)}"
    begin = place.now() - parse_span(since)
    if follow:
        _follow(place, group, name, begin, as_json=as_json)
        return
    lines = sorted((_line(e) for e in _events(place, group, name, begin)), key=lambda shown: shown["at"])
    if as_json:
        emit(lines)
        return
    for shown in lines:
        _print(shown)
    if not lines:
        say(f"{group} has no line of the last {since}; --since looks further back")


def _follow(place: Context, group: str, name: str, begin: datetime, *, as_json: bool) -> None:
    seen: dict[str, datetime] = {}
    while True:
        for event in _events(place, group, name, begin):
            shown = _line(event)
            if event["eventId"] in seen:
                continue
            seen[event["eventId"]] = shown["at"]
            if as_json:
                tell(json.dumps({**shown, "at": shown["at"].isoformat()}))
            else:
                _print(shown)
        if seen:
            begin = max(begin, max(seen.values()) - _LATE)
            seen = {event: at for event, at in seen.items() if at >= begin}
        time.sleep(1)


def _events(place: Context, group: str, name: str, begin: datetime) -> Iterator[Any]:
    from botocore.exceptions import ClientError  # here, not above: the SDK takes a while

    from perch.aws.trouble import code_of

    logs = place.clients.logs
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=_milliseconds(begin))
    try:
        for page in pages:
            yield from page["events"]
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
        endpoints = ", ".join(policy.name for policy in place.settings.endpoints)
        known = f"endpoints: {endpoints}; control functions: {', '.join(CONTROL)}"
        raise NotFound(f"nothing called {name!r} has a log on {place.place}; there are {known}") from error


def _line(event: Any) -> dict[str, Any]:
    at = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
    return {"at": at, "stream": event["logStreamName"], "message": event["message"].rstrip("\n")}


def _print(shown: dict[str, Any]) -> None:
    tell(f"{shown['at']:%Y-%m-%d %H:%M:%S}.{shown['at'].microsecond // 1000:03d}  {shown['message']}")


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
