"""A rollout that takes a week, with hourly health checks: what a local cloud is for.

Nothing but the time is made up: users' requests go through the gateway, schedules wake the driver and the health checks
in their worker processes, and what the judge counts is what the predictor's answers left in CloudWatch.
"""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import datetime, timedelta

import pytest

from tests.local.whole import Trial, synthesize_trial, trial

pytestmark = pytest.mark.slow

SETTINGS = """
name = "perch"
tick = "20 minutes"       # who lets a candidate wait for days need not look at it every minute

[endpoints.steady]
runtime = "onnx"
max_artifact_mb = 1
health_check = "1 hour"
[endpoints.steady.rollout]
strategy = "canary"
settle = "2 minutes"
steps = [
  {weight = "5%", hold = "1 day", requests = 5},
  {weight = "25%", hold = "2 days", requests = 50},
  {weight = "50%", hold = "4 days", requests = 200},
]
"""

WEEK, TICK, MINUTE = timedelta(days=7), timedelta(minutes=20), timedelta(minutes=1)
# When users ask, after each tick: not in the minute in which a tick may move the traffic, nor in those that the next
# tick cannot see yet.
ASKED = [timedelta(minutes=m) for m in (4, 10, 16)]


def test_a_week_long_rollout_ends_promoted_with_every_hour_checked_and_every_minute_counted_once(tmp_path):
    """Steps of one, two and four days; the judge counts what the users were answered, not one request more or less."""
    with trial(synthesize_trial(tmp_path, text=SETTINGS), tmp_path / "cloud") as whole:
        old = whole.upload("steady")
        whole.wait(lambda: whole.stable("steady") == old, "steady", limit_s=7200)
        new = whole.upload("steady")
        whole.wait(lambda: whole.alias("steady").other is not None, "steady", limit_s=7200)
        began = whole.registry.rollouts("steady")[0].shifted_at
        served = a_week_of_users(whole, began)
        (rollout, _), story = whole.registry.rollouts("steady"), whole.ledger("steady")

        assert whole.stable("steady") == new
        assert [e.at - began for e in story if e.kind == "StepEntered"] == [timedelta(days=d) for d in (0, 1, 3)]
        assert [e.at - began for e in story if e.kind == "RolloutPromoted" and e.version == new] == [WEEK]
        assert set(served) == {old, new}

        looks = list(whole.registry.looks("steady", rollout.id))
        minutes = [minute.at for look in looks for minute in look.minutes]
        assert all(after - before == MINUTE for before, after in itertools.pairwise(minutes))
        assert WEEK - (minutes[-1] - minutes[0]) <= timedelta(minutes=4)  # the first whole one, and what settles
        counted = {old: 0, new: 0}
        for minute in (minute for look in looks for minute in look.minutes):
            counted[old] += minute.stable.requests
            counted[new] += minute.candidate.requests
        assert counted == served
        assert (
            f"0 of {served[new]:,} candidate requests failed against 0 of {served[old]:,} on stable" in rollout.reason
        )

        checks = [check for check in whole.registry.health("steady", limit=1000) if check["role"] == "candidate"]
        assert len(checks) in (167, 168, 169)
        assert len({check["at"] for check in checks}) == len(checks)
        assert all(check["healthy"] for check in checks)


def a_week_of_users(whole: Trial, began: datetime) -> Counter[str]:
    """Let a few users ask after each tick, until a week after the first traffic; count who answered."""
    served: Counter[str] = Counter()
    for tick in range(WEEK // TICK):
        for at in (began + tick * TICK + asked for asked in ASKED):
            whole.cloud.machinery.advance_to(at)
            answer = whole.predict("steady")
            served[answer.body["version"] if answer.status == 200 else "failed"] += 1
    whole.cloud.machinery.advance_to(began + WEEK)
    return served
