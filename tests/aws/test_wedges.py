"""Nothing holds an endpoint for ever: what goes wrong for good ends the rollout, and what passes is waited out."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from perch.app.advance import advance
from perch.domain.errors import NotReady
from perch.domain.model import Probe
from perch.domain.names import parse_alarm
from perch.domain.policy import EndpointPolicy
from perch.domain.queueing import QUEUE_LIMIT
from perch.domain.rollout import Phase, Routing
from tests.aws.deployment import FUNCTION, deployment

__all__ = ["deployment"]


def failing(clients, service, operation, code, status=400):
    """Let one AWS operation fail from now on; return a switch."""
    switch = {"on": True}

    def refuse(**_):
        if switch["on"]:
            response = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise ClientError(response, operation)

    getattr(clients, service).meta.events.register(f"before-call.*.{operation}", refuse)
    return switch


@pytest.fixture
def shifting(deployment):
    """v1 is live, v2 has its first 5 %."""
    deployment.live("v1")
    deployment.registered("v2")
    deployment.tick()
    assert deployment.alias.other == "3"
    return deployment


def test_law_4_a_bus_that_takes_nothing_does_not_keep_the_alias_away(shifting):
    """Putting the traffic back comes first; telling of it may come later."""
    switch = failing(shifting.clients, "events", "PutEvents", "AccessDeniedException", 403)
    shifting.tick()
    shifting.both(1000, failures=9)
    shifting.tick(2)
    shifting.tick()
    assert shifting.alias == Routing(version="2")
    assert shifting.state.rollout is None

    switch["on"] = False
    told = []
    shifting.clients.events.meta.events.register(
        "before-parameter-build.*.PutEvents", lambda params, **_: told.extend(params["Entries"])
    )
    shifting.tick()
    assert [e["DetailType"] for e in told] == ["RollbackDecided", "RolloutRolledBack"]


class Ended(BaseException):
    """Lambda ends a function that runs for longer than its timeout."""


def test_a_probe_that_hangs_is_told_though_the_driver_has_an_end(deployment, monkeypatch):
    """What was sent before it counts, or each tick would send all of them again and be ended in the same probe."""
    policy = replace(deployment.policy, timeout_s=30)
    clock, end, plain = [0.0], [0.0], deployment.predictors._answer

    def pass_by(seconds):
        clock[0] += seconds
        if clock[0] > end[0]:
            raise Ended

    def answer(text, event):
        hangs = json.loads(event["body"])["features"] == [[5.0]]
        pass_by(policy.timeout_s if hangs else 4.0)
        return {"statusCode": 502, "body": "null"} if hangs else plain(text, event)

    monkeypatch.setattr("perch.app.prepare.dies_loading", lambda *_: pass_by(9.0))
    monkeypatch.setattr(deployment.predictors, "_answer", answer)
    deployment.registered("v1", probes=tuple(Probe(features=((float(n),),)) for n in range(6)))
    for _ in range(5):
        deployment.now += timedelta(minutes=1)
        end[0] = clock[0] + 50
        with suppress(Ended):
            advance(deployment.world, policy, now=deployment.now, owner="t", timer=lambda: clock[0])

    assert deployment.kinds[-1] == "RolloutRefused"
    assert "probe 5" in deployment.world.registry.rollouts("digits")[0].reason


def test_what_aws_refuses_for_good_ends_a_rollout_before_it_has_traffic(deployment):
    """Otherwise it would be tried at every tick, and nothing could follow it."""
    deployment.live("v1")
    failing(deployment.clients, "lambda_", "PublishVersion", "InvalidParameterValueException")
    deployment.registered("v2")
    deployment.tick()

    assert deployment.kinds[-1] == "RolloutRefused"
    assert "InvalidParameterValueException" in deployment.world.registry.rollouts("digits")[0].reason


def test_what_aws_refuses_for_good_takes_the_traffic_back(shifting):
    """A step that cannot be judged is not one to stay on."""
    failing(shifting.clients, "cloudwatch", "GetMetricData", "ValidationError")
    shifting.tick(3)
    shifting.tick()

    assert shifting.alias == Routing(version="2")
    assert "ValidationError" in shifting.world.registry.rollouts("digits")[0].reason


def test_trouble_that_passes_ends_nothing(shifting):
    """A throttled or failing service is asked again at the next tick."""
    switch = failing(shifting.clients, "cloudwatch", "GetMetricData", "InternalServiceFault", 500)
    progress = shifting.tick(3)
    assert "InternalServiceFault" in progress.waiting
    assert shifting.state.rollout.phase is Phase.SHIFTING

    switch["on"] = False
    assert shifting.tick().waiting


def test_a_long_answer_to_a_probe_does_not_outgrow_the_ledger(deployment):
    """Reasons quote, but not without end."""
    deployment.live("v1")
    answer = {"model": "digits", "version": "v2", "predictions": ["x" * 300_000]}
    deployment.predictors.broken["v2"] = lambda: {"statusCode": 200, "body": __import__("json").dumps(answer)}
    deployment.registered("v2")
    deployment.settle()

    assert deployment.kinds[-1] == "RolloutRefused"
    assert len(deployment.world.registry.rollouts("digits")[0].reason) < 1001


def test_slow_probes_go_on_where_they_stopped(deployment, monkeypatch):
    """A tick has only so much time; each sends some, and none is sent in vain."""
    from perch.app import advance as advancing

    clock = iter(range(0, 10_000, 15))
    monkeypatch.setattr(advancing.time, "monotonic", lambda: next(clock))
    probes = tuple(Probe(features=((float(n),),)) for n in range(6))
    deployment.registered("v1", probes=probes)
    for _ in range(6):
        deployment.now += timedelta(minutes=1)
        advance(deployment.world, deployment.policy, now=deployment.now, owner="t", timer=lambda: next(clock))

    assert "ProbesPassed" in deployment.kinds
    assert deployment.alias == Routing(version="2")
    assert [asked for asked, _ in deployment.predictors.asked] == ["2"] * 6


def test_an_endpoint_that_is_given_another_model_begins_with_its_newest_version(deployment):
    """Numbers of one model say nothing of another's, and the rollout under way keeps its own model."""
    deployment.live("v1")
    for n in range(3):
        pointer = replace(deployment.state.stable.pointer, model="letters", version=f"w{n}", sha256=f"{n:064d}")
        found = deployment.world.registry.require_version("digits", "v1")
        deployment.world.registry.register(replace(found, pointer=pointer, number=n + 1))
    deployment.policy = replace(deployment.policy, model="letters")
    deployment.settle()

    assert deployment.state.rollout.candidate.pointer.version == "w2"
    assert deployment.state.queue == ()


