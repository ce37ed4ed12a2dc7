"""Going back: by alarm and by hand, against events that come twice, late, or for something else, and against races."""

from datetime import timedelta

import pytest

from perch.app.roll_back import roll_back_by_hand, roll_back_on_alarm
from perch.app.start import start
from perch.domain.errors import NotReady, Refused
from perch.domain.names import AlarmName
from perch.domain.rollout import Phase, Routing
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
