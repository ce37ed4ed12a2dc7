"""The judge: what it says of every kind of evidence, and that it always says why."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from perch.domain.judge import AlarmSeen, Counts, Evidence, Verdict, judge
from tests.unit.values import CANARY, T0, minutes

STEP = CANARY.rollout.steps[0]


def look(evidence, *, held=minutes(10)):
    return judge(CANARY.rollout, CANARY.guards, STEP, evidence=evidence, traffic_at=T0, step_at=T0, now=T0 + held)


def seen(requests=100, failures=0, **fields):
    counts = Counts(requests=requests, failures=failures)
    stable = Counts(requests=900, failures=1)
    return Evidence(candidate=counts, candidate_step=counts, stable=stable, revision="3", **fields)


def test_a_step_that_was_held_and_seen_is_passed():
    """Hold over, requests seen, nobody objects: promote, with the numbers."""
    judgement = look(seen())

    assert judgement.verdict is Verdict.PROMOTE
    assert "100 requests" in judgement.reason
    assert "0 of 100 candidate requests failed against 1 of 900 on stable" in judgement.reason


def test_a_hold_is_held():
    """One second short of the hold is not held."""
    judgement = look(seen(), held=minutes(10) - timedelta(seconds=1))

    assert judgement.verdict is Verdict.CONTINUE


@given(st.integers(0, 19), st.integers(10, 24 * 60 - 1))
def test_law_5_no_evidence_never_promotes(requests, held):
    """However long a step was held, too few requests do not pass it."""
    judgement = look(seen(requests=requests), held=minutes(held))

    assert judgement.verdict is Verdict.CONTINUE
    assert f"needs 20 requests on the candidate, has {requests}" in judgement.reason


def test_law_5_not_even_where_the_policy_asks_for_no_requests():
    """A step that names no number of requests still needs one."""
    judgement = judge(
        CANARY.rollout,
        CANARY.guards,
        type(STEP)(weight=0.1, hold_s=60),
        evidence=Evidence(),
        traffic_at=T0,
        step_at=T0,
        now=T0 + minutes(5),
    )

    assert judgement.verdict is Verdict.CONTINUE


def test_a_step_without_its_requests_ends_inconclusive_at_its_deadline():
    """At the deadline the verdict is inconclusive, not promote."""
    assert look(seen(requests=19), held=timedelta(days=1)).verdict is Verdict.INCONCLUSIVE


def test_too_many_failures_roll_back_at_once():
    """The error guard does not wait for the hold."""
    judgement = look(seen(requests=40, failures=3), held=minutes(1))

    assert judgement.verdict is Verdict.ROLL_BACK
    assert "3 of 40 candidate requests failed (7.5%, limit 5.0%)" in judgement.reason


def test_a_single_failure_of_few_requests_is_not_a_verdict():
    """Below min_errors the rate means nothing."""
    assert look(seen(requests=4, failures=2), held=minutes(1)).verdict is Verdict.CONTINUE


def alarm(since, name="perch/digits/candidate-errors/3"):
    return AlarmSeen(name=name, in_alarm=True, since=since, reason="1 datapoint was greater than the threshold")


def test_an_alarm_that_went_off_rolls_back():
    """The level check sees what an event may have lost."""
    judgement = look(seen(alarms=(alarm(T0 + minutes(3)),)))

    assert judgement.verdict is Verdict.ROLL_BACK
    assert "perch/digits/candidate-errors/3" in judgement.reason


FAILURES = "perch/digits/failures"


def test_an_alarm_that_was_off_before_does_not_block_the_fix():
    """Production errors must not prevent the deployment that mends them."""
    assert look(seen(alarms=(alarm(T0 - minutes(1), FAILURES),))).verdict is Verdict.PROMOTE


def test_the_failures_of_the_candidate_before_do_not_take_back_this_one():
    """The endpoint's alarm looks back some minutes; only then does it speak of the candidate."""
    assert look(seen(alarms=(alarm(T0 + minutes(3), FAILURES),))).verdict is Verdict.PROMOTE
    assert look(seen(alarms=(alarm(T0 + minutes(5), FAILURES),))).verdict is Verdict.ROLL_BACK


def test_an_alarm_of_another_revision_says_nothing_of_this_one():
    """One that was left behind, or is late."""
    other = alarm(T0 + minutes(6), "perch/digits/candidate-errors/2")
    assert look(seen(alarms=(other,))).verdict is Verdict.PROMOTE


def test_probes_of_stable_say_nothing_of_the_candidate():
    """Going back to a revision that fails its own probes would be no help."""
    assert look(seen(alarms=(alarm(T0 + minutes(1), "perch/digits/probes-stable"),))).verdict is Verdict.PROMOTE


@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(0, 3000), st.booleans())
def test_every_judgement_has_a_reason(requests, share, held, off):
    """Whatever was seen, the judge says one of four things and why."""
    alarms = (alarm(T0 + minutes(1)),) if off else ()
    judgement = look(seen(requests=requests, failures=int(requests * share), alarms=alarms), held=minutes(held))

    assert judgement.verdict in Verdict
    assert judgement.reason
    if off:
        assert judgement.verdict is Verdict.ROLL_BACK
