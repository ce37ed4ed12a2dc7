"""The judge: what it says of every kind of evidence, and that it always says why."""

import math
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from perch.domain.agreement import Replayed
from perch.domain.alarm_seen import AlarmSeen
from perch.domain.evidence import Arm, CustomMetric, Measures, Minute
from perch.domain.guards import shares, weigh_up
from perch.domain.judge import Verdict, judge
from perch.domain.pace import safe_weight
from perch.domain.policy import Step
from perch.domain.rollout import Rollout, Shift
from perch.domain.tally import Tally, in_force, log_e_errors, weigh
from tests.unit.values import CANARY, T0, minutes, shifting

BEGAN = T0 + minutes(2)  # when the first step of `shifting` began
FIRST = BEGAN + minutes(1)  # the minute of the move itself is left out


def rollout_of(*steps: Step, guards=None, measures=None, **rollout) -> Rollout:
    """A rollout in its first step (the usual ones, unless others are given)."""
    policy = replace(
        CANARY,
        rollout=replace(CANARY.rollout, **({"steps": steps} if steps else {}), **rollout),
        guards=replace(CANARY.guards, **(guards or {})),
    )
    found = shifting(policy=policy).rollout
    return replace(found, measures=measures) if measures else found


def tallied(rollout: Rollout, *each: tuple[Arm, Arm], until=None) -> Tally:
    """Weigh one minute for each pair (candidate, stable)."""
    counted = [Minute(at=FIRST + minutes(i), candidate=c, stable=s) for i, (c, s) in enumerate(each)]
    return weigh(Tally(until=FIRST), counted, rollout)


def counts(requests=0, failures=0, **fields) -> Arm:
    return Arm(requests=requests, failures=failures, **fields)


def seen(rollout: Rollout, requests=100, failures=0, *, stable=(1900, 1)) -> Tally:
    """All that was seen, in one minute."""
    return tallied(rollout, (counts(requests, failures), counts(*stable)))


def look(rollout: Rollout, tally: Tally, *, held=10.0, **fields):
    return judge(rollout, tally, now=BEGAN + minutes(held), **fields)


def test_a_step_that_was_held_and_seen_is_passed():
    """Hold over, requests seen, nobody objects: promote, with the numbers."""
    rollout = rollout_of()
    judgement = look(rollout, seen(rollout))

    assert judgement.verdict is Verdict.PROMOTE
    assert "100 requests" in judgement.reason
    assert "0 of 100 candidate requests failed against 1 of 1,900 on stable" in judgement.reason


def test_a_hold_is_held():
    """One second short of the hold is not held."""
    rollout = rollout_of()

    assert look(rollout, seen(rollout), held=10 - 1 / 60).verdict is Verdict.CONTINUE


@given(st.integers(0, 19), st.integers(10, 24 * 60 - 1))
def test_law_5_no_evidence_never_promotes(requests, held):
    """However long a step was held, too few requests do not pass it."""
    rollout = rollout_of()
    judgement = look(rollout, seen(rollout, requests, stable=(19 * requests, 0)), held=held)

    assert judgement.verdict is Verdict.CONTINUE
    assert f"needs 20 requests on the candidate, has {requests}" in judgement.reason


def test_law_5_not_even_where_the_policy_asks_for_no_requests():
    """A step that names no number of requests still needs one."""
    rollout = rollout_of(Step(weight=0.1, hold_s=60))

    assert look(rollout, Tally(until=FIRST)).verdict is Verdict.CONTINUE


def test_law_5_proof_is_asked_for_where_the_step_says_so():
    """Requests alone do not pass a step that wants the candidate shown to be no worse."""
    rollout = rollout_of(Step(weight=0.1, hold_s=60, requests=20, proof=True))
    few = look(rollout, seen(rollout, 40, stable=(360, 1)))
    many = look(rollout, seen(rollout, 100, stable=(900, 1)))

    assert few.verdict is Verdict.CONTINUE
    assert "neither worse nor shown to be no worse: within 0.05" in few.reason
    assert many.verdict is Verdict.PROMOTE
    assert (
        "and shown: within 0.05 E = 1.1e+02, and it failed nothing where stable would have failed 0.11" in many.reason
    )


