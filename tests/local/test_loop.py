"""The whole loop on the local cloud: upload, registration, probes, canary, promotion, roll-back, health, new code.

One cloud for all tests of this module, deployed from the synthesized templates; time is stepped, requests are real.
"""

from __future__ import annotations

import pytest

from perch.app.start import start
from perch.domain.rollout import Routing
from tests.local.tiny_models import TOO_MUCH
from tests.local.whole import Trial, artifact, changed_assembly, trial

pytestmark = pytest.mark.slow
BOTH = pytest.mark.parametrize("endpoint", ["alpha", "beta"])
STEPS = {"alpha": [0.2, 0.5], "beta": [0.4]}
FIRST = ["RolloutQueued", "RolloutStarted", "RevisionPublished", "PromotionDecided", "RolloutPromoted"]


@pytest.fixture(scope="module")
def whole(trial_assembly, tmp_path_factory):
    with trial(trial_assembly, tmp_path_factory.mktemp("cloud")) as found:
        yield found


def revision(whole: Trial, endpoint: str) -> str:
    """The Lambda version that is stable."""
    stable = whole.state(endpoint).stable
    assert stable is not None
    return stable.lambda_version


# -- upload to live ---------------------------------------------------------------------------------------------------


@BOTH
def test_a_first_upload_is_registered_probed_and_live(whole, endpoint):
    """A plain S3 PUT is all that it takes, for an ONNX model on a zip function and a torch model in a container."""
    whole.announced()
    assert whole.predict(endpoint).status == 503
    version = whole.upload(endpoint, 1)
    whole.wait(lambda: bool(whole.stable(endpoint)), endpoint)
    answer = whole.predict(endpoint)
    known = whole.registry.require_version(endpoint, version)
    told = [event for event in whole.announced() if event["detail"]["model"] == endpoint]

    assert (answer.status, answer.body["version"], answer.body["predictions"]) == (200, version, [1])
    assert whole.alias(endpoint) == Routing(version=answer.body["revision"])
    assert known.pointer.size == len(artifact(endpoint, 1))
    assert whole.kinds(endpoint) == FIRST
    assert [event["detail-type"] for event in told] == ["ModelVersionRegistered", *FIRST]
    assert "3 of 3 probes passed" in whole.ledger(endpoint)[-1].reason


@BOTH
def test_a_second_version_takes_over_step_by_step_and_no_request_fails(whole, endpoint):
    """The alias carries each configured weight in turn, and the answers come from where it says."""
    old = whole.at_rest(endpoint)
    before, seq = revision(whole, endpoint), whole.state(endpoint).seq
    new = whole.upload(endpoint, 2)
    traffic = whole.live_traffic(endpoint, lambda: whole.stable(endpoint) == new)
    after = revision(whole, endpoint)
    steps = STEPS[endpoint]
    # What CloudWatch counts by ExecutedVersion, and the judge reads, is what the answers said.
    function = f"perch-{endpoint}"
    executed = {"FunctionName": function, "Resource": f"{function}:live", "ExecutedVersion": after}

    assert whole.counted("Invocations", executed) == traffic.served[new, after]
    assert traffic.failed == []
    assert traffic.routed == [Routing(version=before), *(Routing(version=before, other=after, weight=w) for w in steps)]
    assert set(traffic.served) == {(old, before), (new, after)}
    assert whole.alias(endpoint) == Routing(version=after)
    assert [whole.predict(endpoint).body["version"] for _ in range(5)] == [new] * 5
    story = whole.ledger(endpoint, after=seq)
    # What is usual for stable is frozen before it is measured by, and again when there was enough traffic to know it.
    assert "BaselineFrozen" in [entry.kind for entry in story[:4]]
    story = [entry for entry in story if entry.kind != "BaselineFrozen"]
    assert [entry.kind for entry in story] == [
        *("RolloutQueued", "RolloutStarted", "RevisionPublished"),
        *["StepEntered"] * len(steps),
        *("PromotionDecided", "RolloutPromoted"),
    ]
    reasons = [entry.reason for entry in story]
    assert [f"{w:.0%}" in reason for w, reason in zip(steps, reasons[3:], strict=False)] == [True] * len(steps)
    assert "0 of" in reasons[-1]  # failed requests of the candidate, in numbers


