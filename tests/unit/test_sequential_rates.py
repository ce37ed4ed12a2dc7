"""Rates against limits, bounds that hold at all times, and Ville's inequality on made-up traffic with fixed seeds."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st

from perch.domain.sequential import Comparison, Share, Table, combine, enough, rate_upper

LIMIT = 0.3


@pytest.mark.parametrize("rate", [0.3, 0.35, 0.6, 0.99])
def test_within_is_worth_at_most_one_while_the_rate_is_not(rate: float) -> None:
    """Over all outcomes of nine requests, E against "at least the limit" is 1 at the limit and less above it."""
    expected = sum(
        math.comb(9, hits) * rate**hits * (1 - rate) ** (9 - hits) * math.exp(Share(LIMIT).log_e_within(hits, 9))
        for hits in range(10)
    )
    assert expected <= 1 + 1e-12
    assert rate != LIMIT or expected == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [0.3, 0.2, 0.05, 0.0])
def test_beyond_is_worth_at_most_one_while_the_rate_is_not(rate: float) -> None:
    """Over all outcomes of nine requests, E against "at most the limit" is 1 at the limit and less below it."""
    expected = sum(
        math.comb(9, hits) * rate**hits * (1 - rate) ** (9 - hits) * math.exp(Share(LIMIT).log_e_beyond(hits, 9))
        for hits in range(10)
    )
    assert expected <= 1 + 1e-12
    assert rate != LIMIT or expected == pytest.approx(1.0)


@pytest.mark.parametrize(("limit", "alpha", "requests"), [(0.01, 0.05, 332), (0.01, 0.01, 509), (0.005, 0.05, 665)])
def test_so_many_requests_without_a_failure_show_a_rate_below_the_limit(
    limit: float, alpha: float, requests: int
) -> None:
    """332 for "at most 1 %" at 95 %; one failure among them takes the proof away."""
    share = Share(limit)
    assert enough(share.log_e_within(0, requests), alpha)
    assert not enough(share.log_e_within(0, requests * 9 // 10), alpha)
    assert not enough(share.log_e_within(1, requests), alpha)


@given(trials=st.integers(0, 10**6), part=st.floats(0, 1))
def test_evidence_on_a_rate_is_finite_or_hopeless_but_never_nan(trials: int, part: float) -> None:
    """Whatever was counted; and it is never shown to be within and beyond the limit at once."""
    hits = round(trials * part)
    within, beyond = Share(0.01).log_e_within(hits, trials), Share(0.01).log_e_beyond(hits, trials)
    assert not math.isnan(within + beyond)
    assert min(within, beyond) < math.log(20)


@pytest.mark.parametrize("limit", [0.0, 1.0, -0.1, 1.5])
def test_a_limit_that_is_no_rate_is_refused(limit: float) -> None:
    """Nothing can be shown of 0 % or 100 %."""
    with pytest.raises(ValueError, match="limit"):
        Share(limit)


def test_a_bet_on_the_wrong_side_of_the_limit_is_refused() -> None:
    """It would make evidence of what the null allows."""
    with pytest.raises(ValueError, match="below"):
        Share(0.1, within=((1.2, 1.0),))
    with pytest.raises(ValueError, match="above"):
        Share(0.1, beyond=((0.9, 1.0),))


def test_more_hits_than_trials_are_refused() -> None:
    """An error of the caller is no evidence."""
    with pytest.raises(ValueError, match="3 hits of 2"):
        Share(0.1).log_e_within(3, 2)


def test_bets_on_many_rates_are_the_beta_binomial_mixture_that_ville_has() -> None:
    """With even bets on all rates the mean of both sides is the Bayes factor of a uniform prior."""
    steps, limit, hits, trials = 4000, 0.2, 9, 60
    rates = [(i + 0.5) / steps for i in range(steps)]
    share = Share(
        limit,
        within=tuple((rate / limit, 1 / steps) for rate in rates if rate < limit),
        beyond=tuple((rate / (1 - rate) / (limit / (1 - limit)), 1 / steps) for rate in rates if rate > limit),
    )
    ours = math.exp(share.log_e_within(hits, trials)) * limit + math.exp(share.log_e_beyond(hits, trials)) * (1 - limit)
    theirs = ville.BernoulliTest(limit).fit(np.array([1] * hits + [0] * (trials - hits))).e_values_[-1]
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_combined_evidence_is_what_ville_makes_of_it() -> None:
    """The weighted mean of E values, computed by another implementation."""
    log_es, weights = {"errors": 2.5, "latency": -1.0, "shift": 0.3}, {"errors": 6.0, "latency": 2.0, "shift": 2.0}
    theirs = ville.evalues.combine([math.exp(one) for one in log_es.values()], weights=list(weights.values()))
    assert combine(log_es, weights) == pytest.approx(math.log(theirs))


def test_the_upper_bound_of_a_rate_comes_down_as_requests_go_well() -> None:
    """1 at first; never rises while nothing fails; above what was seen."""
    bounds = [rate_upper(0, trials, 0.05) for trials in (0, 10, 100, 1000, 10_000)]
    assert bounds[0] == 1.0
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 0.001
    assert 0.05 < rate_upper(50, 1000, 0.05) <= 0.1


def test_looking_every_minute_takes_back_a_good_candidate_at_most_as_often_as_promised() -> None:
    """Ville: of 300 good rollouts watched for 40 minutes at alpha 20 %, significantly fewer than 20 % + 3 sigma end."""
    source = random.Random(20)  # noqa: S311 - made-up traffic
    comparison, alarms, runs, alpha = Comparison(), 0, 300, 0.2
    for _ in range(runs):
        state = comparison.start()
        for minute in range(40):
            rate, trials = (0.05 if minute % 10 else 0.3), 20 + 10 * (minute % 3)  # incidents, and changing weights
            table = Table(_hits(source, trials, rate), trials, _hits(source, 80, rate), 80)
            state = comparison.update(state, table)
            if enough(comparison.log_e_above(state, 1.0), alpha):
                alarms += 1
                break
    assert alarms / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert alarms  # the test can see: with alpha at 20 % some must end


def test_the_interval_holds_the_truth_at_all_times_at_once() -> None:
    """Of 150 rollouts with odds ratio 2.2, at most 10 % + 3 sigma ever leave it out of their 90 % interval."""
    source = random.Random(3)  # noqa: S311 - made-up traffic
    comparison, missed, runs, alpha, narrow = Comparison(), 0, 150, 0.1, 0
    for _ in range(runs):
        state = comparison.start()
        for _ in range(30):
            table = Table(_hits(source, 60, 0.2), 60, _hits(source, 90, 0.1020408), 90)
            state = comparison.update(state, table)
            low, high = comparison.interval(state, alpha)
            if not low <= 2.2 <= high:
                missed += 1
                break
        narrow += low >= 1.25 and high <= 4
    assert missed / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert narrow > runs / 2  # and it says something


def _hits(source: random.Random, trials: int, rate: float) -> int:
    return sum(source.random() < rate for _ in range(trials))
