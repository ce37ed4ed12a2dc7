"""Replays against strict AWS: captured log lines in, one sum in the registry out, whatever happens in between."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from perch.app import replay as replaying
from perch.app.replay import Budget, ReplayFailed, fair_pair, replay, replay_all
from perch.domain.agreement import Answer, Mark, Replayed
from perch.domain.codec import dump
from perch.domain.errors import Conflict
from perch.domain.model import Pointer
from perch.domain.policy import RolloutPolicy, Step
from perch.domain.rollout import Candidate, Endpoint, Phase, Revision, Rollout
from perch.local import strict
from perch.local.ports import Invocation, Refused
from perch.local.strict.settings import current
from tests.aws.deployment import FUNCTION, TABLE, deployment

__all__ = ["deployment"]

GROUP = f"/aws/lambda/{FUNCTION}"
STABLE, CANDIDATE = "2", "3"
SHADOW = RolloutPolicy(strategy="shadow", steps=(Step(weight=0.0, hold_s=3600, requests=5),), settle_s=60)
PAIRED = replace(SHADOW, strategy="canary", steps=(Step(weight=0.1, hold_s=3600, requests=5),), paired=50)

TWO_FEATURES = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    "features": 2,
}


@dataclass
class Revisions:
    """Plays the predictor: both add up a row, the candidate adds `bias` where the first feature is at least `from_`."""

    bias: int = 0
    from_: float = 1e9
    crash: set[tuple[str, float]] = field(default_factory=set)
    throttled: set[float] = field(default_factory=set)
    asked: list[tuple[str, float]] = field(default_factory=list)
    stages: set[str] = field(default_factory=set)

    def invoke(self, function: str, payload: bytes, *, qualifier: str | None = None) -> Invocation:
        event, version = json.loads(payload), str(qualifier)
        rows = json.loads(event["body"])["features"]
        first = rows[0][0]
        if first in self.throttled:
            raise Refused("TooManyRequestsException", "Rate Exceeded.", 429)
        self.asked.append((version, first))
        self.stages.add(event["requestContext"]["stage"])
        error, answer = None, {"statusCode": 200, "body": json.dumps({"predictions": self.predict(version, rows)})}
        if (version, first) in self.crash:
            error, answer = "Unhandled", {"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out after 10 s"}
        line = json.dumps({"event": "predictor.replayed", "latency_ms": 4.0 if version == CANDIDATE else 2.0})
        return Invocation(
            request_id="r", payload=json.dumps(answer).encode(), error=error, executed_version=version,
            duration_ms=9.0, cold=False, log_tail=f"START\n{line}\nEND",
        )  # fmt: skip

    def predict(self, version: str, rows: list[list[float]]) -> list[int]:
        return [
            int(sum(row)) + (self.bias if version == CANDIDATE and row[0] >= self.from_ else 0)
            for row in rows
        ]  # fmt: skip


@dataclass
class Trial:
    """A deployment whose endpoint is in a rollout of v2 (revision 3) against v1 (revision 2)."""

    d: object
    revisions: Revisions
    sink: strict.MotoLogSink
    rollout: Rollout

    @property
    def world(self):
        return self.d.world

    def captured(self, number: float, at: datetime, *, revision: str = STABLE, **fields) -> None:
        """Write the line of a live request with the one row (number, 1)."""
        line = {
            "event": "predictor.captured", "request_id": f"r{number:g}", "model": "digits", "version": "v1",
            "revision": revision, "features": [[number, 1.0]], "latency_ms": 1.0, "at": at.isoformat(),
            "predictions": self.revisions.predict(revision, [[number, 1.0]]),
        } | fields  # fmt: skip
        self.sink.write(GROUP, f"s{int(number) % 3}", at, json.dumps(line))

    def run(self, minutes: float = 1.0, **budget) -> replaying.Outcome | None:
        self.d.now += timedelta(minutes=minutes)
        return replay(self.world, self.d.policy, now=self.d.now, budget=Budget(lambda: 0.0, **budget))

    def stored(self) -> Replayed:
        return self.world.registry.replayed("digits", self.rollout.id) or Replayed()

    def put(self, rollout: Rollout | None) -> None:
        state = Endpoint(name="digits", seq=1, stable=self.rollout.stable, rollout=rollout)
        item = {"pk": "ENDPOINT#digits", "sk": "ENDPOINT", "document": json.dumps(dump(state))}
        self.d.clients.dynamodb.put_item(TableName=TABLE, Item={k: {"S": v} for k, v in item.items()})


def begin(d, policy: RolloutPolicy) -> Trial:
    revisions = Revisions()
    pointers = []
    for version in ("v1", "v2"):
        model = d.registered(version, signature=TWO_FEATURES, probes=())
        pointers.append(model.pointer)
        publish(d, model.pointer)
    current().invoker = revisions
    rollout = Rollout(
        id="digits-000001", endpoint="digits", policy=policy, guards=d.policy.guards, phase=Phase.SHIFTING,
        candidate=Candidate(pointer=pointers[1], number=2, cause="upload", actor="ada"),
        stable=Revision(lambda_version=STABLE, pointer=pointers[0], number=1),
        revision=Revision(lambda_version=CANDIDATE, pointer=pointers[1], number=2),
        phase_at=d.now, started_at=d.now - timedelta(minutes=2), shifted_at=d.now, reason="", step=0,
    )  # fmt: skip
    trial = Trial(d, revisions, strict.MotoLogSink(), rollout)
    trial.put(rollout)
    return trial


def publish(d, pointer: Pointer) -> None:
    variables = {"PERCH_ENDPOINT": "digits", "PERCH_POINTER": pointer.to_json()}
    d.clients.lambda_.update_function_configuration(FunctionName=FUNCTION, Environment={"Variables": variables})
    d.clients.lambda_.publish_version(FunctionName=FUNCTION)


@pytest.fixture
def shadow(deployment):
    return begin(deployment, SHADOW)


@pytest.fixture
def paired(deployment):
    return begin(deployment, PAIRED)


# -- shadow -------------------------------------------------------------------------------------------------------


def test_a_shadow_asks_the_candidate_alone_what_stable_was_asked(shadow):
    """Stable's answer is the captured one, latencies are the predictors' own, the stage keeps it out of metrics."""
    shadow.revisions.bias, shadow.revisions.from_ = 1, 3.0
    for number in range(5):
        shadow.captured(number, shadow.d.now + timedelta(seconds=number))
    found = shadow.run(3).total

    assert shadow.revisions.asked == [(CANDIDATE, float(number)) for number in range(5)]
    assert shadow.revisions.stages == {"perch-replay"}
    assert (found.pairs, found.agreed, found.differed) == (5, 3, 2)
    assert [d.what for d in found.differences] == ["row 1: 5, stable 4", "row 1: 6, stable 5"]
    assert [d.request_id for d in found.differences] == ["r3", "r4"]
    assert found.stable_ms.quantile(0.5) == pytest.approx(1.0, rel=0.03)
    assert found.candidate_ms.quantile(0.5) == pytest.approx(4.0, rel=0.03)
    assert shadow.stored() == found


def test_what_another_revision_answered_is_asked_of_both(shadow):
    """So is what was not written down whole."""
    shadow.captured(1, shadow.d.now, revision="1")
    shadow.captured(2, shadow.d.now, predictions=[])
    found = shadow.run(3).total

    assert sorted(shadow.revisions.asked) == [(STABLE, 1.0), (STABLE, 2.0), (CANDIDATE, 1.0), (CANDIDATE, 2.0)]
    assert (found.pairs, found.agreed) == (2, 2)


def test_a_request_is_counted_once_however_many_runs_it_takes(shadow):
    """Runs go on where the last one ended, in the midst of a millisecond too, and only once lines have settled."""
    at = shadow.d.now + timedelta(seconds=30)
    for number in range(12):
        shadow.captured(number, at if number < 8 else at + timedelta(seconds=number))
    counts = [shadow.run(0.5 if n else 1, requests=5) and shadow.stored().pairs for n in range(8)]

    assert counts == [0, 0, 5, 10, 12, 12, 12, 12]
    assert sorted(first for _, first in shadow.revisions.asked) == [float(n) for n in range(12)]
    assert shadow.stored().forward == Mark(at=shadow.d.now - timedelta(seconds=60))


def test_a_run_that_lost_is_not_counted(shadow):
    """Two runs at once replay the same requests; the second to store them is refused."""
    shadow.captured(1, shadow.d.now)
    shadow.run(3)
    before = shadow.stored()
    with pytest.raises(Conflict):
        shadow.world.registry.record_replayed("digits", shadow.rollout.id, before)
    late = replace(before, runs=before.runs + 5)
    with pytest.raises(Conflict):
        shadow.world.registry.record_replayed("digits", shadow.rollout.id, late)

    assert shadow.stored() == before


def test_a_run_that_dies_before_it_stores_is_repeated(shadow, monkeypatch):
    """Its requests are sent again, and counted once."""
    shadow.captured(1, shadow.d.now)
    with monkeypatch.context() as dying:
        dying.setattr(
            type(shadow.world.registry), "record_replayed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            shadow.run(3)
    shadow.run(1)

    assert shadow.revisions.asked == [(CANDIDATE, 1.0)] * 2
    assert shadow.stored().pairs == 1


def test_a_crash_or_a_time_out_is_the_candidates_failure_and_a_throttle_is_nobodys(shadow):
    """A throttled request ends the run, is stored as not done, and goes first in the next."""
    shadow.revisions.crash = {(CANDIDATE, 1.0)}
    shadow.revisions.throttled = {2.0}
    for number in range(4):
        shadow.captured(number, shadow.d.now + timedelta(seconds=number))
    first = shadow.run(3)

    assert "busy" in first.stopped
    assert (first.total.pairs, first.total.candidate_failed_only) == (2, 1)
    assert first.total.differences[0].candidate == "502 Task timed out after 10 s"
    shadow.revisions.throttled = set()
    again = shadow.run(1)
    assert again.stopped is None
    assert (again.total.pairs, again.total.candidate_failed_only, again.total.agreed) == (4, 1, 3)


def test_a_candidate_that_fails_for_a_moment_is_asked_again_beside_stable(shadow):
    """Stable's captured answer was chosen for being one; only a pair of the same moment says who is worse."""
    shadow.captured(1, shadow.d.now)
    shadow.revisions.crash = {(CANDIDATE, 1.0)}
    real = shadow.revisions.invoke

    def recovering(function, payload, *, qualifier=None):
        answer = real(function, payload, qualifier=qualifier)
        shadow.revisions.crash = set()
        return answer

    shadow.revisions.invoke = recovering
    found = shadow.run(3).total

    assert shadow.revisions.asked == [(CANDIDATE, 1.0), (STABLE, 1.0), (CANDIDATE, 1.0)]
    assert (found.pairs, found.agreed, found.candidate_failed_only, found.differences) == (1, 1, 0, ())


