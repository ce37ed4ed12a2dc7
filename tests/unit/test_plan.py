"""Plans: what a policy can hope to see, when it is hopeless, and that what is proposed instead is not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from perch.domain.outlook import TOTAL, Traffic, say_minutes, worse
from perch.domain.plan import better, hopeless, plan
from perch.domain.policy import GuardPolicy, RolloutPolicy, Step

HOUR = 3600
GUARDS = GuardPolicy()
CANARY = RolloutPolicy(
    strategy="canary",
    steps=(Step(weight=0.1, hold_s=HOUR, requests=100), Step(weight=0.5, hold_s=HOUR, requests=500, proof=True)),
    deadline_s=86_400,
)
BUSY = Traffic(requests_a_minute=600, failure_rate=0.005)
traffics = st.builds(Traffic, requests_a_minute=st.floats(0.1, 1e5), failure_rate=st.floats(1e-4, 0.03))
policies = st.builds(
    lambda low, high, hold, requests, deadline: replace(
        CANARY,
        steps=(
            Step(weight=low, hold_s=hold * 60, requests=requests),
            Step(weight=high, hold_s=hold * 60, requests=requests, proof=True),
        ),
        deadline_s=deadline * HOUR,
    ),
    st.floats(0.01, 0.3),
    st.floats(0.31, 0.9),
    st.integers(1, 300),
    st.integers(1, 5000),
    st.integers(6, 300),
)


def test_a_busy_endpoint_sees_a_doubling_within_the_hour() -> None:
    """The numbers of the reference: 600 a minute, 0.5 % of stable fail, 10 % on the candidate."""
    first, last = plan(CANARY, GUARDS, BUSY).steps

    assert first.requests == pytest.approx(3600)
    assert first.failures == pytest.approx(18)
    assert first.requests_range[0] < 3600 < first.requests_range[1]
    doubled = first.seen[0]
    assert doubled.times == 2
    assert 40 < (doubled.minutes or 0) < 90
    assert first.seen[-1].times == TOTAL
    assert (first.seen[-1].minutes or 99) <= 5
    assert last.proof_after is not None


@given(policies, traffics, st.floats(1.0, 50.0))
@settings(max_examples=20)
def test_more_traffic_never_means_later(policy: RolloutPolicy, traffic: Traffic, times: float) -> None:
    """No regression of a step is seen later, and its requests are not there later."""
    more = replace(traffic, requests_a_minute=traffic.requests_a_minute * times)
    for less, most in zip(plan(policy, GUARDS, traffic).steps, plan(policy, GUARDS, more).steps, strict=True):
        for one, other in zip(less.seen, most.seen, strict=True):
            assert (other.minutes or math.inf) <= (one.minutes or math.inf)
        assert (most.requests_after or math.inf) <= (less.requests_after or math.inf)


@given(policies, traffics)
@settings(max_examples=20)
def test_a_larger_regression_is_never_seen_later(policy: RolloutPolicy, traffic: Traffic) -> None:
    """From twice the failures to nothing but failures."""
    for step in plan(policy, GUARDS, traffic).steps:
        minutes = [seen.minutes or math.inf for seen in step.seen]
        assert minutes == sorted(minutes, reverse=True)


@given(policies, traffics)
@settings(max_examples=20)
def test_a_plan_and_the_short_answer_agree(policy: RolloutPolicy, traffic: Traffic) -> None:
    """`hopeless` says what the plan says."""
    assert hopeless(policy, GUARDS, traffic) == plan(policy, GUARDS, traffic).problem


@given(policies, st.floats(0.001, 5.0), st.floats(0.0, 0.03), st.sampled_from([0.0, 0.1]))
@settings(max_examples=20)
def test_what_is_proposed_instead_can_hope(
    policy: RolloutPolicy, requests: float, rate: float, captured: float
) -> None:
    """And differs from what was hopeless; its weights still grow."""
    traffic = Traffic(requests_a_minute=requests, failure_rate=rate, captured=captured)
    assume(hopeless(policy, GUARDS, traffic))
    found = better(policy, GUARDS, traffic)
    if found is None:
        return
    assert hopeless(found.policy, found.guards, traffic) is None
    assert found.changes
    weights = [step.weight for step in found.policy.steps]
    assert weights == sorted(set(weights))
    assert found.policy.deadline_s > max(step.hold_s for step in found.policy.steps)


def test_a_step_that_cannot_get_its_requests_is_hopeless() -> None:
    """Three requests an hour, a tenth of them to the candidate, within a day."""
    said = hopeless(CANARY, GUARDS, Traffic(requests_a_minute=0.05, failure_rate=0.005))

    assert said is not None
    assert "step 1: its 100 requests at 0.1 of the traffic take about 13.9 days" in said


def test_no_traffic_is_hopeless_and_nothing_helps() -> None:
    """Evidence cannot be proposed."""
    nothing = Traffic(requests_a_minute=0.0)

    assert "there will be none" in (hopeless(CANARY, GUARDS, nothing) or "")
    assert better(CANARY, GUARDS, nothing) is None


def test_a_margin_too_narrow_for_the_traffic_is_hopeless_and_a_wider_one_is_proposed() -> None:
    """Twenty requests a minute show an odds ratio below 2 in days, not within six hours."""
    traffic, short = Traffic(requests_a_minute=20, failure_rate=0.02), replace(CANARY, deadline_s=6 * HOUR)
    tight = replace(GUARDS, margin=1.25)

    assert "odds ratio below 1.25" in (hopeless(short, tight, traffic) or "")
    found = better(short, tight, traffic)
    assert found is not None
    assert hopeless(found.policy, found.guards, traffic) is None


def test_stable_beyond_its_own_service_level_leaves_no_hope() -> None:
    """Where stable fails 8 % and 5 % may, a candidate that is as good cannot show that it is within."""
    assert "stable itself fails 0.08" in (hopeless(CANARY, GUARDS, replace(BUSY, failure_rate=0.08)) or "")


def test_low_traffic_may_be_helped_by_replays() -> None:
    """Replayed pairs count for a step's requests."""
    traffic = Traffic(requests_a_minute=0.1, failure_rate=0.0, captured=1.0)
    paired = replace(CANARY, paired=600, deadline_s=6 * 86_400)

    assert hopeless(replace(paired, paired=0), GUARDS, traffic)
    assert hopeless(paired, GUARDS, traffic) is None


