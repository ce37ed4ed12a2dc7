"""Pairs of answers: when they agree, what sums of them tell, and that a sum does not depend on how it was cut."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.domain.agreement import Answer, Difference, Histogram, Mark, Replayed, agree, compare, ready
from perch.domain.codec import dump, load

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


def answer(*predictions, status=200, **fields) -> Answer:
    return Answer(status=status, predictions=predictions, **fields)


@pytest.mark.parametrize(
    ("stable", "candidate", "what"),
    [
        (answer(1, "b", True), answer(1, "b", True), None),
        (answer(1), answer(2), "row 1: 2, stable 1"),
        (answer(1, 2, 3), answer(1, 5, 6), "row 2: 5, stable 2; 2 of 3 rows differ"),
        (answer(1.0), answer(1.0009), None),
        (answer(1.0), answer(1.002), "row 1: 1.002, stable 1"),
        (answer(10_000.0), answer(10_009.0), None),
        (answer(10_000), answer(10_009), "row 1: 10009, stable 10000"),
        (answer(0.0), answer(1e-4), None),
        (answer(2), answer(2.0005), None),
        (answer(True), answer(1.0), None),
        (answer([1.0, 2.0]), answer([1.0, 2.0001]), None),
        (answer([1.0, 2.0]), answer([1.0, 2.1]), "row 1: [1.0, 2.1], stable [1.0, 2.0]"),
        (answer(None), answer(None), None),
        (answer(1, 2), answer(1), "answered 1 predictions, stable 2"),
        (
            answer(1),
            answer(status=400, error="row 1 has 64 features"),
            "answered 400 row 1 has 64 features, stable 200",
        ),
        (answer(status=413), answer(status=413), None),
        (answer(1, probabilities=((0.9, 0.1),)), answer(1, probabilities=((0.6, 0.4),)), None),
    ],
)
def test_labels_agree_exactly_and_numbers_within_a_tolerance(stable, candidate, what):
    """The tolerance is absolute below 1 and relative above; the words name the first row that differs."""
    assert agree(stable, candidate, 1e-3) == what


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_agreement_does_not_depend_on_who_is_asked_first(a, b):
    """Two numbers agree or they do not, whichever of them is stable's."""
    assert (agree(answer(a), answer(b), 1e-3) is None) == (agree(answer(b), answer(a), 1e-3) is None)


def test_a_pair_is_counted_by_who_failed():
    """Agreed, differed, one alone, both; what stable refuses is skipped, and a failure of the candidate is shown."""
    good, other, down = answer(1, latency_ms=2.0), answer(2, latency_ms=3.0), answer(status=502, error="timed out")
    pairs = [
        compare("a", good, good, tolerance=0),
        compare("b", good, other, tolerance=0),
        compare("c", good, down, tolerance=0),
        compare("d", down, good, tolerance=0),
        compare("e", down, down, tolerance=0),
        compare("f", answer(status=400), other, tolerance=0),
    ]
    found = sum(pairs, Replayed())

    assert (found.pairs, found.agreed, found.differed) == (5, 1, 1)
    assert (found.candidate_failed_only, found.stable_failed_only, found.both_failed, found.skipped) == (1, 1, 1, 1)
    assert found.compared == 3
    assert found.agreement == pytest.approx(1 / 3)
    assert found.stable_ms.count == found.candidate_ms.count == 2
    assert found.differences == (
        Difference(request_id="b", what="row 1: 2, stable 1", stable="1", candidate="2"),
        Difference(request_id="c", what="answered 502 timed out, stable 200", stable="1", candidate="502 timed out"),
    )
    assert found.summary() == (
        "1 of 3 replayed answers agree (33.3%); the candidate alone failed on 1, stable alone on 1, both on 1; "
        "p99 3 ms against 2.03 ms"
    )


def test_the_largest_change_of_a_probability_is_measured_and_held_against_nobody():
    """It is counted of pairs that agree, too; rows of other lengths give none."""
    before, after = answer(1, probabilities=((0.9, 0.1),)), answer(1, probabilities=((0.7, 0.3),))
    found = compare("a", before, after, tolerance=0) + compare("b", before, answer(1), tolerance=0)

    assert found.agreed == 2
    assert found.moved.count == 1
    assert found.moved.quantile(1) == pytest.approx(0.2, rel=0.026)