def test_a_candidate_with_failures_must_be_shown_to_have_no_more_of_them_than_the_margin_allows():
    """Being within the service level is not enough once there is something to compare."""
    rollout = rollout_of(Step(weight=0.5, hold_s=60, proof=True))
    alike = [(counts(500, 5), counts(500, 5))]

    assert look(rollout, tallied(rollout, *alike)).verdict is Verdict.CONTINUE
    assert look(rollout, tallied(rollout, *alike * 20), held=30).verdict is Verdict.PROMOTE


def test_a_step_without_its_evidence_ends_inconclusive_at_its_deadline():
    """At the deadline the verdict is inconclusive, not promote."""
    rollout = rollout_of()
    late = look(rollout, seen(rollout, 19, stable=(361, 1)), held=24 * 60)

    assert late.verdict is Verdict.INCONCLUSIVE
    assert "needs 20 requests on the candidate, has 19" in late.reason


def test_at_its_deadline_a_step_may_wait_for_a_person_instead():
    """A policy that says `hold` ends nothing by itself."""
    rollout = rollout_of(at_deadline="hold")

    assert look(rollout, seen(rollout, 19), held=48 * 60).verdict is Verdict.CONTINUE


def test_more_failures_than_chance_gives_roll_back_at_once():
    """The comparison does not wait for the hold, and says its numbers."""
    rollout = rollout_of()
    judgement = look(rollout, seen(rollout, 594, 31, stable=(5310, 12)), held=1)

    assert judgement.verdict is Verdict.ROLL_BACK
    assert (
        "31 of 594 candidate requests failed against 12 of 5,310 on stable: odds ratio 24.3, E = " in judgement.reason
    )
    assert "≥ 20; seen at minute 2" in judgement.reason


def test_a_single_failure_is_not_a_verdict():
    """One failure may be anybody's, however small the traffic."""
    rollout = rollout_of()

    assert look(rollout, seen(rollout, 3, 1, stable=(60, 0)), held=1).verdict is Verdict.CONTINUE


def test_traffic_on_the_candidate_alone_is_judged_by_its_service_level():
    """With nothing to compare with, the level that was promised is what is left."""
    rollout = rollout_of()
    judgement = look(rollout, seen(rollout, 100, 25, stable=(0, 0)), held=1)

    assert judgement.verdict is Verdict.ROLL_BACK
    assert "25 of 100 candidate requests failed while stable kept its level, where 5.00% may" in judgement.reason


def test_what_both_revisions_suffer_takes_nobody_back():
    """A shared incident, however bad: no roll-back, and no step either."""
    rollout = rollout_of()
    judgement = look(rollout, tallied(rollout, *[(counts(60, 18), counts(540, 160))] * 5))

    assert judgement.verdict is Verdict.CONTINUE
    assert "held, since stable fails as well: 800 of 2,700" in judgement.reason


def test_a_candidate_that_is_even_worse_in_an_incident_is_taken_back():
    """The incident explains stable's failures, not the difference."""
    rollout = rollout_of()

    assert look(rollout, tallied(rollout, *[(counts(60, 50), counts(540, 160))] * 5)).verdict is Verdict.ROLL_BACK


def test_a_fix_ships_into_the_incident_that_it_mends():
    """Stable is bad: the candidate that is shown to be better passes, though it is not within the level itself."""
    rollout = rollout_of(Step(weight=0.5, hold_s=60, proof=True))
    judgement = look(rollout, tallied(rollout, *[(counts(300, 20), counts(300, 150))] * 5))

    assert judgement.verdict is Verdict.PROMOTE


def alarm(since, name="perch/digits/candidate-errors/3"):
    return AlarmSeen(name=name, in_alarm=True, since=since, reason="1 datapoint was greater than the threshold")


def test_an_alarm_of_the_candidate_rolls_back():
    """The level check sees what an event may have lost."""
    rollout = rollout_of()
    judgement = look(rollout, seen(rollout), alarms=(alarm(BEGAN + minutes(3)),))

    assert judgement.verdict is Verdict.ROLL_BACK
    assert "perch/digits/candidate-errors/3" in judgement.reason


FAILURES = "perch/digits/failures"


def test_an_alarm_that_was_off_before_does_not_block_the_fix():
    """Production errors must not prevent the deployment that mends them."""
    rollout = rollout_of()

    assert look(rollout, seen(rollout), alarms=(alarm(BEGAN - minutes(1), FAILURES),)).verdict is Verdict.PROMOTE


