"""What every Lambda function, version and alias carries beside moto's fields: revision id, state, and the lock.

A change gives the object a new revision id and, when `settle_s` is above zero, leaves it Pending (new) or InProgress
(changed) until that much time of the injected clock has passed. Nothing ticks: whoever looks at the object settles it
first. Settling rotates the revision id once more, as AWS does (a caller that chains updates by the id of the last
answer, without reading again after the wait, is refused there, so it is refused here).

Left out: a failed state or update, the Inactive state of idle functions, and that $LATEST keeps serving its old code
until an update has settled.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from perch.local.strict.lambda_errors import stale_revision, update_in_progress
from perch.local.strict.settings import current

LOCK = threading.RLock()
"""Held over each read-check-write of the Lambda API, because moto's server answers in threads."""


def new_revision_id() -> str:
    """Return an id that was never used."""
    return str(uuid4())


@dataclass
class FunctionState:
    """The life of one function or version; `ready_at` is None once it has settled."""

    revision_id: str = field(default_factory=new_revision_id)
    state: str = "Active"
    update: str = "Successful"
    ready_at: datetime | None = None
    settings_of_template: dict[str, Any] = field(default_factory=dict)


class _Generation:
    """Counts changes, so that `MotoFunctions` may cache what it resolved."""

    value = 0
    settles_at_once = False


def generation() -> int:
    """Return a number that grows with each change of any function, version or alias."""
    return _Generation.value


def touch() -> None:
    """Say that something changed."""
    _Generation.value += 1


@contextmanager
def settled_at_once() -> Iterator[None]:
    """Let changes settle at once: CloudFormation waits for each of its changes before it makes the next."""
    before = _Generation.settles_at_once
    _Generation.settles_at_once = True
    try:
        yield
    finally:
        _Generation.settles_at_once = before


def _ready_at() -> datetime | None:
    wait = 0.0 if _Generation.settles_at_once else current().settle_s
    return current().now() + timedelta(seconds=wait) if wait > 0 else None


def state_of(function: Any) -> FunctionState:
    """Return the settled-if-due state of a moto `LambdaFunction` (any version of it)."""
    state: FunctionState | None = function.__dict__.get("strict_state")
    if state is None:
        state = FunctionState()
        function.strict_state = state
    if state.ready_at is not None and current().now() >= state.ready_at:
        state.state, state.update, state.ready_at = "Active", "Successful", None
        state.revision_id = new_revision_id()
        touch()
    return state


def begin_life(function: Any) -> None:
    """Mark a function or version as just made."""
    ready_at = _ready_at()
    function.strict_state = FunctionState(state="Pending" if ready_at else "Active", ready_at=ready_at)
    touch()


def changed(function: Any) -> None:
    """Mark $LATEST as just updated: new revision id, InProgress until it settles."""
    state = state_of(function)
    ready_at = _ready_at()
    state.revision_id = new_revision_id()
    if ready_at is not None:
        state.update, state.ready_at = "InProgress", ready_at
    touch()


def refuse_if_busy(function: Any) -> None:
    """Raise 409 while the function is being created or updated."""
    if state_of(function).ready_at is not None:
        raise update_in_progress(function.function_arn)


def refuse_if_stale(function: Any, revision_id: str | None) -> None:
    """Raise 412 when a revision id was given and is not the latest."""
    if revision_id and revision_id != state_of(function).revision_id:
        raise stale_revision()
