"""Evidence that may be looked at at any time: its law by exact enumeration, its numbers against others' software."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nchypergeom_fisher

from perch.domain.hypergeometric import log_means
from perch.domain.sequential import COARSE, Comparison, Grid, Shift, Split, State, Table, combine, contrasts, enough

COMPARISON = Comparison()
SMALL = [(3, 7, 2), (5, 5, 5), (4, 9, 12), (1, 6, 3), (10, 30, 6), (8, 2, 9)]
"""Candidate requests, stable requests, hits together."""


def tables(trials: int, other: int, hits: int) -> Iterator[Table]:
    """All tables with these totals."""
    for x in range(max(0, hits - other), min(trials, hits) + 1):
        yield Table(x, trials, hits - x, other)


def chance(table: Table, odds: float) -> float:
    """Of a table given its totals, by exact integers."""
    every = {
        one.hits: math.comb(one.trials, one.hits) * math.comb(one.other_trials, one.other_hits) * odds**one.hits
        for one in tables(table.trials, table.other_trials, table.hits + table.other_hits)
    }
    return every[table.hits] / sum(every.values())


@pytest.mark.parametrize(("trials", "other", "hits"), SMALL)
def test_likelihoods_of_all_tables_add_up_to_one(trials: int, other: int, hits: int) -> None:
    """What is added to the state is f(x; θ) / f(x; 1) with an f that is a distribution for every θ."""
    for j, odds in enumerate(COMPARISON.odds):
        total = 0.0
        for table in tables(trials, other, hits):
            log_ratio = COMPARISON.update(COMPARISON.start(), table)[j]
            assert log_ratio == pytest.approx(math.log(chance(table, odds) / chance(table, 1.0)), abs=1e-9)
            total += chance(table, 1.0) * math.exp(log_ratio)
        assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("trials", "other", "hits"), SMALL)
@pytest.mark.parametrize("null", [1 / 1.5, 1.0, 1.5, 3.0])
def test_evidence_is_worth_one_at_its_null_and_no_more_beyond_it(
    trials: int, other: int, hits: int, null: float
) -> None:
    """E is 1 in expectation at the null itself and at most 1 at every odds ratio on the null's side."""
    for odds in (null, null * 0.9, null / 2, null / 10):
        expected = sum(
            chance(one, odds) * math.exp(COMPARISON.log_e_above(COMPARISON.update(COMPARISON.start(), one), null))
            for one in tables(trials, other, hits)
        )
        assert expected <= 1 + 1e-12
        assert odds != null or expected == pytest.approx(1.0, abs=1e-12)
    for odds in (null, null / 0.9, null * 2, null * 10):
        expected = sum(
            chance(one, odds) * math.exp(COMPARISON.log_e_below(COMPARISON.update(COMPARISON.start(), one), null))
            for one in tables(trials, other, hits)
        )
        assert expected <= 1 + 1e-12
        assert odds != null or expected == pytest.approx(1.0, abs=1e-12)


def test_evidence_stays_fair_after_anything_that_was_seen() -> None:
    """After every first minute, the expectation over the second is at most what was there: a supermartingale."""
    for first in tables(4, 9, 3):
        before = COMPARISON.update(COMPARISON.start(), first)
        for null, odds in ((1.0, 1.0), (1.0, 0.5), (2.0, 2.0), (2.0, 1.3)):
            after = sum(
                chance(one, odds) * math.exp(COMPARISON.log_e_above(COMPARISON.update(before, one), null))
                for one in tables(3, 8, 4)
            )
            assert after <= math.exp(COMPARISON.log_e_above(before, null)) * (1 + 1e-12)


@given(
    trials=st.integers(0, 40),
    other=st.integers(0, 40),
    hits=st.integers(0, 80),
    at=st.integers(0, len(Grid().odds) - 2),
)
@settings(max_examples=60)
def test_more_hits_always_speak_for_a_larger_odds_ratio(trials: int, other: int, hits: int, at: int) -> None:
    """The likelihood ratio of neighbouring odds ratios grows with the hits: what a one-sided null needs."""
    steps = [
        state[at + 1] - state[at]
        for one in tables(trials, other, min(hits, trials + other))
        for state in [COMPARISON.update(COMPARISON.start(), one)]
    ]
    assert steps == sorted(steps)