@given(
    st.lists(st.floats(min_value=1e-3, max_value=1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 1])
)
def test_a_quantile_of_a_histogram_is_within_a_bin_of_the_true_one(values, q):
    """Half a bin is 2.5 %."""
    found = sum(map(Histogram.of, values), Histogram())
    exact = sorted(values)[math.ceil(q * len(values) - 1e-9) - 1]

    assert found.count == len(values)
    assert found.quantile(q) == pytest.approx(exact, rel=0.026)


def test_nothing_counted_has_no_quantile():
    """And zero is a number like others."""
    assert Histogram().quantile(0.5) is None
    assert Histogram.of(0.0).quantile(0.5) == pytest.approx(1e-4, rel=0.05)


answers = st.builds(
    answer,
    st.integers(0, 2),
    status=st.sampled_from([200, 200, 200, 400, 502]),
    latency_ms=st.none() | st.floats(0.1, 100),
)
marks = st.none() | st.builds(lambda s: Mark(at=T0 + timedelta(seconds=s), seen=("x",)), st.integers(0, 9))
sums = st.builds(
    lambda a, b, mark, sent, end: compare("r", a, b, tolerance=0) + Replayed(forward=mark, sent=sent, exhausted=end),
    answers, answers, marks, st.integers(0, 3), st.booleans(),
)  # fmt: skip


@given(st.lists(sums, max_size=60), st.data())
def test_a_sum_does_not_depend_on_how_it_was_cut_into_runs(parts, data):
    """Runs end wherever the budget does; the stored sum is the same, and nothing alone is its neutral element."""
    whole = sum(parts, Replayed())
    cut = data.draw(st.integers(0, len(parts)))

    assert sum(parts[:cut], Replayed()) + sum(parts[cut:], Replayed()) == whole
    assert Replayed() + whole == whole == whole + Replayed()
    assert len(whole.differences) <= 20
    assert whole.agreed + whole.differed + whole.candidate_failed_only == whole.compared


@given(st.lists(sums, max_size=40))
def test_a_sum_comes_back_from_the_registry_as_it_went(parts):
    """Histograms, marks and differences included."""
    whole = sum(parts, Replayed())
    assert load(Replayed, dump(whole)) == whole


def test_failures_of_the_candidate_alone_are_evidence_and_of_stable_alone_are_none():
    """Ten to none is more than enough at 5 %; ten to ten and none to ten are not."""
    enough = math.log(20)

    assert Replayed().log_e_worse() == 0
    assert Replayed(pairs=10, candidate_failed_only=10).log_e_worse() > enough
    assert Replayed(pairs=20, candidate_failed_only=10, stable_failed_only=10).log_e_worse() < 0
    assert Replayed(pairs=10, stable_failed_only=10).log_e_worse() < 0


def test_a_candidate_that_is_no_worse_is_seldom_accused():
    """Exactly: the chance that the evidence ever reaches 20 in 60 looks, when either fails as often, is below 5 %."""
    enough, reached = math.log(20), 0.0
    alive = {0: 1.0}  # failures of the candidate alone: probability, none of them accused yet
    for looks in range(1, 61):
        grown: dict[int, float] = {}
        for x, chance in alive.items():
            for now in (x, x + 1):
                found = Replayed(pairs=looks, candidate_failed_only=now, stable_failed_only=looks - now)
                if found.log_e_worse() >= enough:
                    reached += chance / 2
                else:
                    grown[now] = grown.get(now, 0.0) + chance / 2
        alive = grown

    assert 0.005 < reached < 0.05


def test_readiness_needs_pairs_before_it_says_anything():
    """None with too few, then yes or no; the reason has the numbers."""
    some = Replayed(pairs=9, agreed=9)
    assert ready(some, pairs_needed=10, agreement=0.9)[0] is None
    assert ready(Replayed(pairs=9, stable_failed_only=9), pairs_needed=1, agreement=0.9)[0] is None
    assert ready(Replayed(), pairs_needed=0, agreement=0.0) == (
        None, "needs 1 compared answers, has 0; no request was replayed yet",
    )  # fmt: skip
    none_left = ready(Replayed(pairs=9, agreed=9, exhausted=True), pairs_needed=10, agreement=0.9)[1]
    assert none_left.startswith("needs 10 compared answers, has 9, and there are no more to replay; 9 of 9 replayed")
    assert ready(Replayed(pairs=10, agreed=9), pairs_needed=10, agreement=0.9)[0] is True
    no, why = ready(Replayed(pairs=10, agreed=8, candidate_failed_only=1), pairs_needed=10, agreement=0.9)
    assert no is False
    assert why == (
        "answers agree less than the 90.0% that are asked for: 8 of 10 replayed answers agree (80.0%); "
        "the candidate alone failed on 1, stable alone on 0"
    )