def test_a_function_that_was_made_anew_starts_afresh(deployment):
    """The table outlives the function; what it remembers of revisions that are gone is forgotten, in words."""
    deployment.live("v1")
    deployment.clients.lambda_.update_alias(FunctionName=FUNCTION, Name="live", FunctionVersion="1")
    deployment.clients.lambda_.delete_function(FunctionName=FUNCTION, Qualifier="2")
    deployment.settle()

    assert "EndpointForgotten" in deployment.kinds
    assert deployment.state.stable.pointer.version == "v1"
    assert deployment.alias == Routing(version=deployment.state.stable.lambda_version)


def test_new_uploads_do_not_keep_the_judge_waiting(shifting):
    """However many arrive, a bad candidate is taken back first."""
    for n in range(3, 40):
        shifting.registered(f"v{n}")
    shifting.now += timedelta(minutes=1)
    shifting.both(1000, failures=20)
    shifting.tick(2)

    assert shifting.alias == Routing(version="2")


def test_the_queue_is_bounded_and_the_oldest_makes_room(shifting):
    """An item of the registry has a size; the newest uploads are the ones that matter."""
    for n in range(3, 6 + QUEUE_LIMIT):
        shifting.registered(f"v{n}")
    shifting.tick()
    shifting.tick()

    queue = [c.pointer.version for c in shifting.state.queue]
    assert len(queue) == QUEUE_LIMIT
    assert queue[-1] == f"v{5 + QUEUE_LIMIT}"
    assert any("makes room" in e.reason for e in shifting.world.registry.ledger("digits"))


def test_code_that_did_not_pass_is_named_and_holds_back_uploads(deployment):
    """A model is not judged on code that is known to be bad, unless somebody insists."""
    from perch.app.start import start

    d = deployment
    d.live("v1")
    d.deploy_code("second")
    d.tick()
    d.tick()
    d.both(1000, crashes=9)
    d.tick(2)
    d.settle()
    assert d.kinds[-1] == "CodePassedOver"
    d.registered("v2")
    d.settle()
    assert d.kinds[-1] == "RolloutRefused"
    assert "did not pass before" in d.world.registry.ledger("digits")[-1].reason

    start(d.world, "digits", "v2", actor="grace", now=d.now)
    d.settle()
    assert d.state.rollout.phase is Phase.SHIFTING


