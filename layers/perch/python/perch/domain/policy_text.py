"""A policy as the text that perch.toml would hold for it: what `perch plan` proposes, ready to be pasted.

Everything that decides how traffic moves is written; of the guards only what differs from the defaults, and those
that a plan turns on. The project's checks read it back to the same values (tests/unit/test_policy_text.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields

from perch.domain.policy import GuardPolicy, RolloutPolicy, Step


def policy_text(endpoint: str, policy: RolloutPolicy, guards: GuardPolicy) -> str:
    """Write the rollout and guard tables of an endpoint."""
    lines = [f"[endpoints.{endpoint}.rollout]", *_rollout(policy), "", f"[endpoints.{endpoint}.guards]"]
    return "\n".join([*lines, *_guards(guards)]) + "\n"


def _rollout(policy: RolloutPolicy) -> Iterator[str]:
    canaries = [step for step in policy.steps if step.kind == "canary"]
    strategy = "canary" if canaries else policy.strategy
    yield f'strategy = "{strategy}"'
    yield f'settle = "{_span(policy.settle_s)}"'
    yield f'deadline = "{_span(policy.deadline_s)}"'
    yield f'at_deadline = "{policy.at_deadline}"'
    yield f'when_busy = "{policy.when_busy}"'
    if policy.budget is not None:
        yield f"budget = {policy.budget}"
        yield f"ceiling = {policy.ceiling}"
    yield f"paired = {policy.paired}"
    yield f'way_back = "{_span(policy.way_back_s)}"'
    yield f"agreement = {policy.agreement}"
    yield f"tolerance = {policy.tolerance}"
    if canaries:
        yield "steps = ["
        yield from (f"  {_canary(step)}," for step in canaries)
        yield "]"
    for step in policy.steps:
        yield from _other(step, alone=strategy == step.kind)


def _canary(step: Step) -> str:
    parts = [f"weight = {step.weight!r}", f'hold = "{_span(step.hold_s)}"', f"requests = {max(step.requests, 1)}"]
    parts += [f"proof = {str(step.proof).lower()}"]
    return "{" + ", ".join([*parts, *_gate(step)]) + "}"


def _other(step: Step, *, alone: bool) -> Iterator[str]:
    """Write a shadow, a bake or a holdback; a shadow that is the whole strategy stands in the rollout's own table."""
    if step.kind == "shadow":
        parts = [f'hold = "{_span(step.hold_s)}"', f"requests = {max(step.requests, 1)}", *_gate(step)]
        if alone:
            yield from parts
        else:
            yield f"shadow = {{{', '.join(parts)}}}"
    elif step.kind == "bake":
        yield f'bake = "{_span(step.hold_s)}"'
        if not step.watch:
            yield from (f"requests = {max(step.requests, 1)}", *_gate(step))
    elif step.kind == "holdback":
        yield f'holdback = {{weight = {round(1 - step.weight, 6)!r}, hold = "{_span(step.hold_s)}"}}'


def _gate(step: Step) -> list[str]:
    return [f'gate = "{step.gate}"'] if step.gate else []


def _guards(guards: GuardPolicy) -> Iterator[str]:
    usual = GuardPolicy()
    for field in fields(guards):
        name, value = field.name, getattr(guards, field.name)
        if value == getattr(usual, name) and name not in ("error_rate", "margin"):
            continue
        if name == "custom":
            inner = (f'{{name = "{m.name}", namespace = "{m.namespace}", metric = "{m.metric}"}}' for m in value)
            yield f"custom = [{', '.join(inner)}]"
        elif name == "dry_run":
            yield f"dry_run = {json.dumps(value)}"
        elif name == "check_s":
            yield f'check_interval = "{_span(value)}"'
        elif value is None:
            yield f'{name} = "off"'
        else:
            yield f"{name} = {value!r}"


def _span(seconds: int) -> str:
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds % size == 0 and seconds:
            return f"{seconds // size} {unit}" + ("" if seconds == size else "s")
    return f"{seconds} seconds"