def shadowed(stable: float, candidate: float, *, pairs: int, seed: int, fresh: bool = True) -> bool:
    """Whether a shadow of so many requests ever takes back a candidate, given how often each fails for a moment."""
    chance, counted = random.Random(seed), Replayed()  # noqa: S311 - to be repeatable, not secret
    ask = [lambda p=p: Answer(status=502 if chance.random() < p else 200) for p in (stable, candidate)]
    for _ in range(pairs):
        ours = fair_pair(OK, *ask) if fresh else (OK, ask[1]())
        worse, better = ours[1].failed and not ours[0].failed, ours[0].failed and not ours[1].failed
        if worse or better:
            counted = replace(
                counted,
                candidate_failed_only=counted.candidate_failed_only + worse,
                stable_failed_only=counted.stable_failed_only + better,
            )
            if counted.log_e_worse() >= math.log(20):
                return True
    return False


OK = Answer(status=200)


def test_equal_trouble_of_both_takes_no_good_candidate_back():
    """Both fail 2 % of the time: without the fresh pair nearly every shadow ends so, with it at most alpha."""
    assert sum(shadowed(0.02, 0.02, pairs=2000, seed=n, fresh=False) for n in range(20)) >= 18
    assert sum(shadowed(0.02, 0.02, pairs=2000, seed=n) for n in range(200)) <= 0.05 * 200
    assert sum(shadowed(0.3, 0.3, pairs=500, seed=n) for n in range(200)) <= 0.05 * 200


