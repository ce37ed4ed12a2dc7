"""`perch plan` and `perch simulate` through the command line, where nothing is deployed and no AWS is near."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from perch.cli.app import app
from perch.cli.declared import one_endpoint, read_settings
from perch.cli.plan import parse_rate, parse_share
from perch.domain.errors import Invalid, NotFound
from perch.domain.policy import EndpointPolicy, GuardPolicy, RolloutPolicy, Step
from perch.domain.trial import PROMOTED, ROLLED_BACK, Outcome, Scenario
from perch.local.simulation import Trial, play
from perch.local.traffic import Profile, read_profile

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """
[endpoints.digits]
runtime = "onnx"
[endpoints.digits.rollout]
deadline = "1 hour"
steps = [{weight = "20%", hold = "6 minutes", requests = 100}, {weight = "50%", hold = "8 minutes", requests = 100}]
"""
SHORT = EndpointPolicy(
    name="digits",
    model="digits",
    runtime="onnx",
    rollout=RolloutPolicy(
        strategy="canary",
        steps=(Step(weight=0.2, hold_s=360, requests=50), Step(weight=0.5, hold_s=480, requests=50, gate="person")),
        deadline_s=3600,
    ),
    guards=GuardPolicy(),
)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that leads to no account."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9")
    monkeypatch.chdir(ROOT)


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """A settings file outside the project, checked by the project that we stand in."""
    file = tmp_path / "new.toml"
    file.write_text(SETTINGS)
    return str(file)


def perch(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def trial(times: float = 1.0, incident: float = 1.0, seed: int = 1) -> Trial:
    scenario = Scenario(times=times, incident=incident)
    return Trial(policy=SHORT, profile=Profile.steady(600, 0.01), scenario=scenario, seed=seed, limit=90)


# -- plan ---------------------------------------------------------------------------------------------------------


def test_a_plan_of_given_traffic_is_a_table_and_asks_nobody(policy: str) -> None:
    """Exit code 0: this policy can hope."""
    found = perch("plan", "digits", "--policy", policy, "--traffic", "6000/min", "--error-rate", "1%")

    assert found.exit_code == 0, found.output
    assert "digits: canary at 6,000 requests a minute, of which stable fails 1 %" in found.stdout
    assert "It can end after" in found.stdout


def test_a_hopeless_plan_is_refused_and_a_better_policy_is_proposed(policy: str, tmp_path: Path) -> None:
    """Exit code 1, and what is proposed passes when it is planned in turn."""
    hopeless = perch("plan", "--policy", policy, "--traffic", "60/hour", "--error-rate", "1%", "--json")
    assert hopeless.exit_code == 1
    document = json.loads(hopeless.stdout)
    assert "step 1" in document["problem"]

    better = tmp_path / "better.toml"
    better.write_text('[endpoints.digits]\nruntime = "onnx"\n' + document["better"]["toml"])
    again = perch("plan", "--policy", str(better), "--traffic", "60/hour", "--error-rate", "1%")
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("text", "rate"),
    [("600/min", 600.0), ("10/s", 600.0), ("1,440 per day", 1.0), ("30/hour", 0.5), ("2 a minute", 2.0)],
)
def test_rates_are_read_as_people_write_them(text: str, rate: float) -> None:
    """By the second, minute, hour or day."""
    assert parse_rate(text) == pytest.approx(rate)


def test_what_is_no_rate_and_no_share_is_refused() -> None:
    """In words."""
    for text in ("fast", "600", "-3/min", "3/fortnight", "1.2.3/min"):
        with pytest.raises(Invalid, match="is not a rate"):
            parse_rate(text)
    assert parse_share("0.5%") == parse_share("0.005") == pytest.approx(0.005)
    for text in ("half", "150%", "-1%"):
        with pytest.raises(Invalid, match="is not a share"):
            parse_share(text)


def test_a_settings_file_is_held_to_the_projects_own_checks(tmp_path: Path) -> None:
    """A mistake is named with its key; a file that is not there is not guessed at."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(SETTINGS.replace('"20%"', '"120%"').replace("deadline", "dedline"))
    with pytest.raises(Invalid, match=r"dedline.*did you mean 'deadline'") as refused:
        read_settings(wrong)
    assert "weight" in str(refused.value)
    with pytest.raises(NotFound, match="there is no file"):
        read_settings(tmp_path / "missing.toml")
    with pytest.raises(Invalid, match="say which endpoint: digits, digits-torch"):
        one_endpoint(read_settings(ROOT / "perch.toml"), None)


