"""Record rewards: what users of an experiment did that is worth something, each user's once.

    {"events": [{"user": "u1", "reward": 1.0, "id": "order-17"}, …]}   up to 100; a conversion is a reward of 1

A user's variant follows from his id and the split that is served now, so the sender need not know it. The first reward
of a user counts and all later ones do not: a user is one toss of the coin that the test is about.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from perch.aws.experiments import Earned, Experiments
from perch.aws.registry import Registry
from perch.domain.errors import Invalid, NotFound, Refused
from perch.domain.experiment import LONGEST
from perch.domain.experiment_moves import served_split
from perch.domain.significance import tally_of

MAX_EVENTS, MAX_ID = 100, 256
_KEPT = LONGEST + timedelta(days=30)


@dataclass(frozen=True, kw_only=True)
class Reward:
    """One event: `reward` is in [0, 1]; `event` is the sender's own name for it."""

    user: str
    reward: float
    event: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What became of a batch: `new` users were counted; `known` were counted before, or twice in it."""

    experiment: str
    new: int
    known: int


def record_rewards(
    registry: Registry, experiments: Experiments, endpoint: str, rewards: Sequence[Reward], *, shard: int, now: datetime
) -> Recorded:
    """Count rewards for the experiment that runs on an endpoint.

    Raises:
        NotFound: none does.
        Refused: one does, but is not served to all yet, or for too long already.
        NotReady: too many at once; send them again.
    """
    state = registry.endpoint(endpoint)
    experiment, split = state.experiment, served_split(state)
    if experiment is None:
        raise NotFound(f"no experiment runs on endpoint {endpoint!r}")
    if split is None:
        raise Refused(f"experiment {experiment.id} is being rolled out; rewards count once it serves all users")
    if now - experiment.started_at > LONGEST:
        raise Refused(f"experiment {experiment.id} began more than {LONGEST.days} days ago; end it")
    earned = [Earned(user=r.user, tally=tally_of(split, r.user, r.reward), event=r.event) for r in rewards]
    new = experiments.record(endpoint, experiment.id, earned, shard=shard, expires=experiment.started_at + _KEPT)
    return Recorded(experiment=experiment.id, new=new, known=len(rewards) - new)


def rewards_in(body: bytes | str) -> tuple[Reward, ...]:
    """Read the body of a request. Raises Invalid, saying which event is wrong and how."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the body is not JSON: {error}") from error
    events = document.get("events") if isinstance(document, dict) else None
    if not isinstance(events, list) or not 1 <= len(events) <= MAX_EVENTS:
        raise Invalid(f'the body must be {{"events": […]}} with 1 to {MAX_EVENTS} events')
    return tuple(_reward(event, i) for i, event in enumerate(events))


def _reward(event: Any, i: int) -> Reward:
    if not isinstance(event, Mapping):
        raise Invalid(f'events[{i}] is not {{"user": …, "reward": …}}')
    user, reward, own = event.get("user"), event.get("reward"), event.get("id")
    if not isinstance(user, str) or not 1 <= len(user) <= MAX_ID:
        raise Invalid(f"events[{i}].user is not a text of 1 to {MAX_ID} characters")
    if isinstance(reward, bool) or not isinstance(reward, int | float) or not 0 <= reward <= 1 or math.isnan(reward):
        raise Invalid(f"events[{i}].reward is not a number from 0 to 1 (a conversion is 1)")
    if own is not None and (not isinstance(own, str) or not 1 <= len(own) <= MAX_ID):
        raise Invalid(f"events[{i}].id is not a text of 1 to {MAX_ID} characters")
    return Reward(user=user, reward=float(reward), event=own)
