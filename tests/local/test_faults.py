"""What can go wrong on the way: events twice, late, out of order or lost; bad uploads; handlers that fail.

One cloud for all tests of this module. Each test says what it breaks, and claims that the outcome is the same, or that
the trouble is told in words and disturbs nothing else.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from perch.local.events.faults import Delivery, DeliveryFaults, Next, Predicate, Share, to_function
from tests.local.tiny_models import ORDINARY, TOO_MUCH, onnx_model
from tests.local.whole import Trial, trial

pytestmark = pytest.mark.slow
ALWAYS = 10_000
ROWS = [ORDINARY, ORDINARY, TOO_MUCH]


@pytest.fixture(scope="module")
def whole(trial_assembly, tmp_path_factory):
    with trial(trial_assembly, tmp_path_factory.mktemp("cloud")) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_faults_left(whole):
    yield
    whole.cloud.machinery.bus.faults = DeliveryFaults()


def strike(whole: Trial, **faults) -> None:
    whole.cloud.machinery.bus.faults = DeliveryFaults(**faults)


def both(*predicates: Predicate) -> Predicate:
    return lambda delivery: all(predicate(delivery) for predicate in predicates)


def kind(detail_type: str) -> Predicate:
    def selects(delivery: Delivery) -> bool:
        return delivery.event["detail-type"] == detail_type

    return selects


def outcomes(whole: Trial, function: str) -> list[str]:
    """What became of deliveries to a function, the newest last."""
    return [r.outcome for r in whole.cloud.machinery.bus.history if r.target_arn.endswith(f":{function}")]


# -- the bus ----------------------------------------------------------------------------------------------------------


def test_an_upload_that_is_told_three_times_is_registered_once(whole):
    """Duplicates of the S3 event, of its registration's event and of every tick change nothing."""
    whole.at_rest("alpha")
    seq, number = whole.state("alpha").seq, whole.registry.last_number("alpha")
    strike(whole, duplicate=Share(1.0))
    new = whole.upload("alpha", 1)
    whole.cloud.machinery.bus.publish(_s3_event(whole, f"models/alpha/{new}/model.onnx"))
    traffic = whole.live_traffic("alpha", lambda: whole.stable("alpha") == new)

    assert whole.registry.last_number("alpha") == number + 1
    assert whole.kinds("alpha", after=seq).count("RolloutStarted") == 1
    assert traffic.failed == []


def _s3_event(whole: Trial, key: str) -> dict:
    version = whole.client("s3").head_object(Bucket=whole.bucket, Key=key)["VersionId"]
    return {
        "version": "0", "id": "0", "detail-type": "Object Created", "source": "aws.s3", "account": "123456789012",
        "time": whole.cloud.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"), "region": "us-east-1", "resources": [],
        "detail": {"bucket": {"name": whole.bucket}, "object": {"key": key, "version-id": version}},
    }  # fmt: skip


def test_uploads_told_in_the_wrong_order_are_both_registered(whole):
    """Each event names its own bytes; the second upload waits for its turn."""
    whole.at_rest("alpha")
    strike(whole, delay=Next(1, when=to_function("perch-register-model")), delay_s=30)
    late, early = whole.upload("alpha", 1), whole.upload("alpha", 2)
    whole.pass_time(10)
    assert whole.registry.version("alpha", late) is None
    whole.wait(lambda: whole.registry.version("alpha", late) is not None, "alpha", limit_s=60)

    numbers = [whole.registry.require_version("alpha", version).number for version in (early, late)]
    assert numbers == sorted(numbers)
    traffic = whole.live_traffic("alpha", lambda: not whole.busy("alpha"))
    assert traffic.failed == []
    assert whole.stable("alpha") == late


def test_an_s3_event_that_is_lost_disturbs_nothing_and_the_upload_can_be_made_again(whole):
    """Nobody heard of the version; the same PUT again registers it."""
    whole.at_rest("alpha")
    strike(whole, lose=Next(1, when=to_function("perch-register-model")))
    version = whole.upload("alpha", 1)
    whole.pass_time(120)
    assert whole.registry.version("alpha", version) is None

    whole.upload("alpha", 1, version=version)
    whole.wait(lambda: whole.registry.version("alpha", version) is not None, "alpha", limit_s=60)