# -- simulate -----------------------------------------------------------------------------------------------------


def test_simulated_rollouts_are_summed_up_kept_and_drawn(policy: str, tmp_path: Path) -> None:
    """A small run with a fixed seed: good ones are promoted, bad ones taken back, and the policy passes."""
    pytest.importorskip("matplotlib")
    kept, drawn = tmp_path / "found.json", tmp_path / "found.png"
    arguments = ("simulate", "--policy", policy, "--traffic", "600/min", "--error-rate", "1%", "--runs", "1")
    arguments += ("--processes", "1")
    found = perch(*arguments, "--regression", "20", "--detect", "80%", "--json", str(kept), "--plot", str(drawn))

    assert found.exit_code == 0, found.output
    document = json.loads(kept.read_text())
    assert document["passes"] is True
    good, incident, bad = document["summaries"]
    assert (good["promoted"]["hits"], incident["promoted"]["hits"], bad["rolled_back"]["hits"]) == (1, 1, 1)
    assert len(document["rollouts"]) == 3
    assert all(run["reason"] for run in document["rollouts"])
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_a_policy_that_misses_its_target_fails_the_build(policy: str) -> None:
    """Within two minutes a regression of a tenth is not seen, which is no detection: the exit code is 1."""
    arguments = ("simulate", "--policy", policy, "--traffic", "600/min", "--error-rate", "1%", "--runs", "3")
    found = perch(*arguments, "--regression", "1.1", "--detect", "90%", "--limit", "2", "--processes", "1")

    assert found.exit_code == 1, found.output
    assert "Fails: only " in found.stdout


def test_the_same_seed_plays_the_same_rollout() -> None:
    """Request by request; another seed plays another."""
    first, again, other = (play(trial(times=3.0, seed=seed)) for seed in (5, 5, 6))

    def told(outcome: Outcome) -> tuple[object, ...]:
        return (outcome.verdict, outcome.minute, outcome.reason, outcome.excess, outcome.requests)

    assert told(first) == told(again) != told(other)


def test_a_candidate_that_fails_always_is_taken_back_within_minutes_by_the_alarm() -> None:
    """The alarm sees a closed minute; the judge waits until metrics have settled."""
    found = play(trial(times=1e9))

    assert found.verdict == ROLLED_BACK
    assert found.minute <= 3
    assert found.reason.startswith("alarm perch/digits/candidate-errors/")
    assert found.excess > 50


def test_a_good_candidate_passes_an_incident_of_both_and_a_gate() -> None:
    """Held while both fail, answered where a person is asked, promoted in the end."""
    found = play(trial(incident=8.0))

    assert found.verdict == PROMOTED, found.reason
    assert found.minute >= 14


def test_a_profile_is_read_minute_by_minute(tmp_path: Path) -> None:
    """Minutes that are left out are as the last before them, also across midnight."""
    file = tmp_path / "day.csv"
    file.write_text("minute,requests,failures\n480,600,6\n1200,60\n")
    found = read_profile(file, 0.005)

    assert found.varies
    assert found.at(480) == found.at(1199) == (600.0, 0.01)
    assert found.at(1200) == found.at(0) == found.at(1440 + 479) == (60.0, 0.005)


@pytest.mark.parametrize("text", ["", "1440,5\n", "3\n", "0,5,6\n", "a,b\nc,d\n"])
def test_what_is_no_profile_is_refused(text: str, tmp_path: Path) -> None:
    """With the line that is wrong."""
    file = tmp_path / "day.csv"
    file.write_text(text)
    with pytest.raises(Invalid, match=r"day\.csv"):
        read_profile(file, 0.005)


def test_what_has_nothing_to_judge_is_refused(tmp_path: Path) -> None:
    """A direct rollout has no step with traffic."""
    file = tmp_path / "direct.toml"
    file.write_text('[endpoints.digits]\nruntime = "onnx"\n[endpoints.digits.rollout]\nstrategy = "direct"\n')
    found = perch("simulate", "--policy", str(file), "--traffic", "600/min")

    assert found.exit_code == 1
    assert "goes direct" in found.output
