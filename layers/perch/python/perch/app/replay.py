"""Replay: send captured requests to a candidate, off the request path, and sum up how its answers compare.

    captured log lines ─┐                            ┌► candidate ┐
    golden requests ────┴─► one request at a time ───┤            ├─► compare ─► sum ─► registry ─► the judge
                                                     └► stable ───┘   (or what it answered when it was asked first)

What is captured are answers, so stable never failed on it when it was asked first. A candidate that fails on it has
that against it, were it only for a moment's trouble that either might have had. So whenever the candidate fails both
are asked again, side by side, and this fresh pair is what counts: equal trouble comes to both equally often.

Two reasons to replay. In a *shadow* step the live requests are followed as they are captured, so that a candidate
meets real requests and no user ever meets the candidate. In *paired* mode, for endpoints with little traffic, a pool is
used up: the golden requests, then what was captured in the week before the rollout, newest first, each sent to both
revisions. What this pool can show is how the two do *on requests that stable answered once* (and on golden ones, which
the candidate answered in its probes): what stable could never answer is not in it, and a candidate that can has no
credit for that.

A run does what its budget allows, then stores the sum together with how far it got, under the condition that nobody
stored another since it was read. So a run may die, or come twice: requests are replayed again, and counted once.

Invokes name a version and a stage of their own, so they are in no metric that is judged. Left out: requests whose
payload was not captured, and lines that reach CloudWatch Logs later than the settling time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from perch.app.probe import golden, http_event
from perch.app.world import World
from perch.aws.logs import Captured
from perch.domain.agreement import Answer, Mark, Replayed, compare
from perch.domain.errors import Conflict, NotReady
from perch.domain.policy import EndpointPolicy
from perch.domain.rollout import Endpoint, Phase, Revision, Rollout

STAGE = "perch-replay"
LOOK_BACK = timedelta(days=7)
_STRETCH = timedelta(hours=1)
_log = logging.getLogger(__name__)


class ReplayFailed(Exception):
    """The requests of some endpoints could not be replayed; those of the others were."""


class Budget:
    """How much one run may do: `requests` are sent at most, and none is begun after `seconds` of `timer`."""

    def __init__(self, timer: Callable[[], float], *, requests: int = 200, seconds: float = 30.0) -> None:
        self._timer, self._end, self._left = timer, timer() + seconds, requests

    @property
    def spent(self) -> bool:
        """Whether there is nothing left."""
        return self._left <= 0 or self._timer() >= self._end

    def spend(self) -> None:
        """Note one request."""
        self._left -= 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to: the sum of it alone, the sum of all, and why it stopped early, if it did."""

    endpoint: str
    rollout: str
    run: Replayed
    total: Replayed
    stopped: str | None = None


def wanted(state: Endpoint) -> Rollout | None:
    """Return the rollout under way if its requests are to be replayed, else None."""
    rollout = state.rollout
    if rollout is None or rollout.phase is not Phase.SHIFTING or rollout.revision is None:
        return None
    return rollout if rollout.policy.paired or rollout.current_step.kind == "shadow" else None


def replay(world: World, policy: EndpointPolicy, *, now: datetime, budget: Budget) -> Outcome | None:
    """Replay for one endpoint what its rollout asks for, as far as the budget goes, and store the sum.

    Returns:
        What was done; None when no rollout wants anything.

    Raises:
        Conflict: another run stored its sum meanwhile; this one's is dropped.
    """
    rollout = wanted(world.registry.endpoint(policy.name))
    if rollout is None:
        return None
    before = world.registry.replayed(policy.name, rollout.id) or Replayed()
    run = _Run(world, policy.name, rollout, now, budget, before)
    stopped = run.go()
    if run.done != Replayed():
        world.registry.record_replayed(policy.name, rollout.id, run.total)
    return Outcome(endpoint=policy.name, rollout=rollout.id, run=run.done, total=run.total, stopped=stopped)