def test_a_shadow_needs_captured_requests() -> None:
    """Without capture nothing is ever compared."""
    shadow = replace(CANARY, steps=(Step(weight=0.0, hold_s=HOUR, requests=200), *CANARY.steps))

    assert "compared answers" in (hopeless(shadow, GUARDS, BUSY) or "")
    assert hopeless(shadow, GUARDS, replace(BUSY, captured=0.1)) is None


def test_a_direct_rollout_has_nothing_to_plan() -> None:
    """It says so, and is not hopeless."""
    found = plan(RolloutPolicy(), GUARDS, BUSY)

    assert found.problem is None
    assert "without a comparison" in found.remarks[0]


@given(st.floats(0.0, 0.99), st.floats(1.0, 1e6))
def test_a_worse_rate_has_so_many_times_the_odds(rate: float, times: float) -> None:
    """And stays a share."""
    found = worse(rate, times)
    assert rate - 1e-12 <= found <= 1
    if rate and found < 1 - 1e-9:
        assert found / (1 - found) == pytest.approx(times * rate / (1 - rate), rel=1e-4)


@pytest.mark.parametrize(
    ("minutes", "said"), [(1, "1 minute"), (59.2, "60 minutes"), (150, "2.5 hours"), (20_000, "13.9 days")]
)
def test_minutes_are_said_in_a_fitting_unit(minutes: float, said: str) -> None:
    """As people say them."""
    assert say_minutes(minutes) == said


def test_a_bake_with_proof_can_hope_though_nothing_is_left_to_compare_with() -> None:
    """At all of the traffic the service level is all that is asked for."""
    bake = RolloutPolicy(
        strategy="blue-green", steps=(Step(weight=1.0, hold_s=HOUR, requests=50, proof=True),), deadline_s=2 * HOUR
    )
    (step,) = plan(bake, GUARDS, replace(BUSY, failure_rate=0.02)).steps

    assert step.kind == "bake"
    assert step.problem is None
    assert step.seen == ()
    assert (step.proof_after or 99) < 10