def test_an_alarm_of_the_whole_endpoint_holds_while_both_have_traffic():
    """It cannot tell whose failures they are; only the comparison can."""
    rollout = rollout_of()
    judgement = look(rollout, seen(rollout), alarms=(alarm(BEGAN + minutes(6), FAILURES),))

    assert judgement.verdict is Verdict.CONTINUE
    assert "held while alarm perch/digits/failures is off" in judgement.reason


def test_in_a_bake_the_alarm_of_the_endpoint_speaks_of_the_candidate():
    """It has all the traffic; minutes from before the switch are not its own."""
    rollout = rollout_of(Step(weight=1.0, hold_s=600))
    tally = seen(rollout, 100, stable=(0, 0))

    before, soon = (alarm(BEGAN - minutes(3), FAILURES),), (alarm(BEGAN + minutes(3), FAILURES),)

    assert look(rollout, tally, alarms=before).verdict is Verdict.PROMOTE
    assert look(rollout, tally, alarms=soon, held=4).verdict is Verdict.CONTINUE
    assert look(rollout, tally, alarms=soon, held=5).verdict is Verdict.ROLL_BACK


def test_an_alarm_of_another_revision_says_nothing_of_this_one():
    """One that was left behind, or is late."""
    rollout = rollout_of()
    other = alarm(BEGAN + minutes(6), "perch/digits/candidate-errors/2")

    assert look(rollout, seen(rollout), alarms=(other,)).verdict is Verdict.PROMOTE


def test_probes_of_stable_say_nothing_of_the_candidate():
    """Going back to a revision that fails its own probes would be no help."""
    rollout = rollout_of()
    probes = alarm(BEGAN + minutes(1), "perch/digits/probes-stable")

    assert look(rollout, seen(rollout), alarms=(probes,)).verdict is Verdict.PROMOTE


def test_failing_probes_of_the_candidate_take_it_back():
    """Golden requests that it answered before it had traffic."""
    rollout = rollout_of()
    early = alarm(BEGAN + minutes(0.5), "perch/digits/probes-candidate")
    of_another = alarm(BEGAN - minutes(1), "perch/digits/probes-candidate")

    assert look(rollout, seen(rollout), alarms=(early,), held=0.8).verdict is Verdict.CONTINUE
    assert look(rollout, seen(rollout), alarms=(early,)).verdict is Verdict.ROLL_BACK
    assert look(rollout, seen(rollout), alarms=(of_another,)).verdict is Verdict.PROMOTE


USUAL = Measures(limits_ms=(10.0, 20.0, 40.0), usual=True, edges=(0.0, 1.0, 2.0))


def timed(requests, slower, bins=()) -> Arm:
    return counts(requests, timed=requests, slower=slower, bins=bins)


def test_a_slower_candidate_is_taken_back_and_the_reason_says_slower_than_what():
    """Slow requests are counted against stable's own usual latency."""
    rollout = rollout_of(measures=USUAL)
    judgement = look(rollout, tallied(rollout, *[(timed(30, (25, 15, 5)), timed(570, (285, 28, 5)))] * 5))

    assert judgement.verdict is Verdict.ROLL_BACK
    assert "candidate requests took longer than stable's usual p" in judgement.reason


def test_slowness_that_both_share_is_no_objection():
    """A slow dependency slows down both."""
    rollout = rollout_of(measures=USUAL)
    shared = (timed(30, (30, 25, 20)), timed(570, (570, 475, 380)))

    assert look(rollout, tallied(rollout, *[shared] * 8)).verdict is Verdict.PROMOTE


def test_a_model_that_answers_nonsense_quickly_and_well_is_taken_back():
    """All 200, none slow; but it sees only one class where stable sees four."""
    rollout = rollout_of(measures=USUAL)
    nonsense = (timed(30, (15, 1, 0), bins=(0, 0, 30, 0)), timed(560, (280, 28, 5), bins=(140, 140, 140, 140)))
    judgement = look(rollout, tallied(rollout, *[nonsense] * 5))

    assert judgement.verdict is Verdict.ROLL_BACK
    assert "candidate predictions were above 1 and at most 2 against" in judgement.reason