def test_a_candidate_that_cannot_answer_what_stable_can_is_found_all_the_same():
    """What fails on a request fails again when it is asked again."""
    assert all(shadowed(0.02, 0.5, pairs=300, seed=n) for n in range(20))


def test_requests_too_large_to_capture_and_lines_that_are_none_are_not_replayed(shadow):
    """The first are counted as skipped; what only looks like a capture is passed over."""
    shadow.captured(1, shadow.d.now, features=None)
    shadow.captured(2, shadow.d.now, revision=None, latency_ms="slow")
    shadow.captured(3, shadow.d.now, features=[["x"]])
    shadow.captured(4, shadow.d.now, event="predictor.answered")
    shadow.captured(5, shadow.d.now)
    shadow.sink.write(GROUP, "s", shadow.d.now, "predictor.captured")
    found = shadow.run(3).total

    assert (found.pairs, found.skipped) == (1, 1)
    assert shadow.revisions.asked == [(CANDIDATE, 5.0)]


def test_nothing_is_replayed_when_nothing_wants_it(shadow):
    """No rollout, one that has not begun or is ending, and one that has real traffic and no paired mode."""
    shadow.captured(1, shadow.d.now)
    canary = replace(shadow.rollout, policy=replace(PAIRED, paired=0))
    for rollout in (None, canary, replace(shadow.rollout, phase=Phase.ROLLING_BACK)):
        shadow.put(rollout)
        assert shadow.run(3) is None

    assert shadow.revisions.asked == []


