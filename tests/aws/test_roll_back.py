"""Going back: by alarm and by hand, against events that come twice, late, or for something else, and against races."""

from datetime import timedelta

import pytest

from perch.app.command import promote, resume
from perch.app.roll_back import emergency, roll_back_by_hand, roll_back_on_alarm
from perch.app.start import start
from perch.domain import moves, queueing
from perch.domain.errors import NotReady, Refused
from perch.domain.names import AlarmName
from perch.domain.rollout import Candidate, Phase, Revision, Routing
from tests.aws.deployment import FUNCTION, deployment

__all__ = ["deployment"]
ERRORS = AlarmName("perch", "digits", "candidate-errors", "3")


@pytest.fixture
def shifting(deployment):
    """v1 is live, v2 has its first 5 %."""
    deployment.live("v1")
    deployment.registered("v2")
    deployment.tick()
    assert deployment.alias == Routing(version="2", other="3", weight=0.05)
    return deployment


def alarm(d, name=ERRORS, since=None):
    return roll_back_on_alarm(d.world, name, reason="9% > 5%", since=since or d.now, now=d.now)


def test_an_alarm_takes_the_traffic_back_at_once(shifting):
    """The alias is back before the handler returns; the next tick closes the rollout."""
    assert alarm(shifting).rolled_back
    assert shifting.alias == Routing(version="2")

    shifting.tick()
    [rollout, *_] = shifting.world.registry.rollouts("digits")
    assert rollout.phase is Phase.ROLLED_BACK
    assert rollout.reason == "alarm perch/digits/candidate-errors/3 went off: 9% > 5%"


def test_the_same_alarm_three_times_is_one_roll_back(shifting):
    """Event, direct action and a duplicate lead to one decision."""
    for _ in range(3):
        alarm(shifting)
    shifting.settle()
    alarm(shifting)

    assert shifting.kinds.count("RollbackDecided") == 1
    assert shifting.kinds.count("RolloutRolledBack") == 1


@pytest.mark.parametrize(
    ("name", "age", "why"),
    [
        (AlarmName("perch", "digits", "candidate-errors", "2"), 0, "it is of revision 2"),
        (AlarmName("perch", "digits", "failures"), 60, "the judge compares them"),
        (AlarmName("perch", "digits", "probes-stable"), 0, "say nothing of the candidate"),
    ],
)
def test_an_alarm_that_does_not_speak_of_this_rollout_is_history(shifting, name, age, why):
    """Late events of another candidate, and alarms from before, change nothing."""
    outcome = alarm(shifting, name, shifting.now - timedelta(minutes=age))

    assert not outcome.rolled_back
    assert why in outcome.reason
    assert shifting.alias.other == "3"


def test_an_alarm_without_a_rollout_changes_nothing(deployment):
    """There is nothing to take back."""
    deployment.live("v1")

    assert not alarm(deployment).rolled_back
    assert deployment.alias == Routing(version="2")


def test_law_4_a_step_decided_before_a_roll_back_cannot_be_made_after_it(shifting, monkeypatch):
    """The driver looks, the alarm rolls back, the driver acts: its write is refused, and the alias stays back."""
    d = shifting
    route = d.world.functions.route
    overtaken = []

    def slow_route(function, routing, *, revision_id=None):
        if revision_id and not overtaken:
            overtaken.append(routing)
            monkeypatch.setattr(d.world.functions, "route", route)
            alarm(d)
        return route(function, routing, revision_id=revision_id)

    d.clients.lambda_.update_alias(FunctionName=FUNCTION, Name="live", FunctionVersion="2",
                                   RoutingConfig={"AdditionalVersionWeights": {"3": 0.9}})  # fmt: skip
    monkeypatch.setattr(d.world.functions, "route", slow_route)
    d.tick()

    assert overtaken == [Routing(version="2", other="3", weight=0.05)]
    assert d.alias == Routing(version="2")
    assert d.world.registry.rollouts("digits")[0].phase is Phase.ROLLED_BACK