def test_a_metric_of_the_users_own_is_compared_like_failures():
    """Abandoned carts, complaints, refusals: whatever can be counted in requests."""
    custom = (CustomMetric(name="refused", namespace="Shop", metric="Refused"),)
    rollout = rollout_of(measures=Measures(custom=custom), guards={"custom": custom})
    judgement = look(rollout, tallied(rollout, *[(counts(60, custom=(20,)), counts(540, custom=(20,)))] * 5))

    assert judgement.verdict is Verdict.ROLL_BACK
    assert "refused: 100 of 300 candidate requests against 100 of 2,700" in judgement.reason


def test_a_guard_in_a_dry_run_reports_and_stops_nothing():
    """So that a guard can be tried out before it may decide."""
    rollout = rollout_of(measures=USUAL, guards={"dry_run": ("shift",)})
    nonsense = (timed(30, (15, 1, 0), bins=(0, 0, 30, 0)), timed(560, (280, 28, 5), bins=(140, 140, 140, 140)))
    judgement = look(rollout, tallied(rollout, *[nonsense] * 8))

    assert judgement.verdict is Verdict.PROMOTE
    assert [f.guard for f in judgement.findings if f.says == "objects"] == ["shift"]


def test_thresholds_speak_when_they_are_on():
    """A share, a multiple of stable's share, and limits on latency; each says its numbers."""
    on = {"error_threshold": 0.1, "error_increase": 2.0, "latency_p99_ms": 500.0, "alpha": 1e-9, "min_errors": 3}
    measures = Measures(limits_ms=(500.0,))
    rollout = rollout_of(guards=on, measures=measures)
    slow = look(rollout, tallied(rollout, (counts(100, timed=100, slower=(9,)), counts(900, timed=900, slower=(1,)))))
    failing = look(rollout, seen(rollout, 40, 5))
    more = look(rollout, seen(rollout, 400, 5, stable=(7600, 1)))

    assert (
        "9 of 100 candidate requests took longer than 500 ms while stable kept that limit, where 1% may" in slow.reason
    )
    assert "5 of 40 candidate requests failed (12.5%, limit 10.0%)" in failing.reason
    assert "of which stable would have failed 0.0526, limit 2 times as many" in more.reason
    assert {slow.verdict, failing.verdict, more.verdict} == {Verdict.ROLL_BACK}


def test_callers_that_are_pinned_to_a_version_hold_the_rollout():
    """The realised split is nowhere near the weight: the traffic is not what it is taken for."""
    rollout = rollout_of()
    judgement = look(rollout, tallied(rollout, *[(counts(60), counts(140))] * 5))

    assert judgement.verdict is Verdict.CONTINUE
    assert "times its share of the requests, which should be 0.05" in judgement.reason


def test_a_paused_endpoint_takes_no_step_but_can_be_taken_back():
    """Pausing stops progress, not care."""
    rollout = rollout_of()
    well = look(rollout, seen(rollout), paused="wait for Monday (by ada)")
    badly = look(rollout, seen(rollout, 594, 31, stable=(5310, 12)), paused="wait for Monday (by ada)")

    assert well.verdict is Verdict.CONTINUE
    assert "the endpoint is paused: wait for Monday (by ada)" in well.reason
    assert badly.verdict is Verdict.ROLL_BACK


def test_a_gate_is_opened_when_all_else_is_there():
    """A person, or a hook, has the last word; before, there is nothing to ask about."""
    rollout = rollout_of(Step(weight=0.1, hold_s=60, requests=20, gate="person"))
    early, ready = look(rollout, seen(rollout, 10)), look(rollout, seen(rollout))

    assert not early.gate
    assert ready.gate
    assert ready.verdict is Verdict.CONTINUE
    assert look(replace(rollout, answered=0), seen(rollout)).verdict is Verdict.PROMOTE


SHADOW = Step(weight=0.0, hold_s=60, requests=50)


def test_a_shadow_passes_when_its_answers_agree_and_ends_when_they_do_not():
    """Its evidence is what was replayed; it has no traffic."""
    rollout, nothing = rollout_of(SHADOW), Tally(until=FIRST)

    assert look(rollout, nothing).verdict is Verdict.CONTINUE
    assert look(rollout, nothing, replayed=Replayed(pairs=10, agreed=10)).verdict is Verdict.CONTINUE
    assert look(rollout, nothing, replayed=Replayed(pairs=100, agreed=99)).verdict is Verdict.PROMOTE
    assert look(rollout, nothing, replayed=Replayed(pairs=100, agreed=60)).verdict is Verdict.ROLL_BACK


