"""Experiments: users are spread exactly as the shares say, stay where they are, and ramps move no more than needed."""

import itertools
import json
import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.domain.codec import dump, load
from perch.domain.errors import Invalid
from perch.domain.experiment import (
    MAX_VARIANTS,
    PARTS,
    Experiment,
    Segment,
    Split,
    Variant,
    check_segments,
    check_variants,
    parts_of,
    point,
    to_parts,
)
from perch.domain.ramp import ramp, whole
from tests.unit.values import T0, pointer

CHAMPION, NAMES = "champion", ("a", "b", "c", "d")


def experiment(*challengers: str, segments=None, **fields) -> Experiment:
    """An experiment of v2 with challengers v3, v4, …, each at 10 % unless segments say otherwise."""
    challengers = challengers or ("challenger",)
    names = (CHAMPION, *challengers)
    variants = tuple(Variant(name=name, pointer=pointer(f"v{i + 2}"), number=i + 2) for i, name in enumerate(names))
    segments = segments or ramp(whole(CHAMPION), CHAMPION, dict.fromkeys(challengers, 1_000))
    return Experiment(
        **{
            "id": "digits-x000007", "endpoint": "digits", "salt": "digits-x000007", "variants": variants,
            "segments": segments, "started_at": T0, "moved_at": T0, "actor": "ada",
        } | fields
    )  # fmt: skip


def owners(segments):
    """Whose each of all points is."""
    found: list[str] = []
    for segment in segments:
        found += [segment.variant] * (segment.upper - len(found))
    return found


@st.composite
def shares(draw, names=NAMES):
    """Parts for each challenger that leave the champion something."""
    left, given_out = PARTS - 1, {}
    for name in draw(st.permutations(names)):
        given_out[name] = draw(st.integers(0, left))
        left -= given_out[name]
    return given_out


@given(st.lists(shares(), min_size=1, max_size=12))
def test_after_any_ramps_each_variant_has_exactly_its_share(steps):
    """Counted point by point; the champion has the rest, and the segments stay lawful and joined."""
    segments = whole(CHAMPION)
    for wanted in steps:
        segments = ramp(segments, CHAMPION, wanted)
        found = owners(segments)
        assert {name: found.count(name) for name in NAMES} == wanted
        check_segments(segments, (CHAMPION, *NAMES))
        assert all(one.variant != two.variant for one, two in itertools.pairwise(segments))


@given(shares(), st.data())
def test_while_shares_grow_nobody_who_met_a_challenger_leaves_it(last, data):
    """Each step only turns users of the champion into users of challengers."""
    segments = whole(CHAMPION)
    before = owners(segments)
    reached = dict.fromkeys(NAMES, 0)
    for _ in range(4):
        reached = {name: data.draw(st.integers(reached[name], last[name])) for name in NAMES}
        segments = ramp(segments, CHAMPION, reached)
        after = owners(segments)
        assert all(was in (now, CHAMPION) for was, now in zip(before, after, strict=True))
        before = after


@given(shares(), shares())
def test_a_ramp_moves_no_more_users_than_the_shares_ask_for(one, other):
    """As many change their variant as shares grow by, and to another challenger only for want of champion's users."""
    before = ramp(whole(CHAMPION), CHAMPION, one)
    after = ramp(before, CHAMPION, other)
    pairs = list(zip(owners(before), owners(after), strict=True))
    grown = sum(max(0, other[name] - one[name]) for name in NAMES)
    shrunk = sum(max(0, one[name] - other[name]) for name in NAMES)
    champion = parts_of(before, CHAMPION)

    swapped = sum(was != now and CHAMPION not in (was, now) for was, now in pairs)
    assert sum(now == CHAMPION != was for was, now in pairs) + swapped <= shrunk
    assert sum(was == CHAMPION != now for was, now in pairs) + swapped == grown
    assert swapped == max(0, grown - champion)


@given(shares(), st.sampled_from(NAMES))
def test_an_arm_that_is_braked_gives_all_back_to_the_champion(one, name):
    """Nobody else moves."""
    before = ramp(whole(CHAMPION), CHAMPION, one)
    after = ramp(before, CHAMPION, {name: 0})

    assert owners(after) == [CHAMPION if owner == name else owner for owner in owners(before)]