@BOTH
def test_a_version_that_raises_on_all_live_traffic_sets_the_alarm_off_and_is_taken_back(whole, endpoint):
    """The alarm's event and its direct action both reach roll_back, and all traffic is on the stable version again."""
    old = whole.at_rest(endpoint)
    before, seq = revision(whole, endpoint), whole.state(endpoint).seq
    roll_back = {"FunctionName": "perch-roll-back"}
    ran, since = whole.counted("Invocations", roll_back), whole.cloud.clock.now()
    bad = whole.upload(endpoint, 0, fragile=True)
    traffic = whole.live_traffic(
        endpoint,
        lambda: "RolloutRolledBack" in whole.kinds(endpoint, after=seq),
        rows=[TOO_MUCH],
        each=20,  # enough in a minute to be no chance
    )
    candidate = next(e.revision for e in whole.ledger(endpoint, after=seq) if e.kind == "RevisionPublished")
    alarm = f"perch/{endpoint}/candidate-errors/{candidate}"
    history = whole.alarm_history(alarm)
    by_bus = [
        record
        for record in whole.cloud.machinery.bus.history
        if record.at >= since and record.target_arn.endswith(":perch-roll-back") and record.outcome == "delivered"
    ]
    decided, closed = whole.ledger(endpoint, after=seq)[-2:]

    assert {answer.status for answer in traffic.failed} == {500}
    assert all("the model raised" in answer.error for answer in traffic.failed)
    assert (old, before) in traffic.served
    assert set(traffic.served) <= {(old, before), (bad, candidate)}
    assert [h["HistorySummary"] for h in history if h["HistoryItemType"] == "StateUpdate"][-1].endswith("to ALARM")
    assert [h["HistorySummary"] for h in history if h["HistoryItemType"] == "Action"] == [
        "Successfully executed action arn:aws:lambda:us-east-1:123456789012:function:perch-roll-back"
    ]
    assert by_bus
    assert whole.counted("Invocations", roll_back) - ran >= 2
    assert (decided.kind, closed.kind) == ("RollbackDecided", "RolloutRolledBack")
    assert decided.actor == f"alarm {alarm}"
    assert alarm in decided.reason
    assert "Threshold Crossed" in closed.reason
    assert whole.alias(endpoint) == Routing(version=before)
    assert whole.stable(endpoint) == old
    answer = whole.predict(endpoint, [TOO_MUCH])
    assert (answer.status, answer.body["version"]) == (200, old)
    left = whole.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"perch/{endpoint}/candidate")
    assert left["MetricAlarms"] == []


# -- what comes meanwhile ---------------------------------------------------------------------------------------------


def test_an_upload_during_a_rollout_queues_and_says_so(whole):
    """It waits for its turn, with a reason that names what it waits for, and then takes it."""
    old = whole.at_rest("alpha")
    seq = whole.state("alpha").seq
    second = whole.upload("alpha", 1)
    traffic = whole.live_traffic("alpha", lambda: whole.phase("alpha") == "shifting")
    third = whole.upload("alpha", 2)
    whole.pass_time(60)
    rollout = whole.state("alpha").rollout
    queued = [e for e in whole.ledger("alpha", after=seq) if e.kind == "RolloutQueued"][-1]

    assert rollout is not None
    assert rollout.candidate.pointer.version == second
    assert queued.version == third
    assert queued.reason == f"alpha {third} waits for rollout {rollout.id} of alpha {second}"

    traffic.failed += whole.live_traffic("alpha", lambda: whole.stable("alpha") == third).failed
    assert traffic.failed == []
    assert [e.version for e in whole.ledger("alpha", after=seq) if e.kind == "RolloutPromoted"] == [second, third]
    assert old not in (second, third)


def test_a_version_that_needs_approval_waits_until_a_person_starts_it(whole):
    """The ledger says that it waits and how it is started; nothing moves until then."""
    version = whole.upload("gamma", 1)
    whole.wait(lambda: bool(whole.state("gamma").considered), "gamma")
    whole.pass_time(300)
    (awaited,) = [e for e in whole.ledger("gamma") if e.version == version]

    assert awaited.kind == "ApprovalAwaited"
    assert f"perch rollouts start gamma {version}" in awaited.reason
    assert whole.predict("gamma").status == 503

    start(whole.world, "gamma", version, actor="ada", now=whole.cloud.clock.now())
    whole.wait(lambda: whole.stable("gamma") == version, "gamma")
    assert [e.actor for e in whole.ledger("gamma") if e.kind == "RolloutStarted"] == ["ada"]
    assert whole.predict("gamma").body["version"] == version