def test_replayed_pairs_stand_in_for_traffic_that_hardly_comes():
    """Low-traffic mode: requests replayed to both revisions count, for and against."""
    rollout = rollout_of(Step(weight=0.5, hold_s=60, requests=100, proof=True), paired=500)
    few = seen(rollout, 3, stable=(3, 0))

    assert look(rollout, few).verdict is Verdict.CONTINUE
    assert look(rollout, few, replayed=Replayed(pairs=200, agreed=200)).verdict is Verdict.PROMOTE
    failing = Replayed(pairs=200, agreed=180, candidate_failed_only=20)
    assert look(rollout, few, replayed=failing).verdict is Verdict.ROLL_BACK


def test_an_undecided_step_asks_for_more_traffic_inside_its_budget():
    """More of it brings the verdict sooner, and what it may cost is capped."""
    step = Step(weight=0.05, hold_s=60, requests=20, proof=True)
    rollout = rollout_of(step, budget=50)
    undecided = tallied(rollout, *[(counts(30), counts(570, 3)), (counts(30, 1), counts(570, 3))] * 5)
    raised = look(rollout, undecided, held=30)

    assert raised.verdict is Verdict.CONTINUE
    assert raised.weight is not None
    assert 0.05 < raised.weight <= 0.5
    assert look(rollout_of(step), undecided, held=30).weight is None


def test_a_budget_that_is_spent_ends_the_rollout():
    """So many failed requests, and no more."""
    rollout = rollout_of(budget=5, guards={"alpha": 1e-12})
    judgement = look(rollout, seen(rollout, 100, 8))

    assert judgement.verdict is Verdict.ROLL_BACK
    assert "8 more than stable would have failed, surely more than the budget of 5" in judgement.reason


@given(st.integers(0, 10**4), st.floats(0, 1), st.integers(0, 3000), st.booleans())
def test_every_judgement_has_a_reason(requests, share, held, off):
    """Whatever was seen, the judge says one of four things and why."""
    rollout = rollout_of()
    alarms = (alarm(BEGAN + minutes(1)),) if off else ()
    judgement = look(rollout, seen(rollout, requests, int(requests * share)), alarms=alarms, held=held)

    assert judgement.verdict in Verdict
    assert judgement.reason
    if off:
        assert judgement.verdict is Verdict.ROLL_BACK


# -- the tally ----------------------------------------------------------------------------------------------------


def test_the_minute_in_which_the_traffic_was_moved_is_left_out():
    """Nobody knows which of its requests met which weight."""
    rollout = replace(rollout_of(), shifts=(Shift(at=FIRST + timedelta(seconds=90), step=0, weight=0.05),))
    tally = tallied(rollout, *[(counts(10), counts(90))] * 4)

    assert tally.candidate.requests == 20
    assert tally.until == FIRST + minutes(4)
    assert [in_force(rollout, FIRST + minutes(i)) is None for i in range(4)] == [True, True, False, False]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_a_minute_is_counted_once_however_often_it_is_told(cuts):
    """Looks overlap, repeat and skip; the tally is that of the minutes."""
    rollout = rollout_of()
    each = [Minute(at=FIRST + minutes(i), candidate=counts(10 + i, i % 3), stable=counts(90)) for i in range(8)]
    whole = weigh(Tally(until=FIRST), each, rollout)
    tally, upto = Tally(until=FIRST), 0
    for cut in cuts:
        upto = max(upto, cut)
        known = (tally.until - FIRST) // minutes(1)
        tally = weigh(tally, each[max(0, known - 3) : upto], rollout)
    tally = weigh(tally, each, rollout)

    assert tally == whole


def test_a_new_step_counts_its_own_requests_from_its_own_minutes():
    """Minutes of the step before, arriving late, are added to the whole and not to the new step."""
    rollout = rollout_of()
    rollout = replace(
        rollout, step=1, shifts=(*rollout.shifts, Shift(at=FIRST + timedelta(seconds=130), step=1, weight=0.5))
    )
    tally = tallied(rollout, *[(counts(10), counts(90))] * 5)

    assert tally.candidate.requests == 40
    assert tally.of_step(1)[0].requests == 20
    assert tally.of_step(0) == (Arm(), Arm())


