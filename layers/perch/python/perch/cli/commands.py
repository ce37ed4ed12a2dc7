"""What people say to rollouts: start, pause, resume, promote, abort, answer a gate, roll back.

Each command is one use case (`perch/app`), with who says it and why; then the rollout driver is woken to act on it.
What is refused says what to do instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from perch.cli.context import Context
from perch.cli.find import present
from perch.cli.show import Json, emit, say, tell
from perch.domain.errors import Invalid, Refused
from perch.domain.judge import Judgement, Verdict
from perch.domain.rollout import Endpoint as State
from perch.domain.rollout import Phase

Endpoint = Annotated[str, typer.Argument(help="Name of an endpoint.")]
Actor = Annotated[str | None, typer.Option(help="Who does it, for the ledger [default: you].")]
Reason = Annotated[str, typer.Option(help="Why, for the ledger.")]
MaybeReason = Annotated[str | None, typer.Option(help="Why, for the ledger.")]


def start(
    ctx: typer.Context,
    endpoint: Endpoint,
    version: Annotated[str, typer.Argument(help="A registered version of the endpoint's model.")],
    direct: Annotated[
        bool, typer.Option("--direct", help="Skip the steps: all traffic at once, after the probes.")
    ] = False,
    reason: MaybeReason = None,
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """Start the rollout of a registered version.

    This approves one that waits, and tries one again that was taken back.
    """
    from perch.app.start import start as start_rollout

    place: Context = ctx.obj
    who = actor or place.actor()
    said = start_rollout(place.world, endpoint, version, actor=who, now=place.now(), reason=reason or "", direct=direct)
    _done(place, {"endpoint": endpoint, "version": version, "reason": said}, as_json=as_json)


def pause(ctx: typer.Context, endpoint: Endpoint, reason: Reason, actor: Actor = None, as_json: Json = False) -> None:
    """Let no rollout begin and none take a step.

    The judge goes on looking: what goes wrong is still taken back.
    """
    from perch.app.command import pause as pause_endpoint

    place: Context = ctx.obj
    who = actor or place.actor()
    with _instead("`perch rollouts resume` ends that pause"):
        said = pause_endpoint(place.world, endpoint, reason=reason, actor=who, now=place.now())
    _done(place, {"endpoint": endpoint, "paused": said}, f"{endpoint} is paused: {said}", as_json=as_json)


def resume(
    ctx: typer.Context, endpoint: Endpoint, reason: MaybeReason = None, actor: Actor = None, as_json: Json = False
) -> None:
    """Take a pause away."""
    from perch.app.command import resume as resume_endpoint

    place: Context = ctx.obj
    who = actor or place.actor()
    with _instead("`perch status` shows what it waits for"):
        said = resume_endpoint(place.world, endpoint, reason=reason or "", actor=who, now=place.now())
    _done(place, {"endpoint": endpoint, "reason": said}, f"{endpoint} goes on: {said}", as_json=as_json)


def promote(
    ctx: typer.Context,
    endpoint: Endpoint,
    reason: Reason,
    full: Annotated[
        bool, typer.Option("--full", help="Take all steps at once: the candidate gets all traffic now.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, even where evidence is lacking.")] = False,
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """Take the next step now.

    If the step under way waits at its gate, this answers it with yes. Where the judge still lacks evidence, a terminal
    is asked whether to go on.
    """
    from perch.app.command import promote as promote_rollout

    place: Context = ctx.obj
    place.settings.endpoint(endpoint)
    state = place.world.registry.endpoint(endpoint)
    lacking = _lacking(place, state, full=full)
    if lacking and not yes:
        say(lacking)
        if _somebody_there():
            typer.confirm("Promote all the same?", abort=True, err=True)
    who = actor or place.actor()
    with _instead(
        "`perch rollouts start` starts one"
        if state.rollout is None
        else "`perch status` shows where it is; `perch rollouts abort` ends it"
    ):
        said = promote_rollout(place.world, endpoint, full=full, reason=reason, actor=who, now=place.now())
    document = {"endpoint": endpoint, "rollout": state.rollout.id if state.rollout else None, "lacking": lacking}
    _done(place, document | {"reason": said}, as_json=as_json)


def abort(ctx: typer.Context, endpoint: Endpoint, reason: Reason, actor: Actor = None, as_json: Json = False) -> None:
    """End the rollout under way; all traffic goes back."""
    from perch.app.roll_back import abort as abort_rollout

    place: Context = ctx.obj
    place.settings.endpoint(endpoint)
    outcome = abort_rollout(place.world, endpoint, reason=reason, actor=actor or place.actor(), now=place.now())
    _done(place, {"endpoint": endpoint, "rolled_back": True, "reason": outcome.reason}, as_json=as_json)


def answer(
    ctx: typer.Context,
    rollout: Annotated[str, typer.Argument(help="Id of a rollout, as `perch rollouts list` shows it.")],
    step: Annotated[int, typer.Argument(min=1, help="The step whose gate is open, counted from 1.")],
    passed: Annotated[bool, typer.Option("--yes/--no", help="Whether the rollout may go on; no takes it back.")],
    reason: Reason,
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """Answer the gate that a rollout waits at."""
    from perch.app.command import answer as answer_gate

    place: Context = ctx.obj
    endpoint = rollout.rpartition("-")[0]
    place.settings.endpoint(endpoint)
    who = actor or place.actor()
    with _instead(f"`perch status {endpoint}` shows what it waits for; `perch rollouts promote` passes any step"):
        said = answer_gate(
            place.world, endpoint, rollout, step - 1, passed=passed, reason=reason, actor=who, now=place.now()
        )
    document = {"endpoint": endpoint, "rollout": rollout, "step": step, "passed": passed, "reason": said}
    _done(place, document, f"{rollout}: {said}", as_json=as_json)


def rollback(
    ctx: typer.Context,
    endpoint: Endpoint,
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="A version that served before, instead of the last one.")] = None,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="Move the traffic first, whatever is busy; then pause the endpoint.")
    ] = False,
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """Take back the rollout under way.

    With none under way, go back to the revision before, at once.
    """
    from perch.app import roll_back

    place: Context = ctx.obj
    if emergency and to:
        raise Invalid("an emergency goes to the last revision that worked; leave out either --to or --emergency")
    place.settings.endpoint(endpoint)
    who = actor or place.actor()
    if emergency:
        outcome = roll_back.emergency(place.world, endpoint, reason=reason, actor=who, now=place.now())
    else:
        outcome = roll_back.roll_back_by_hand(place.world, endpoint, reason=reason, actor=who, now=place.now(), to=to)
    document = {"endpoint": endpoint, "rolled_back": outcome.rolled_back, "reason": outcome.reason}
    _done(place, document, as_json=as_json)


OF_A_ROLLOUT = (promote, answer, pause, resume, abort)


def _lacking(place: Context, state: State, *, full: bool) -> str:
    """Say what evidence a promotion would do without; nothing if it has all of it (or if there is nothing to take)."""
    rollout = state.rollout
    if rollout is None or rollout.phase is not Phase.SHIFTING:
        return ""
    look = present(place, state, rollout, place.now()).look
    judgement: Judgement | None = look.judgement if look else None
    if judgement is None:
        return ""
    left = rollout.policy.steps[rollout.step + 1 :]
    if judgement.verdict is Verdict.ROLL_BACK:
        return f"{rollout.id}: the judge would take it back: {judgement.reason}"
    if judgement.verdict is not Verdict.PROMOTE and not judgement.gate:
        return f"{rollout.id} lacks evidence for step {rollout.step + 1}: {judgement.reason}"
    return f"{rollout.id} would skip {len(left)} more steps" if full and left else ""


def _somebody_there() -> bool:
    return sys.stdin.isatty()


@contextmanager
def _instead(advice: str) -> Iterator[None]:
    """Add what to do instead to whatever is refused."""
    try:
        yield
    except Refused as refused:
        raise Refused(f"{refused}; {advice}") from refused


def _done(place: Context, document: dict[str, Any], sentence: str = "", *, as_json: bool) -> None:
    taken_up = place.nudge()
    if as_json:
        emit(document)
        say(taken_up)
    else:
        tell(f"{sentence or document['reason']}; {taken_up}")
