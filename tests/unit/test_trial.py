"""What simulated rollouts came to: intervals, summaries, and when a policy is shown to fail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.domain.trial import (
    PROMOTED,
    ROLLED_BACK,
    UNDECIDED,
    Outcome,
    Scenario,
    failings,
    speaker,
    summary,
    wilson,
)

GOOD, BAD = Scenario(), Scenario(times=2.0)


def outcomes(scenario: Scenario, *verdicts: str) -> list[Outcome]:
    return [
        Outcome(scenario=scenario, seed=n, verdict=verdict, minute=float(n), reason="E = 30 ≥ 20", excess=float(n))
        for n, verdict in enumerate(verdicts)
    ]


@given(st.integers(0, 500), st.integers(0, 500))
def test_an_interval_holds_its_share_and_narrows_with_runs(hits: int, misses: int) -> None:
    """Within 0 and 1, and ten times as many runs know more."""
    found = wilson(hits, hits + misses)
    assert 0 <= found.low <= found.high <= 1
    if hits + misses:
        more = wilson(10 * hits, 10 * (hits + misses))
        assert found.low <= found.share <= found.high
        assert more.high - more.low < found.high - found.low


def test_the_interval_is_wilsons() -> None:
    """The textbook's 10 of 100."""
    found = wilson(10, 100)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0552, 0.1744)
    assert str(found) == "10.0% (5.5% to 17.4%)"


def test_a_summary_counts_verdicts_and_times_the_likely_end() -> None:
    """Promotions of a good candidate, roll-backs of a bad one."""
    good = summary(outcomes(GOOD, PROMOTED, ROLLED_BACK, PROMOTED, UNDECIDED))
    bad = summary(outcomes(BAD, PROMOTED, ROLLED_BACK, ROLLED_BACK, ROLLED_BACK))

    assert (good.promoted.hits, good.rolled_back.hits, good.undecided.hits) == (2, 1, 1)
    assert (good.median_minute, bad.median_minute, bad.p90_minute) == (1.0, 2.0, 3.0)
    assert bad.excess == 1.5
    assert bad.reasons == {"errors": 3}


def test_a_summary_is_of_one_kind_of_candidate() -> None:
    """Others cannot be added up."""
    with pytest.raises(ValueError, match="one scenario"):
        summary([*outcomes(GOOD, PROMOTED), *outcomes(BAD, PROMOTED)])


def test_a_policy_fails_when_too_many_good_candidates_are_shown_to_be_taken_back() -> None:
    """Two of twenty may be chance where 5 % may be; ten of twenty are not."""
    few, many = (summary(outcomes(GOOD, *[ROLLED_BACK] * n, *[PROMOTED] * (20 - n))) for n in (2, 10))

    assert not list(failings([few], allowed=0.05))
    assert "50.0% (29.9% to 70.1%) of the candidates that are as good were taken back" in next(
        failings([many], allowed=0.05)
    )


def test_a_policy_fails_when_too_few_bad_candidates_are_shown_to_be_caught() -> None:
    """Only with a target."""
    found = [summary(outcomes(BAD, *[ROLLED_BACK] * 5, *[PROMOTED] * 15))]

    assert not list(failings(found, allowed=0.05))
    assert "with 2 times the failures" in next(failings(found, allowed=0.05, detects=0.8))
    assert not list(failings(found, allowed=0.05, detects=0.4))


@pytest.mark.parametrize(
    ("reason", "what"),
    [
        ("alarm perch/digits/candidate-errors/3 went off: Threshold Crossed", "alarm"),
        ("roll back: 9 of 549 candidate requests failed against 20 of 4,906 on stable, E = 32 ≥ 20", "errors"),
        ("roll back: 90 of 549 candidate requests failed, where 5.00% may, E = 32 ≥ 20", "service level"),
        ("inconclusive: not decided within its deadline of 2 hours: needs 100 requests", "deadline"),
        ("roll back: 7 of 9 candidate requests took longer than stable's usual p95 of 8 ms, E = 32 ≥ 20", "latency"),
        ("roll back: 7 of 9 candidate predictions were at most 0 against 1 of 90, E = 32 ≥ 20", "predictions"),
        ("roll back: 7 of 90 candidate requests failed (7.8%, limit 5.0%) against 1 of 90 on stable", "threshold"),
    ],
)  # fmt: skip
def test_a_roll_back_is_named_by_what_spoke(reason: str, what: str) -> None:
    """In the judge's own sentences."""
    assert speaker(reason) == what
