"""Change an experiment by hand: start one, give its variants other shares, end it; and see how it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perch.app.commit import commit
from perch.app.world import World
from perch.domain import experiment_moves as moves
from perch.domain.errors import Invalid, Refused
from perch.domain.experiment import MAX_TEXT, Experiment, Variant, to_parts
from perch.domain.memory import needed_mb
from perch.domain.model import ModelVersion
from perch.domain.policy import EndpointPolicy, SigningPolicy
from perch.domain.rollout import Change, Endpoint
from perch.domain.significance import Finding, Tally, findings


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How an experiment stands: what is asked for, the share of each variant that is served now, and what is known."""

    experiment: Experiment
    served: Mapping[str, float]
    tally: Tally
    findings: tuple[Finding, ...]


def start_experiment(
    world: World,
    endpoint: str,
    versions: Mapping[str, str],
    shares: Mapping[str, float],
    *,
    reason: str,
    actor: str,
    now: datetime,
    **fields: Any,
) -> str:
    """Begin an experiment; the next tick takes it up. Return what the ledger says.

    Args:
        world: settings and services.
        endpoint: name of the endpoint.
        versions: the model version of each variant; the first is the champion.
        shares: share of users, 0 to 1, of each challenger.
        reason: why.
        actor: who.
        now: when.
        fields: others of `Experiment` (`alpha`, `bandit`, `floor`, …).

    Raises:
        NotFound: no such endpoint or version.
        Invalid: names, shares or settings that cannot be.
        Refused: it cannot begin now, or its models do not go together.
    """
    policy = world.settings.endpoint(endpoint)
    found = {name: world.registry.require_version(policy.model, version) for name, version in versions.items()}
    _check(policy, world.settings.signing, found, fields)
    if set(shares) != set(list(versions)[1:]):
        raise Invalid("give each challenger a share of the users, and the champion none: it has what they leave")
    variants = [Variant(name=n, pointer=m.pointer, number=m.number) for n, m in found.items()]
    parts = {name: to_parts(share) for name, share in shares.items()}

    def begin(state: Endpoint) -> Change:
        change = moves.started(state, variants, parts, reason, actor=actor, now=now, **fields)
        begun = change.after.experiment
        if begun and len(begun.split.to_json().encode()) > MAX_TEXT:
            raise Refused("the models of these variants have such long names that no environment variable holds them")
        return change

    return _commit(world, endpoint, begin)


def ramp_experiment(
    world: World, endpoint: str, shares: Mapping[str, float], *, reason: str, actor: str, now: datetime
) -> str:
    """Give challengers other shares (0 to 1). Return what the ledger says. Raises Refused, NotFound or Invalid."""
    parts = {name: to_parts(share) for name, share in shares.items()}
    return _commit(world, endpoint, lambda state: moves.ramped(state, parts, reason or "by hand", actor=actor, now=now))


def end_experiment(world: World, endpoint: str, *, winner: str | None, reason: str, actor: str, now: datetime) -> str:
    """End an experiment, with a winner that becomes the next rollout or without. Raises Refused or NotFound."""

    def end(state: Endpoint) -> Change:
        found = [f.reason for f in standing(world, state).findings] if state.experiment else []
        return moves.ended(state, reason or "by hand", winner=winner, actor=actor, now=now, inputs={"findings": found})

    return _commit(world, endpoint, end)


def standing(world: World, state: Endpoint) -> Standing:
    """Return how the experiment of an endpoint stands. Raises Refused if there is none."""
    experiment = state.experiment
    if experiment is None:
        raise Refused(f"no experiment runs on {state.name}")
    split = moves.served_split(state)
    tally = world.experiments.tally(state.name, experiment.id, variants=len(experiment.variants))
    return Standing(
        experiment=experiment,
        served={name: split.share(name) if split else 0.0 for name in experiment.names},
        tally=tally,
        findings=findings(experiment, tally),
    )


def _commit(world: World, endpoint: str, decide: Callable[[Endpoint], Change]) -> str:
    world.settings.endpoint(endpoint)
    return commit(world, endpoint, decide).entry.reason


def _check(
    policy: EndpointPolicy, signing: SigningPolicy, found: Mapping[str, ModelVersion], fields: Mapping[str, Any]
) -> None:
    """See that the models fit the endpoint, each other and the memory, and that the settings can be."""
    for name, model in found.items():
        if misfit := model.misfit(policy, signing):
            raise Refused(f"{name}: {misfit}")
    takes = {name: model.signature.get("features") for name, model in found.items() if model.signature}
    if len(set(takes.values())) > 1:
        told = ", ".join(f"{name} {features}" for name, features in takes.items())
        raise Refused(f"the variants do not take the same number of features ({told}), so no request fits all")
    needed = needed_mb((pointer.format, pointer.size / 1e6) for pointer in {model.pointer for model in found.values()})
    if needed > policy.memory_mb:
        raise Refused(
            f"the models of all variants take {needed:,.0f} MB, and {policy.name} has {policy.memory_mb}; raise it"
        )
    alpha, floor = fields.get("alpha", Experiment.alpha), fields.get("floor", Experiment.floor)
    if not 0 < alpha < 1:
        raise Invalid(f"alpha is {alpha}; it is a probability between 0 and 1")
    if not 0.001 <= floor <= 1 / len(found):
        raise Invalid(f"a floor of {floor:.2%} for {len(found)} variants; give 0.1 % up to {1 / len(found):.1%}")
    if fields.get("bandit_every_s", 3_600) < 600:
        raise Invalid("a bandit may move every ten minutes at most: each move is a new revision with its cold starts")
