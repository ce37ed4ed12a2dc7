"""Every strategy, end to end: declared in perch.toml, deployed from the templates, moved by the real driver and judge.

One cloud holds an endpoint for each; requests are real, time is stepped. Canary and direct are in `test_loop.py`,
shadow and experiments in files of their own.
"""

from __future__ import annotations

import json

import pytest

from perch.app.command import pause, promote, resume
from perch.app.roll_back import abort, emergency, roll_back_by_hand
from perch.app.start import start
from perch.domain.errors import Refused
from perch.domain.rollout import Routing
from tests.local.tiny_models import ORDINARY, TOO_MUCH
from tests.local.whole import Trial, synthesize_trial, trial

pytestmark = pytest.mark.slow

SETTINGS = """
name = "perch"

[endpoints.blue]
runtime = "onnx"
max_artifact_mb = 1
[endpoints.blue.rollout]
strategy = "blue-green"
bake = "5 minutes"
requests = 20
settle = "1 minute"
[endpoints.blue.guards]
shift_odds = "off"

[endpoints.even]
runtime = "onnx"
max_artifact_mb = 1
[endpoints.even.rollout]
strategy = "linear"
increment = "30%"
interval = "2 minutes"
requests = 4
settle = "1 minute"
[endpoints.even.guards]
shift_odds = "off"

[endpoints.gated]
runtime = "onnx"
max_artifact_mb = 1
[endpoints.gated.rollout]
settle = "1 minute"
steps = [
  {weight = "20%", hold = "1 minute", requests = 2, gate = "nightly-tests"},
  {weight = "50%", hold = "1 minute", requests = 2, gate = "person", proof = false},
]
[endpoints.gated.guards]
shift_odds = "off"

[endpoints.kept]
runtime = "onnx"
max_artifact_mb = 1
[endpoints.kept.rollout]
settle = "1 minute"
when_busy = "supersede"
bake = "3 minutes"
steps = [{weight = "50%", hold = "1 minute", requests = 4}]
[endpoints.kept.rollout.holdback]
weight = "10%"
hold = "10 minutes"
[endpoints.kept.guards]
shift_odds = "off"

[endpoints.capped]
runtime = "onnx"
max_artifact_mb = 1
[endpoints.capped.rollout]
settle = "1 minute"
budget = 60
steps = [{weight = "10%", hold = "20 minutes", requests = 10}]
[endpoints.capped.guards]
shift_odds = "off"

[endpoints.thin]
runtime = "onnx"
max_artifact_mb = 1
capture = "100%"
[endpoints.thin.rollout]
settle = "1 minute"
paired = 120
steps = [{weight = "50%", hold = "2 minutes", requests = 60}]
[endpoints.thin.guards]
shift_odds = "off"
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    assembly = synthesize_trial(tmp_path_factory.mktemp("strategies"), text=SETTINGS)
    with trial(assembly, tmp_path_factory.mktemp("cloud")) as found:
        yield found


def weights(routed: list[Routing]) -> list[float]:
    return [routing.weight for routing in routed]


def rollout_ended(whole: Trial, endpoint: str, kind: str, seq: int):
    return lambda: kind in whole.kinds(endpoint, after=seq)


# -- blue-green -------------------------------------------------------------------------------------------------------


def test_blue_green_switches_at_once_and_keeps_blue_for_the_way_back(whole):
    """Green is tried behind an alias of its own, gets everything in one move, and is watched before blue is let go."""
    old = whole.at_rest("blue")
    blue = whole.alias("blue").version
    new = whole.upload("blue", 1)
    traffic = whole.live_traffic("blue", lambda: whole.stable("blue") == new)
    green = whole.client("lambda").get_alias(FunctionName="perch-blue", Name="green")["FunctionVersion"]

    assert traffic.failed == []
    assert traffic.routed == [Routing(version=blue), Routing(version=green)]
    assert set(traffic.versions) == {old, new}
    entered = next(e for e in whole.ledger("blue") if e.kind == "StepEntered" and e.version == new)
    assert "bake, 100%" in entered.reason


def test_blue_green_goes_back_to_blue_when_green_fails(whole):
    """With all the traffic on green there is nothing to compare with: the service level and the alarms speak."""
    old = whole.at_rest("blue")
    blue, seq = whole.alias("blue").version, whole.state("blue").seq
    whole.upload("blue", 0, fragile=True)
    whole.live_traffic(
        "blue", rollout_ended(whole, "blue", "RolloutRolledBack", seq), rows=[ORDINARY, ORDINARY, TOO_MUCH]
    )

    assert whole.alias("blue") == Routing(version=blue)
    assert whole.stable("blue") == old
    assert whole.predict("blue", [TOO_MUCH]).status == 200


# -- linear -----------------------------------------------------------------------------------------------------------


def test_linear_takes_equal_steps(whole):
    """30 %, 60 %, 90 %, all."""
    whole.at_rest("even")
    new = whole.upload("even", 1)
    traffic = whole.live_traffic("even", lambda: whole.stable("even") == new)

    assert traffic.failed == []
    assert weights(traffic.routed) == [0.0, 0.3, 0.6, 0.9]


# -- gates, pause, promote --------------------------------------------------------------------------------------------


def answer(whole: Trial, detail: dict) -> None:
    """What a hook says, as it says it: an event on the bus."""
    entry = {"Source": "perch.hooks", "DetailType": "GateAnswered", "Detail": json.dumps(detail)}
    whole.client("events").put_events(Entries=[entry])


def gate_of(whole: Trial, endpoint: str) -> dict:
    """The newest gate that was opened, as a listener hears of it."""
    return [e for e in whole.ledger(endpoint) if e.kind == "GateOpened"][-1].inputs


def test_a_step_waits_for_its_hook_and_then_for_a_person(whole):
    """The gate is announced on the bus and answered over it; a person answers with `promote`."""
    whole.at_rest_by_hand("gated")
    seq = whole.state("gated").seq
    whole.announced()
    new = whole.upload("gated", 1)
    whole.live_traffic("gated", rollout_ended(whole, "gated", "GateOpened", seq))
    asked = gate_of(whole, "gated")
    whole.live_traffic("gated", lambda: False, limit_s=180, patient=True)
    heard = [event["detail"] for event in whole.announced() if event["detail-type"] == "GateOpened"]

    assert [(told["gate"], told["endpoint"], told["rollout"], told["step"]) for told in heard] == [
        ("nightly-tests", "gated", asked["rollout"], 0)
    ]
    assert weights([whole.alias("gated")]) == [0.2]

    about = {"endpoint": "gated", "rollout": asked["rollout"], "step": asked["step"]}
    answer(whole, {**about, "step": 1, "passed": True, "reason": "the wrong one", "actor": "nightly"})
    answer(whole, {**about, "passed": True, "reason": "212 tests passed", "actor": "nightly"})
    whole.live_traffic("gated", lambda: len([k for k in whole.kinds("gated", after=seq) if k == "GateOpened"]) == 2)
    passed = [e for e in whole.ledger("gated", after=seq) if e.kind == "GatePassed"]
    assert [(e.actor, e.reason) for e in passed] == [("hook nightly", "step 1: 212 tests passed")]
    assert weights([whole.alias("gated")]) == [0.5]

    promote(whole.world, "gated", full=False, reason="looks good", actor="ada", now=whole.cloud.clock.now())
    whole.live_traffic("gated", lambda: whole.stable("gated") == new)


def test_a_hook_that_says_no_takes_the_traffic_back(whole):
    """And says why."""
    old = whole.at_rest_by_hand("gated")
    seq = whole.state("gated").seq
    whole.upload("gated", 2)
    whole.live_traffic("gated", rollout_ended(whole, "gated", "GateOpened", seq))
    asked = gate_of(whole, "gated")
    answer(whole, {"endpoint": "gated", "rollout": asked["rollout"], "step": asked["step"], "passed": False,
                   "reason": "3 of 212 tests failed", "actor": "nightly"})  # fmt: skip
    whole.wait(rollout_ended(whole, "gated", "RolloutRolledBack", seq), "gated")

    assert whole.stable("gated") == old
    assert "3 of 212 tests failed" in whole.ledger("gated")[-1].reason


def test_a_paused_endpoint_takes_no_step_until_it_is_resumed(whole):
    """Nor does a rollout begin; every word of it is in the ledger."""
    whole.at_rest("even")
    world, now = whole.world, whole.cloud.clock.now
    pause(world, "even", reason="the fair", actor="ada", now=now())
    new = whole.upload("even", 2)
    whole.live_traffic("even", lambda: False, limit_s=240, patient=True)
    assert whole.state("even").rollout is None
    with pytest.raises(Refused, match="paused already"):
        pause(world, "even", reason="again", actor="ada", now=now())

    resume(world, "even", reason="the fair is over", actor="ada", now=now())
    whole.live_traffic("even", lambda: whole.phase("even") == "shifting")
    pause(world, "even", reason="lunch", actor="ada", now=now())
    before = whole.alias("even")
    whole.live_traffic("even", lambda: False, limit_s=300, patient=True)
    assert whole.alias("even") == before

    resume(world, "even", reason="", actor="ada", now=now())
    promote(world, "even", full=True, reason="it is only text", actor="ada", now=now())
    whole.live_traffic("even", lambda: whole.stable("even") == new)
    decided = [e for e in whole.ledger("even") if e.kind == "PromotionDecided"][-1]
    assert (decided.actor, "it is only text" in decided.reason) == ("ada", True)


# -- holdback, bake, supersede, the way back --------------------------------------------------------------------------


def test_after_the_promotion_a_little_stays_on_the_old_revision_and_is_still_compared(whole):
    """A reverse holdback, then a bake; only then is the rollout over."""
    old = whole.at_rest("kept")
    new = whole.upload("kept", 1)
    traffic = whole.live_traffic("kept", lambda: whole.stable("kept") == new, limit_s=2400)

    assert traffic.failed == []
    assert weights(traffic.routed)[:3] == [0.0, 0.5, 0.9]
    assert traffic.versions[old] > 0


def test_in_a_holdback_what_goes_wrong_late_is_still_taken_back(whole):
    """The old revision is warm, and a day of bad luck is compared with it."""
    old = whole.at_rest("kept")
    seq = whole.state("kept").seq
    whole.upload("kept", 2, fragile=True)
    whole.live_traffic("kept", lambda: whole.alias("kept").weight == 0.9)
    whole.live_traffic(
        "kept", rollout_ended(whole, "kept", "RolloutRolledBack", seq), rows=[ORDINARY, ORDINARY, TOO_MUCH]
    )

    assert whole.stable("kept") == old


def test_a_newer_candidate_takes_the_place_of_one_under_way(whole):
    """Superseded, in words; and one that only holds back has proved itself, and is promoted to make room."""
    whole.at_rest("kept")
    seq = whole.state("kept").seq
    first = whole.upload("kept", 1)
    whole.live_traffic("kept", lambda: whole.phase("kept") == "shifting")
    second = whole.upload("kept", 2)
    whole.live_traffic("kept", lambda: whole.alias("kept").weight == 0.9 and whole.phase("kept") == "shifting")
    third = whole.upload("kept", 0)
    whole.live_traffic("kept", lambda: whole.stable("kept") == third, limit_s=2400)
    ended = [(e.kind, e.version) for e in whole.ledger("kept", after=seq) if e.kind in ENDS]

    assert ended == [("RolloutRolledBack", first), ("RolloutPromoted", second), ("RolloutPromoted", third)]
    back = next(e for e in whole.ledger("kept", after=seq) if e.kind == "RollbackDecided")
    assert back.reason.startswith(f"superseded by kept {second}: ")


ENDS = ("RolloutPromoted", "RolloutRolledBack", "RolloutRefused")


def test_what_served_not_long_ago_goes_back_without_steps(whole):
    """The way back is open for a while: the same revision, probed, and then all at once."""
    whole.at_rest("kept")
    state = whole.state("kept")
    before = state.previous
    start(whole.world, "kept", before.pointer.version, actor="ada", now=whole.cloud.clock.now())
    traffic = whole.live_traffic("kept", lambda: whole.stable("kept") == before.pointer.version)

    assert weights(traffic.routed) == [0.0] * len(traffic.routed)
    assert whole.alias("kept") == Routing(version=before.lambda_version)


def test_an_emergency_goes_back_at_once_and_keeps_everything_else_away(whole):
    """No tick, no queue, no lock: the alias is back before the command returns, and the endpoint is paused."""
    whole.at_rest("even")
    world, now = whole.world, whole.cloud.clock.now
    before = whole.state("even").previous
    emergency(world, "even", reason="wrong answers on the news", actor="ada", now=now())
    assert whole.alias("even") == Routing(version=before.lambda_version)
    whole.upload("even", 1)
    whole.pass_time(300)
    assert whole.state("even").rollout is None
    assert whole.stable("even") == before.pointer.version
    told = [e for e in whole.ledger("even") if e.kind == "EmergencyRolledBack"][-1]
    assert (told.actor, told.severity) == ("ada", "critical")

    resume(world, "even", reason="mended", actor="ada", now=now())
    whole.live_traffic("even", lambda: whole.phase("even") == "shifting")
    emergency(world, "even", reason="no, it was not", actor="ada", now=now())
    assert whole.alias("even") == Routing(version=before.lambda_version)
    whole.wait(lambda: whole.state("even").rollout is None, "even")
    assert whole.state("even").paused == "no, it was not (emergency, by ada)"
    resume(world, "even", reason="over", actor="ada", now=now())


def test_aborting_ends_a_rollout_and_going_back_to_a_version_names_it(whole):
    """Two commands, two refusals that say what to do instead."""
    old = whole.at_rest("blue")
    world, now = whole.world, whole.cloud.clock.now
    with pytest.raises(Refused, match="no rollout of blue is under way"):
        abort(world, "blue", reason="?", actor="ada", now=now())
    with pytest.raises(Refused, match="no earlier revision of v99"):
        roll_back_by_hand(world, "blue", reason="?", actor="ada", now=now(), to="v99")
    whole.upload("blue", 2)
    whole.live_traffic("blue", lambda: whole.phase("blue") == "shifting")
    abort(world, "blue", reason="not today", actor="ada", now=now())
    whole.wait(lambda: not whole.busy("blue"), "blue")

    assert whole.stable("blue") == old
    assert whole.ledger("blue")[-1].reason == "not today"


# -- budget and low traffic -------------------------------------------------------------------------------------------


def test_a_budget_sizes_the_steps_and_lets_an_undecided_one_grow(whole):
    """The first share is what the budget allows of the traffic that is usual; evidence of innocence buys more."""
    whole.at_rest("capped")
    whole.live_traffic("capped", lambda: False, each=30, limit_s=300, patient=True)
    seq = whole.state("capped").seq
    new = whole.upload("capped", 1)
    whole.live_traffic("capped", lambda: whole.stable("capped") == new, each=30, limit_s=2400)
    raised = [e.reason for e in whole.ledger("capped", after=seq) if e.kind == "WeightChanged"]

    assert raised
    assert all(reason.startswith("from ") for reason in raised)


def test_where_hardly_anybody_asks_replayed_pairs_are_the_evidence(whole):
    """Golden and captured requests go to both revisions by qualified invoke; the step needs 60, and six users came."""
    whole.at_rest_by_hand("thin")
    whole.live_traffic("thin", lambda: False, each=25, limit_s=60, patient=True)
    seq = whole.state("thin").seq
    new = whole.upload("thin", 1)
    whole.live_traffic("thin", lambda: whole.phase("thin") == "shifting", each=1)
    traffic = whole.live_traffic("thin", lambda: whole.stable("thin") == new, each=1, limit_s=1200)
    entered = [e for e in whole.ledger("thin", after=seq) if e.kind == "PromotionDecided"][-1]

    assert sum(traffic.versions.values()) < 60
    assert entered.reason
