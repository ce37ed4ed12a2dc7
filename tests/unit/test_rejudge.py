"""Judging again: by its own rules a rollout is judged as it was; by others, where it would have differed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from perch.domain import moves
from perch.domain.agreement import Replayed
from perch.domain.codec import dump, load
from perch.domain.evidence import CustomMetric, Measures
from perch.domain.judge import AlarmSeen
from perch.domain.look import Look
from perch.domain.policy import Step
from perch.domain.rejudge import differences, rejudge
from perch.domain.rollout import Phase, Rollout
from tests.unit.history import BEGAN, Now, arm, play
from tests.unit.values import CANARY, minutes

USUAL = Measures(
    limits_ms=(10.0, 20.0, 30.0, 60.0, 500.0),
    usual=True,
    edges=(1.0, 2.0),
    requests_a_minute=200.0,
    custom=(CustomMetric(name="empty", namespace="Mine", metric="Empty"),),
)
NOT_YET = Measures(limits_ms=(500.0,), custom=USUAL.custom, requests_a_minute=200.0)
STEPS = (
    Step(weight=0.0, hold_s=120, requests=5),
    Step(weight=0.05, hold_s=120, requests=5),
    Step(weight=0.2, hold_s=60, requests=5, proof=True),
    Step(weight=0.5, hold_s=60, requests=10, gate="person"),
    Step(weight=1.0, hold_s=180, watch=True),
)
GUARDS = replace(CANARY.guards, latency_p99_times=2.0, error_increase=3.0, custom=USUAL.custom)


def policy_of(*steps: Step, guards=GUARDS, **rollout):
    return replace(CANARY, rollout=replace(CANARY.rollout, steps=steps, **rollout), guards=guards)


@st.composite
def arms(draw):
    requests = draw(st.integers(0, 60) | st.integers(200, 400))
    failures = draw(st.just(0) | st.integers(0, min(requests, 6)) | st.integers(0, requests))
    timed = requests - failures
    slower = sorted((draw(st.integers(0, timed)) for _ in range(5)), reverse=True)
    first = draw(st.integers(0, timed))
    second = draw(st.integers(0, timed - first))
    return arm(
        requests,
        failures,
        timed=timed,
        slower=tuple(slower),
        bins=(first, second, timed - first - second),
        custom=(draw(st.integers(0, requests)),),
    )


@st.composite
def histories(draw):
    """A rollout of any steps, over any counts, with alarms, pauses, answers, late baselines and hands on the alias."""
    length = draw(st.integers(1, 14))
    learns = draw(st.none() | st.integers(0, length - 1))
    steps = draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=4))
    policy = policy_of(
        *steps,
        budget=draw(st.none() | st.integers(1, 50)),
        deadline_s=draw(st.sampled_from([300, 86_400])),
        at_deadline=draw(st.sampled_from(["roll back", "hold"])),
        paired=draw(st.sampled_from([0, 50])),
        guards=replace(
            GUARDS,
            dry_run=tuple(draw(st.sets(st.sampled_from(["errors", "slo", "latency", "split", "custom"])))),
            check_s=draw(st.sampled_from([0, 300])),
            margin=draw(st.sampled_from([2.0, 1.7])),
            shift_odds=4.0,
        ),
    )
    happens, counted = {}, []
    for i in range(length):
        at, since = BEGAN + minutes(i + 2), BEGAN + minutes(draw(st.integers(0, i + 1)))
        name = draw(st.sampled_from(["candidate-errors/3", "candidate-errors/9", "failures", "probes-stable"]))
        off = AlarmSeen(name=f"perch/digits/{name}", in_alarm=True, since=since, reason="1 > 0")
        says = draw(
            st.sampled_from(
                [
                    None,
                    None,
                    None,
                    lambda s, at=at: (
                        moves.resume(s, "", actor="ada", now=at)
                        if s.paused
                        else moves.pause(s, "lunch", actor="ada", now=at)
                    ),
                    lambda s, at=at: moves.enter_step(s, "by ada", actor="ada", now=at),
                    lambda s, at=at: moves.corrected(s, *[moves.desired_routing(s)] * 2, now=at),
                    _answer(at),
                ]
            )
        )
        moved = draw(st.integers(0, 5)) == 0
        happens[i] = Now(
            alarms=(off,) if draw(st.integers(0, 6)) == 0 else (),
            replayed=Replayed(pairs=40 * (i + 1), agreed=40 * (i + 1)) if draw(st.booleans()) else None,
            measures=USUAL if i == learns else None,
            say=says if moved else None,
            skip=draw(st.integers(0, 4)) == 0,
        )
        counted.append((draw(arms()), draw(arms())))
    return policy, counted, happens, NOT_YET if learns is not None else USUAL


def _answer(at):
    def answer(state):
        rollout = state.rollout
        if rollout and rollout.phase is Phase.SHIFTING and rollout.gate == rollout.step > rollout.answered:
            return moves.answer_gate(state, rollout.id, rollout.step, passed=True, reason="fine", actor="ada", now=at)
        return (
            moves.pause(state, "nobody asked", actor="ada", now=at)
            if state and not state.paused
            else _resume(state, at)
        )

    return answer


def _resume(state, at):
    return moves.resume(state, "", actor="ada", now=at)


@settings(max_examples=150, deadline=None)
@given(histories())
def test_by_its_own_policy_a_rollout_is_judged_as_it_was(history):
    """Whatever happened to it, each look gives again exactly the judgement that was stored, from the stored text."""
    policy, counted, happens, measures = history
    done = play(counted, policy, happens=happens, measures=measures)
    stored = [load(Look, dump(look)) for look in done.looks]
    rollout = load(Rollout, dump(done.rollout))

    again = rejudge(rollout, stored, rollout.policy, rollout.guards)

    assert [a.now for a in again.looks] == [look.judgement for look in done.looks]
    assert [a.at for a in again.looks] == [look.at for look in done.looks]
    assert again.unknown == ()
    assert differences(rollout, again, rollout.policy) == ()
