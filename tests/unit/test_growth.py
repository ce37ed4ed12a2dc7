"""How fast evidence grows, in closed form: against simulated minutes of the real tests, and by its own laws."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.domain import growth
from perch.domain.growth import Arms, Walk, above, below, chance, requests_until, unfailing, within
from perch.domain.sequential import Comparison, Share, Table, enough

ALPHA = 0.05
TEST = Comparison()
rates = st.floats(0.0005, 0.2)
weights = st.floats(0.02, 0.9)


def minutes(
    per_minute: float, weight: float, candidate: float, stable: float, looks: int, random: np.random.Generator
) -> Iterator[Table]:
    """One rollout's minutes, as Poisson traffic brings them."""
    for _ in range(looks):
        requests = int(random.poisson(per_minute))
        ours = int(random.binomial(requests, weight))
        other = requests - ours
        yield Table(int(random.binomial(ours, candidate)), ours, int(random.binomial(other, stable)), other)


def looks_until(tables: Iterator[Table], won: object) -> int:
    state = TEST.start()
    for look, table in enumerate(tables, start=1):
        state = TEST.update(state, table)
        if won(state):  # type: ignore[operator]
            return look
    return 0


CASES = [
    (600, 0.1, 0.005, 0.01, 60),
    (600, 0.5, 0.005, 0.01, 60),
    (600, 0.1, 0.005, 0.02, 30),
    (60, 0.1, 0.005, 0.05, 30),
    (60, 0.25, 0.2, 0.4, 30),
    (6000, 0.05, 0.001, 0.003, 20),
]


@pytest.mark.parametrize(("per_minute", "weight", "stable", "candidate", "looks"), CASES)
def test_the_chance_and_the_time_to_detect_are_those_of_simulated_minutes(
    per_minute: float, weight: float, stable: float, candidate: float, looks: int
) -> None:
    """Within 6 percentage points and 4 standard errors; the median within a fifth and two minutes."""
    runs, random = 150, np.random.default_rng(20)
    seen = [
        looks_until(
            minutes(per_minute, weight, candidate, stable, looks, random),
            lambda state: enough(TEST.log_e_above(state, 1.0), ALPHA),
        )
        for _ in range(runs)
    ]
    caught = sorted(look for look in seen if look)
    bets = above(TEST, Arms(weight, candidate, stable), alpha=ALPHA)

    def found(requests: float) -> float:
        return chance([(bets, requests)])

    expected = found(per_minute * looks)
    assert abs(len(caught) / runs - expected) <= 0.06 + 4 * math.sqrt(expected * (1 - expected) / runs + 1e-9)
    half = requests_until(found, len(caught) / runs / 2) / per_minute
    assert abs(caught[len(caught) // 2] - half) <= 2 + half / 5


@pytest.mark.parametrize(("weight", "margin", "looks"), [(0.1, 2.0, 60), (0.5, 2.0, 30), (0.1, 3.0, 40)])
def test_the_chance_to_show_no_worse_is_that_of_simulated_minutes(weight: float, margin: float, looks: int) -> None:
    """A candidate as good as stable, 600 requests a minute of which 0.5 % fail."""
    runs, random = 150, np.random.default_rng(21)
    seen = [
        looks_until(
            minutes(600, weight, 0.005, 0.005, looks, random),
            lambda state: enough(TEST.log_e_below(state, margin), ALPHA),
        )
        for _ in range(runs)
    ]
    bets = below(TEST, margin, Arms(weight, 0.005, 0.005), alpha=ALPHA)
    expected = chance([(bets, 600 * looks)])
    shown = sum(1 for look in seen if look) / runs
    assert abs(shown - expected) <= 0.06 + 4 * math.sqrt(expected * (1 - expected) / runs + 1e-9)


def test_evidence_of_stages_with_different_weights_adds_up() -> None:
    """Two halves of one stage are that stage; and an hour at 10 % helps what comes after it at 50 %."""
    low, high = (above(TEST, Arms(weight, 0.01, 0.005), alpha=ALPHA) for weight in (0.1, 0.5))
    assert chance([(low, 500.0), (low, 500.0)]) == pytest.approx(chance([(low, 1000.0)]))
    assert chance([(low, 36_000.0), (high, 3_000.0)]) > chance([(high, 3_000.0)])


@given(rates, rates, weights, st.floats(1.0, 1e7), st.floats(1.0, 100.0))
def test_more_requests_never_mean_less_chance(
    candidate: float, stable: float, weight: float, requests: float, times: float
) -> None:
    """Of detection, and of proof."""
    arms = Arms(weight, candidate, stable)
    for bets in (above(TEST, arms, alpha=ALPHA), below(TEST, 2.0, arms, alpha=ALPHA)):
        assert chance([(bets, requests * times)]) >= chance([(bets, requests)]) - 1e-9


@given(rates, weights)
def test_a_candidate_as_good_as_stable_is_taken_back_with_a_chance_of_alpha_at_most(rate: float, weight: float) -> None:
    """However long it goes on: the closed form keeps the promise of the test that it describes."""
    assert chance([(above(TEST, Arms(weight, rate, rate), alpha=ALPHA), 1e12)]) <= ALPHA


def test_one_revision_alone_teaches_nothing() -> None:
    """Without another one there is nothing to compare with, and without failures nothing to compare."""
    for arms in (Arms(1.0, 0.5, 0.1), Arms(0.0, 0.5, 0.1), Arms(0.5, 0.0, 0.0)):
        assert chance([(above(TEST, arms, alpha=ALPHA), 1e12)]) == 0


@given(st.floats(0.002, 0.3), st.floats(0.01, 0.2))
def test_the_requests_without_failure_are_those_that_the_test_asks_for(limit: float, alpha: float) -> None:
    """One request fewer is not enough."""
    share = Share(limit)
    needed = math.ceil(unfailing(share, alpha) - 1e-6)
    assert enough(share.log_e_within(0, needed), alpha)
    assert not enough(share.log_e_within(0, needed - 1), alpha)


def test_a_rate_within_its_level_is_shown_as_often_as_simulated() -> None:
    """Of 400 candidate requests 1 % fail, where 5 % may."""
    share, random, runs, requests = Share(0.05), np.random.default_rng(5), 200, 400
    won = 0
    for _ in range(runs):
        hits = np.cumsum(random.random(requests) < 0.01).tolist()
        won += any(enough(share.log_e_within(seen, trial), ALPHA) for trial, seen in enumerate(hits, start=1))
    expected = chance([(within(share, Arms(1.0, 0.01, 0.01), alpha=ALPHA), requests)])
    assert expected == pytest.approx(won / runs, abs=0.08)


@given(st.floats(0.01, 3000.0), st.integers(1, 3000))
def test_poisson_chances_are_chances_and_fall_with_the_count(mean: float, count: int) -> None:
    """Also across the change to the normal law, but for its inexactness."""
    here, further = (growth.poisson_at_least(n, mean) for n in (count, count + 1))
    assert 0 <= further <= here + 0.02 <= 1.02


@given(st.floats(0.0, 2000.0))
def test_the_range_of_a_poisson_count_holds_its_mean(mean: float) -> None:
    """And 95 % of the counts."""
    low, high = growth.poisson_range(mean)
    assert low <= mean <= high + 1
    if mean > 0:
        assert growth.poisson_at_least(low, mean) - growth.poisson_at_least(high + 1, mean) >= 0.94


def test_a_walk_that_stands_still_reaches_nothing() -> None:
    """And one without chance in it what its mean says."""
    assert Walk().reached(1.0) == 0
    assert Walk(2.0, 0.0).reached(1.0) == 1
