"""The driver against strict AWS: from a registered version to live traffic, step by step, and back."""

from dataclasses import replace

from perch.app.command import promote
from perch.domain.ledger import broken_at
from perch.domain.policy import Settings, Step
from perch.domain.rollout import Phase, Routing
from tests.aws.deployment import FUNCTION, answers, deployed, deployment
from tests.unit.values import CANARY

__all__ = ["deployment"]


def pass_step(d):
    """Give the candidate of the current step its requests, and its time."""
    d.now += d.now.resolution
    for _ in range(3):
        d.tick()
        d.both(2000)
        if d.state.rollout is None:
            return
    d.tick(30)


def test_the_first_version_goes_live_directly(deployment):
    """Published, probed, then all of the traffic."""
    assert deployment.alias == Routing(version="1")
    deployment.registered("v1")
    deployment.settle()

    assert deployment.alias == Routing(version="2")
    assert deployment.predictors.asked == [("2", "v1")]
    assert deployment.kinds == [
        "RolloutQueued", "RolloutStarted", "RevisionPublished", "PromotionDecided", "RolloutPromoted",
    ]  # fmt: skip


def test_the_second_version_takes_the_steps(deployment):
    """5 %, then 50 %, then everything; the reason of each step names its numbers."""
    deployment.live("v1")
    deployment.registered("v2")
    deployment.tick()
    assert deployment.alias == Routing(version="2", other="3", weight=0.05)

    pass_step(deployment)
    assert deployment.alias == Routing(version="2", other="3", weight=0.5)

    pass_step(deployment)
    assert deployment.alias == Routing(version="3")
    assert deployment.state.stable.pointer.version == "v2"
    entries = deployment.world.registry.ledger("digits")
    assert "0 of 3,300 candidate requests failed against 0 of 8,700 on stable" in entries[-2].reason
    assert broken_at(entries) is None


def test_the_candidate_has_its_alarms_while_it_is_one(deployment):
    """Errors of exactly that revision, through the alias; none is left afterwards."""
    deployment.live("v1")
    deployment.registered("v2")
    deployment.tick()
    alarms = deployment.clients.cloudwatch.describe_alarms()["MetricAlarms"]

    assert {a["AlarmName"] for a in alarms} == {"perch/digits/candidate-errors/3"}
    crashes = next(m for a in alarms for m in a.get("Metrics", []) if m["Id"] == "crashes")
    assert {d["Name"]: d["Value"] for d in crashes["MetricStat"]["Metric"]["Dimensions"]} == {
        "FunctionName": FUNCTION, "Resource": f"{FUNCTION}:live", "ExecutedVersion": "3",
    }  # fmt: skip

    pass_step(deployment)
    pass_step(deployment)
    assert deployment.clients.cloudwatch.describe_alarms()["MetricAlarms"] == []


def test_failures_take_the_candidate_back(deployment):
    """The judge objects, the alias returns, and the reason stands in the ledger."""
    deployment.live("v1")
    deployment.registered("v2")
    deployment.tick()
    deployment.tick()
    deployment.both(1000, failures=5, stable_failures=1)
    deployment.tick(2)
    deployment.tick()

    assert deployment.alias == Routing(version="2")
    assert deployment.state.rollout is None
    [rollout, *_] = deployment.world.registry.rollouts("digits")
    assert rollout.phase is Phase.ROLLED_BACK
    assert "5 of 50 candidate requests failed against 1 of 950 on stable: odds ratio" in rollout.reason


def test_a_candidate_that_fails_its_probe_never_sees_a_user(deployment):
    """The alias does not move, and the answer of the probe is the reason."""
    deployment.live("v1")
    deployment.predictors.broken["v2"] = answers(503, "sha256 of the artifact does not match")
    deployment.registered("v2")
    deployment.settle()

    assert deployment.alias == Routing(version="2")
    assert deployment.kinds[-1] == "RolloutRefused"
    assert "answered 503: sha256 of the artifact" in deployment.world.registry.rollouts("digits")[0].reason


def test_law_3_a_version_that_is_not_active_gets_no_probe_and_no_traffic(deployment):
    """While Lambda is busy the driver waits, tick by tick."""
    deployment.live("v1")
    from perch.local.strict.settings import current

    current().settle_s = 90.0
    deployment.registered("v2")
    waits = [deployment.tick().waiting for _ in range(3)]

    assert "Lambda is updating it" in waits[0]
    assert deployment.alias == Routing(version="2")
    assert ("3", "v2") not in deployment.predictors.asked
    for _ in range(4):
        deployment.tick()
    assert deployment.alias == Routing(version="2", other="3", weight=0.05)


def test_a_second_upload_waits_for_the_first_to_end(deployment):
    """It queues, and starts by itself when its turn comes."""
    deployment.live("v1")
    deployment.registered("v2")
    deployment.tick()
    deployment.registered("v3")
    deployment.tick()
    assert [c.pointer.version for c in deployment.state.queue] == ["v3"]
    assert deployment.alias.other == "3"

    pass_step(deployment)
    pass_step(deployment)
    deployment.settle()
    assert deployment.state.stable.pointer.version == "v2"
    assert deployment.state.rollout.candidate.pointer.version == "v3"