# -- what a strict reader found -----------------------------------------------------------------------------------


def test_an_incident_of_both_after_a_small_step_is_not_the_candidates_fault():
    """Totals would blame it: it had little traffic in the good hours and much in the incident."""
    rollout = rollout_of(Step(weight=0.05, hold_s=60), Step(weight=0.5, hold_s=6000), guards=THRESHOLDS)
    rollout = replace(rollout, step=1, shifts=(*rollout.shifts, Shift(at=FIRST + minutes(60), step=1, weight=0.5)))
    healthy = [(counts(30), counts(570, 3))] * 61 + [(counts(300, 1), counts(300, 2))] * 10
    incident = [(counts(300, 60), counts(300, 60))] * 30

    for n in range(1, 31):
        assert look(rollout, tallied(rollout, *healthy, *incident[:n]), held=90).verdict is Verdict.CONTINUE


THRESHOLDS = {"error_threshold": 0.05, "latency_p99_ms": 500.0}


def test_slowness_of_both_for_a_minute_crosses_no_threshold():
    """A threshold on the candidate's latency counts only minutes in which stable kept it."""
    rollout = rollout_of(guards=THRESHOLDS, measures=Measures(limits_ms=(500.0,)))
    usual = (counts(30, timed=30, slower=(0,)), counts(570, timed=570, slower=(0,)))
    slow = (counts(30, timed=30, slower=(20,)), counts(570, timed=570, slower=(380,)))

    assert look(rollout, tallied(rollout, *[usual] * 20, slow), held=5).verdict is Verdict.CONTINUE


def test_after_a_hotfix_the_bake_is_still_judged():
    """Stable's failures excuse what happened beside them, and nothing that comes after."""
    rollout = rollout_of(Step(weight=0.5, hold_s=60, proof=True), Step(weight=1.0, hold_s=600, watch=True))
    rollout = replace(rollout, step=1, shifts=(*rollout.shifts, Shift(at=FIRST + minutes(10), step=1, weight=1.0)))
    mending = [(counts(300), counts(300, 150))] * 11
    failing = [(counts(20, 4), counts())] * 60
    judgement = look(rollout, tallied(rollout, *mending, *failing), held=80)

    assert judgement.verdict is Verdict.ROLL_BACK
    assert "candidate requests failed while stable kept its level" in judgement.reason


def test_a_fix_that_is_not_perfect_is_not_taken_back_to_what_it_mends():
    """Blue-green, blue failing half: green is held to what blue just failed to keep."""
    bake = Step(weight=1.0, hold_s=60, requests=20, proof=True)
    failing = rollout_of(bake, measures=Measures(failing=0.5))
    keeping = rollout_of(bake, measures=Measures(failing=0.0))
    minute = [(counts(100, 8), counts())] * 5

    assert look(failing, tallied(failing, *minute)).verdict is Verdict.PROMOTE
    assert look(keeping, tallied(keeping, *minute)).verdict is Verdict.ROLL_BACK


def test_the_reason_says_what_was_shown_and_nothing_else():
    """Stable failed before the rollout and recovered: the candidate is no worse, and is not said to be better."""
    rollout = rollout_of(Step(weight=0.5, hold_s=60, proof=True), measures=Measures(failing=0.5))
    judgement = look(rollout, tallied(rollout, *[(counts(500, 5), counts(500, 5))] * 20), held=30)

    assert judgement.verdict is Verdict.PROMOTE
    assert "and shown: within 0.05 E = " in judgement.reason
    assert "odds ratio below 2 E = " in judgement.reason
    assert "better than stable" not in judgement.reason


def test_a_budget_is_not_spent_by_chance():
    """Equal arms, a day long: the candidate's lead over stable wanders, and takes nobody back."""
    rollout = rollout_of(Step(weight=0.5, hold_s=86_400), budget=50)
    unlucky = [(counts(300, 4), counts(300, 3))] * 60  # 60 more than stable, in an hour of 12,000 failures a week

    assert look(rollout, tallied(rollout, *unlucky), held=60).verdict is Verdict.CONTINUE


