"""Moves: every legal change of a rollout, and of the endpoint that it is on, as pure functions from state to state.

Each returns a `Change`: the state before, the state after, and the ledger entry that tells of it. What is not legal is
refused (`Refused`), whoever asks. Nothing here knows of AWS or of the time that it is. What waits to become a rollout
is in `queueing.py`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from perch.domain.change import REASON_LIMIT, change
from perch.domain.errors import Refused
from perch.domain.evidence import Measures
from perch.domain.policy import Step
from perch.domain.rollout import (
    BEFORE_TRAFFIC,
    LEGAL,
    Change,
    Endpoint,
    Phase,
    Retired,
    Revision,
    Rollout,
    Routing,
    Shift,
    desired_routing,
)

_EMERGENCY = "(emergency, by"


# -- moves of an endpoint, whether it has a rollout or not -----------------------------------------------------------


def forget(endpoint: Endpoint, *, now: datetime) -> Change:
    """The function was replaced: the revisions that are remembered no longer exist, so begin as with a new endpoint."""
    gone = endpoint.stable.label if endpoint.stable else "the stable revision"
    reason = f"{gone} no longer exists: the function was replaced; the newest version starts afresh"
    rollout = replace(endpoint.rollout, phase=Phase.REFUSED, reason=reason, phase_at=now) if endpoint.rollout else None
    after = Endpoint(
        name=endpoint.name,
        queue=endpoint.queue,
        seq=endpoint.seq,
        last_hash=endpoint.last_hash,
        paused=endpoint.paused,
    )
    return change(endpoint, after, "EndpointForgotten", reason, "perch", now, rollout=rollout)


def pause(endpoint: Endpoint, reason: str, *, actor: str, now: datetime) -> Change:
    """Let no rollout begin and none take a step. Raises Refused if it is paused already."""
    if endpoint.paused:
        raise Refused(f"endpoint {endpoint.name} is paused already: {endpoint.paused}")
    if not reason:
        raise Refused("say why it is paused")
    return change(endpoint, replace(endpoint, paused=f"{reason} (by {actor})"), "Paused", reason, actor, now)


def resume(endpoint: Endpoint, reason: str, *, actor: str, now: datetime) -> Change:
    """Take the pause away. Raises Refused if there is none."""
    if not endpoint.paused:
        raise Refused(f"endpoint {endpoint.name} is not paused")
    said = f"no longer paused for {endpoint.paused!r}" + (f": {reason}" if reason else "")
    return change(endpoint, replace(endpoint, paused=""), "Resumed", said, actor, now)


def emergency(endpoint: Endpoint, reason: str, *, to: Revision | None, actor: str, now: datetime) -> Change:
    """Pause, and take the next move to what worked last; whatever waits goes on waiting.

    A candidate that has traffic is taken back. One that has none is refused, since it is not what hurts; with no
    rollout under way, stable makes way for `to`, one of the endpoint's refuges.

    Raises:
        Refused: there is no rollout, and no such revision.
    """
    paused = replace(endpoint, paused=f"{reason} {_EMERGENCY} {actor})")
    rollout, said = endpoint.rollout, f"emergency: {reason}"
    if rollout is None:
        made = _swapped(paused, to, reason, actor=actor, now=now)
    elif rollout.phase in BEFORE_TRAFFIC:
        made = refuse(paused, said, now=now, actor=actor)
    elif rollout.phase is Phase.ROLLING_BACK:
        made = change(endpoint, paused, "Paused", said, actor, now)
    else:
        made = decide_roll_back(paused, said, actor=actor, now=now)
    return replace(made, before=endpoint)


def in_emergency(endpoint: Endpoint) -> bool:
    """Whether an endpoint is paused by an emergency in which stable made way: said again, it would go too far back."""
    return _EMERGENCY in endpoint.paused and endpoint.rollout is None and any(r.left for r in endpoint.retired[-1:])


def _swapped(endpoint: Endpoint, back: Revision | None, reason: str, *, actor: str, now: datetime) -> Change:
    if back is None or back not in endpoint.refuges or endpoint.stable is None:
        raise Refused("there is no earlier revision to go back to")
    after = replace(
        endpoint,
        stable=back,
        stable_at=now,
        retired=_retired(endpoint, now, left=True),
        failed=_failed(endpoint, endpoint.stable.fingerprint, unless=back.fingerprint),
    )
    said = f"{endpoint.stable.label} left for {back.label} at once, and paused: {reason}"
    return change(endpoint, after, "EmergencyRolledBack", said, actor, now)


# -- moves of a rollout -------------------------------------------------------------------------------------------


def published(endpoint: Endpoint, revision: Revision, *, now: datetime) -> Change:
    """The candidate revision exists; it is to be probed."""
    return _advance(
        endpoint,
        Phase.PROBING,
        f"published revision {revision.lambda_version}",
        now,
        kind="RevisionPublished",
        revision=revision,
    )


def probes_passed(endpoint: Endpoint, probed: int, reason: str, *, now: datetime) -> Change:
    """Some probes passed and time was up; the next tick sends the others."""
    rollout = replace(_running(endpoint), probed=probed, reason=reason)
    return change(endpoint, replace(endpoint, rollout=rollout), "ProbesPassed", reason, "perch", now)


def measured(endpoint: Endpoint, measures: Measures, reason: str, *, now: datetime, inputs: Any = None) -> Change:
    """Freeze what counts as slow and which predictions belong together, before anything is counted by it."""
    after = replace(endpoint, rollout=replace(_running(endpoint), measures=measures))
    return change(endpoint, after, "BaselineFrozen", reason, "perch", now, inputs=inputs)


def enter_step(
    endpoint: Endpoint,
    reason: str,
    *,
    now: datetime,
    actor: str = "perch",
    inputs: Any = None,
    weight: float | None = None,
    skip: bool = False,
) -> Change:
    """Take the next step; after the last one (or with `skip` at once), decide to promote.

    `weight` is given where the budget allows less than the step's own.
    """
    rollout = _running(endpoint)
    step = len(rollout.policy.steps) if skip else rollout.step + 1
    if step >= len(rollout.policy.steps):
        return _advance(endpoint, Phase.PROMOTING, reason, now, kind="PromotionDecided", actor=actor, inputs=inputs)
    taken = rollout.policy.steps[step]
    share = taken.weight if weight is None else min(weight, taken.weight)
    return _advance(
        endpoint,
        Phase.SHIFTING,
        f"step {step + 1} of {len(rollout.policy.steps)}, {say_step(taken, share)}: {reason}",
        now,
        kind="StepEntered",
        actor=actor,
        inputs=inputs,
        step=step,
        shifts=_shifted(rollout, Shift(at=now, step=step, weight=share)),
        shifted_at=rollout.shifted_at or (now if share else None),
    )


def change_weight(endpoint: Endpoint, weight: float, reason: str, *, now: datetime, inputs: Any = None) -> Change:
    """Give an undecided step more traffic, so that it is decided sooner; or less, where the budget is nearly spent.

    Raises:
        Refused: no step has traffic, or the weight is none between 0 and 1.
    """
    rollout = _running(endpoint)
    if rollout.phase is not Phase.SHIFTING or not 0 < weight < 1:
        raise Refused(f"the weight of {rollout.id} cannot become {weight:.2%}")
    shifts = _shifted(rollout, Shift(at=now, step=rollout.step, weight=weight))
    said = f"from {rollout.weight:.2%} to {weight:.2%}: {reason}"
    after = replace(endpoint, rollout=replace(rollout, shifts=shifts))
    return change(endpoint, after, "WeightChanged", said, "perch", now, inputs=inputs)


def open_gate(endpoint: Endpoint, reason: str, *, now: datetime, inputs: Any = None) -> Change:
    """Say that a step has all its evidence and waits for its gate; whoever listens may answer."""
    rollout = _running(endpoint)
    after = replace(endpoint, rollout=replace(rollout, gate=rollout.step))
    return change(endpoint, after, "GateOpened", reason, "perch", now, inputs=inputs)


def answer_gate(
    endpoint: Endpoint, rollout_id: str, step: int, *, passed: bool, reason: str, actor: str, now: datetime
) -> Change:
    """Take the answer to an open gate; a no takes the traffic back.

    Raises:
        Refused: that gate is not open, or was answered already.
    """
    rollout = endpoint.rollout
    if rollout is None or rollout.id != rollout_id or rollout.phase is not Phase.SHIFTING:
        raise Refused(f"rollout {rollout_id} is not under way on {endpoint.name}")
    if rollout.gate != step or rollout.step != step or rollout.answered >= step:
        raise Refused(f"the gate of step {step + 1} of {rollout_id} is not open")
    if not passed:
        return decide_roll_back(endpoint, f"the gate of step {step + 1} said no: {reason}", actor=actor, now=now)
    after = replace(endpoint, rollout=replace(rollout, answered=step))
    return change(endpoint, after, "GatePassed", f"step {step + 1}: {reason}", actor, now)


def promoted(endpoint: Endpoint, *, now: datetime) -> Change:
    """The alias holds at 100 % on the candidate: it is the stable revision now."""
    rollout = _running(endpoint)
    # Other shares of an experiment's variants are nothing that anybody would go back to.
    same = rollout.candidate.cause == "experiment" and rollout.candidate.direct
    return _finish(
        endpoint,
        Phase.PROMOTED,
        rollout.reason,
        now,
        kind="RolloutPromoted",
        stable=rollout.revision,
        stable_at=now,
        retired=endpoint.retired if same else _retired(endpoint, now, left=rollout.candidate.cause == "rollback"),
    )


def decide_roll_back(
    endpoint: Endpoint, reason: str, *, actor: str, now: datetime, kind: str = "RollbackDecided", inputs: Any = None
) -> Change:
    """Decide to go back; from here on nothing else may happen to this rollout (law 4)."""
    return _advance(endpoint, Phase.ROLLING_BACK, reason, now, kind=kind, actor=actor, inputs=inputs)


def rolled_back(endpoint: Endpoint, *, now: datetime) -> Change:
    """The alias holds at 100 % on the stable revision again."""
    return _finish(endpoint, Phase.ROLLED_BACK, _running(endpoint).reason, now, kind="RolloutRolledBack")


def refuse(endpoint: Endpoint, reason: str, *, now: datetime, actor: str = "perch", tried: bool = True) -> Change:
    """End a rollout whose candidate never saw a user; new code is only remembered as failed if it was `tried`."""
    return _finish(endpoint, Phase.REFUSED, reason, now, kind="RolloutRefused", actor=actor, tried=tried)


def corrected(endpoint: Endpoint, found: Routing, wanted: Routing, *, now: datetime) -> Change:
    """Record that the alias was not what it should be, because somebody else or a delay had a hand in it, and is now.

    Of a rollout that has traffic, this minute is one in which the traffic was moved.
    """
    reason = f"the alias pointed to {found}, which is not Perch's doing; it was put back to {wanted}"
    rollout = endpoint.rollout
    if rollout and rollout.phase is Phase.SHIFTING:
        before = replace(rollout, shifts=rollout.shifts[:-1])
        if found == desired_routing(replace(endpoint, rollout=before if before.shifts else None)):
            reason = f"the alias still pointed to {found}; it points to {wanted} now"
        shifts = _shifted(rollout, Shift(at=now, step=rollout.step, weight=rollout.weight))
        endpoint_after = replace(endpoint, rollout=replace(rollout, shifts=shifts))
    else:
        endpoint_after = endpoint
    return change(endpoint, endpoint_after, "AliasCorrected", reason, "perch", now)


def say_step(step: Step, weight: float | None = None) -> str:
    """Say a step's kind and share of traffic: `shadow`, `5%`, `holdback, 98%`, `bake, 100%`."""
    share = f"{100 * (step.weight if weight is None else weight):.4g}%"
    return {"shadow": "shadow", "canary": share}.get(step.kind, f"{step.kind}, {share}")