# -- new code ---------------------------------------------------------------------------------------------------------


def test_a_deployment_leaves_the_weights_alone_and_its_code_is_the_next_candidate(whole, tmp_path):
    """New predictor code, deployed in the middle of a rollout, moves no alias; it is rolled out after, like a model."""
    whole.at_rest("alpha")
    new = whole.upload("alpha", 1)
    failed = whole.live_traffic("alpha", lambda: whole.phase("alpha") == "shifting").failed
    moving, seq = whole.alias("alpha"), whole.state("alpha").seq
    changed = changed_assembly(whole.assembly, tmp_path, "mid-rollout")
    whole.cloud.deploy(changed)
    assert whole.alias("alpha") == moving
    assert moving.weight == STEPS["alpha"][0]
    failed += whole.live_traffic("alpha", lambda: whole.stable("alpha") == new).failed
    before, promoted = revision(whole, "alpha"), whole.state("alpha").seq
    traffic = whole.live_traffic("alpha", lambda: "RolloutPromoted" in whole.kinds("alpha", after=promoted))
    after = revision(whole, "alpha")
    sha = [whole.functions.configuration("perch-alpha", number).code_sha256 for number in (before, after)]

    assert failed + traffic.failed == []
    assert "AliasCorrected" not in whole.kinds("alpha", after=seq)
    assert set(traffic.served) == {(new, before), (new, after)}
    assert [r.weight for r in traffic.routed if r.version == before and r.other] == STEPS["alpha"]
    assert whole.alias("alpha") == Routing(version=after)
    assert sha[0] != sha[1]
    (queued,) = [e for e in whole.ledger("alpha", after=seq) if e.kind == "RolloutQueued"]
    assert f"alpha {new} with new code" in queued.reason

    resting = whole.state("alpha").seq
    whole.cloud.deploy(changed)
    whole.pass_time(120)
    assert whole.state("alpha").seq == resting  # the same templates again are no news
    assert whole.alias("alpha") == Routing(version=after)


def test_new_code_that_does_not_start_is_refused_and_serves_nobody(whole, tmp_path):
    """Its revision fails the probes; it is not tried again by itself, and code that works is rolled out after it."""
    version = whole.at_rest("alpha")
    before, seq = whole.alias("alpha"), whole.state("alpha").seq
    whole.cloud.deploy(changed_assembly(whole.assembly, tmp_path, "broken\nraise RuntimeError('does not start')"))
    traffic = whole.live_traffic("alpha", lambda: "RolloutRefused" in whole.kinds("alpha", after=seq))
    refused = next(e for e in whole.ledger("alpha", after=seq) if e.kind == "RolloutRefused")
    whole.pass_time(300)

    assert "did not pass its probes: probe 0: answered 502: does not start" in refused.reason
    assert whole.kinds("alpha", after=refused.seq) == ["CodePassedOver"]
    assert (traffic.failed, set(traffic.versions), whole.alias("alpha")) == ([], {version}, before)

    whole.cloud.deploy(whole.assembly)
    assert whole.at_rest("alpha") == version


def test_an_alias_that_a_stranger_moved_is_put_back_and_told(whole):
    """The driver is the alias's only writer, at rest and in a rollout."""
    whole.at_rest("alpha")
    resting, seq = whole.alias("alpha"), whole.state("alpha").seq
    whole.functions.route("perch-alpha", Routing(version="1"))
    whole.pass_time(60)

    assert whole.alias("alpha") == resting
    (entry,) = whole.ledger("alpha", after=seq)
    assert (entry.kind, entry.severity) == ("AliasCorrected", "warning")

    whole.upload("alpha", 2)
    whole.live_traffic("alpha", lambda: whole.phase("alpha") == "shifting")
    moving = whole.alias("alpha")
    whole.functions.route("perch-alpha", Routing(version="1"))
    whole.pass_time(60)
    assert whole.alias("alpha") == moving


