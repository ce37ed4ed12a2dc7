"""Kill whoever works after each single AWS call that he makes: one process becomes as many as there are calls.

A story is told once without an accident. At every call, right after AWS has carried it out, the process forks: in the
child the call was the last thing that the driver did, and the story goes on with the next tick.
"""

import os
import pickle
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from perch.domain.ledger import broken_at
from tests.aws.deployment import TABLE, deployed
from tests.aws.trouble import SERVICES, Killed


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


def tell(settings, before, story, end):
    """Tell a story; return how it ended, and how it ended for each killed driver, with the call after which he was.

    Args:
        settings: what is declared.
        before: what is done to the deployment before the story.
        story: takes the deployment and the assassin, who is `at_work` where the story says so.
        end: what matters of the deployment afterwards; any value that can be pickled and compared.
    """
    with deployed(settings) as d:
        before(d)
        assassin, ended = Assassin(), None
        assassin.watch(d.clients)
        try:
            story(d, assassin)
            ended = end(d)
        except Exception as error:
            ended = repr(error)
            raise
        finally:
            if assassin.dead:
                os.write(assassin.report, pickle.dumps(ended))
                os._exit(0)
        return ended, list(assassin.endings())


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
