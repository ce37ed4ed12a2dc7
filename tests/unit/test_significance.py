"""Significance and the bandit: no more false claims than alpha at any look, and true differences are found."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.domain.bandit import Arm, moved, probable_best, shares_of
from perch.domain.experiment import PARTS, parts_of
from perch.domain.ramp import ramp, whole
from perch.domain.significance import BETS, MORE, Tally, findings, spelt, tally_of
from tests.unit.test_experiment import CHAMPION, experiment


def split_at(**parts):
    """The split of an experiment with these challengers."""
    return experiment(*parts, segments=ramp(whole(CHAMPION), CHAMPION, parts)).split


def users_of(split):
    """For each variant, some user of it."""
    found: dict[str, str] = {}
    numbers = itertools.count()
    while len(found) < len(split.names):
        user = str(next(numbers))
        found.setdefault(split.variant_of(user), user)
    return found


def e_of(tally, i=0):
    capital = tally.versus[i].capital
    return sum(math.exp(log) for log in capital) / len(capital)


# -- validity ---------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, PARTS - 1), st.floats(0, 1), st.sampled_from(range(len(BETS))),
    st.floats(0.2, 5),
)  # fmt: skip
def test_each_bet_is_fair_when_there_is_no_difference(parts, reward, bet, ratio):
    """Its mean factor is 1; and at most 1 when it bets on more (less) and the truth is less (more)."""
    split = split_at(challenger=parts)
    users = users_of(split)
    w = parts / PARTS
    own = math.exp(tally_of(split, users["challenger"], reward).versus[0].capital[bet])
    other = math.exp(tally_of(split, users[CHAMPION], reward).versus[0].capital[bet])
    truly = min(ratio, 1.0) if bet < len(MORE) else max(ratio, 1.0)
    q = truly * w / (truly * w + 1 - w)

    assert own > 0
    assert other > 0
    assert w * own + (1 - w) * other == pytest.approx(1, abs=1e-9)
    assert q * own + (1 - q) * other <= 1 + 1e-9


@pytest.mark.parametrize("parts", [1_000, 5_000])
def test_all_sequences_of_users_together_are_worth_one(parts):
    """Enumerated: over every order in which twelve users can convert, E has mean 1, and reaches 4 in a quarter."""
    split = split_at(challenger=parts)
    users = users_of(split)
    each = {arm: tally_of(split, user, 1.0) for arm, user in users.items()}
    w, mean, ever = parts / PARTS, 0.0, 0.0
    for order in itertools.product(("challenger", CHAMPION), repeat=12):
        chance, tally, highest = 1.0, Tally.of(2), 0.0
        for arm in order:
            chance *= w if arm == "challenger" else 1 - w
            tally += each[arm]
            highest = max(highest, e_of(tally))
        mean += chance * e_of(tally)
        ever += chance * (highest >= 4)

    assert mean == pytest.approx(1)
    assert ever <= 1 / 4


def simulate(seed, *, lift, users, ramps=((0, {"a": 1_000, "b": 3_000}),), alpha=0.05, fractional=False):
    """Let users convert one after another, looking after each; return the first claims by challenger.

    A user of `a` converts `1 + lift` times as often as the others.
    """
    chance, claims, tally = random.Random(seed), {}, Tally.of(3)  # noqa: S311 - no secret
    known = experiment("a", "b", alpha=alpha)
    shares, cache = dict(ramps), {}
    for n in range(users):
        if n in shares:
            known = experiment("a", "b", alpha=alpha, segments=ramp(known.segments, CHAMPION, shares[n]))
            split, cache = known.split, {}
            arms = users_of(split)
            weights = [parts_of(split.segments, v) * (1 + lift * (v == "a")) for v in split.names]
        arm = chance.choices(split.names, weights)[0]
        reward = round(chance.random(), 1) if fractional else 1.0
        if (arm, reward) not in cache:
            cache[arm, reward] = tally_of(split, arms[arm], reward)
        tally += cache[arm, reward]
        # Cheap first look: a claim needs an E of 40.
        if any(max(v.capital) > math.log(30) for v in tally.versus):
            for finding in findings(known, tally):
                if finding.decision != "undecided":
                    claims.setdefault(finding.variant, (finding.decision, n + 1))
    return claims


@pytest.mark.parametrize("fractional", [False, True])
def test_false_claims_stay_below_alpha_whoever_looks_how_often_and_ramps_how(fractional):
    """No difference at all, two challengers, shares moved twice, a look after every user, alpha 20 %."""
    ramps = ((0, {"a": 1_000, "b": 3_000}), (200, {"a": 4_000}), (400, {"b": 500}))
    wrong = sum(
        bool(simulate(seed, lift=0, users=600, ramps=ramps, alpha=0.2, fractional=fractional)) for seed in range(150)
    )

    assert wrong <= 0.2 * 150


def test_a_true_difference_is_found_and_named():
    """Half as much again is found within 4,000 rewards in each of 20 runs; a loss is called worse."""
    better = [simulate(seed, lift=0.5, users=4_000).get("a") for seed in range(20)]
    worse = [simulate(seed, lift=-0.5, users=4_000).get("a") for seed in range(20)]

    assert {claim[0] for claim in better if claim} == {"better"}
    assert sum(claim is not None for claim in better) >= 19
    assert {claim[0] for claim in worse if claim} == {"worse"}
    assert sum(claim is not None for claim in worse) >= 19


# -- sums -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 1)), max_size=20), st.randoms())
def test_events_may_be_added_in_any_order_and_in_any_heaps(events, chance):
    """So any number of recorders can add at once."""
    split = split_at(a=2_000, b=3_000)
    tallies = [tally_of(split, str(user), reward) for user, reward in events]
    one, heaps = sum(tallies, Tally.of(3)), [Tally.of(3), Tally.of(3)]
    chance.shuffle(tallies)
    for tally in tallies:
        at = chance.randrange(2)
        heaps[at] += tally
    other = heaps[0] + heaps[1]

    assert one.users == other.users
    assert one.rewards == pytest.approx(other.rewards)
    assert [v.capital for v in one.versus] == [pytest.approx(v.capital) for v in other.versus]


def test_the_lift_is_the_ratio_of_rewards_by_share_whatever_the_shares_were():
    """Ten of a 10 % share and twenty of a 40 % share, against 90 and 30: (100 + 50) / (100 + 50)."""
    tally = Tally.of(2)
    for parts, own, other in ((1_000, 10, 90), (4_000, 20, 30)):
        split = split_at(challenger=parts)
        users = users_of(split)
        for arm, count in (("challenger", own), (CHAMPION, other)):
            for _ in range(count):
                tally += tally_of(split, users[arm], 1.0)
    (finding,) = findings(experiment(), tally)

    assert finding.lift == pytest.approx(0.0)
    assert (finding.users, finding.rewards) == (30, 30)
    assert "lift +0.0%" in finding.reason


def test_a_reward_of_another_challenger_says_nothing_of_this_one():
    """Only the champion's users and its own are compared."""
    split = split_at(a=2_000, b=3_000)
    a, b = tally_of(split, users_of(split)["a"], 1.0).versus

    assert any(a.capital)
    assert not any(b.capital)


