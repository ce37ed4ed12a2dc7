"""Shadow and paired replay on the local cloud: real captured requests, real revisions, and users who notice nothing.

One cloud for all tests of this module. `alpha` begins each canary with a shadow; `gamma` has little traffic, and lets
replays to both revisions stand in for it.
"""

from __future__ import annotations

import pytest

from perch.domain.agreement import Replayed
from perch.domain.rollout import Rollout, Routing
from tests.local.tiny_models import ORDINARY, TOO_MUCH
from tests.local.whole import Trial, synthesize_trial, trial

pytestmark = pytest.mark.slow

SETTINGS = """
name = "perch"

[endpoints.alpha]
runtime = "onnx"
max_artifact_mb = 1
capture = "100%"
[endpoints.alpha.rollout]
settle = "1 minute"
agreement = "90%"
steps = [{weight = "50%", hold = "2 minutes", requests = 4, proof = false}]
[endpoints.alpha.rollout.shadow]
hold = "2 minutes"
requests = 20

[endpoints.gamma]
runtime = "onnx"
max_artifact_mb = 1
capture = "100%"
[endpoints.gamma.rollout]
settle = "1 minute"
paired = 12
steps = [{weight = "50%", hold = "2 minutes", requests = 12, proof = false}]
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    assembly = synthesize_trial(tmp_path_factory.mktemp("shadow"), text=SETTINGS)
    with trial(assembly, tmp_path_factory.mktemp("cloud")) as found:
        yield found


def last_rollout(whole: Trial, endpoint: str) -> tuple[Rollout, Replayed]:
    rollout = whole.registry.rollouts(endpoint)[0]
    return rollout, whole.registry.replayed(endpoint, rollout.id) or Replayed()


def test_a_candidate_that_agrees_goes_from_the_shadow_to_the_canary(whole):
    """In the shadow every user gets stable's answer; then the rollout goes on with real traffic, to its end."""
    old = whole.at_rest("alpha")
    before, seq = whole.state("alpha").stable.lambda_version, whole.state("alpha").seq
    new = whole.upload("alpha", 0)
    in_shadow = whole.live_traffic("alpha", lambda: whole.alias("alpha").other is not None)
    rollout, replayed = last_rollout(whole, "alpha")
    candidate = rollout.revision.lambda_version
    after = whole.live_traffic("alpha", lambda: whole.stable("alpha") == new)

    assert set(in_shadow.served) == {(old, before)}
    assert in_shadow.failed == after.failed == []
    assert in_shadow.routed == [Routing(version=before)]
    assert after.routed[0] == Routing(version=before, other=candidate, weight=0.5)
    assert replayed.pairs >= 20
    assert (replayed.agreed, replayed.skipped, replayed.differences) == (replayed.pairs, 0, ())
    assert replayed.candidate_ms.count == replayed.stable_ms.count == replayed.pairs
    assert replayed.moved.quantile(1) < 0.001
    reasons = {entry.kind: entry.reason for entry in whole.ledger("alpha", after=seq)}
    assert "replayed answers agree (100.0%)" in reasons["StepEntered"]
    assert whole.kinds("alpha", after=seq)[-2:] == ["PromotionDecided", "RolloutPromoted"]


def test_a_candidate_that_disagrees_is_taken_back_before_any_user_met_it(whole):
    """Each difference names the request, and the ledger says how few agree."""
    old = whole.at_rest("alpha")
    before, seq = whole.state("alpha").stable.lambda_version, whole.state("alpha").seq
    favourite = whole.predict("alpha").body["predictions"][0]
    whole.upload("alpha", (favourite + 1) % 3)
    traffic = whole.live_traffic("alpha", lambda: "RolloutRolledBack" in whole.kinds("alpha", after=seq))
    rollout, replayed = last_rollout(whole, "alpha")

    assert traffic.failed == []
    assert set(traffic.served) == {(old, before)}
    assert traffic.routed == [Routing(version=before)]
    assert whole.stable("alpha") == old
    assert "answers agree less than the 90.0% that are asked for: 0 of" in rollout.reason
    assert replayed.differed == replayed.pairs >= 20
    assert len(replayed.differences) == 20
    assert {d.what for d in replayed.differences} == {f"row 1: {(favourite + 1) % 3}, stable {favourite}"}
    assert len({d.request_id for d in replayed.differences}) == 20


def test_requests_that_only_the_candidate_fails_on_are_found_without_a_user_failing(whole):
    """It raises on one row in five; users go on getting stable's answers to all of them."""
    old = whole.at_rest("alpha")
    seq = whole.state("alpha").seq
    favourite = whole.predict("alpha").body["predictions"][0]
    whole.upload("alpha", favourite, fragile=True)
    rows = [TOO_MUCH, *[ORDINARY] * 4]
    traffic = whole.live_traffic("alpha", lambda: "RolloutRolledBack" in whole.kinds("alpha", after=seq), rows=rows)
    _, replayed = last_rollout(whole, "alpha")

    assert traffic.failed == []
    assert set(traffic.versions) == {old}
    assert replayed.candidate_failed_only == pytest.approx(replayed.pairs / 5, abs=2)
    assert replayed.stable_failed_only == replayed.both_failed == 0
    assert "answered 500 the model raised" in replayed.differences[0].what


def test_with_little_traffic_old_requests_are_replayed_to_both_revisions_and_counted_in_no_metric(whole):
    """Three golden requests, then the newest captured ones; four live requests would never have been enough."""
    whole.at_rest("gamma")
    for _ in range(20):
        whole.predict("gamma")
    whole.pass_time(300)
    new = whole.upload("gamma", 0)
    traffic = whole.live_traffic("gamma", lambda: whole.stable("gamma") == new, each=1, limit_s=1200)
    rollout, replayed = last_rollout(whole, "gamma")
    candidate = rollout.revision.lambda_version
    function = "perch-gamma"
    executed = {"FunctionName": function, "Resource": f"{function}:live", "ExecutedVersion": candidate}

    assert traffic.failed == []
    assert (replayed.sent, replayed.pairs, replayed.agreed, replayed.exhausted) == (12, 12, 12, True)
    assert replayed.stable_ms.count == 12
    live = traffic.served[new, candidate]
    assert live < 12
    assert whole.counted("Requests", {"Endpoint": "gamma", "Revision": candidate}, "Perch") == live
    assert whole.counted("Invocations", executed) == live
