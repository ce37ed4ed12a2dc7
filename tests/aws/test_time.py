"""Time comes from the schedule: what others say of it, in an event or in the state, moves nothing ahead."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from perch.app.command import promote
from perch.cli.context import Context, Options
from perch.domain.codec import iso
from perch.domain.policy import Settings, Step
from perch.domain.rollout import Phase
from tests.aws.deployment import BUCKET, TABLE, deployed
from tests.unit.values import CANARY

HANDLER = Path(__file__).parents[2] / "functions" / "drive_rollouts" / "handler.py"
STEP = Step(weight=0.5, hold_s=600, requests=10, gate="nightly")
GATED = replace(CANARY, rollout=replace(CANARY.rollout, steps=(STEP, STEP)))
AHEAD = timedelta(days=2)


@pytest.fixture
def d(monkeypatch):
    """v1 is live, v2 in its first step, which has a gate."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with deployed(Settings(name="perch", endpoints=(GATED,))) as fresh:
        fresh.live("v1")
        fresh.registered("v2")
        fresh.tick()
        assert fresh.state.rollout.phase is Phase.SHIFTING
        yield fresh


@pytest.fixture
def driver(d, tmp_path, monkeypatch):
    """The function itself, imported as Lambda does."""
    package = tmp_path / "perch_settings"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "endpoints.json").write_text(json.dumps({"name": "perch", "endpoints": []}))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "perch_settings", raising=False)
    for name, value in {
        "PERCH_TABLE": TABLE, "PERCH_STORE": BUCKET,
        "POWERTOOLS_SERVICE_NAME": "drive", "POWERTOOLS_LOG_LEVEL": "ERROR", "POWERTOOLS_METRICS_NAMESPACE": "Perch",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("drive_rollouts_handler", HANDLER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.world = d.world
    return lambda event: module.handler(event, CONTEXT)


CONTEXT = SimpleNamespace(
    aws_request_id="r", function_name="f", memory_limit_in_mb=512, invoked_function_arn="arn:f", function_version="1"
)


def event(d, source, kind="", *, ahead=AHEAD, **detail):
    return {"source": source, "detail-type": kind, "time": iso(d.now + ahead), "detail": detail}


def test_the_answer_to_a_gate_is_taken_and_drives_nothing(d, driver):
    """Its time is two days ahead; no evidence is read, no step taken, and the next tick goes on as if at its own."""
    for _ in range(14):
        d.both()
        d.tick()
    rollout = d.state.rollout
    assert d.kinds[-1] == "GateOpened"
    before = d.world.registry.tally("digits", rollout.id)
    passed = {"endpoint": "digits", "rollout": rollout.id, "step": 0, "passed": True}
    assert driver(event(d, "perch.hooks", "GateAnswered", **passed)) == []

    assert d.kinds[-1] == "GatePassed"
    assert d.state.rollout == replace(rollout, answered=0)
    assert d.world.registry.tally("digits", rollout.id) == before
    d.tick()
    assert d.state.rollout.step == 1
    assert d.state.rollout.phase_at == d.now


def test_news_of_a_version_queues_it_and_drives_nothing(d, driver):
    """However late the news says that it is: the rollout under way is judged by the schedule's time alone."""
    d.both(failures=400)
    rollout = d.state.rollout
    d.registered("v3")
    driver(event(d, "perch", "ModelVersionRegistered"))

    assert d.state.rollout == rollout
    assert d.world.registry.tally("digits", rollout.id) is None
    assert [c.pointer.version for c in d.state.queue] == ["v3"]


def test_news_of_a_version_starts_nothing(d, driver):
    """Nothing is under way; the version waits for the schedule, or it would begin two days ahead of its evidence."""
    d.both(failures=400)
    for _ in range(5):
        d.tick()
        d.both(failures=400)
    assert d.state.rollout is None
    d.registered("v3")
    driver(event(d, "perch", "ModelVersionRegistered"))
    assert d.state.rollout is None

    driver(event(d, "aws.events", "Scheduled Event", ahead=timedelta(minutes=1)))
    assert d.state.rollout.candidate.pointer.version == "v3"


def test_a_time_ahead_in_the_state_does_not_blind_the_judge(d):
    """A clock two days fast said promote; what the candidate does meanwhile is read as it comes, and taken back."""
    promote(d.world, "digits", full=False, reason="go", actor="grace", now=d.now + AHEAD)
    for _ in range(8):
        d.tick()
        d.both(failures=300)

    assert d.world.registry.rollouts("digits")[0].phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
    settled = timedelta(seconds=GATED.rollout.settle_s)
    assert d.world.registry.tally("digits", d.world.registry.rollouts("digits")[0].id).until <= d.now - settled


@pytest.mark.parametrize("wrong", [timedelta(days=-3), timedelta(hours=2)])
def test_a_command_takes_the_time_from_aws_and_not_from_the_laptop(monkeypatch, wrong):
    """The clock here is days behind or hours ahead; what the state gets is the date of an answer of AWS."""
    theirs = (datetime.now(UTC) + wrong).replace(microsecond=0)
    headers = {"date": theirs.strftime("%a, %d %b %Y %H:%M:%S GMT")}
    sts = SimpleNamespace(get_caller_identity=lambda: {"ResponseMetadata": {"HTTPHeaders": headers}})
    monkeypatch.setattr(Context, "session", SimpleNamespace(client={"sts": sts}.get))

    assert abs(Context(Options()).now() - theirs) < timedelta(minutes=1)


def test_a_time_ahead_ends_with_the_rollout_that_said_it(d):
    """The next rollout begins at the time that it is, so its evidence is seen from the first minute on."""
    promote(d.world, "digits", full=True, reason="go", actor="grace", now=d.now + AHEAD)
    d.registered("v3")
    d.tick()
    d.tick()

    assert d.state.rollout.candidate.pointer.version == "v3"
    assert d.state.rollout.started_at <= d.now
