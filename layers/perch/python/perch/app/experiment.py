"""Conduct an experiment: one look at it in a tick in which no rollout of its endpoint is under way.

    not served as it shall be  ─► a revision is proposed, once; if that came to nothing, the experiment ends
    a variant fails its users  ─► it is braked: its users go back to the champion
    a bandit's hour is over    ─► shares move to what is probably best
    nobody is left to compare  ─► it ends
    over, but still served     ─► a revision without it is proposed

While the endpoint is paused only the brake goes on, and what carries it out: the shares that are served, without those
of the variants that fail. Whatever else the shares shall be waits.

Each is a change of state like any other, made by the driver's next commit; the revision that follows goes through the
driver too. Starting, ramping and ending by hand is in `change_experiment`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from perch.app.world import World
from perch.domain import bandit, brake
from perch.domain import experiment_moves as moves
from perch.domain.bandit import Arm
from perch.domain.experiment import LONGEST, Experiment
from perch.domain.rollout import Change, Endpoint, Phase

SETTLE = timedelta(minutes=3)  # CloudWatch may publish so late
_LEAST_MOVE = 0.01  # a new revision costs cold starts, so a bandit spares what moves fewer users
_CAUGHT_UP = timedelta(hours=12)  # how much is read at once after a rollout or a pause
_ROUNDING = timedelta(seconds=30)  # ticks are not exactly an hour apart


def conduct(world: World, state: Endpoint, *, now: datetime) -> Change | str | None:
    """Decide what an endpoint's experiment needs now; text says what it waits for, None that there is none.

    Raises:
        Conflict, NotReady: somebody else was faster, or CloudWatch is not complete; the next tick tries again.
    """
    experiment = state.experiment
    if experiment is None:
        return _withdraw(world, state, now)
    if all(variant.braked for variant in experiment.challengers):
        return moves.ended(state, "every challenger was braked", winner=None, actor="judge", now=now)
    text = experiment.split.to_json()
    if state.stable is None or state.stable.experiment != text:
        if experiment.proposed != text:
            return moves.proposed(state, now=now)
        return moves.ended(state, _why_not_served(world, state), winner=None, actor="perch", now=now)
    if braked := _brake(world, state, experiment, now):
        return braked
    return _bandit(world, state, experiment, now) or f"experiment {experiment.id} runs: {moves.said(experiment)}"


def keep_braking(world: World, state: Endpoint, *, now: datetime) -> Change | str | None:
    """Do what an experiment needs of a paused endpoint; text says what stands in the way, None that nothing is needed.

    Raises:
        Conflict, NotReady: as `conduct`.
    """
    experiment = state.experiment
    if experiment is None or moves.served_split(state) is None:
        return None
    spared = moves.spared(state)
    if spared is None:
        return _brake(world, state, experiment, now)
    if experiment.proposed != spared.to_json():
        return moves.brake_proposed(state, spared, now=now)
    return f"a braked variant still has users; {_why_not_served(world, state)}"


def _withdraw(world: World, state: Endpoint, now: datetime) -> Change | None:
    """Take an experiment that is over out of what is served; once, since a refusal would be the same again."""
    if state.stable is None or not state.stable.experiment:
        return None
    last = next(iter(world.registry.rollouts(state.name, limit=1)), None)
    tried = last is not None and last.candidate.cause == "experiment" and last.candidate.experiment is None
    if tried and last and last.phase is not Phase.PROMOTED and last.candidate.pointer == state.stable.pointer:
        return None
    return moves.withdrawn(state, now=now)


def _why_not_served(world: World, state: Endpoint) -> str:
    last = next(iter(world.registry.rollouts(state.name, limit=1)), None)
    if last is None or last.phase is Phase.PROMOTED:
        return "its revision is not what the endpoint serves any more"
    return f"its revision did not pass ({last.phase.value}): {last.reason}"


def _brake(world: World, state: Endpoint, experiment: Experiment, now: datetime) -> Change | None:
    """Compare the variants' failures over the minutes since the last look, and take users from one that fails them."""
    before = world.experiments.watch(state.name, experiment.id)
    seen = before or brake.begin(experiment.started_at.replace(second=0, microsecond=0))
    until = min((now - SETTLE).replace(second=0, microsecond=0), seen.until + _CAUGHT_UP)
    if until > seen.until:
        minutes = world.variants.minutes(state.name, experiment.id, experiment.names, since=seen.until, until=until)
        seen = brake.look(seen, experiment.champion.name, minutes, until=until)
        kept_until = experiment.started_at + LONGEST
        world.experiments.keep_watch(state.name, experiment.id, before, seen, expires=kept_until)
    failing = brake.failing(
        seen, experiment.champion.name, [v.name for v in experiment.challengers], alpha=experiment.alpha
    )
    for variant in experiment.challengers:
        if not variant.braked and (reason := failing.get(variant.name)):
            return moves.braked(state, variant.name, reason, now=now, inputs={"counts": seen.counts})
    return None


def _bandit(world: World, state: Endpoint, experiment: Experiment, now: datetime) -> Change | None:
    """Move the shares of a bandit when it is time and worth a revision."""
    if not experiment.bandit or now - experiment.moved_at < timedelta(seconds=experiment.bandit_every_s) - _ROUNDING:
        return None
    tally = world.experiments.tally(state.name, experiment.id, variants=len(experiment.variants))
    requests = world.variants.requests(
        state.name, experiment.id, experiment.names, since=experiment.started_at, until=now - SETTLE
    )
    arms = [
        Arm(name=v.name, rewards=tally.rewards[i], requests=requests[v.name], open=not v.braked)
        for i, v in enumerate(experiment.variants)
    ]
    hour = int(now.timestamp()) // experiment.bandit_every_s
    best = bandit.probable_best(arms, seed=f"{experiment.id}/{hour}")
    shares = bandit.shares_of(best, arms, floor=experiment.floor)
    before = {v.name: round(experiment.share(v.name) * 10_000) for v in experiment.variants}
    if bandit.moved(before, shares) < _LEAST_MOVE:
        return None
    reason = "probability of being best: " + ", ".join(f"{name} {p:.1%}" for name, p in best.items())
    challengers = {v.name: shares[v.name] for v in experiment.challengers if not v.braked}
    return moves.ramped(state, challengers, reason, actor="bandit", now=now, inputs={"arms": arms, "best": best})