def test_a_registration_nobody_heard_of_is_found_by_the_next_tick(whole):
    """ModelVersionRegistered is only a nudge."""
    whole.at_rest("alpha")
    seq = whole.state("alpha").seq
    strike(whole, lose=Next(ALWAYS, when=kind("ModelVersionRegistered")))
    new = whole.upload("alpha", 1)
    whole.wait(lambda: "RolloutStarted" in whole.kinds("alpha", after=seq), "alpha", limit_s=90)

    assert "lost" in outcomes(whole, "perch-drive-rollouts")
    assert whole.state("alpha").rollout.candidate.pointer.version == new


def test_promotion_survives_a_bus_that_loses_doubles_delays_and_swaps(whole):
    """A third of all deliveries goes wrong all the time, ticks included; the rollout takes longer and ends the same."""
    whole.at_rest("alpha")
    seq = whole.state("alpha").seq
    new = whole.upload("alpha", 1)
    whole.wait(lambda: whole.registry.version("alpha", new) is not None, "alpha", limit_s=60)
    chance = Share(0.1)
    strike(whole, lose=chance, duplicate=chance, delay=chance, reorder=chance, delay_s=90, reorder_s=70, seed=1)
    traffic = whole.live_traffic("alpha", lambda: whole.stable("alpha") == new, limit_s=3600)

    assert traffic.failed == []
    kinds = whole.kinds("alpha", after=seq)
    assert [kinds.count(one) for one in ("RolloutStarted", "PromotionDecided", "RolloutPromoted")] == [1, 1, 1]
    assert "RollbackDecided" not in kinds
    assert whole.alias("alpha").other is None
    assert minutes_that_were_judged(whole, seq) > 2


def test_roll_back_survives_a_bus_that_loses_doubles_delays_and_swaps(whole):
    """One decision, one end, all traffic on the stable revision."""
    old = whole.at_rest("alpha")
    resting, seq = whole.alias("alpha"), whole.state("alpha").seq
    new = whole.upload("alpha", 0, fragile=True)
    whole.wait(lambda: whole.registry.version("alpha", new) is not None, "alpha", limit_s=60)
    chance = Share(0.1)
    strike(whole, lose=chance, duplicate=chance, delay=chance, reorder=chance, delay_s=90, reorder_s=70, seed=3)
    whole.live_traffic("alpha", lambda: "RolloutRolledBack" in whole.kinds("alpha", after=seq), rows=ROWS, limit_s=3600)
    whole.pass_time(300)  # what was late arrives

    kinds = whole.kinds("alpha", after=seq)
    assert [kinds.count(one) for one in ("RolloutStarted", "RollbackDecided", "RolloutRolledBack")] == [1, 1, 1]
    assert (whole.alias("alpha"), whole.stable("alpha")) == (resting, old)
    minutes_that_were_judged(whole, seq)


def minutes_that_were_judged(whole: Trial, seq: int) -> int:
    """Count the minutes of the rollout that began after entry `seq`; whatever the bus did, each was counted once.

    Every step was left on evidence of its own.
    """
    entries = whole.ledger("alpha", after=seq)
    (rollout,) = {e.rollout for e in entries if e.kind == "RolloutStarted"}
    times = [m.at for look in whole.registry.looks("alpha", rollout) for m in look.minutes]
    assert times == sorted(set(times))
    moves = [e for e in entries if e.kind in ("StepEntered", "PromotionDecided")]
    for step, entry in enumerate(moves[1:]):
        assert entry.inputs["verdict"] == "promote"
        assert (entry.inputs["tally"]["step"], entry.inputs["tally"]["candidate_step"]["requests"] > 0) == (step, True)
    return len(times)