@given(
    trials=st.integers(1, 3000),
    other=st.integers(1, 30_000),
    part=st.floats(0, 1),
    log_odds=st.floats(-4, 4).filter(lambda one: abs(one) > 1e-6),
)
@settings(max_examples=150)
def test_the_few_terms_that_are_summed_make_the_whole_sum(
    trials: int, other: int, part: float, log_odds: float
) -> None:
    """Every d-th term times d is the sum of all of them, to nine digits, for small and large counts."""
    hits = round(part * (trials + other))
    rest = other - hits
    logs = [
        x * log_odds
        - math.lgamma(x + 1)
        - math.lgamma(trials - x + 1)
        - math.lgamma(hits - x + 1)
        - math.lgamma(rest + x + 1)
        for x in range(max(0, -rest), min(trials, hits) + 1)
    ]
    top = max(logs)
    whole = top + math.log(math.fsum(math.exp(one - top) for one in logs))
    whole += math.lgamma(trials + 1) + math.lgamma(other + 1) + math.lgamma(hits + 1) + math.lgamma(trials + rest + 1)
    whole -= math.lgamma(trials + other + 1)
    assert log_means([log_odds], trials, other, hits)[0] == pytest.approx(whole, abs=2e-9)


@pytest.mark.parametrize(
    "table", [Table(3, 60, 4, 540), Table(0, 50, 9, 400), Table(70, 100, 400, 900), Table(31, 600, 270, 5400)]
)
def test_likelihoods_are_those_that_scipy_has(table: Table) -> None:
    """SciPy's nchypergeom_fisher, an independent implementation, gives the same ratios."""
    state = COMPARISON.update(COMPARISON.start(), table)
    hits = table.hits + table.other_hits
    args = (table.trials + table.other_trials, hits, table.trials)
    for log_ratio, odds in zip(state, COMPARISON.odds, strict=True):
        theirs = nchypergeom_fisher.pmf(table.hits, *args, odds) / nchypergeom_fisher.pmf(table.hits, *args, 1.0)
        assert theirs == pytest.approx(math.exp(log_ratio), rel=1e-6)


def test_huge_counts_do_not_overflow() -> None:
    """60,000 requests, half of them hits, over a week of minutes: finite, and sure of what is plain to see."""
    state: State = COMPARISON.start()
    for _ in range(30):
        state = COMPARISON.update(state, Table(4000, 6000, 27_000, 54_000))
    assert all(math.isfinite(one) for one in state)
    assert COMPARISON.log_e_above(state, 1.5) > 1000
    assert COMPARISON.interval(state, 0.05) == (1.5, 2.5)
    assert COMPARISON.likeliest(state) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("table", [Table(0, 0, 3, 10), Table(3, 10, 0, 0), Table(0, 5, 0, 9), Table(5, 5, 9, 9)])
def test_a_minute_with_one_possible_outcome_teaches_nothing(table: Table) -> None:
    """No requests on one arm, no failures at all, or nothing but failures: the state stays as it was."""
    before = COMPARISON.update(COMPARISON.start(), Table(1, 4, 1, 9))
    assert COMPARISON.update(before, table) == before


@pytest.mark.parametrize("table", [Table(3, 2, 0, 5), Table(0, 5, 6, 5), Table(-1, 5, 0, 5), Table(0, -1, 0, 5)])
def test_counts_that_cannot_be_are_refused(table: Table) -> None:
    """More hits than trials, or fewer than none, is an error of the caller and no evidence."""
    with pytest.raises(ValueError, match="hits"):
        COMPARISON.update(COMPARISON.start(), table)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(9, 60), st.integers(0, 9), st.integers(9, 60)), max_size=6))
@settings(max_examples=60)
def test_naming_the_arms_the_other_way_round_changes_nothing(minutes: list[tuple[int, int, int, int]]) -> None:
    """Evidence above a null is evidence below its inverse with the arms swapped; intervals are turned over."""
    ours, theirs = COMPARISON.start(), COMPARISON.start()
    for x, n1, y, n0 in minutes:
        ours = COMPARISON.update(ours, Table(x, n1, y, n0))
        theirs = COMPARISON.update(theirs, Table(y, n0, x, n1))
    for null in (1.0, 1.5, 2.0):
        assert COMPARISON.log_e_above(ours, null) == pytest.approx(COMPARISON.log_e_below(theirs, 1 / null), abs=1e-9)
    low, high = COMPARISON.interval(ours, 0.2)
    other_low, other_high = COMPARISON.interval(theirs, 0.2)
    assert low == pytest.approx(1 / other_high if other_high else math.inf)
    assert high == pytest.approx(1 / other_low if other_low else math.inf)
    assert COMPARISON.likeliest(ours) == pytest.approx(1 / COMPARISON.likeliest(theirs))


