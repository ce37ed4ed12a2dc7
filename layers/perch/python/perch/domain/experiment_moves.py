"""What may happen to an experiment: begin, other shares, a braked variant, its end; and how it reaches a revision.

    started ─► proposed ─► (a rollout by the endpoint's own strategy) ─► served ─► ramped, braked ─► ended
                  ▲                                                                    │               │
                  └──────────── (a direct rollout: the same models) ◄──────────────────┘               ▼
                                                                          the winner, as the next rollout, or nothing

The state holds what the experiment shall be; the stable revision holds what is served. Where they differ a revision is
`proposed`, once: if that came to nothing, or somebody went back from it, the experiment ends instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from perch.domain.change import change
from perch.domain.errors import NotFound, Refused
from perch.domain.experiment import Experiment, Split, Variant, check_variants, parts_of
from perch.domain.queueing import enqueue
from perch.domain.ramp import ramp, whole
from perch.domain.rollout import Candidate, Change, Endpoint


def served_split(endpoint: Endpoint) -> Split | None:
    """Return the split that the stable revision serves for the endpoint's experiment; None if it serves none of it."""
    if endpoint.experiment is None or endpoint.stable is None or not endpoint.stable.experiment:
        return None
    split = Split.from_json(endpoint.stable.experiment)
    return split if split.id == endpoint.experiment.id else None


def spared(endpoint: Endpoint) -> Split | None:
    """Return the split that is served, without the users of braked variants; None if those have none."""
    split = served_split(endpoint)
    if split is None:
        return None
    taken = {v.name: 0 for v in _running(endpoint).challengers if v.braked and split.share(v.name)}
    return replace(split, segments=ramp(split.segments, split.champion, taken)) if taken else None


def started(
    endpoint: Endpoint,
    variants: Sequence[Variant],
    shares: Mapping[str, int],
    reason: str,
    *,
    actor: str,
    now: datetime,
    salt: str | None = None,
    **fields: Any,
) -> Change:
    """Begin an experiment.

    Args:
        endpoint: what it is about.
        variants: the champion, which must be what the endpoint serves, and its challengers.
        shares: parts of each challenger.
        reason: why.
        actor: who.
        now: when.
        salt: another experiment's, to deal the users as that one did; its own by default.
        fields: others of `Experiment`.

    Raises:
        Refused: another one runs, a rollout is under way or waits, or the champion is not what is served.
        Invalid: names or shares that cannot be.
    """
    if endpoint.experiment:
        raise Refused(f"experiment {endpoint.experiment.id} runs on {endpoint.name}; end it first")
    if endpoint.rollout or endpoint.queue:
        raise Refused(f"a rollout of {endpoint.name} is under way or waits; begin when it is over")
    names, stable = [variant.name for variant in variants], endpoint.stable
    check_variants(names)
    champion = variants[0]
    if stable is None or stable.pointer != champion.pointer:
        serves = stable.label if stable else "nothing"
        raise Refused(f"{endpoint.name} serves {serves}; the champion must be that, not {champion.pointer.version}")
    segments = ramp(whole(champion.name), champion.name, shares)
    if not parts_of(segments, champion.name):
        raise Refused(f"the challengers leave nothing for {champion.name}; there would be nothing to compare with")
    identity = f"{endpoint.name}-x{endpoint.seq + 1:06d}"
    experiment = Experiment(
        id=identity,
        endpoint=endpoint.name,
        salt=identity if salt is None else salt,
        variants=tuple(variants),
        segments=segments,
        started_at=now,
        moved_at=now,
        actor=actor,
        **fields,
    )
    after = replace(endpoint, experiment=experiment)
    return change(endpoint, after, "ExperimentStarted", f"{identity}: {said(experiment)}; {reason}", actor, now)


def proposed(endpoint: Endpoint, *, now: datetime) -> Change:
    """Queue a revision that carries the experiment as it shall be."""
    experiment = _running(endpoint)
    return _proposed(endpoint, experiment.split, said(experiment), now=now)


def brake_proposed(endpoint: Endpoint, split: Split, *, now: datetime) -> Change:
    """Queue a revision that only takes the users of braked variants (`spared`), while all else is paused."""
    return _proposed(endpoint, split, "takes the users of a braked variant", now=now, brake=True)