def test_law_4_a_roll_back_that_lambda_throttles_is_finished_by_the_tick(shifting):
    """The decision is stored first, so a failing API only delays it."""
    d = shifting
    throttled = {"on": True}

    def refuse(**_):
        if throttled["on"]:
            from botocore.exceptions import ClientError

            raise ClientError({"Error": {"Code": "TooManyRequestsException", "Message": "slow down"}}, "UpdateAlias")

    d.clients.lambda_.meta.events.register("before-call.lambda.UpdateAlias", refuse)
    with pytest.raises(NotReady, match="next tick"):
        alarm(d)
    d.tick()
    assert d.alias.other == "3"
    throttled["on"] = False
    d.settle()

    assert d.alias == Routing(version="2")
    assert d.kinds.count("RollbackDecided") == 1


def test_a_person_takes_a_rollout_back_with_a_reason(shifting):
    """Actor and reason stand in the ledger."""
    roll_back_by_hand(shifting.world, "digits", reason="wrong training data", actor="grace", now=shifting.now)
    shifting.settle()

    decided = next(e for e in shifting.world.registry.ledger("digits") if e.kind == "RollbackDecided")
    assert (decided.actor, decided.reason) == ("grace", "wrong training data")
    assert shifting.alias == Routing(version="2")


def test_after_a_promotion_a_person_goes_back_to_the_revision_before(deployment):
    """No steps, but its probes are sent again first; and the code, which is the same, is not held to be bad."""
    d = deployment
    d.live("v1")
    d.registered("v2")
    d.tick()
    for _ in range(60):
        d.both()
        d.tick()
    assert d.alias == Routing(version="3")
    roll_back_by_hand(d.world, "digits", reason="customers complain", actor="grace", now=d.now)
    d.settle()

    assert d.alias == Routing(version="2")
    assert d.state.stable.pointer.version == "v1"
    assert d.predictors.asked[-1] == ("2", "v1")
    assert d.state.failed == ()


def test_there_is_no_way_back_from_the_first_version(deployment):
    """It is refused in words."""
    deployment.live("v1")

    with pytest.raises(Refused, match="no earlier revision"):
        roll_back_by_hand(deployment.world, "digits", reason="?", actor="grace", now=deployment.now)


def test_a_version_that_failed_is_tried_again_only_when_asked(shifting):
    """`start` queues it once more; until then the driver leaves it alone."""
    d = shifting
    alarm(d)
    d.settle()
    assert d.state.rollout is None

    start(d.world, "digits", "v2", actor="grace", now=d.now, reason="the labels were wrong, not the model")
    with pytest.raises(Refused, match="in the queue"):
        start(d.world, "digits", "v2", actor="grace", now=d.now)
    d.tick()
    assert d.state.rollout.candidate.actor == "grace"
    assert d.alias == Routing(version="2", other="3", weight=0.05)
    assert any(e.reason.endswith("the labels were wrong, not the model") for e in d.world.registry.ledger("digits"))
    with pytest.raises(Refused, match="rolled out on digits already"):
        start(d.world, "digits", "v2", actor="grace", now=d.now)
    alarm(d, since=d.now)
    d.settle()
    with pytest.raises(Refused, match="serves digits already"):
        start(d.world, "digits", "v1", actor="grace", now=d.now)


def test_a_version_that_a_person_starts_before_the_driver_saw_it_is_rolled_out_once(deployment):
    """The upload is in the ledger as taken care of, and not in the queue a second time."""
    deployment.live("v1")
    deployment.registered("v2")
    start(deployment.world, "digits", "v2", actor="grace", now=deployment.now)
    deployment.tick()
    deployment.tick()

    assert deployment.state.rollout.candidate.actor == "grace"
    assert deployment.state.queue == ()
    refused = [e.reason for e in deployment.world.registry.ledger("digits") if e.kind == "RolloutRefused"]
    assert refused == ["digits v2 was started by hand already"]


# -- emergencies --------------------------------------------------------------------------------------------------


@pytest.fixture
def burning(deployment):
    """v2 serves from revision 3, v1 before it from revision 2; v2 is on fire."""
    d = deployment
    d.live("v1")
    served_next(d, "v2")
    assert d.alias == Routing(version="3")
    return d


def served_next(d, version):
    d.registered(version)
    d.tick()
    promote(d.world, "digits", full=True, reason="trust me", actor="grace", now=d.now)
    d.settle()


def fire(d):
    return emergency(d.world, "digits", reason="fire", actor="ada", now=d.now)