def test_law_5_metrics_that_cannot_be_read_are_not_zero_failures(shifting):
    """A partial answer of CloudWatch is waited out."""

    def partial(parsed, **_):
        for series in parsed["MetricDataResults"]:
            series["StatusCode"] = "InternalError"

    shifting.clients.cloudwatch.meta.events.register("after-call.cloudwatch.GetMetricData", partial)
    for _ in range(3):
        shifting.both()
        progress = shifting.tick(10)

    assert "did not answer completely" in progress.waiting
    assert shifting.state.rollout.step == 0


def test_a_stranger_who_moves_the_alias_before_there_is_traffic_is_told(deployment):
    """The correction stands in the ledger in every phase in which Perch itself moves nothing."""
    from perch.local.strict.settings import current

    deployment.live("v1")
    current().settle_s = 90.0
    deployment.registered("v2")
    deployment.tick()
    deployment.clients.lambda_.update_alias(FunctionName=FUNCTION, Name="live", FunctionVersion="1")
    deployment.tick()

    assert "AliasCorrected" in deployment.kinds
    assert deployment.alias == Routing(version="2")


def test_alarms_that_somebody_deleted_are_made_again_by_the_rollouts_own_rules(shifting):
    """The guards of a rollout are the ones that it began with, to the end."""
    names = [a.name for a in shifting.world.alarms.of("digits")]
    shifting.clients.cloudwatch.delete_alarms(AlarmNames=names)
    shifting.policy = EndpointPolicy(
        **vars(shifting.policy) | {"guards": replace(shifting.policy.guards, error_rate=0.9)}
    )
    shifting.tick()

    again = shifting.clients.cloudwatch.describe_alarms()["MetricAlarms"]
    assert sorted(a["AlarmName"] for a in again) == sorted(names)
    assert {a["Threshold"] for a in again if parse_alarm(a["AlarmName"]).guard == "candidate-errors"} == {5.0}


def test_a_roll_back_tells_everything_that_was_not_told(shifting):
    """Entries that the tick could not announce are not jumped over."""
    from perch.app.roll_back import roll_back_by_hand

    switch = failing(shifting.clients, "events", "PutEvents", "AccessDeniedException", 403)
    shifting.registered("v3")
    shifting.tick()
    switch["on"] = False
    told = []
    shifting.clients.events.meta.events.register(
        "before-parameter-build.*.PutEvents", lambda params, **_: told.extend(params["Entries"])
    )
    roll_back_by_hand(shifting.world, "digits", reason="?", actor="grace", now=shifting.now)

    assert [e["DetailType"] for e in told] == ["RolloutQueued", "RollbackDecided"]


def test_reading_while_somebody_writes_is_a_conflict_not_a_crash(deployment):
    """DynamoDB cancels a read that meets a transaction; the round is begun again."""
    deployment.live("v1")
    failing(deployment.clients, "dynamodb", "TransactGetItems", "TransactionCanceledException")

    assert "being written" in deployment.tick().waiting


def test_an_alias_that_cannot_be_read_is_waited_for(deployment):
    """A service that is down for a minute is no reason to fail the tick."""
    deployment.live("v1")
    failing(deployment.clients, "lambda_", "GetAlias", "ServiceException", 500)

    assert "did not answer" in deployment.tick().waiting


def test_events_are_stamped_by_the_bus(deployment):
    """The driver takes its now from them, so what is told late must not take it back in time."""
    told = []
    deployment.clients.events.meta.events.register(
        "before-parameter-build.*.PutEvents", lambda params, **_: told.extend(params["Entries"])
    )
    deployment.live("v1")

    assert told
    assert not any("Time" in e for e in told)


def test_the_bus_says_so_when_it_does_not_take_events(deployment):
    """Announcing is tried again; nothing is lost."""
    failing(deployment.clients, "events", "PutEvents", "AccessDeniedException", 403)

    with pytest.raises(NotReady, match="does not take events"):
        deployment.world.bus.announce([("ModelVersionRegistered", {})])
