"""Killing the driver, or the roll-back, after each single AWS call, and letting the next tick go on.

However it is interrupted (`assassin.py`), the story must end the same: the alias, the revisions, the alarms, and a
ledger in which everything happened once.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from perch.app.roll_back import roll_back_on_alarm
from perch.domain.names import AlarmName
from perch.domain.policy import Settings, Step
from perch.domain.rollout import Phase, Routing
from tests.aws.assassin import ending, tell
from tests.unit.values import CANARY

pytestmark = pytest.mark.slow

ONE_STEP = replace(CANARY, rollout=replace(CANARY.rollout, steps=(Step(weight=0.1, hold_s=120, requests=10),)))
SETTINGS = Settings(name="perch", endpoints=(ONE_STEP,))


def v2_is_next(d):
    d.live("v1", requests=440)
    d.registered("v2")


def minute_after_minute(d, assassin, *, failures, minutes, meanwhile=lambda d: None):
    """Tick every minute with traffic on whatever serves; a killed tick is just over."""
    for _ in range(minutes):
        with assassin.at_work():
            meanwhile(d)
        with assassin.at_work():
            d.tick()
        if d.state.rollout and d.state.rollout.phase is Phase.SHIFTING:
            d.both(440, failures=failures)


def promotion(d, assassin):
    minute_after_minute(d, assassin, failures=0, minutes=12)


def roll_back_by_the_judge(d, assassin):
    minute_after_minute(d, assassin, failures=8, minutes=9)


def roll_back_by_an_alarm(d, assassin):
    """The alarm's event comes three times (the bus delivers at least once), at any state of the rollout."""
    went_off = []

    def alarm(d):
        state = d.state
        if state.rollout and state.rollout.phase is Phase.SHIFTING and not went_off:
            went_off.append(d.now)
        if went_off and d.now - went_off[0] < timedelta(minutes=3):
            roll_back_on_alarm(
                d.world, AlarmName("perch", "digits", "candidate-errors", "3"),
                reason="threshold crossed", since=went_off[0], now=d.now,
            )  # fmt: skip

    minute_after_minute(d, assassin, failures=0, minutes=9, meanwhile=alarm)


@pytest.mark.parametrize("story", [promotion, roll_back_by_the_judge, roll_back_by_an_alarm])
def test_killing_it_after_any_call_changes_nothing_that_matters(story):
    """Law 4 and law 6: the same end from every interruption, one call at a time, all of them."""
    unharmed, others = tell(SETTINGS, v2_is_next, story, ending)

    assert unharmed["alias"] == Routing(version="3" if story is promotion else "2")
    assert unharmed["alarms"] == []
    assert len(others) > 40
    assert [(n, call, end) for n, (call, end) in enumerate(others) if end != unharmed] == []