@pytest.mark.parametrize("road", ["bus", "direct action", "tick"])
def test_each_road_to_a_roll_back_is_enough_alone(whole, road):
    """With the other two shut, the alarm's event, its direct action, or the tick's look at it does the whole work."""
    old = whole.at_rest("alpha")
    resting, seq = whole.alias("alpha"), whole.state("alpha").seq
    whole.upload("alpha", 0, fragile=True)
    whole.live_traffic("alpha", lambda: whole.phase("alpha") == "shifting")
    (alarm,) = whole.client("cloudwatch").describe_alarms(AlarmNamePrefix="perch/alpha/candidate-errors")[
        "MetricAlarms"
    ]
    shut = []
    if road != "bus":
        shut.append(to_function("perch-roll-back"))
    if road != "direct action":
        names = [alarm["AlarmName"], "perch/alpha/failures"]
        whole.client("cloudwatch").disable_alarm_actions(AlarmNames=names)
    if road != "tick":
        shut.append(to_function("perch-drive-rollouts"))
    strike(whole, lose=Next(ALWAYS, when=lambda delivery: any(one(delivery) for one in shut)))
    try:
        whole.live_traffic(
            "alpha",
            lambda: "RollbackDecided" in whole.kinds("alpha", after=seq),
            rows=[TOO_MUCH],
            each=20,  # enough in a minute to be no chance, so that an alarm speaks
            limit_s=600,
        )
    finally:
        whole.client("cloudwatch").enable_alarm_actions(AlarmNames=["perch/alpha/failures"])
    decided = whole.ledger("alpha", after=seq)[-1 if road != "tick" else -2]

    assert decided.kind == "RollbackDecided"
    assert decided.actor == ("judge" if road == "tick" else f"alarm {alarm['AlarmName']}")
    assert whole.alias("alpha") == resting  # at once, not with the next tick
    strike(whole)
    whole.pass_time(60)
    assert whole.state("alpha").rollout is None
    assert whole.stable("alpha") == old


# -- uploads ----------------------------------------------------------------------------------------------------------