def replay_all(world: World, *, now: datetime, timer: Callable[[], float]) -> tuple[Outcome, ...]:
    """Replay for every endpoint within one budget; one that fails does not keep the others from it.

    Raises:
        ReplayFailed: after all were tried, naming those that failed and why.
    """
    budget, done, failed = Budget(timer), [], []
    # Each endpoint comes first in its turn: one that uses up the budget must not starve the others.
    endpoints = world.settings.endpoints
    first = int(now.timestamp() // 60) % max(1, len(endpoints))
    for policy in (*endpoints[first:], *endpoints[:first]):
        try:
            outcome = replay(world, policy, now=now, budget=budget)
        except Conflict as overtaken:
            _log.info("endpoint %s: %s", policy.name, overtaken)
        except Exception as error:  # noqa: BLE001 - one endpoint's trouble is not another's
            _log.exception("endpoint %s could not be replayed", policy.name)
            failed.append(f"{policy.name}: {type(error).__name__}: {error}")
        else:
            done += [outcome] if outcome else []
    if failed:
        raise ReplayFailed("; ".join(failed))
    return tuple(done)


class _Run:
    def __init__(
        self, world: World, endpoint: str, rollout: Rollout, now: datetime, budget: Budget, before: Replayed
    ) -> None:
        self.world, self.endpoint, self.rollout, self.now, self.budget = world, endpoint, rollout, now, budget
        self.function = world.function(endpoint)
        self.before, self.done = before, Replayed()

    @property
    def total(self) -> Replayed:
        return self.before + self.done + Replayed(runs=1)

    def go(self) -> str | None:
        """Do what is wanted; return what kept the rest from being done now."""
        try:
            if self.rollout.policy.paired and not self.before.exhausted:
                self._pool()
            if self.rollout.current_step.kind == "shadow":
                self._follow()
        except NotReady as busy:
            return str(busy)
        return None

    def _spent(self) -> bool:
        return self.budget.spent

    # -- shadow: forward, as requests come ------------------------------------------------------------------------

    def _follow(self) -> None:
        """Replay the requests captured since the last run, oldest first, up to what has surely arrived."""
        mark = self.before.forward or Mark(at=self.rollout.phase_at)
        # After an outage one run does not search all that it missed.
        end = min(self.now - timedelta(seconds=self.rollout.policy.settle_s), mark.at + _STRETCH)
        if end <= mark.at:
            return
        for captured in self.world.logs.after(self.function, mark.at, end, stop=self._spent):
            if self.budget.spent:
                return
            if captured.at == mark.at and captured.request_id in mark.seen:
                continue
            pair = self._captured(captured, known=captured.revision == self.rollout.stable.lambda_version)
            mark = mark.past(captured.request_id, captured.at)
            self.done += replace(pair, forward=mark)
        if not self.budget.spent:
            self.done += Replayed(forward=Mark(at=end))

    # -- paired: a pool, used up ----------------------------------------------------------------------------------

    def _pool(self) -> None:
        """Replay golden requests, then captured ones from before the rollout, newest first, to both revisions."""
        most = self.rollout.policy.paired
        pointer = _candidate(self.rollout).pointer
        assert pointer is not None  # noqa: S101 - a candidate serves a model
        probes = golden(self.world.registry.require_version(pointer.model, pointer.version))[:most]
        probes = tuple(probe for probe in probes if probe.features)  # only rows can be compared as predictions
        for number in range(self.before.sent, len(probes)):
            if self.budget.spent:
                return
            pair = self._pair(f"golden-{number}", probes[number].features, None)
            self.done += replace(pair, sent=1)
        for captured, mark in self._look_back() if self.total.sent < most else ():
            if self.total.sent >= most:
                break
            if self.budget.spent:
                return
            pair = self._captured(captured, known=False)
            self.done += replace(pair, sent=0 if captured.features is None else 1, backward=mark)
        if self.total.sent >= most or not self.budget.spent:
            self.done += Replayed(exhausted=True)

    def _look_back(self) -> Iterator[tuple[Captured, Mark]]:
        """Yield captured requests backwards from the rollout's start, each with the mark that stands after it."""
        mark = self.before.backward or Mark(at=self.rollout.started_at)
        floor = self.rollout.started_at - LOOK_BACK
        for begin, stretch in self.world.logs.before(self.function, mark.at, floor, stop=self._spent):
            for captured in stretch:
                if captured.at == mark.at and captured.request_id in mark.seen:
                    continue
                mark = mark.past(captured.request_id, captured.at)
                yield captured, mark
            if begin > floor:
                mark = Mark(at=begin)
                self.done += Replayed(backward=mark)

    # -- one request ----------------------------------------------------------------------------------------------

    def _captured(self, captured: Captured, *, known: bool) -> Replayed:
        """Replay a captured request; `known` is whether what it was answered is stable's answer."""
        if captured.features is None:
            return Replayed(skipped=1)
        return self._pair(captured.request_id, captured.features, captured.answer if known and captured.whole else None)

    def _pair(self, request_id: str, features: tuple[tuple[float, ...], ...], known: Answer | None) -> Replayed:
        event = http_event(self.endpoint, features, stage=STAGE, request_id=request_id, now=self.now)
        self.budget.spend()
        stable, candidate = fair_pair(
            known, lambda: self._ask(self.rollout.stable, event), lambda: self._ask(_candidate(self.rollout), event)
        )
        return compare(request_id, stable, candidate, tolerance=self.rollout.policy.tolerance)

    def _ask(self, revision: Revision, event: dict[str, Any]) -> Answer:
        """Ask one revision. Raises NotReady when Lambda throttles, which says nothing of the revision."""
        status, body, log = self.world.functions.ask_for_log(self.function, revision.lambda_version, event)
        return _answer(status, body if isinstance(body, dict) else {"error": str(body)}, log)


def fair_pair(
    known: Answer | None, ask_stable: Callable[[], Answer], ask_candidate: Callable[[], Answer]
) -> tuple[Answer, Answer]:
    """Return stable's and the candidate's answer to one request, such that neither was chosen for having succeeded.

    `known` is what stable answered when it was asked first, None if that is not known. It spares asking stable while
    the candidate answers; once it fails, only answers of the same moment compare.
    """
    stable, candidate = known or ask_stable(), ask_candidate()
    if known and candidate.failed:
        return ask_stable(), ask_candidate()
    return stable, candidate


def _candidate(rollout: Rollout) -> Revision:
    assert rollout.revision is not None  # noqa: S101 - `wanted` looked
    return rollout.revision


def _answer(status: int, body: dict[str, Any], log: list[str]) -> Answer:
    try:
        return Answer(
            status=status,
            predictions=tuple(body.get("predictions") or ()),
            probabilities=tuple(tuple(map(float, row)) for row in body.get("probabilities") or ()),
            latency_ms=_latency(log),
            error=str(body.get("error") or ""),
        )
    except (TypeError, ValueError) as error:
        return Answer(status=502, error=f"not an answer of a predictor: {error}")


def _latency(log: list[str]) -> float | None:
    """Return the predictor's own measure out of its log: the network is not in it, as it is not in captured ones."""
    for text in reversed(log):
        if "predictor.replayed" in text:
            try:
                return float(json.loads(text)["latency_ms"])
            except (KeyError, TypeError, ValueError):
                return None
    return None