def test_a_newer_version_takes_no_place_before_the_one_that_bakes_has_proved_itself():
    """v2 was let into its bake by hand and has shown nothing yet; v3 waits until only v2's time is lacking."""
    canary = Step(weight=0.5, hold_s=60, requests=10)
    bake = Step(weight=1.0, hold_s=6 * 3600, requests=500, watch=True)
    policy = replace(CANARY, rollout=replace(CANARY.rollout, steps=(canary, bake), when_busy="supersede"))
    with deployed(Settings(name="perch", endpoints=(policy,))) as d:
        d.live("v1")
        d.registered("v2")
        d.tick()
        promote(d.world, "digits", full=False, reason="let it bake", actor="grace", now=d.now)
        d.tick()
        d.registered("v3")
        d.tick()
        d.tick()
        assert d.state.rollout.candidate.pointer.version == "v2"
        assert [c.pointer.version for c in d.state.queue] == ["v3"]

        for _ in range(6):
            d.both(400)
            d.tick()
        ended = next(e for e in d.world.registry.ledger("digits") if "has proved itself" in e.reason)
        assert "of the hold are left" in ended.reason
        assert ended.inputs["verdict"] == "continue"
        assert d.state.stable.pointer.version == "v2"
        assert d.state.rollout.candidate.pointer.version == "v3"


def test_what_is_superseded_says_how_it_stood():
    """It is taken back for a newer one, and the ledger keeps the judge's numbers."""
    policy = replace(CANARY, rollout=replace(CANARY.rollout, when_busy="supersede"))
    with deployed(Settings(name="perch", endpoints=(policy,))) as d:
        d.live("v1")
        d.registered("v2")
        d.tick()
        for _ in range(3):
            d.both(2000)
            d.tick()
        d.registered("v3")
        d.tick()
        d.tick()
        [back] = [e for e in d.world.registry.ledger("digits") if e.kind == "RollbackDecided"]

        assert back.reason.startswith("superseded by digits v3: ")
        assert "of 200 candidate requests failed" in back.reason
        assert back.inputs["tally"]["candidate"]["requests"] == 200


def test_new_code_becomes_a_candidate_too(deployment):
    """A deployment publishes nothing by itself; the same steps apply, with the same model."""
    deployment.live("v1")
    deployment.deploy_code("second")
    assert deployment.alias == Routing(version="2")
    deployment.tick()

    assert deployment.state.rollout.candidate.cause == "code"
    assert deployment.alias == Routing(version="2", other="3", weight=0.05)
    found = deployment.world.functions.configuration(FUNCTION, "3")
    assert found.pointer.version == "v1"


def test_new_code_that_failed_is_not_tried_again(deployment):
    """Only a newer deployment makes a new candidate."""
    deployment.live("v1")
    deployment.deploy_code("second")
    deployment.tick()
    deployment.tick()
    deployment.both(1000, crashes=9)
    deployment.tick(2)
    deployment.settle()
    before = deployment.kinds
    deployment.tick()

    assert deployment.kinds == before
    deployment.deploy_code("third")
    deployment.tick()
    assert deployment.state.rollout.candidate.cause == "code"


def test_a_model_for_another_runtime_is_passed_over_with_a_reason(deployment):
    """It stays registered; the endpoint does not try to load it."""
    deployment.live("v1")
    deployment.registered("v2", runtimes=("torch",))
    deployment.settle()

    assert deployment.kinds[-1] == "RolloutRefused"
    assert "endpoint digits runs onnx" in deployment.world.registry.ledger("digits")[-1].reason
    assert deployment.alias == Routing(version="2")


def test_a_stranger_who_moves_the_alias_is_corrected(deployment):
    """One writer owns the alias; the ledger says what was found."""
    deployment.live("v1")
    deployment.clients.lambda_.update_alias(FunctionName=FUNCTION, Name="live", FunctionVersion="1")
    deployment.tick()

    assert deployment.alias == Routing(version="2")
    assert deployment.kinds[-1] == "AliasCorrected"


def test_an_idle_tick_costs_the_same_however_much_history_there_is(deployment):
    """Three calls: the alias, $LATEST, and the state."""
    counts = []
    for versions in (["v1"], ["v2", "v3", "v4"]):
        for version in versions:
            deployment.registered(version, runtimes=("torch" if version != "v1" else "onnx",))
            deployment.settle()
        calls = []
        events = [getattr(deployment.clients, s).meta.events for s in ("lambda_", "dynamodb", "cloudwatch", "events")]
        for e in events:
            e.register("before-call.*.*", lambda model, seen=calls, **_: seen.append(model.name), unique_id="count")
        deployment.tick()
        for e in events:
            e.unregister("before-call.*.*", unique_id="count")
        counts.append(sorted(calls))

    assert counts[0] == counts[1] == ["GetAlias", "GetFunctionConfiguration", "TransactGetItems"]