PAUSED = "fire (emergency, by ada)"


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.PROBING])
def test_an_emergency_before_a_candidate_has_traffic_leaves_what_serves(burning, phase):
    """The candidate is not what hurts: it is refused, and the revision before serves; not the one on fire."""
    d = burning
    d.registered("v3")
    [found] = d.world.registry.versions_after("digits", 2)
    new = Candidate(pointer=found.pointer, number=3, cause="upload", actor="ada")
    state = d.world.registry.commit(queueing.enqueue(d.state, new, now=d.now))
    state = d.world.registry.commit(queueing.start(state, d.policy, Revision(lambda_version="3"), now=d.now))
    if phase is Phase.PROBING:
        d.world.registry.commit(moves.published(state, Revision(lambda_version="4", pointer=found.pointer), now=d.now))
    assert d.state.rollout.phase is phase
    assert fire(d).rolled_back

    assert d.alias == Routing(version="2")
    assert (d.state.stable.pointer.version, d.state.paused, d.state.rollout) == ("v1", PAUSED, None)
    assert d.world.registry.rollouts("digits")[0].phase is Phase.REFUSED
    d.settle()
    assert d.alias == Routing(version="2")


def test_an_emergency_takes_a_candidate_back_and_pauses(shifting):
    """What waits behind it does not follow it at the next tick."""
    shifting.registered("v3")
    fire(shifting)
    shifting.settle()

    assert shifting.alias == Routing(version="2")
    assert (shifting.state.paused, shifting.state.rollout) == (PAUSED, None)
    assert [c.pointer.version for c in shifting.state.queue] == ["v3"]


def test_an_emergency_while_a_roll_back_is_under_way_pauses_too(shifting):
    """The alarm was faster; that is no reason to let the next one begin."""
    shifting.registered("v3")
    alarm(shifting)
    fire(shifting)
    shifting.settle()

    assert shifting.alias == Routing(version="2")
    assert (shifting.state.paused, shifting.state.rollout) == (PAUSED, None)


def test_an_emergency_with_nothing_to_go_back_to_still_keeps_the_next_one_away(deployment):
    """The first version serves, the second is about to be tried: it is refused, and nothing else begins."""
    d = deployment
    d.live("v1")
    [found] = d.world.registry.versions_after("digits", 0)
    again = Candidate(pointer=found.pointer, number=1, cause="code", actor="deployment")
    state = d.world.registry.commit(queueing.enqueue(d.state, again, now=d.now))
    d.world.registry.commit(queueing.start(state, d.policy, Revision(lambda_version="2"), now=d.now))
    fire(d)

    assert (d.alias, d.state.paused, d.state.rollout) == (Routing(version="2"), PAUSED, None)


def test_an_emergency_said_twice_is_one(burning):
    """The first answer was lost on its way; saying it again does not bring back what is on fire, nor go further."""
    fire(burning)
    again = fire(burning)
    burning.settle()

    assert "already" in again.reason
    assert burning.alias == Routing(version="2")
    assert burning.kinds.count("EmergencyRolledBack") == 1


def test_an_emergency_goes_to_what_nobody_went_back_from(burning):
    """v3 was left for v2; when v2 burns too it is v1 that serves, and not v3 again."""
    d = burning
    served_next(d, "v3")
    fire(d)
    assert d.state.stable.pointer.version == "v2"
    resume(d.world, "digits", reason="", actor="ada", now=d.now)
    d.settle()
    fire(d)

    assert d.alias == Routing(version="2")


# -- what was gone back from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["by hand", "emergency"])
def test_what_a_person_went_back_from_takes_the_steps_when_it_is_started_again(burning, how):
    """The short way is for what did well; this did not."""
    d = burning
    if how == "by hand":
        roll_back_by_hand(d.world, "digits", reason="it answers nonsense", actor="ada", now=d.now)
    else:
        fire(d)
        resume(d.world, "digits", reason="", actor="ada", now=d.now)
    d.settle()
    assert d.state.stable.pointer.version == "v1"
    start(d.world, "digits", "v2", actor="bob", now=d.now)
    d.tick()

    assert d.alias == Routing(version="2", other="3", weight=0.05)


def test_what_did_well_goes_the_short_way_back(burning):
    """v2 replaced v1, and nobody went back from v1; so it needs no steps."""
    start(burning.world, "digits", "v1", actor="bob", now=burning.now)
    burning.settle()

    assert burning.alias == Routing(version="2")