# -- how a move is made -------------------------------------------------------------------------------------------

_FAILED_KEPT = 20
_RETIRED_KEPT = 5
_SHIFTS_KEPT = 64  # more than can lie within the time that metrics take to settle


def _running(endpoint: Endpoint) -> Rollout:
    if endpoint.rollout is None:
        raise Refused(f"endpoint {endpoint.name} has no rollout under way")
    return endpoint.rollout


def _shifted(rollout: Rollout, shift: Shift) -> tuple[Shift, ...]:
    return (*rollout.shifts, shift)[-_SHIFTS_KEPT:]


def _retired(endpoint: Endpoint, now: datetime, *, left: bool) -> tuple[Retired, ...]:
    """What was stable before, with what is stable now; `left` if somebody goes back from that."""
    if endpoint.stable is None:
        return endpoint.retired
    others = tuple(r for r in endpoint.retired if r.revision != endpoint.stable)
    return (*others, Retired(revision=endpoint.stable, at=now, left=left))[-_RETIRED_KEPT:]


def _failed(endpoint: Endpoint, fingerprint: str, *, unless: str = "") -> tuple[str, ...]:
    """Remember code that did not pass, newest last; not if it is the same as what is gone back to."""
    if not fingerprint or fingerprint == unless:
        return endpoint.failed
    return (*(f for f in endpoint.failed if f != fingerprint), fingerprint)[-_FAILED_KEPT:]


