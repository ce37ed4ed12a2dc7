"""Simulation: what a policy does to good and bad candidates, found by playing rollouts with the real driver and judge.

Every run is a deployment of its own (`miniature.py`) with made-up traffic (`traffic.py`). A day of stable's traffic
lies behind it, from which the driver freezes what is usual. Then a candidate is registered, and minute by minute:

    5 s after the full minute   the alarms look at the minute before, and may take the candidate back
    20 s                        the driver runs; traffic that it moves is moved from here on
    60 s                        the minute's requests are counted

until the rollout has ended, or `limit` minutes are over. Gates are answered with yes at once. A run is a function of
its seed: the same seed gives the same rollout, in whatever process.

Left out: shadow steps and paired replays (there are no requests to replay), and what `miniature.py` and `traffic.py`
leave out.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from perch.app.command import answer
from perch.domain.outlook import worse
from perch.domain.policy import EndpointPolicy
from perch.domain.rollout import Endpoint, Phase, Routing, desired_routing
from perch.domain.trial import PROMOTED, REFUSED, ROLLED_BACK, UNDECIDED, Outcome, Scenario
from perch.local.miniature import START, Miniature, miniature
from perch.local.traffic import DAY_MINUTES, Profile, count

_MINUTE = timedelta(minutes=1)
_ALARMS, _DRIVER = timedelta(seconds=6), timedelta(seconds=20)
INCIDENT_MINUTES = 10
_BEFORE = 24  # hours of stable traffic before


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run to be played.

    `limit` is how many minutes it may take; the driver looks `every` so many minutes. An incident of both revisions, if
    the scenario has one, begins anywhere in the first `span` minutes.
    """

    policy: EndpointPolicy
    profile: Profile
    scenario: Scenario
    seed: int
    limit: int
    every: int = 1


def playable(policy: EndpointPolicy) -> EndpointPolicy:
    """Leave out what cannot be played: shadow steps and paired replays. It may have no steps then."""
    steps = tuple(step for step in policy.rollout.steps if step.kind != "shadow")
    return replace(policy, approval="auto", rollout=replace(policy.rollout, steps=steps, paired=0))


def shortest(policy: EndpointPolicy) -> int:
    """Return the minutes that a rollout takes at least."""
    return sum(step.hold_s for step in policy.rollout.steps) // 60


def play(trial: Trial) -> Outcome:
    """Play one rollout from its start to its end."""
    began = time.perf_counter()
    random = np.random.default_rng([trial.seed, round(1000 * trial.scenario.times), round(trial.scenario.incident)])
    offset = int(random.integers(DAY_MINUTES)) if trial.profile.varies else 0
    with miniature(trial.policy, start=START + offset * _MINUTE) as place:
        return _Run(trial, place, random).play(began)


