"""Rollouts: the moves, what the alias must look like after each, and the laws that no sequence of moves breaks."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.domain import moves, queueing
from perch.domain.errors import Refused
from perch.domain.ledger import broken_at
from perch.domain.rollout import LEGAL, Endpoint, Phase, Retired, Revision, Routing, desired_routing
from tests.unit.values import CANARY, T0, candidate, live, minutes, pointer, shifting

NEW = Revision(lambda_version="3", fingerprint="code-a", pointer=pointer(), number=2)


def test_the_first_version_of_an_endpoint_goes_direct():
    """With nothing to compare it with there is nothing to wait for."""
    state = queueing.enqueue(Endpoint(name="digits"), candidate("v1", 1), now=T0).after
    state = queueing.start(state, CANARY, Revision(lambda_version="1"), now=T0).after

    assert state.rollout.policy.steps == ()
    assert desired_routing(state) == Routing(version="1")


def test_a_second_upload_during_a_rollout_queues_and_says_so():
    """The ledger names the rollout that it waits for."""
    change = queueing.enqueue(shifting(), candidate("v3", 3), now=T0 + minutes(3))

    assert [c.pointer.version for c in change.after.queue] == ["v3"]
    assert "waits for rollout digits-000002 of digits v2" in change.entry.reason
    assert change.after.rollout == shifting().rollout


def test_a_rollout_keeps_the_policy_that_it_began_with():
    """A deployment that changes perch.toml does not change a rollout under way."""
    assert shifting().rollout.policy == CANARY.rollout


def test_two_rollouts_are_never_under_way_at_once():
    """Starting while one is under way is refused."""
    waiting = queueing.enqueue(shifting(), candidate("v3", 3), now=T0).after

    with pytest.raises(Refused, match="under way"):
        queueing.start(waiting, CANARY, NEW, now=T0)


def test_steps_are_taken_in_order_and_end_in_a_promotion():
    """5 %, then 50 %, then the decision to promote, then 100 % for good."""
    state = shifting()
    assert desired_routing(state) == Routing(version="2", other="3", weight=0.05)

    state = moves.enter_step(state, "fine", now=T0 + minutes(20)).after
    assert desired_routing(state) == Routing(version="2", other="3", weight=0.5)

    state = moves.enter_step(state, "fine", now=T0 + minutes(40)).after
    assert state.rollout.phase is Phase.PROMOTING
    assert desired_routing(state) == Routing(version="3")

    state = moves.promoted(state, now=T0 + minutes(41)).after
    assert state.rollout is None
    assert (state.stable, state.previous) == (NEW, live().stable)
    assert desired_routing(state) == Routing(version="3")


def test_a_refused_candidate_leaves_stable_alone():
    """It never saw a user, and the alias never moved."""
    state = queueing.enqueue(live(), candidate(), now=T0).after
    state = queueing.start(state, CANARY, Revision(lambda_version="2"), now=T0).after
    state = moves.refuse(state, "probe 0: answered 500", now=T0).after

    assert state.stable == live().stable
    assert desired_routing(state) == Routing(version="2")


def test_code_that_failed_is_not_tried_again_by_itself():
    """Its fingerprint is remembered."""
    state = queueing.enqueue(live(), replace(candidate(cause="code"), fingerprint="code-b"), now=T0).after
    state = queueing.start(state, CANARY, Revision(lambda_version="2"), now=T0).after
    state = moves.published(state, replace(NEW, fingerprint="code-b"), now=T0).after
    state = moves.refuse(state, "probe 0: answered 500", now=T0).after

    assert state.failed == ("code-b",)


def test_code_that_a_person_went_back_from_is_not_tried_again_by_itself():
    """Otherwise the next tick would roll it forward again."""
    serving = replace(
        live(), stable=replace(NEW, fingerprint="code-b"), retired=(Retired(revision=live().stable, at=T0),)
    )
    back = replace(candidate("v1", 1, cause="rollback"), lambda_version="2", fingerprint="code-a")
    state = queueing.enqueue(serving, back, now=T0).after
    state = queueing.start(state, CANARY, Revision(lambda_version="3"), now=T0).after
    state = moves.published(state, live().stable, now=T0).after
    state = moves.enter_step(state, "probed", now=T0).after
    state = moves.promoted(state, now=T0).after

    assert state.stable == live().stable
    assert state.failed == ("code-b",)


ACTIONS = ("publish", "step", "promoted", "back", "backed", "refuse", "enqueue", "start")


def act(state, action, n):
    now = T0 + minutes(n)
    if action == "publish":
        return moves.published(state, replace(NEW, lambda_version=str(n + 10)), now=now)
    if action == "enqueue":
        return queueing.enqueue(state, candidate(f"w{n}", n + 2), now=now)
    if action == "start":
        return queueing.start(state, CANARY, Revision(lambda_version="1"), now=now)
    if action == "back":
        return moves.decide_roll_back(state, "bad", actor="ada", now=now)
    verbs = {"step": moves.enter_step, "refuse": moves.refuse}
    ends = {"promoted": moves.promoted, "backed": moves.rolled_back}
    return verbs[action](state, "so", now=now) if action in verbs else ends[action](state, now=now)


@given(st.lists(st.sampled_from(ACTIONS), max_size=40), st.sampled_from([Endpoint(name="digits"), live()]))
def test_no_sequence_of_moves_breaks_the_laws(actions, state):
    """Illegal moves are refused; after legal ones laws 3, 4, 5 and 6 hold."""
    entries, decided = [], None
    for n, action in enumerate(actions):
        before = state
        try:
            change = act(state, action, n)
        except Refused:
            continue
        state = change.after
        entries.append(change.entry)
        routing = desired_routing(state)

        # Law 3: at most two versions, weights in [0, 1], and only revisions that were probed get traffic.
        if routing:
            assert 0.0 <= routing.weight <= 1.0
        if state.rollout and state.rollout.phase in (Phase.PREPARING, Phase.PROBING):
            assert routing.other is None
            assert routing.version == state.rollout.stable.lambda_version
        # Law 4: after the decision to go back nothing but the stable revision is ever wanted for this rollout.
        if state.rollout and state.rollout.phase is Phase.ROLLING_BACK:
            decided = state.rollout.id
            assert routing == Routing(version=state.rollout.stable.lambda_version)
        if before.rollout and before.rollout.id == decided and not state.rollout:
            assert state.stable == before.stable
        # Law 5: what ended has a reason.
        if change.rollout and not LEGAL[change.rollout.phase]:
            assert change.rollout.reason
    # Law 6: one entry a change, chained without a gap.
    assert [e.seq for e in entries] == list(range(1, len(entries) + 1))
    assert state.seq == len(entries)
    assert broken_at(entries) is None


def test_terminal_phases_are_terminal():
    """Nothing follows promoted, rolled back or refused; and every phase can be reached and ended."""
    terminal = {phase for phase, following in LEGAL.items() if not following}

    assert terminal == {Phase.PROMOTED, Phase.ROLLED_BACK, Phase.REFUSED}
    assert set().union(*LEGAL.values()) | {Phase.PREPARING} == set(Phase)


def test_a_tampered_ledger_shows():
    """Changing, dropping or reordering an entry is found at the first that no longer follows."""
    state, entries = live(), []
    for n in range(4):
        change = queueing.enqueue(state, candidate(f"w{n}", n + 2), now=T0)
        state = change.after
        entries.append(change.entry)

    assert broken_at(entries) is None
    assert broken_at([*entries[:2], replace(entries[2], reason="all was well"), entries[3]]) == 3
    assert broken_at([entries[0], entries[2], entries[3]]) == 3
    assert broken_at([entries[1], entries[0]]) == 2


def test_a_full_queue_drops_no_way_back():
    """Somebody wants to leave what serves; uploads that come meanwhile push out the oldest upload instead."""
    back = replace(candidate("v1", 1, cause="rollback"), lambda_version="2")
    state = queueing.enqueue(live(), back, now=T0).after
    for number in range(2, 3 + 2 * queueing.QUEUE_LIMIT):
        state = queueing.enqueue(state, candidate(f"v{number}", number), now=T0).after

    assert state.queue[0] == back
    assert len(state.queue) == queueing.QUEUE_LIMIT
    assert [c.number for c in state.queue[1:]] == list(range(queueing.QUEUE_LIMIT + 4, 3 + 2 * queueing.QUEUE_LIMIT))


def test_a_queue_full_of_ways_back_keeps_them_all():
    """There are never many, since each begins with the next tick; an upload waits behind them."""
    state = live()
    for number in range(queueing.QUEUE_LIMIT):
        back = replace(candidate(f"v{number}", number, cause="rollback"), lambda_version=str(number))
        state = queueing.enqueue(state, back, now=T0).after
    state = queueing.enqueue(state, candidate("v9", 9), now=T0).after

    assert sum(c.cause == "rollback" for c in state.queue) == queueing.QUEUE_LIMIT
    assert state.queue[-1].number == 9


def test_an_emergency_goes_only_to_what_served_and_was_not_left():
    """Whoever chooses among the refuges cannot name anything else, nor what serves already."""
    first = Revision(lambda_version="1", fingerprint="code-a", pointer=pointer("v0"), number=1)
    left = Revision(lambda_version="9", fingerprint="code-a", pointer=pointer("v9"), number=9)
    state = replace(live(), retired=(Retired(revision=first, at=T0), Retired(revision=left, at=T0, left=True)))
    state = replace(state, retired=(*state.retired, Retired(revision=state.stable, at=T0)))

    assert state.refuges == (first,)
    for elsewhere in (None, left, state.stable, NEW):
        with pytest.raises(Refused, match="no earlier revision"):
            moves.emergency(state, "it burns", to=elsewhere, actor="ada", now=T0)
    assert moves.emergency(state, "it burns", to=first, actor="ada", now=T0).after.stable == first