class Trap:
    """What a pickle can do when somebody loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


BAD = {
    "an empty file": ("models/alpha/empty-1/model.onnx", b"", "the file is empty"),
    "a wrong extension": ("models/alpha/text-1/notes.txt", b"hello there", "the format is not known"),
    "a truncated zip": ("models/alpha/cut-1/model.zip", b"PK\x03\x04" + b"\0" * 40, "cut short"),
    "a truncated zip under another name": ("models/alpha/cut-2/model.onnx", b"PK\x03\x04" + b"\0" * 40, "damaged zip"),
    "an ONNX file that does not parse": ("models/alpha/noise-1/model.onnx", onnx_model(0)[:-40], "not a readable ONNX"),
    "an artifact over the limit": ("models/alpha/large-1/m.onnx", onnx_model(0, padding=1_100_000), "limit is 1 MB"),
    "a key outside the layout": ("alpha.onnx", onnx_model(0), "outside the layout"),
    "a key one folder too deep": ("models/alpha/x/y/model.onnx", onnx_model(0), "outside the layout"),
    "a model name that is not ASCII": ("models/modèle/v1/model.onnx", onnx_model(0), "not a permitted name"),
    "an ONNX model that calls itself safetensors": (
        "models/beta/disguised-1/model.safetensors", onnx_model(0), "an ONNX model"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_upload_is_recorded_and_announced_with_its_reason(whole, what):
    """It is not registered, stays in the store, and disturbs nothing."""
    key, data, words = BAD[what]
    whole.at_rest("alpha")
    whole.announced()
    seq, number = whole.state("alpha").seq, whole.registry.last_number("alpha")
    whole.put(key, data)
    whole.pass_time(5)
    (kept,) = whole.registry.rejections(prefix=key)
    (told,) = whole.announced()
    stored = whole.client("s3").head_object(Bucket=whole.bucket, Key=key)

    assert words in kept.reason
    assert (told["detail-type"], told["detail"]["reason"]) == ("ModelVersionRejected", kept.reason)
    assert (told["detail"]["key"], told["detail"]["severity"]) == (key, "warning")
    assert (kept.key, kept.version_id) == (key, stored["VersionId"])
    assert (whole.state("alpha").seq, whole.registry.last_number("alpha")) == (seq, number)
    assert whole.predict("alpha").status == 200


@pytest.mark.parametrize("file", ["model.pt", "model.pkl", "model.safetensors"])
def test_a_pickle_is_refused_and_never_loaded(whole, tmp_path, file):
    """What it would do when loaded has not happened, neither at registration nor anywhere else."""
    trap, version = tmp_path / "sprung", whole.new_version()
    whole.put(f"models/beta/{version}/{file}", pickle.dumps(Trap(trap)))
    whole.pass_time(180)
    (kept,) = whole.registry.rejections(prefix=f"models/beta/{version}/")

    assert "pickle" in kept.reason
    assert whole.registry.version("beta", version) is None
    assert not trap.exists()
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()  # the trap works


def test_other_bytes_under_a_registered_name_are_refused_and_the_first_stay(whole):
    """A version never changes; the same bytes again are no news."""
    version = whole.at_rest("alpha")
    first = whole.registry.require_version("alpha", version)
    key = first.pointer.key
    data = whole.client("s3").get_object(Bucket=whole.bucket, Key=key)["Body"].read()
    other = onnx_model(2) if data != onnx_model(2) else onnx_model(1)
    whole.announced()
    whole.put(key, data)
    whole.pass_time(5)
    assert whole.announced() == []
    whole.put(key, other)
    whole.pass_time(180)
    (told,) = whole.announced()
    whole.cloud.dataplane.retire("perch-alpha")  # cold starts read the bytes anew

    assert told["detail-type"] == "ModelVersionRejected"
    assert "a version never changes" in told["detail"]["reason"]
    assert whole.registry.require_version("alpha", version) == first
    assert (whole.stable("alpha"), whole.predict("alpha").body["version"]) == (version, version)


def test_a_model_that_no_endpoint_declares_is_registered_and_says_so(whole):
    """It starts no rollout, and is there when an endpoint for it is declared."""
    whole.announced()
    whole.put("models/stray/v1/model.onnx", onnx_model(0))
    whole.pass_time(120)
    (told,) = [event for event in whole.announced() if event["detail"]["model"] == "stray"]

    assert told["detail-type"] == "ModelVersionRegistered"
    assert "no endpoint in perch.toml serves model 'stray'" in told["detail"]["reason"]
    assert told["detail"]["endpoint"] is None
    assert whole.registry.require_version("stray", "v1").number == 1


# -- handlers ---------------------------------------------------------------------------------------------------------


def test_an_event_that_a_handler_cannot_take_is_tried_again_twice_and_then_kept(whole):
    """After one and after two more minutes; then the dead-letter queue holds it, and its alarm tells people."""
    event, dimensions = {"time": "2026-01-01T00:00:00Z", "detail": {}}, {"FunctionName": "perch-register-model"}
    before = whole.counted("Errors", dimensions)
    whole.client("lambda").invoke(
        FunctionName="perch-register-model", InvocationType="Event", Payload=json.dumps(event)
    )
    failed = []
    for seconds in (1, 58, 3, 117, 3):
        whole.pass_time(seconds)
        failed.append(whole.counted("Errors", dimensions) - before)
    queue = whole.outputs["DeadLetterQueueUrl"]
    (message,) = whole.client("sqs").receive_message(QueueUrl=queue, VisibilityTimeout=0)["Messages"]
    record = json.loads(message["Body"])

    assert failed == [1, 1, 2, 2, 3]
    assert record["requestPayload"] == event
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["responsePayload"]["errorType"] == "KeyError"
    whole.pass_time(120)
    (alarm,) = whole.client("cloudwatch").describe_alarms(AlarmNames=["perch-dead-letters"])["MetricAlarms"]
    assert alarm["StateValue"] == "ALARM"