def test_two_minutes_in_either_order_say_the_same() -> None:
    """The state adds up, so late minutes may be counted in any order."""
    one, two = Table(2, 50, 3, 500), Table(0, 40, 6, 420)
    forth = COMPARISON.update(COMPARISON.update(COMPARISON.start(), one), two)
    back = COMPARISON.update(COMPARISON.update(COMPARISON.start(), two), one)
    assert forth == pytest.approx(back)


def test_before_anything_was_seen_nothing_is_shown() -> None:
    """E is 1, the interval is everything, the likeliest odds ratio is 1."""
    state = COMPARISON.start()
    assert [COMPARISON.log_e_above(state, one) for one in COMPARISON.odds] == pytest.approx([0.0] * len(state))
    assert [COMPARISON.log_e_below(state, one) for one in COMPARISON.odds] == pytest.approx([0.0] * len(state))
    assert COMPARISON.interval(state, 0.05) == (0.0, math.inf)
    assert COMPARISON.likeliest(state) == 1.0


def test_a_margin_can_be_added_to_the_grid_without_changing_the_bets() -> None:
    """`including` makes a null of 1.2 possible; what is shown of other nulls stays the same."""
    wider = COMPARISON.including(1.2, 2.0)
    assert len(wider.odds) == len(COMPARISON.odds) + 2  # 1.2 and its inverse; 2 was there
    table = Table(9, 300, 20, 2700)
    narrow_state = COMPARISON.update(COMPARISON.start(), table)
    wide_state = wider.update(wider.start(), table)
    assert wider.log_e_above(wide_state, 1.0) == pytest.approx(COMPARISON.log_e_above(narrow_state, 1.0))
    assert wider.log_e_above(wide_state, 1.2) != 0.0
    with pytest.raises(ValueError, match="not on the grid"):
        COMPARISON.log_e_above(narrow_state, 1.2)


@pytest.mark.parametrize(
    ("odds", "weights"),
    [((1.0, 2.0), (1.0, 1.0)), ((2.0, 1.0, 0.5), (1, 1, 1)), ((0.5, 2.0), (1.0, 1.0)), ((0.5, 1.0, 2.0), (1.0, 1.0))],
)
def test_a_grid_that_is_not_ascending_and_symmetric_is_refused(
    odds: tuple[float, ...], weights: tuple[float, ...]
) -> None:
    """Every odds ratio has its inverse, 1 is there, and each has one weight."""
    with pytest.raises(ValueError, match="odds ratio"):
        Comparison(odds, weights)


# Prediction shift.

ANSWERS = (4, 3, 5)
"""Answers a bin, of both arms."""


def test_a_shift_of_a_set_of_bins_is_judged_by_its_merged_table() -> None:
    """The multivariate likelihood ratio, by enumeration of all ways to deal out the answers, is the merged table's."""
    trials, odds = 5, 3.0
    comparison = Comparison((1 / 3, 1.0, 3.0), (0.0, 1.0, 1.0))
    deals = [one for one in product(*(range(k + 1) for k in ANSWERS)) if sum(one) == trials]
    ways = {one: math.prod(math.comb(k, x) for k, x in zip(ANSWERS, one, strict=True)) for one in deals}
    for tilted in contrasts(len(ANSWERS)):
        untilted = sum(ways.values())
        weighed = sum(way * odds ** sum(one[b] for b in tilted) for one, way in ways.items())
        shift = Shift((tilted,), comparison=comparison)
        for one in deals:
            expected = odds ** sum(one[b] for b in tilted) * untilted / weighed
            others = [k - x for k, x in zip(ANSWERS, one, strict=True)]
            assert math.exp(shift.update(shift.start(), one, others)[0][2]) == pytest.approx(expected)


@pytest.mark.parametrize("margin", [1.0, 1.5])
def test_shift_evidence_is_worth_at_most_one_while_nothing_shifts(margin: float) -> None:
    """Over all ways to deal out the answers, E is 1 in expectation with margin 1 and at most that with a wider one."""
    shift = Shift(contrasts(len(ANSWERS)), margin=margin)
    trials, expected, whole = 5, 0.0, 0
    for one in product(*(range(k + 1) for k in ANSWERS)):
        if sum(one) == trials:
            ways = math.prod(math.comb(k, x) for k, x in zip(ANSWERS, one, strict=True))
            others = [k - x for k, x in zip(ANSWERS, one, strict=True)]
            expected += ways * math.exp(shift.log_e(shift.update(shift.start(), one, others)))
            whole += ways
    assert expected / whole <= 1 + 1e-12
    assert margin > 1 or expected / whole == pytest.approx(1.0)