def test_a_challenger_without_a_share_is_not_compared():
    """A braked arm earns nothing because it has nobody; that is no evidence."""
    split = split_at(a=0, b=3_000)
    tally = tally_of(split, next(str(i) for i in range(99) if split.variant_of(str(i)) == CHAMPION), 1.0)

    assert not any(tally.versus[0].capital)
    assert any(tally.versus[1].capital)


def test_alpha_is_shared_by_the_challengers():
    """With two of them a claim needs twice the evidence."""
    split, tally = split_at(challenger=5_000), Tally.of(2)
    user = users_of(split)["challenger"]
    while e_of(tally) < 20:
        tally += tally_of(split, user, 1.0)
    two = Tally(users=(*tally.users, 0), rewards=(*tally.rewards, 0.0), versus=(*tally.versus, Tally.of(2).versus[0]))

    assert findings(experiment(), tally)[0].decision == "better"
    assert [f.decision for f in findings(experiment("a", "b"), two)] == ["undecided", "undecided"]
    assert findings(experiment(), tally)[0].p == pytest.approx(1 / e_of(tally))


def test_before_any_reward_nothing_is_claimed():
    """E is 1, p is 1, and there is no lift."""
    (finding,) = findings(experiment(), Tally.of(2))

    assert (finding.decision, finding.p, finding.lift) == ("undecided", 1.0, None)


def test_e_values_are_written_however_large():
    """The sentence must not overflow."""
    assert spelt(math.log(20)) == "20"
    assert spelt(5_000) == "10^2171"


# -- bandit -----------------------------------------------------------------------------------------------------------


def test_the_arm_that_earns_more_gets_more():
    """And the same evidence gives the same shares."""
    arms = [Arm(name="c", rewards=50, requests=1_000), Arm(name="a", rewards=90, requests=1_000)]
    best = probable_best(arms, seed="digits/1")

    assert best == probable_best(arms, seed="digits/1")
    assert best["a"] > 0.99
    assert shares_of(best, arms, floor=0.1) == {"c": 1_000, "a": 9_000} | {
        name: parts for name, parts in shares_of(best, arms, floor=0.1).items() if best["c"]
    }


def test_arms_that_are_equal_share_equally_within_chance():
    """Nothing is known of any of them."""
    arms = [Arm(name=name, rewards=0, requests=0) for name in "cab"]

    assert all(0.3 < p < 0.37 for p in probable_best(arms, seed="x").values())


def test_the_probability_of_being_best_is_that_of_the_two_gammas():
    """Against the closed form: P(G(a) > G(b)) of two Gammas of one rate is a sum of binomial probabilities."""
    mine, theirs, n = 12, 8, 100
    total = mine + theirs + 1
    exact = sum(math.comb(total, k) for k in range(theirs + 1, total + 1)) / 2**total
    arms = [Arm(name="a", rewards=mine, requests=n), Arm(name="c", rewards=theirs, requests=n)]

    assert probable_best(arms, seed="x", draws=20_000)["a"] == pytest.approx(exact, abs=0.015)


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e5), st.booleans()), min_size=2, max_size=5), st.floats(0, 0.2)
)
def test_shares_of_a_bandit_are_all_that_there_is_and_keep_the_floor(found, floor):
    """A braked arm has nothing; every other at least its floor; together they are exactly everybody."""
    arms = [Arm(name=str(i), rewards=r, requests=n, open=o or i == 0) for i, (r, n, o) in enumerate(found)]
    shares = shares_of(probable_best(arms, seed="s", draws=20), arms, floor=floor)

    assert sum(shares.values()) == PARTS
    for arm in arms:
        assert shares[arm.name] >= int(PARTS * floor) if arm.open else shares[arm.name] == 0


def test_moved_counts_the_users_who_change():
    """Once, though one arm loses what another wins."""
    assert moved({"c": 9_000, "a": 1_000}, {"c": 8_500, "a": 1_500}) == 0.05