def test_nobody_knows_what_a_step_costs_without_traffic_to_go_by():
    """A budget and no idea of the traffic: begin with next to nothing."""
    rollout = rollout_of(Step(weight=0.5, hold_s=60), budget=50, measures=Measures())

    assert safe_weight(rollout, None, ceiling=0.5) == 0.001


def test_replayed_pairs_alone_pass_no_step_and_count_for_one():
    """Law 5: a step with traffic has seen some; and the same pairs are not the evidence of every step."""
    steps = (Step(weight=0.2, hold_s=60, requests=20), Step(weight=0.5, hold_s=60, requests=20))
    rollout = rollout_of(*steps, paired=100)
    later = replace(rollout, step=1, shifts=(*rollout.shifts, Shift(at=BEGAN, step=1, weight=0.5)))
    pairs = Replayed(pairs=100, agreed=100)

    assert look(rollout, Tally(until=FIRST), replayed=pairs).verdict is Verdict.CONTINUE
    assert look(rollout, seen(rollout, 1, stable=(4, 0)), replayed=pairs).verdict is Verdict.PROMOTE
    assert look(later, seen(later, 1, stable=(1, 0)), replayed=pairs).verdict is Verdict.CONTINUE


def test_a_shadow_is_not_ended_by_an_unlucky_look():
    """Answers are compared tick by tick; before its time only what cannot be chance ends it."""
    rollout, nothing = rollout_of(replace(SHADOW, hold_s=3600)), Tally(until=FIRST)

    assert look(rollout, nothing, replayed=Replayed(pairs=60, agreed=56), held=5).verdict is Verdict.CONTINUE
    assert look(rollout, nothing, replayed=Replayed(pairs=200, agreed=160), held=5).verdict is Verdict.ROLL_BACK


def test_what_goes_wrong_after_a_good_week_is_seen_within_the_hour():
    """The evidence of innocence need not be used up first: errors are bet on anew from time to time."""
    rollout = rollout_of(Step(weight=0.25, hold_s=10**6))
    tally = tallied(rollout, *[(counts(150, i % 2), counts(450, 2)) for i in range(10_080)])
    broken = [Minute(at=tally.until + minutes(i), candidate=counts(150, 3), stable=counts(450, 2)) for i in range(60)]

    assert look(rollout, tally, held=10_081).verdict is Verdict.CONTINUE
    assert look(rollout, weigh(tally, broken, rollout), held=10_141).verdict is Verdict.ROLL_BACK


def test_minutes_whose_log_lines_never_came_count_for_nothing_and_are_told_of():
    """Law 5: failures that nobody could log are not failures that did not happen."""
    rollout = rollout_of()
    unlogged = (counts(50, unlogged=50), counts(950, unlogged=950))
    judgement = look(rollout, tallied(rollout, *[unlogged] * 8), held=30)

    assert judgement.verdict is Verdict.CONTINUE
    assert "needs 20 requests on the candidate, has 0; 8 minutes do not count, since log lines" in judgement.reason


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=60))
def test_the_stake_on_errors_is_dealt_out_once(minutes_of):
    """However many bets have begun, what each may win and what is still held are parts of one stake."""
    tally = Tally(until=FIRST)
    guards = CANARY.guards
    assert abs(log_e_errors(tally, guards)) < 1e-9
    rollout = rollout_of(Step(weight=0.25, hold_s=10**6))
    for i, (ours, theirs) in enumerate(minutes_of):
        tally = replace(tally, minutes=tally.minutes + 120)
        tally = weigh(
            tally, [Minute(at=FIRST + minutes(i), candidate=counts(10, ours), stable=counts(30, theirs))], rollout
        )

    assert math.isfinite(log_e_errors(tally, guards))
    assert tally.late <= len(minutes_of)


def test_guards_that_have_seen_nothing_yet_hold_their_part_of_alpha():
    """The weights are fixed by the policy, so that the joint evidence is one fair game from the first minute on."""
    rollout = rollout_of()

    assert shares(rollout.guards, rollout.policy) == {"slo": 1.0, "errors": 10.0, "latency": 1.0, "shift": 1.0}
    bake = rollout_of(Step(weight=1.0, hold_s=60))
    assert shares(bake.guards, bake.policy) == {"slo": 1.0}
    assert abs(weigh_up(rollout, Tally(until=FIRST), None).log_e) < 1e-9
