"""Judging again: by its own rules a rollout is judged as it was; by others, where it would have differed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from perch.domain import moves
from perch.domain.agreement import Replayed
from perch.domain.alarm_seen import AlarmSeen
from perch.domain.baseline import usual
from perch.domain.codec import dump, load
from perch.domain.evidence import CustomMetric, Habits
from perch.domain.judge import Verdict
from perch.domain.look import Look
from perch.domain.policy import Step
from perch.domain.rejudge import differences, rejudge
from perch.domain.rollout import Phase, Rollout
from tests.unit.history import BEGAN, Now, arm, play
from tests.unit.values import CANARY, minutes

STEPS = (
    Step(weight=0.0, hold_s=120, requests=5),
    Step(weight=0.05, hold_s=120, requests=5),
    Step(weight=0.2, hold_s=60, requests=5, proof=True),
    Step(weight=0.5, hold_s=60, requests=10, gate="person"),
    Step(weight=1.0, hold_s=180, watch=True),
)
GUARDS = replace(
    CANARY.guards,
    latency_p99_times=2.0,
    error_increase=3.0,
    custom=(CustomMetric(name="empty", namespace="Mine", metric="Empty"),),
)
STABLE = Habits(requests=2000, p50_ms=10.0, p95_ms=20.0, p99_ms=30.0, quantiles=(1.0, 2.0))
USUAL = usual(STABLE, Habits(), replace(GUARDS, shift_odds=4.0), minutes=10)
NOT_YET = usual(Habits(requests=50), Habits(), GUARDS, minutes=0.25)


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
        names = ["candidate-errors/3", "candidate-errors/9", "failures", "probes-stable", "probes-candidate"]
        name = draw(st.sampled_from(names))
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


@settings(max_examples=150)
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


# -- by other rules -----------------------------------------------------------------------------------------------

TWO = policy_of(Step(weight=0.1, hold_s=300, requests=20), Step(weight=0.5, hold_s=300, requests=20))

SLOW = policy_of(*[Step(weight=0.1, hold_s=300, requests=20)] * 2)


def quiet(requests=100, failures=0, stable_failures=2):
    return arm(requests, failures), arm(900, stable_failures)


def again(history, *, steps=None, guards=None, **rollout):
    policy = replace(history.rollout.policy, **({"steps": steps} if steps else {}), **rollout)
    done = rejudge(history.rollout, history.looks, policy, replace(history.rollout.guards, **(guards or {})))
    return differences(history.rollout, done, policy), done


def test_a_guard_that_asks_for_less_evidence_takes_it_back_sooner():
    """Both minutes are named."""
    history = play([quiet(), *[quiet(failures=3)] * 9], TWO)
    assert history.rollout.phase is Phase.ROLLED_BACK
    was = history.looks[-1]
    (first, *_), done = again(history, guards={"alpha": 0.4, "error_increase": None})
    sooner = next(look for look in done.looks if look.now.verdict is Verdict.ROLL_BACK)

    assert sooner.at < was.at
    assert first.startswith(f"would have rolled back at minute {(sooner.at - BEGAN).seconds // 60} instead of minute ")
    assert f"instead of minute {(was.at - BEGAN).seconds // 60}: " in first


def test_a_policy_that_would_have_let_it_pass_is_said_to():
    """What it would have been waiting for at the last look is the reason."""
    history = play([quiet(), *[quiet(failures=3)] * 9], TWO)
    (first, *_), done = again(history, guards={"alpha": 1e-9, "error_increase": None})

    assert first.startswith("would not have ended by minute ")
    assert "where it was rolled back at minute " in first
    assert done.looks[-1].was.verdict is Verdict.ROLL_BACK
    assert done.looks[-1].now.verdict is Verdict.CONTINUE


def test_fewer_steps_would_have_promoted_a_bad_candidate():
    """The end is another, and comes first; that the others were not judged is said."""
    history = play([*[quiet()] * 7, *[quiet(500, 40)] * 4], TWO)
    told, done = again(history, steps=TWO.rollout.steps[:1])

    assert history.rollout.phase is Phase.ROLLED_BACK
    assert told[0].startswith("would have been promoted at minute 5, where it was rolled back at minute ")
    assert "the policy has only 1 steps: what came after them was not judged again" in done.unknown


def test_a_step_that_takes_longer_is_named_and_nothing_after_it_counts_as_passed():
    """History went on, but the other policy would have waited, so it can not have promoted either."""
    history = play([quiet()] * 16, SLOW)
    longer = (replace(SLOW.rollout.steps[0], hold_s=3600), SLOW.rollout.steps[1])
    told, done = again(history, steps=longer)

    assert history.rollout.phase is Phase.PROMOTED
    assert told[0].startswith("would not have ended by minute ")
    assert any(t.startswith("would not have passed step 1 at minute 5: 55 minutes of the hold are left") for t in told)
    assert done.looks[-1].now.verdict is Verdict.PROMOTE


def test_what_people_did_is_no_difference_of_the_judges():
    """A rollout that somebody promoted past a step, and somebody took back, is the same by its own rules."""
    say = {
        1: Now(say=lambda s: moves.enter_step(s, "by ada", actor="ada", now=BEGAN + minutes(3))),
        4: Now(say=lambda s: moves.decide_roll_back(s, "by ada", actor="ada", now=BEGAN + minutes(6))),
    }
    history = play([quiet()] * 12, SLOW, happens=say)
    told, _ = again(history)
    stricter, _ = again(history, guards={"margin": 1.5})

    assert history.rollout.phase is Phase.ROLLING_BACK
    assert told == stricter == ()


def test_a_gate_that_history_did_not_have_is_waited_at():
    """Nobody was asked, so nobody can know the answer."""
    history = play([quiet()] * 16, TWO)
    gated = (replace(TWO.rollout.steps[0], gate="person"), TWO.rollout.steps[1])
    told, done = again(history, steps=gated)

    assert "would have waited at the gate of step 1 from minute 5" in told
    assert "nobody was asked at a gate that history did not have" in done.unknown


def test_what_was_not_counted_is_not_made_up():
    """A limit that no column has, a metric that was not read, bins that were not kept: each is named and left out."""
    counted = [
        (
            arm(100, timed=100, slower=(50, 5, 1, 0, 0), custom=(0,)),
            arm(900, timed=900, slower=(450, 45, 9, 0, 0), custom=(0,)),
        )
    ] * 4
    bare = replace(USUAL, edges=())
    history = play(counted, policy_of(*TWO.rollout.steps, guards=replace(GUARDS, shift_odds=None)), measures=bare)
    other = CustomMetric(name="refunds", namespace="Mine", metric="Refunds")
    _, done = again(
        history,
        guards={"latency_p99_ms": 70.0, "latency_p95_times": 3.0, "shift_odds": 4.0, "custom": (other,)},
    )
    names = {finding.guard for look in done.looks for finding in look.now.findings}

    # 3 times the usual p95 of 20 ms is 60 ms, which was counted as 2 times the usual p99 of 30 ms.
    assert "latency_p95_times" in names
    assert not names & {"latency_p99_ms", "shift", "custom:refunds", "custom:empty"}
    assert [u.partition(":")[0] for u in done.unknown] == [
        "latency_p99_ms",
        "custom metric refunds was not counted",
        "prediction shift",
    ]


def test_thresholds_that_are_times_what_is_usual_are_known_by_the_rules_that_froze_them():
    """Judged by its own policy, a rollout lacks nothing."""
    _, done = again(play([quiet()] * 4, TWO, measures=USUAL))

    assert TWO.guards.latency_p99_times
    assert done.unknown == ()


def test_a_limit_that_was_counted_under_another_name_is_found():
    """The candidate's slow answers are the same, whichever guard asks for them."""
    counted = [
        (
            arm(100, timed=100, slower=(50, 40, 40, 40, 0), custom=(0,)),
            arm(900, timed=900, slower=(450, 45, 9, 0, 0), custom=(0,)),
        )
    ] * 2  # the minute of the move itself is left out
    history = play(counted, policy_of(*TWO.rollout.steps), measures=USUAL)
    _, done = again(history, guards={"latency_p99_ms": 60.0, "latency_p99_times": None})
    (found,) = [f for f in done.looks[-1].now.findings if f.guard == "latency_p99_ms"]

    assert "40 of 100 candidate requests took longer than 60 ms" in found.reason


def test_other_weights_are_said_to_have_shaped_the_traffic():
    """No more than that can be known of traffic that was not there."""
    history = play([quiet()] * 4, TWO)
    _, done = again(history, steps=(Step(weight=0.2, hold_s=300, requests=20),), settle_s=0)

    assert "the traffic was shaped by the weights that history had (10%, 50%)" in done.unknown
    assert any("as old as they were then (60 seconds)" in u for u in done.unknown)


def test_looks_that_are_no_longer_kept_are_missed():
    """Their minutes are missing from every sum, and that is said."""
    history = play([quiet()] * 4, TWO)
    done = rejudge(history.rollout, history.looks[2:], history.rollout.policy, history.rollout.guards)

    assert len(done.looks) == 2
    assert any("are no longer kept" in u for u in done.unknown)