def test_a_shadow_with_no_requests_stores_how_far_it_looked(shadow):
    """So that the next run does not search the same log again; before anything settled it stores nothing."""
    assert shadow.run(1).run == Replayed()
    shadow.run(2)

    assert shadow.stored().pairs == 0
    assert shadow.stored().until == shadow.d.now - timedelta(seconds=60)


def test_a_run_stops_when_its_time_is_up(shadow):
    """Time, not only the number of requests, bounds it; what was done is kept."""
    for number in range(6):
        shadow.captured(number, shadow.d.now + timedelta(seconds=number))
    clock = iter(range(100))
    shadow.d.now += timedelta(minutes=3)
    budget = Budget(lambda: float(next(clock)), seconds=5.5)
    replay(shadow.world, shadow.d.policy, now=shadow.d.now, budget=budget)

    assert 0 < shadow.stored().pairs < 6
    shadow.run(1)
    assert shadow.stored().pairs == 6


def test_trouble_with_one_endpoint_is_told_after_the_others_were_served(shadow, monkeypatch):
    """The function fails, so that its alarm sees it, but only at the end."""
    other = replace(shadow.d.policy, name="letters")
    world = replace(shadow.world, settings=replace(shadow.world.settings, endpoints=(other, shadow.d.policy)))
    shadow.captured(1, shadow.d.now)
    real = replaying.replay

    def failing(world, policy, **fields):
        if policy.name == "letters":
            raise RuntimeError("no such function")
        return real(world, policy, **fields)

    monkeypatch.setattr(replaying, "replay", failing)
    with pytest.raises(ReplayFailed, match="letters: RuntimeError: no such function"):
        replay_all(world, now=shadow.d.now + timedelta(minutes=3), timer=lambda: 0.0)

    assert shadow.stored().pairs == 1