def test_segments_stay_few_under_any_number_of_ramps():
    """A bandit that moves five arms five hundred times must still fit into an environment variable."""
    chance, segments, longest = random.Random(7), whole(CHAMPION), 0  # noqa: S311 - no secret
    for _ in range(500):
        weights = [chance.random() ** 3 + 0.02 for _ in range(MAX_VARIANTS)]
        wanted = {name: int(PARTS * w / sum(weights)) for name, w in zip(NAMES, weights, strict=False)}
        segments = ramp(segments, CHAMPION, wanted)
        longest = max(longest, len(experiment(*NAMES, segments=segments).split.to_json()))

    assert longest < 1_400


@pytest.mark.parametrize(
    ("wanted", "why"),
    [({"a": -1}, "from 0 %"), ({CHAMPION: 5}, "what they leave"), ({"a": 6_000, "b": 4_001}, "100.01%")],
)
def test_shares_that_cannot_be_are_refused(wanted, why):
    """In words."""
    with pytest.raises(Invalid, match=why):
        ramp(whole(CHAMPION), CHAMPION, wanted)


def test_users_are_spread_as_the_shares_say():
    """Of 20,000 users the challenger gets its share within five standard deviations, in every tenth of the line."""
    split = experiment(segments=ramp(whole(CHAMPION), CHAMPION, {"challenger": 3_000})).split
    got = sum(split.variant_of(f"user-{i}") == "challenger" for i in range(20_000))
    tenths = [0] * 10
    for i in range(20_000):
        tenths[point("salt", f"user-{i}") * 10 // PARTS] += 1

    assert abs(got - 6_000) < 5 * (20_000 * 0.3 * 0.7) ** 0.5
    assert all(abs(count - 2_000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5 for count in tenths)


@given(st.text(min_size=1, max_size=40), st.text(max_size=10))
def test_a_user_always_has_the_same_variant(user, salt):
    """In any process that has the text; whatever characters the id has."""
    split = experiment("a", "b", salt=salt).split

    assert split.variant_of(user) == Split.from_json(split.to_json()).variant_of(user)
    assert 0 <= point(salt, user) < PARTS


def test_a_point_is_the_first_eight_bytes_of_the_hash_as_a_fraction():
    """Pinned, since another rule would move every user of every experiment."""
    assert point("digits-x000007", "ada") == 5_942
    assert [point("", str(i)) for i in range(4)] == [1012, 5319, 3205, 7209]


def test_another_salt_deals_the_users_anew():
    """Who met a challenger in one experiment is no likelier to meet one in the next."""
    one, other = experiment(salt="one").split, experiment(salt="other").split
    both = sum(one.variant_of(str(i)) == other.variant_of(str(i)) == "challenger" for i in range(20_000))

    assert abs(both - 200) < 5 * (20_000 * 0.01 * 0.99) ** 0.5


def test_an_experiment_and_its_split_come_back_from_text():
    """As the registry and the environment keep them."""
    found = experiment("a", "b", bandit=True)

    assert load(Experiment, json.loads(json.dumps(dump(found)))) == found
    assert Split.from_json(found.split.to_json()) == found.split
    assert found.split.to_json() == Split.from_json(found.split.to_json()).to_json()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"id":"x","salt":"","champion":"c","challengers":[],"segments":[[9999,0]]}',
     '{"id":"x","salt":"","champion":"c","challengers":[],"segments":[[10000,1]]}',
     '{"id":"x","salt":"","champion":"c","challengers":[],"segments":[[5,0],[5,0],[10000,0]]}'],
)  # fmt: skip
def test_a_text_that_is_no_split_is_refused(text):
    """A predictor with one serves nobody, and says why."""
    with pytest.raises(Invalid):
        Split.from_json(text)


def test_shares_are_whole_parts():
    """0.01 % is the least that there is; a third cannot be had."""
    assert to_parts(0.1) == 1_000
    assert to_parts(0.0007) == 7
    for share in (1 / 3, -0.1, 1.1):
        with pytest.raises(Invalid):
            to_parts(share)


@pytest.mark.parametrize("names", [("a",), ("a", "a"), ("A", "b"), ("a", "b" * 21), ("a", "b", "c", "d", "e", "f")])
def test_names_of_variants_are_few_short_and_different(names):
    """They become headers and metric dimensions."""
    with pytest.raises(Invalid):
        check_variants(names)


def test_an_experiment_lasts_for_its_text_not_its_history():
    """Only salt and segments decide; when it began does not."""
    moved = experiment(started_at=T0 - timedelta(days=3))

    assert moved.split == experiment().split
    assert Segment(upper=PARTS, variant=CHAMPION) == experiment().segments[-1]