def _moved(endpoint: Endpoint, to: Phase, reason: str, now: datetime, **fields: Any) -> Rollout:
    rollout = _running(endpoint)
    reason = reason[:REASON_LIMIT]
    if to not in LEGAL[rollout.phase]:
        raise Refused(f"rollout {rollout.id} is {rollout.phase.value}; it cannot become {to.value}")
    return replace(rollout, phase=to, phase_at=now, reason=reason, **fields)


def _advance(
    endpoint: Endpoint,
    to: Phase,
    reason: str,
    now: datetime,
    *,
    kind: str,
    actor: str = "perch",
    inputs: Any = None,
    **fields: Any,
) -> Change:
    rollout = _moved(endpoint, to, reason, now, **fields)
    return change(endpoint, replace(endpoint, rollout=rollout), kind, reason, actor, now, inputs=inputs)


def _finish(
    endpoint: Endpoint,
    to: Phase,
    reason: str,
    now: datetime,
    *,
    kind: str,
    actor: str = "perch",
    tried: bool = True,
    **fields: Any,
) -> Change:
    rollout = _moved(endpoint, to, reason, now)
    code = rollout.revision.fingerprint if rollout.revision else rollout.candidate.fingerprint
    # Code that failed, and code that a person went back from, is not rolled out again by itself.
    if to is Phase.PROMOTED:
        left = endpoint.stable.fingerprint if endpoint.stable and rollout.candidate.cause == "rollback" else ""
        failed = _failed(endpoint, left, unless=code)  # the same fingerprint: the code was not what was wrong
    else:
        failed = _failed(endpoint, code) if tried and rollout.candidate.cause == "code" else endpoint.failed
    after = replace(endpoint, rollout=None, failed=failed, **fields)
    return change(endpoint, after, kind, reason, actor, now, rollout=rollout)