# -- health -----------------------------------------------------------------------------------------------------------


def spoil(whole: Trial, endpoint: str, version: str) -> None:
    """Take a version's artifact away and have every execution environment started anew."""
    pointer = whole.registry.require_version(endpoint, version).pointer
    whole.client("s3").delete_object(Bucket=whole.bucket, Key=pointer.key, VersionId=pointer.version_id)
    whole.cloud.dataplane.retire(f"perch-{endpoint}")


def test_the_health_check_keeps_history_and_a_metric_in_the_alarm_s_own_dimensions(whole):
    """Every five minutes by its schedule; the alarm in the template looks at exactly this series."""
    version = whole.at_rest("alpha")
    before = len(whole.registry.health("alpha", limit=100))
    whole.pass_time(600)
    checks = whole.registry.health("alpha", limit=100)[:2]
    alarms = whole.client("cloudwatch").describe_alarms(AlarmNames=["perch/alpha/probes-stable"])
    (alarm,) = alarms["MetricAlarms"]
    found = whole.client("cloudwatch").get_metric_statistics(
        Namespace=alarm["Namespace"], MetricName=alarm["MetricName"], Dimensions=alarm["Dimensions"],
        Statistics=["Sum", "SampleCount"], Period=60,
        StartTime=whole.cloud.clock.now().timestamp() - 660, EndTime=whole.cloud.clock.now().timestamp(),
    )  # fmt: skip

    assert len(whole.registry.health("alpha", limit=100)) == before + 2
    assert [(c["role"], c["healthy"], c["model_version"]) for c in checks] == [("stable", True, version)] * 2
    assert sum(point["SampleCount"] for point in found["Datapoints"]) >= 2
    assert sum(point["Sum"] for point in found["Datapoints"]) == 0


def test_a_candidate_that_fails_its_health_check_is_taken_back(whole):
    """probes-candidate goes off without a single user's request, and the roll-back follows."""
    old = whole.at_rest("alpha")
    seq = whole.state("alpha").seq
    bad = whole.upload("alpha", 1)
    whole.live_traffic("alpha", lambda: whole.phase("alpha") == "shifting", each=1)
    spoil(whole, "alpha", bad)
    whole.wait(lambda: not whole.busy("alpha"), "alpha", limit_s=600)
    (decided,) = [e for e in whole.ledger("alpha", after=seq) if e.kind == "RollbackDecided"]
    (check, *_) = [c for c in whole.registry.health("alpha") if c["role"] == "candidate"]

    assert "perch/alpha/probes-candidate" in decided.reason
    assert whole.stable("alpha") == old
    assert not check["healthy"]
    assert "cannot be read" in check["report"]["failure"]


def test_a_stable_revision_that_fails_its_health_check_raises_its_own_alarm_and_blocks_no_fix(whole):
    """probes-stable goes off; it is held against no candidate, and the next version goes live."""
    version = whole.at_rest("beta")
    seq = whole.state("beta").seq
    spoil(whole, "beta", version)
    whole.pass_time(420)
    states = [h["HistorySummary"] for h in whole.alarm_history("perch/beta/probes-stable")]
    fix = whole.upload("beta", 1)
    whole.wait(lambda: whole.phase("beta") == "shifting", "beta")

    assert any(summary.endswith("to ALARM") for summary in states)
    assert "RollbackDecided" not in whole.kinds("beta", after=seq)
    assert whole.state("beta").rollout.candidate.pointer.version == fix


# -- time -------------------------------------------------------------------------------------------------------------


def test_time_runs_by_itself_under_live_traffic(whole):
    """With the clock free-running, a version is promoted while users are served without a failure."""
    whole.at_rest("alpha")
    began = whole.cloud.clock.now()
    new = whole.upload("alpha", 2)
    statuses = set()
    whole.cloud.clock.speed = 600
    whole.cloud.run()
    try:
        for _ in range(20_000):
            statuses.add(whole.predict("alpha").status)
            if whole.stable("alpha") == new:
                break
    finally:
        whole.cloud.clock.stop()

    assert whole.stable("alpha") == new, whole.story("alpha")
    assert statuses == {200}
    assert (whole.cloud.clock.now() - began).total_seconds() > 4 * 60
