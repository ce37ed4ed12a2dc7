"""Killing the driver after each AWS call of a tick that brakes a variant, and letting the next tick go on."""

from dataclasses import replace

import pytest

from perch.app.change_experiment import end_experiment, start_experiment
from perch.domain.policy import RolloutPolicy, Settings
from perch.domain.rollout import Routing
from tests.aws.assassin import ending, tell
from tests.unit.values import CANARY

pytestmark = pytest.mark.slow

DIRECT = replace(CANARY, rollout=RolloutPolicy(strategy="direct", settle_s=60))


@pytest.fixture(autouse=True)
def _region(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def life(d, assassin):
    """Started, served, one of two challengers braked, ended with the other as the winner."""
    versions = {"champion": "v1", "a": "v2", "b": "v3"}
    start_experiment(d.world, "digits", versions, {"a": 0.2, "b": 0.2}, reason="x", actor="ada", now=d.now)
    for minute in range(8):
        if minute == 6:
            end_experiment(d.world, "digits", winner="b", reason="x", actor="ada", now=d.now)
        elif minute == 1:
            identity = d.state.experiment.id
            for name, requests, failures in (("champion", 600, 0), ("a", 200, 60), ("b", 200, 0)):
                dimensions = {"Endpoint": "digits", "Variant": f"{identity}/{name}"}
                d.metrics.put("Perch", "Requests", dimensions, float(requests), at=d.now)
                d.metrics.put("Perch", "Failures", dimensions, float(failures), at=d.now)
        # This tick brakes a variant and publishes the revision without it: all that the others do, and more.
        if minute == 4:
            with assassin.at_work():
                d.tick()
        else:
            d.tick()


def both_are_there(d):
    for version in ("v2", "v3"):
        d.registered(version)
    d.live("v1")


def all_that_matters(d):
    return ending(d) | {"experiment": d.state.experiment, "carried": d.state.stable.experiment}


def test_an_experiment_ends_the_same_wherever_its_driver_dies():
    """One ExperimentStarted, one VariantBraked, one end; the winner serves, and carries no experiment."""
    unharmed, others = tell(Settings(name="perch", endpoints=(DIRECT,)), both_are_there, life, all_that_matters)

    assert unharmed["stable"][1] == "v3"
    assert unharmed["alias"] == Routing(version=unharmed["stable"][0])
    assert (unharmed["experiment"], unharmed["carried"]) == (None, None)
    assert {"ExperimentStarted", "VariantBraked", "ExperimentEnded"} <= {kind for kind, _ in unharmed["ledger"]}
    assert len(others) > 25
    assert [(n, call, end) for n, (call, end) in enumerate(others) if end != unharmed] == []