# -- paired -------------------------------------------------------------------------------------------------------


def test_paired_replay_uses_up_golden_requests_then_the_newest_captured_ones(paired):
    """Each goes to both revisions, once; what was captured during the rollout or over a week before is left out."""
    start = paired.rollout.started_at
    ages = {1: timedelta(minutes=1), 2: timedelta(minutes=50), 3: timedelta(hours=30), 4: timedelta(days=6, hours=23)}
    for number, age in ages.items():
        paired.captured(number + 10, start - age)
    paired.captured(98, start - timedelta(days=7, minutes=1))
    paired.captured(99, start + timedelta(seconds=1))
    found = paired.run(3).total

    order = [first for version, first in paired.revisions.asked if version == CANDIDATE]
    assert order == [0.0, 1.0, 2.0, 11.0, 12.0, 13.0, 14.0]
    assert [first for version, first in paired.revisions.asked if version == STABLE] == order
    assert (found.pairs, found.sent, found.exhausted) == (7, 7, True)
    assert found.stable_ms.quantile(0.5) == pytest.approx(2.0, rel=0.03)
    paired.run(1)
    assert paired.stored() == found


def test_paired_replay_takes_as_many_requests_as_it_may_and_no_more(paired):
    """In as many runs as the budget makes of it; no request comes twice."""
    paired.rollout = replace(paired.rollout, policy=replace(PAIRED, paired=11))
    paired.put(paired.rollout)
    for number in range(10, 40):
        paired.captured(number, paired.rollout.started_at - timedelta(seconds=30 * (number // 5)))
    sent = []
    while not paired.stored().exhausted:
        paired.run(1, requests=2)
        sent.append(paired.stored().sent)

    assert sent == [2, 4, 6, 8, 10, 11]
    asked = [first for version, first in paired.revisions.asked if version == CANDIDATE]
    assert len(asked) == len(set(asked)) == 11
    assert set(asked) <= {0.0, 1.0, 2.0, *map(float, range(10, 20))}


def test_a_week_without_captured_requests_is_soon_searched(paired):
    """Stretches double, so that an empty log costs 14 calls; then the pool is exhausted."""
    calls = []
    paired.d.clients.logs.meta.events.register("before-call.*.*", lambda model, **_: calls.append(model.name))
    found = paired.run(1).total

    assert (found.pairs, found.exhausted) == (3, True)
    assert calls == ["FilterLogEvents"] * 14


def test_a_shadow_in_paired_mode_does_both(deployment):
    """The pool from before the rollout, and the live requests since; nothing is counted in both."""
    trial = begin(deployment, replace(SHADOW, paired=5))
    for number in range(10, 20):
        trial.captured(number, trial.rollout.phase_at + timedelta(minutes=number - 15))
    found = trial.run(3).total

    asked = [first for version, first in trial.revisions.asked if version == CANDIDATE]
    assert asked == [0.0, 1.0, 2.0, 13.0, 12.0, 15.0, 16.0]
    assert (found.pairs, found.sent, found.exhausted) == (7, 5, True)


def test_what_stable_refuses_is_skipped(paired):
    """A golden request of another shape than stable takes says nothing of the candidate."""
    real = paired.revisions.invoke

    def refusing(function, payload, *, qualifier=None):
        answer = real(function, payload, qualifier=qualifier)
        refused = {"statusCode": 400, "body": json.dumps({"error": "row 1 has 2 features, not 3"})}
        return replace(answer, payload=json.dumps(refused).encode()) if qualifier == STABLE else answer

    paired.revisions.invoke = refusing
    found = paired.run(1).total

    assert (found.pairs, found.skipped, found.sent, found.exhausted) == (0, 3, 3, True)