def _proposed(endpoint: Endpoint, split: Split, why: str, *, now: datetime, brake: bool = False) -> Change:
    experiment, stable = _running(endpoint), endpoint.stable
    if stable is None or stable.pointer is None:
        raise Refused(f"{endpoint.name} serves nothing that an experiment could be about")
    text = split.to_json()
    candidate = Candidate(
        pointer=stable.pointer,
        number=stable.number,
        cause="experiment",
        actor=experiment.actor,
        experiment=text,
        direct=served_split(endpoint) is not None,  # the same models by other shares
        brake=brake,
    )
    asked = replace(endpoint, experiment=replace(experiment, proposed=text))
    return replace(enqueue(asked, candidate, now=now, why=why), before=endpoint)


def withdrawn(endpoint: Endpoint, *, now: datetime) -> Change:
    """Queue a revision without the experiment that the stable one still carries. Raises Refused if it carries none."""
    stable = endpoint.stable
    if stable is None or stable.pointer is None or endpoint.experiment:
        raise Refused(f"{endpoint.name} carries no experiment that is over")
    candidate = Candidate(pointer=stable.pointer, number=stable.number, cause="experiment", actor="perch", direct=True)
    return enqueue(endpoint, candidate, now=now, why="the experiment is over")


def ramped(
    endpoint: Endpoint, shares: Mapping[str, int], reason: str, *, actor: str, now: datetime, inputs: Any = None
) -> Change:
    """Give challengers other shares. Raises Refused, NotFound or Invalid."""
    experiment = _running(endpoint)
    for name in shares:
        if (variant := _variant(experiment, name)).braked:
            raise Refused(f"{name} was braked and gets no users: {variant.braked}")
    segments = ramp(experiment.segments, experiment.champion.name, shares)
    if not parts_of(segments, experiment.champion.name):
        raise Refused(f"that leaves nothing for {experiment.champion.name}; end the experiment with a winner instead")
    if segments == experiment.segments:
        raise Refused(f"the shares are so already: {said(experiment)}")
    moved = replace(experiment, segments=segments, moved_at=now)
    after = replace(endpoint, experiment=moved)
    return change(endpoint, after, "SharesChanged", f"{moved.id}: {said(moved)}; {reason}", actor, now, inputs=inputs)


def braked(endpoint: Endpoint, name: str, reason: str, *, now: datetime, inputs: Any = None) -> Change:
    """Take all users from a challenger that fails them, for good, and from the queue what would give it some."""
    experiment = _running(endpoint)
    _variant(experiment, name)
    moved = replace(
        experiment,
        variants=tuple(replace(v, braked=reason) if v.name == name else v for v in experiment.variants),
        segments=ramp(experiment.segments, experiment.champion.name, {name: 0}),
        moved_at=now,
        proposed="",
    )
    queue = tuple(c for c in endpoint.queue if c.cause != "experiment")
    after = replace(endpoint, experiment=moved, queue=queue)
    return change(endpoint, after, "VariantBraked", f"{moved.id}: {reason}", "judge", now, inputs=inputs)


def ended(
    endpoint: Endpoint, reason: str, *, winner: str | None, actor: str, now: datetime, inputs: Any = None
) -> Change:
    """End the experiment. A winner other than the champion is queued as the next rollout, before all others.

    Raises:
        Refused: there is none, or the winner was braked.
        NotFound: no such variant.
    """
    experiment = _running(endpoint)
    queue = tuple(c for c in endpoint.queue if c.experiment is None)
    outcome = "no winner"
    if winner is not None:
        won = _variant(experiment, winner, champion=True)
        if won.braked:
            raise Refused(f"{winner} was braked and cannot win: {won.braked}")
        outcome = f"{winner} ({won.pointer.version}) wins"
        if won is not experiment.champion:
            queue = (Candidate(pointer=won.pointer, number=won.number, cause="experiment", actor=actor), *queue)
    after = replace(endpoint, experiment=None, queue=queue)
    said_so = f"{experiment.id}, {outcome}: {reason}"
    return change(endpoint, after, "ExperimentEnded", said_so, actor, now, inputs=inputs)


def said(experiment: Experiment) -> str:
    """Say who has how much."""
    return ", ".join(f"{v.name} {v.pointer.version} {experiment.share(v.name):.2%}" for v in experiment.variants)


def _running(endpoint: Endpoint) -> Experiment:
    if endpoint.experiment is None:
        raise Refused(f"no experiment runs on {endpoint.name}")
    return endpoint.experiment


def _variant(experiment: Experiment, name: str, *, champion: bool = False) -> Variant:
    for variant in experiment.variants if champion else experiment.challengers:
        if variant.name == name:
            return variant
    names = ", ".join(experiment.names if champion else experiment.names[1:])
    raise NotFound(
        f"experiment {experiment.id} has no {'variant' if champion else 'challenger'} {name!r}; it has {names}"
    )