def test_contrasts_ask_each_question_once() -> None:
    """Single bins and lower parts of the scale, without complements; nothing to ask of fewer than two bins."""
    assert contrasts(0) == contrasts(1) == ()
    assert contrasts(2) == ((0,),)
    assert contrasts(3) == ((0,), (1,), (2,))
    assert contrasts(4) == ((0,), (1,), (2,), (3,), (0, 1))
    for bins in range(2, 12):
        found = [frozenset(one) for one in contrasts(bins)]
        assert len(found) == len(set(found))
        assert not any(frozenset(range(bins)) - one in found for one in found)


def test_a_shift_names_the_bins_that_moved() -> None:
    """Of ten classes one becomes three times as likely: the evidence is beyond doubt, and largest for that class."""
    shift = Shift(contrasts(10), margin=1.25)
    states = shift.start()
    for _ in range(20):
        states = shift.update(states, [15, *[5] * 9], [50] * 10)
    assert enough(shift.log_e(states), 0.001)
    assert shift.sets[max(range(len(shift.sets)), key=lambda j: shift.log_es(states)[j])] == (0,)
    assert shift.comparison is COARSE


def test_shift_refuses_arms_with_different_bins() -> None:
    """Counts that were not made with the same edges cannot be compared."""
    shift = Shift(contrasts(3))
    with pytest.raises(ValueError, match="3 bins against 2"):
        shift.update(shift.start(), [1, 2, 3], [1, 2])


# The share of requests.


def test_split_evidence_is_worth_one_while_the_weight_is_kept() -> None:
    """Over all ways that twelve requests may go, at two different weights in turn, E is 1 in expectation."""
    split = Split()
    expected = 0.0
    for one, two in product(range(13), range(7)):
        chances = math.comb(12, one) * 0.1**one * 0.9 ** (12 - one) * math.comb(6, two) * 0.3**two * 0.7 ** (6 - two)
        state = split.update(split.update(split.start(), one, 12 - one, 0.1), two, 6 - two, 0.3)
        expected += chances * math.exp(split.log_e_outside(state, 1.0))
    assert expected == pytest.approx(1.0)


def test_split_finds_pinned_callers_and_stays_calm_about_chance() -> None:
    """A fifth of the requests at weight 0.1 is found within minutes; 0.1 give or take chance is not."""
    split = Split()
    pinned, fine = split.start(), split.start()
    for minute in range(10):
        pinned = split.update(pinned, 20, 80, 0.1)
        fine = split.update(fine, 8 + minute % 5, 90, 0.1)
    assert enough(split.log_e_outside(pinned, 1.25), 0.01)
    assert split.likeliest(pinned) == pytest.approx(0.2 / 0.8 / (0.1 / 0.9), rel=0.05)
    assert split.log_e_outside(fine, 1.25) < 0


@pytest.mark.parametrize(("requests", "other", "weight"), [(-1, 5, 0.1), (1, -5, 0.1), (1, 5, 0.0), (1, 5, 1.0)])
def test_split_refuses_counts_and_weights_that_cannot_be(requests: int, other: int, weight: float) -> None:
    """A weight of 0 or 1 leaves nothing to chance."""
    with pytest.raises(ValueError, match="weight"):
        Split().update(Split().start(), requests, other, weight)


# Guards share alpha.


@given(st.dictionaries(st.sampled_from("abcd"), st.tuples(st.floats(-500, 500), st.floats(0.01, 5)), min_size=1))
def test_combined_evidence_is_the_weighted_mean(guards: dict[str, tuple[float, float]]) -> None:
    """Never above the largest, never below the largest times its weight."""
    log_es = {name: log_e for name, (log_e, _) in guards.items()}
    weights = {name: weight for name, (_, weight) in guards.items()} | {"absent": 7.0}
    whole = sum(weights[name] for name in log_es)
    found = combine(log_es, weights)
    assert found <= max(log_es.values()) + 1e-9
    assert all(found >= log_e + math.log(weights[name] / whole) - 1e-9 for name, log_e in log_es.items())


def test_a_guard_without_weight_is_refused() -> None:
    """It would be watched and never heard."""
    with pytest.raises(ValueError, match="positive weight"):
        combine({"errors": 1.0, "latency": 2.0}, {"errors": 1.0})
    with pytest.raises(ValueError, match="positive weight"):
        combine({}, {"errors": 1.0})
