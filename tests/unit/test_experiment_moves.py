"""What may happen to an experiment: which moves are legal, what they leave behind, and what the brake makes of it."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.domain import brake, moves, queueing
from perch.domain import experiment_moves as experiments
from perch.domain.brake import Counts
from perch.domain.errors import Invalid, NotFound, PerchError, Refused
from perch.domain.experiment import PARTS, Variant, parts_of
from perch.domain.ledger import broken_at
from perch.domain.rollout import Endpoint, Revision
from tests.unit.values import CANARY, T0, candidate, live, minutes, pointer

NAMES = ("champion", "a", "b")
VARIANTS = [Variant(name=name, pointer=pointer(f"v{i + 1}"), number=i + 1) for i, name in enumerate(NAMES)]
SHARES = {"a": 1_000, "b": 2_000}


def started(state=None, **fields):
    """v1 serves as revision 2; the experiment has begun."""
    return experiments.started(state or live(), VARIANTS, SHARES, "why not", actor="ada", now=T0, **fields).after


def settled(state, version):
    """Bring the first of the queue to everybody, without steps."""
    policy = replace(CANARY, rollout=replace(CANARY.rollout, steps=()))
    state = queueing.start(state, policy, Revision(lambda_version="2"), now=T0).after
    found = state.rollout.candidate
    revision = Revision(
        lambda_version=version, fingerprint="code-a", pointer=found.pointer, number=found.number,
        experiment=found.experiment,
    )  # fmt: skip
    state = moves.published(state, revision, now=T0).after
    return moves.promoted(moves.enter_step(state, "probed", now=T0).after, now=T0).after


def serving():
    """The experiment is served to all, by revision 3."""
    return settled(experiments.proposed(started(), now=T0).after, "3")


def test_an_experiment_is_served_once_its_revision_is_stable():
    """Not when it was started, and not while it is on its way."""
    state = started()
    assert experiments.served_split(state) is None
    state = experiments.proposed(state, now=T0).after
    assert experiments.served_split(state) is None
    state = settled(state, "3")
    assert experiments.served_split(state) == state.experiment.split


def test_what_is_proposed_first_takes_the_steps_and_later_shares_do_not():
    """The same models by other shares are nothing new."""
    first = experiments.proposed(started(), now=T0).after
    assert not first.queue[0].direct
    moved = experiments.ramped(serving(), {"a": 1_500}, "more", actor="ada", now=T0).after
    assert experiments.proposed(moved, now=T0).after.queue[0].direct


def test_other_shares_are_no_revision_to_go_back_to():
    """Going back leads to what was there before the experiment."""
    state = experiments.ramped(serving(), {"a": 1_500}, "more", actor="ada", now=T0).after
    state = settled(experiments.proposed(state, now=T0).after, "4")

    assert state.stable.lambda_version == "4"
    assert state.previous == live().stable


def test_versions_wait_for_the_end_and_code_does_not():
    """An upload would replace the champion; code carries the experiment on."""
    state = queueing.enqueue(serving(), candidate("v9", 9), now=T0)
    assert "waits for experiment" in state.entry.reason
    assert state.after.turns == ()
    with pytest.raises(Refused, match="nothing waits"):
        queueing.start(state.after, CANARY, Revision(lambda_version="2"), now=T0)
    state = queueing.enqueue(state.after, candidate("v1", 1, cause="code"), now=T0).after
    assert [c.cause for c in state.turns] == ["code"]

    begun = queueing.start(state, CANARY, Revision(lambda_version="2"), now=T0).after
    assert [c.pointer.version for c in begun.queue] == ["v9"]
    over = experiments.ended(begun, "enough", winner=None, actor="ada", now=T0).after
    assert [c.pointer.version for c in over.turns] == ["v9"]


def test_a_winner_comes_before_all_that_waited():
    """It is what the experiment was for; its rollout takes the endpoint's own steps."""
    state = queueing.enqueue(serving(), candidate("v9", 9), now=T0).after
    state = experiments.ended(state, "it sells", winner="b", actor="ada", now=T0).after

    assert [(c.pointer.version, c.number, c.direct, c.experiment) for c in state.queue] == [
        ("v3", 3, False, None),
        ("v9", 9, False, None),
    ]


