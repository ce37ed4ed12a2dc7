"""The blast radius: the weight grows with what is known, and only as far as the budget covers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.domain.blast_radius import CEILING, excess_failures, next_weight, plausible_rate
from perch.domain.evidence import Arm

KNOWN: dict[str, Any] = {
    "candidate": Arm(requests=1800, failures=9),
    "stable": Arm(requests=16_200, failures=81),
    "requests_a_minute": 600.0,
    "blind_minutes": 3.0,
}


def weight(**given: Any) -> float:
    """The next weight of a rollout at 10 % that did well for half an hour, but for what is given."""
    options: dict[str, Any] = {"weight": 0.1, "floor": 0.1, "spent": 0.0, "odds_upper": 2.5, "budget": 50.0}
    return next_weight(**{**KNOWN, **options, **given})


def test_nothing_known_raises_nothing() -> None:
    """At first every request might fail, and the budget does not cover that."""
    assert next_weight(
        weight=0.1,
        floor=0.1,
        spent=0,
        candidate=Arm(),
        stable=Arm(),
        odds_upper=math.inf,
        requests_a_minute=600,
        blind_minutes=3,
    ) == pytest.approx(0.1)


def test_a_candidate_that_cannot_be_much_worse_gets_more() -> None:
    """An odds ratio of at most 2.5 exposes few requests: up to the ceiling."""
    assert weight() == CEILING


def test_a_raise_is_what_half_of_the_rest_of_the_budget_covers() -> None:
    """The formula of the module, worked by hand."""
    rate = plausible_rate(KNOWN["candidate"], KNOWN["stable"], 10.0)
    exposed = 600 * 3 * (rate - 81 / 16_200)
    assert weight(odds_upper=10.0, spent=35.0, ceiling=0.9) == pytest.approx((50 - 35) / (2 * exposed))


def test_a_small_raise_is_not_worth_a_minute() -> None:
    """Less than half as much again leaves the weight alone."""
    assert weight(weight=0.3, ceiling=0.4) == 0.4  # all that is allowed is worth it
    rate = plausible_rate(KNOWN["candidate"], KNOWN["stable"], 10.0)
    tight = 2 * 0.12 * 600 * 3 * (rate - 81 / 16_200)
    assert weight(odds_upper=10.0, budget=tight) == 0.1


def test_a_budget_that_no_longer_covers_the_weight_brings_it_back_to_the_floor() -> None:
    """Spent is spent: the step's own weight, as the policy asked for."""
    assert weight(weight=0.35, spent=49.9) == 0.1
    assert weight(weight=0.35, spent=60.0) == 0.1


def test_a_candidate_that_did_better_has_no_credit() -> None:
    """Fewer failures than stable's do not add to the budget."""
    assert weight(spent=-500.0, odds_upper=10.0) == weight(spent=0.0, odds_upper=10.0)


def test_excess_is_counted_against_the_same_minute_of_stable() -> None:
    """A shared incident costs nothing; failures beyond it do; better than stable is negative."""
    assert excess_failures(Arm(requests=100, failures=30), Arm(requests=900, failures=270)) == pytest.approx(0)
    assert excess_failures(Arm(requests=100, failures=5), Arm(requests=900)) == 5
    assert excess_failures(Arm(requests=100), Arm(requests=900, failures=9)) == pytest.approx(-1)


def test_without_failures_the_candidates_own_requests_speak() -> None:
    """The comparison says nothing then, but thousands of answered requests bound the rate."""
    quiet: dict[str, Any] = {"candidate": Arm(requests=3000), "stable": Arm(requests=27_000), "odds_upper": math.inf}
    assert plausible_rate(**quiet) < 0.002
    assert weight(**quiet) == CEILING


@given(
    now=st.floats(0.01, 0.5),
    spent=st.floats(-100, 200),
    upper=st.one_of(st.just(math.inf), st.floats(0.1, 64)),
    failures=st.integers(0, 300),
    budget=st.floats(1, 500),
)
def test_a_raise_never_exposes_more_than_half_of_the_rest(
    now: float, spent: float, upper: float, failures: int, budget: float
) -> None:
    """Whatever was seen: a raised weight is covered, within the ceiling; else it stays, or falls to the floor."""
    candidate, stable = Arm(requests=2000, failures=failures), Arm(requests=18_000, failures=90)
    found = weight(weight=now, floor=0.01, spent=spent, odds_upper=upper, budget=budget, candidate=candidate)
    harm = max(plausible_rate(candidate, stable, upper) - stable.rate, 0)
    if found > now:
        assert found <= CEILING
        assert found * 600 * 3 * harm <= (budget - max(spent, 0)) / 2 + 1e-6
    else:
        assert found in (now, 0.01)