class _Run:
    """One rollout under way."""

    def __init__(self, trial: Trial, place: Miniature, random: np.random.Generator) -> None:
        self.trial, self.place, self.random = trial, place, random
        self.incident = int(random.integers(max(shortest(trial.policy), 1)))  # the minute in which one begins
        self.stable = ""
        self.excess, self.requests = 0.0, 0

    def play(self, began: float) -> Outcome:
        place = self.place
        self._bring_up()
        place.register("candidate")
        rollout, state = "", self._state()
        for minute in range(self.trial.limit):
            full, before, alarms = _minute(place.clock.now()) + _MINUTE, desired_routing(state), place.alarms_off
            place.clock.advance_to(full + _ALARMS)
            place.clock.advance_to(full + _DRIVER)
            moved = place.alarms_off > alarms
            if minute % self.trial.every == 0 or moved:
                moved = bool(place.tick().done) or moved
            if moved:
                state = self._answered(self._state())
                rollout = state.rollout.id if state.rollout else rollout
                if rollout and not state.rollout:
                    break
            self._traffic(full, minute, before, desired_routing(state))
        return self._outcome(rollout, began)

    def _bring_up(self) -> None:
        """Bring the first version up, and let it serve for a day."""
        place = self.place
        place.register("stable")
        while place.tick().done:
            place.clock.advance(60)
        revision = self._state().stable
        assert revision is not None  # noqa: S101 - nothing stands in the way of the first
        self.stable, began = revision.lambda_version, place.clock.now()
        for hour in range(_BEFORE):
            minutes = [began + timedelta(hours=hour, minutes=n) for n in range(60)]
            expected = [self.trial.profile.at(_of_day(at)) for at in minutes]
            requests = int(self.random.poisson(sum(requests for requests, _ in expected)))
            failing = sum(requests * rate for requests, rate in expected) / (sum(n for n, _ in expected) or 1.0)
            self._count(minutes[0], self.stable, requests, int(self.random.binomial(requests, failing)))
        place.clock.advance_to(began + timedelta(hours=_BEFORE))

    def _state(self) -> Endpoint:
        return self.place.world.registry.endpoint(self.place.policy.name)

    def _answered(self, state: Endpoint) -> Endpoint:
        """Answer the gate that is open, if one is, with yes."""
        rollout = state.rollout
        if (
            rollout is None
            or rollout.phase is not Phase.SHIFTING
            or not rollout.gate == rollout.step > rollout.answered
        ):
            return state
        world, now = self.place.world, self.place.clock.now()
        answer(world, state.name, rollout.id, rollout.step, passed=True, reason="simulated", actor="perch", now=now)
        return self._state()

    def _traffic(self, at: datetime, minute: int, before: Routing | None, after: Routing | None) -> None:
        """Count the requests of a minute; if the traffic was moved in it, each part of it by its own routing."""
        expected, stable = self.trial.profile.at(_of_day(at))
        scenario = self.trial.scenario
        candidate = worse(stable, scenario.times)
        if self.incident <= minute < self.incident + INCIDENT_MINUTES:
            stable, candidate = min(stable * scenario.incident, 1.0), min(candidate * scenario.incident, 1.0)
        first = _DRIVER / _MINUTE
        for routing, part in ((after, 1.0),) if before == after else ((before, first), (after, 1 - first)):
            if routing is None:
                continue
            requests = int(self.random.poisson(expected * part))
            other = int(self.random.binomial(requests, routing.weight)) if routing.other else 0
            for version, number in ((routing.version, requests - other), (routing.other or "", other)):
                failures = int(self.random.binomial(number, stable if version == self.stable else candidate))
                self._count(at, version, number, failures)
                if version != self.stable:
                    self.requests += number
                    self.excess += failures - number * stable

    def _count(self, at: datetime, version: str, requests: int, failures: int) -> None:
        count(
            self.place.metrics,
            self.random,
            at=at,
            endpoint=self.place.policy.name,
            function=self.place.function,
            version=version,
            requests=requests,
            failures=failures,
        )

    def _outcome(self, rollout: str, began: float) -> Outcome:
        place, trial = self.place, self.trial
        found = place.world.registry.rollout(place.policy.name, rollout) if rollout else None
        verdict, reason, minute = UNDECIDED, "no rollout began", float(trial.limit)
        if found is not None:
            verdict = {Phase.PROMOTED: PROMOTED, Phase.ROLLED_BACK: ROLLED_BACK, Phase.REFUSED: REFUSED}.get(
                found.phase, UNDECIDED
            )
            reason = found.reason
            ended = place.clock.now() if verdict == UNDECIDED else found.phase_at
            minute = (ended - (found.shifted_at or found.started_at)) / _MINUTE
        return Outcome(
            scenario=trial.scenario,
            seed=trial.seed,
            verdict=verdict,
            minute=round(minute, 1),
            reason=reason,
            excess=round(self.excess, 2),
            requests=self.requests,
            ticks=place.ticks,
            seconds=round(time.perf_counter() - began, 3),
        )


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def _of_day(at: datetime) -> int:
    return at.hour * 60 + at.minute


# -- many runs ----------------------------------------------------------------------------------------------------


def play_all(trials: Sequence[Trial], *, processes: int) -> Iterator[Outcome]:
    """Play runs in so many processes (one: in this one), and yield each outcome as it comes, which is in no order.

    What the environment says of AWS is put aside meanwhile: nothing here may reach an account, or a local cloud.
    """
    with _without_aws():
        if processes == 1:
            yield from map(play, trials)
            return
        context = multiprocessing.get_context("spawn")  # moto's state must not be inherited
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            runs = [pool.submit(play, trial) for trial in trials]
            try:
                for run in as_completed(runs):
                    yield run.result()
            finally:
                for run in runs:
                    run.cancel()


@contextmanager
def _without_aws() -> Iterator[None]:
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    aside = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    os.environ.update(aside)
    try:
        yield
    finally:
        for name in aside:
            del os.environ[name]
        os.environ.update(before)