@pytest.mark.parametrize(
    ("move", "error", "why"),
    [
        (lambda s: experiments.ramped(s, {"champion": 1}, "x", actor="a", now=T0), NotFound, "no challenger .champion"),
        (lambda s: experiments.ramped(s, {"c": 1}, "x", actor="a", now=T0), NotFound, "it has a, b"),
        (lambda s: experiments.ramped(s, SHARES, "x", actor="a", now=T0), Refused, "are so already"),
        (lambda s: experiments.ramped(s, {"a": 8_000}, "x", actor="a", now=T0), Refused, "leaves nothing for champion"),
        (lambda s: experiments.ramped(s, {"a": 9_000}, "x", actor="a", now=T0), Invalid, "110.00%"),
        (lambda s: experiments.ended(s, "x", winner="z", actor="a", now=T0), NotFound, "no variant 'z'"),
        (lambda s: experiments.withdrawn(s, now=T0), Refused, "carries no experiment that is over"),
        (lambda s: experiments.ended(live(), "x", winner=None, actor="a", now=T0), Refused, "no experiment runs"),
        (lambda s: started(replace(live(), queue=(candidate(),))), Refused, "begin when it is over"),
        (lambda s: started(Endpoint(name="digits")), Refused, "serves nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_words(move, error, why):
    """Nothing changes."""
    with pytest.raises(error, match=why):
        move(serving())


ACTIONS = ("start", "propose", "settle", "ramp", "brake", "end", "win", "withdraw", "upload", "code")


def act(state, action, n, chance):
    now = T0 + minutes(n)
    if action == "start":
        champion = Variant(name="champion", pointer=state.stable.pointer, number=state.stable.number)
        return experiments.started(state, [champion, *VARIANTS[1:]], SHARES, "x", actor="a", now=now).after
    if action == "settle":
        return settled(state, str(n + 10))
    if action == "ramp":
        shares = {chance.choice("ab"): chance.randrange(5_000)}
        return experiments.ramped(state, shares, "x", actor="a", now=now).after
    if action in ("upload", "code"):
        cause = {"upload": candidate(f"w{n}", n + 5), "code": candidate("v1", 1, cause="code")}[action]
        return queueing.enqueue(state, cause, now=now).after
    verbs = {
        "propose": lambda: experiments.proposed(state, now=now),
        "brake": lambda: experiments.braked(state, chance.choice("ab"), "it fails", now=now),
        "end": lambda: experiments.ended(state, "x", winner=None, actor="a", now=now),
        "win": lambda: experiments.ended(state, "x", winner=chance.choice(NAMES), actor="a", now=now),
        "withdraw": lambda: experiments.withdrawn(state, now=now),
    }
    return verbs[action]().after


@given(st.lists(st.sampled_from(ACTIONS), max_size=30), st.integers(0, 1_000))
def test_no_sequence_of_moves_breaks_an_experiment(actions, seed):
    """Shares add up, the champion keeps some, a braked arm has none, and users leave an arm only when it shrinks."""
    state = live()
    chance = random.Random(seed)  # noqa: S311 - no secret
    for n, action in enumerate(actions):
        before = state
        try:
            state = act(state, action, n, chance)
        except PerchError:
            continue
        found = state.experiment
        if found is None:
            continue
        assert sum(parts_of(found.segments, name) for name in found.names) == PARTS
        assert found.share("champion") > 0
        assert all(found.share(v.name) == 0 for v in found.variants if v.braked)
        assert experiments.served_split(state) is None or experiments.served_split(state).id == found.id
        if before.experiment and before.experiment.id == found.id:
            for name in found.names[1:]:
                if found.share(name) >= before.experiment.share(name):
                    held = [u for u in map(str, range(60)) if before.experiment.split.variant_of(u) == name]
                    assert all(found.split.variant_of(u) == name for u in held)


def test_every_move_is_one_entry_of_an_unbroken_ledger():
    """Law 6."""
    state, entries = live(), []
    for change in (
        lambda s: experiments.started(s, VARIANTS, SHARES, "x", actor="a", now=T0),
        lambda s: experiments.proposed(s, now=T0),
        lambda s: experiments.braked(s, "a", "it fails", now=T0),
        lambda s: experiments.ramped(s, {"b": 500}, "less", actor="a", now=T0),
        lambda s: experiments.ended(s, "x", winner="champion", actor="a", now=T0),
    ):
        made = change(state)
        assert made.before == state
        entries.append(made.entry)
        state = made.after

    assert broken_at(entries) is None
    assert [e.kind for e in entries] == [
        "ExperimentStarted", "RolloutQueued", "VariantBraked", "SharesChanged", "ExperimentEnded",
    ]  # fmt: skip


# -- the brake --------------------------------------------------------------------------------------------------------


def seen(minutes_of_counts):
    """The watch after minutes in which each variant had (requests, failures)."""
    counted = [{n: Counts(requests=r, failures=f) for n, (r, f) in minute.items()} for minute in minutes_of_counts]
    return brake.look(brake.begin(T0), "champion", counted, until=T0 + minutes(len(counted)))


def test_the_brake_names_who_fails_and_with_which_numbers():
    """And nobody else."""
    watch = seen([{"champion": (100, 1), "a": (100, 20), "b": (100, 1)}] * 3)
    found = brake.failing(watch, "champion", ["a", "b"], alpha=0.05)

    assert list(found) == ["a"]
    assert found["a"].startswith("60 of 300 requests of a failed against 3 of 300 requests of champion: E = ")
    assert found["a"].endswith("≥ 40")


@pytest.mark.parametrize("minute", [{}, {"a": (50, 50)}, {"champion": (50, 0)}, {"champion": (50, 50), "a": (50, 50)}])
def test_without_a_comparison_nobody_is_braked(minute):
    """One arm alone, no traffic, or failures of all say nothing of a difference."""
    assert brake.failing(seen([minute] * 20), "champion", ["a"], alpha=0.05) == {}


def test_good_variants_are_braked_no_more_often_than_alpha():
    """Two challengers that fail as often as the champion, looked at for forty minutes, in 200 experiments."""
    chance, wrong = random.Random(3), 0  # noqa: S311 - no secret
    for _ in range(200):
        watch = brake.begin(T0)
        for n in range(40):
            minute = {
                name: Counts(requests=size, failures=sum(chance.random() < 0.05 for _ in range(size)))
                for name, size in (("champion", 60), ("a", 20), ("b", 20))
            }
            watch = brake.look(watch, "champion", [minute], until=T0 + minutes(n))
            if brake.failing(watch, "champion", ["a", "b"], alpha=0.1):
                wrong += 1
                break

    assert wrong <= 0.1 * 200
