"""Killing the driver, or the roll-back, after each single AWS call, and letting the next tick go on.

A story is told once without an accident. At every call that it makes, right after AWS has carried the call out, the
test process forks: in the child the call was the last thing that the driver did, and the story goes on with the next
tick. However it is interrupted, the story must end the same: the alias, the revisions, the alarms, and a ledger in
which everything happened once.
"""

import os
import pickle
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from perch.app.roll_back import roll_back_on_alarm
from perch.domain.ledger import broken_at
from perch.domain.names import AlarmName
from perch.domain.policy import Settings, Step
from perch.domain.rollout import Phase, Routing
from tests.aws.deployment import TABLE, deployed
from tests.unit.values import CANARY

ONE_STEP = replace(CANARY, rollout=replace(CANARY.rollout, steps=(Step(weight=0.1, hold_s=120, requests=10),)))
SETTINGS = Settings(name="perch", endpoints=(ONE_STEP,))
SERVICES = ("lambda_", "dynamodb", "cloudwatch", "events")


class Killed(BaseException):
    """The process is gone; nothing catches this."""


@dataclass
class Assassin:
    """Splits the world after each AWS call made while it is armed: one goes on, one has lost its driver."""

    armed: bool = False
    dead: bool = False
    victims: list[tuple[int, int, str]] = field(default_factory=list)  # process, pipe, call

    def watch(self, clients):
        for service in SERVICES:
            getattr(clients, service).meta.events.register("after-call.*.*", self.called)

    @contextmanager
    def at_work(self):
        """Arm for a while; a kill ends it, as it would end a process."""
        self.armed = not self.dead
        with suppress(Killed):
            yield
        self.armed = False

    def called(self, model, **_):
        if not self.armed:
            return
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            self.armed, self.dead, self.victims = False, True, []
            self.report = writing
            raise Killed
        os.close(writing)
        self.victims.append((process, reading, model.name))
        if len(self.victims) > 1:  # two cores: let one run while the story goes on
            os.waitpid(self.victims[-2][0], 0)

    def endings(self):
        """How each of the others ended, with the call after which it was killed."""
        os.waitpid(self.victims[-1][0], 0)
        for _, reading, name in self.victims:
            with os.fdopen(reading, "rb") as pipe:
                yield name, pickle.loads(pipe.read())


def tell(story):
    """Tell a story; return how it ended, and how it ended for each killed driver."""
    with deployed(SETTINGS) as d:
        d.live("v1", requests=440)
        d.registered("v2")
        assassin = Assassin()
        assassin.watch(d.clients)
        end = None
        try:
            story(d, assassin)
            end = ending(d)
        except Exception as error:
            end = repr(error)
            raise
        finally:
            if assassin.dead:
                os.write(assassin.report, pickle.dumps(end))
                os._exit(0)
        return end, list(assassin.endings())


def minute_after_minute(d, assassin, *, failures, minutes, meanwhile=lambda d: None):
    """Tick every minute with traffic on whatever serves; a killed tick is just over."""
    for _ in range(minutes):
        with assassin.at_work():
            meanwhile(d)
        with assassin.at_work():
            d.tick()
        if d.state.rollout and d.state.rollout.phase is Phase.SHIFTING:
            d.both(440, failures=failures)


def ending(d):
    """Everything that matters when all is done."""
    entries = d.world.registry.ledger("digits")
    assert broken_at(entries) is None
    assert len(entries) == d.state.seq
    told = Counter()
    item = d.clients.dynamodb.get_item(TableName=TABLE, Key={"pk": {"S": "ENDPOINT#digits"}, "sk": {"S": "ENDPOINT"}})[
        "Item"
    ]
    assert int(item["announced"]["N"]) == d.state.seq, "every entry was announced"
    told.update(e.kind for e in entries)
    return {
        "alias": d.alias,
        "stable": (d.state.stable.lambda_version, d.state.stable.pointer.version),
        "rollouts": [(r.phase, r.candidate.pointer.version) for r in d.world.registry.rollouts("digits")],
        "alarms": [a["AlarmName"] for a in d.clients.cloudwatch.describe_alarms()["MetricAlarms"]],
        # An alias that followed its decision only at the next tick is told of, and nothing else may differ.
        "ledger": sorted(item for item in told.items() if item[0] != "AliasCorrected"),
        "versions": len(d.clients.lambda_.list_versions_by_function(FunctionName="perch-digits")["Versions"]),
    }


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
    unharmed, others = tell(story)

    assert unharmed["alias"] == Routing(version="3" if story is promotion else "2")
    assert unharmed["alarms"] == []
    assert len(others) > 40
    assert [(n, call, end) for n, (call, end) in enumerate(others) if end != unharmed] == []
