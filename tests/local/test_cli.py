"""The `perch` command on a local cloud: one person's session, from the first upload to a roll-back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from examples.digits.train import held_out, manifest, train
from perch.cli import upload as upload_command
from perch.cli.app import app
from perch.cli.running import find_running
from perch.domain.codec import parse_time
from perch.local.cloud import LocalCloud
from perch.local.deploy.deployment import Deployed

pytestmark = pytest.mark.slow


def perch(*arguments: str, stdin: str | None = None) -> Result:
    """Run a command on the local cloud, as a terminal would, but with all options written out."""
    return CliRunner().invoke(app, ["--local", *arguments], input=stdin)


def ask(*arguments: str) -> Any:
    """Run a command with --json; its standard output must be one document and nothing else."""
    result = perch(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@dataclass(frozen=True)
class Session:
    """A running cloud with v1 live on `digits`, the folder that the person is in, and what the first push said."""

    cloud: LocalCloud
    folder: Path
    bucket: str
    pushed: dict[str, Any]

    def put(self, key: str, data: bytes) -> None:
        self.cloud.client("s3").put_object(Bucket=self.bucket, Key=key, Body=data)

    def keys(self, prefix: str) -> list[str]:
        found = self.cloud.client("s3").list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [o["Key"] for o in found.get("Contents", [])]


@pytest.fixture(scope="module")
def session(perch_cloud: LocalCloud, perch_deployed: Deployed) -> Iterator[Session]:
    """v1 is pushed with a metric and probes, and a few minutes pass until it is live; then time stands still."""
    folder = perch_cloud.options.state.parents[1]
    environment = dict(os.environ)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for version in ("v1", "v2"):
            Path(f"{version}.onnx").write_bytes(train("onnx", version))
            Path(f"{version}.json").write_text(json.dumps(manifest("onnx", version)))
        pushed = ask(
            *("push", "v1.onnx", "--model", "digits", "--version", "v1", "--metric", "accuracy=0.88"),
            *("--dataset", "scans [held out]", "--meta", "team=reading", "--probes", "v1.json"),
        )
        assert perch("clock", "--advance", "6m").exit_code == 0
        yield Session(perch_cloud, folder, perch_deployed.output("perch-store", "StoreBucket"), pushed)
    os.environ.clear()
    os.environ.update(environment)


def endpoint(name: str = "digits") -> Any:
    (found,) = ask("status", name)["endpoints"]
    return found


TAKEN_UP = [("digits", "RolloutQueued"), ("digits", None)]
"""Time stands still, so nothing starts; None if the driver takes longer to hear of it than `perch push` waits."""


def taken_up(told: Any) -> tuple[str, str | None]:
    (rollout,) = told["rollouts"]
    return rollout["endpoint"], rollout["kind"]


def test_push_waits_and_says_what_became_of_it(session: Session) -> None:
    """Registered under a number, and what the rollout driver did about it."""
    pushed = session.pushed

    assert (pushed["status"], pushed["number"]) == ("registered", 1)
    assert pushed["uri"] == f"s3://{session.bucket}/models/digits/v1/v1.onnx"
    assert taken_up(pushed) in TAKEN_UP


@pytest.mark.usefixtures("session")
def test_what_was_said_of_a_version_is_kept_with_it() -> None:
    """Metrics as numbers, the rest as text, the probes counted."""
    (version,) = ask("models", "digits")

    assert version["metadata"] == {"dataset": "scans [held out]", "accuracy": 0.88, "team": "reading"}
    assert version["probes"] == len(json.loads(Path("v1.json").read_text())["probes"])
    assert "scans [held out]" in perch("models").stdout


@pytest.mark.usefixtures("session")
def test_status_shows_what_serves_and_what_waits_for_its_first_model() -> None:
    """Of both endpoints, for machines and for people."""
    digits, torch = ask("status")["endpoints"]
    page = perch("status").stdout

    assert digits["stable"] == {"version": "v1", "revision": "2", "misfit": None}
    assert digits["alias"] == "2 at 100%"
    assert digits["rollout"] is None
    assert [check["healthy"] for check in digits["health"]] == [True]
    assert torch["stable"] is None
    assert "v1 (revision 2)" in page
    assert "healthy" in page
    assert "digits-torch: answers 503 until its first model" in page


def test_times_are_those_of_the_cloud(session: Session) -> None:
    """Virtual time runs ahead of this machine's."""
    at = parse_time(ask("status")["at"])

    assert abs((session.cloud.clock.now() - at).total_seconds()) < 60
    assert parse_time(ask("clock")["now"]) >= at


@pytest.mark.usefixtures("session")
def test_predict_takes_rows_from_the_command_line_a_file_or_standard_input() -> None:
    """All three give the same answer, and a bare list counts as rows of features."""
    rows = held_out().features[:2].tolist()
    Path("rows.json").write_text(json.dumps({"features": rows}))

    bare = ask("predict", "digits", json.dumps(rows))
    file = ask("predict", "digits", "@rows.json")
    piped = json.loads(perch("predict", "digits", stdin=json.dumps(rows)).stdout)

    assert bare["version"] == "v1"
    assert len(bare["predictions"]) == 2
    assert bare["predictions"] == file["predictions"] == piped["predictions"]


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("digits", "[[1, 2]]", "expected 64 features, got 2"),
        ("nosuch", "[[1]]", "digits, digits-torch"),
        ("digits/../x", "[[1]]", "404"),
        ("digits-torch", "[[1]]", "no model"),
    ],
)
def test_predict_gives_the_api_s_own_sentence_when_it_refuses(name: str, body: str, words: str) -> None:
    """On standard error, with exit code 1; standard output stays empty."""
    result = perch("predict", name, body)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert words in result.stderr


def test_unsigned_requests_are_refused_in_words(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """API Gateway says only Forbidden; the command says what it takes."""
    monkeypatch.setattr("boto3.Session.get_credentials", lambda _: None)

    result = perch("predict", "digits", "[[1]]")

    assert result.exit_code == 1
    assert "signed requests" in result.stderr


def test_the_same_bytes_again_are_no_news_and_others_are_refused(session: Session) -> None:
    """A version never changes, and nothing is uploaded to find that out."""
    before = session.keys("models/")
    again = ask("push", "v1.onnx", "--model", "digits", "--version", "v1")
    other = perch("push", "v2.onnx", "--model", "digits", "--version", "v1")

    assert again["status"] == "repeated"
    assert other.exit_code == 1
    assert "a version never changes" in other.stderr
    assert session.keys("models/") == before


def test_an_upload_that_the_cloud_refuses_is_told_with_its_reason(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What slips past the check here is refused there; push says so and fails, status remembers."""
    monkeypatch.setattr(upload_command, "_inspect", lambda *_: None)
    Path("broken.onnx").write_bytes(b"nothing that parses")

    result = perch("push", "broken.onnx", "--model", "digits", "--version", "v9", "--json")
    told = json.loads(result.stdout)
    (kept,) = [r for r in ask("status")["refused_uploads"] if r["version"] == "v9"]

    assert result.exit_code == 1
    assert told["status"] == "rejected"
    assert kept["reason"] in told["reason"]
    assert kept["key"] == "models/digits/v9/broken.onnx"
    assert kept["reason"][:30] in perch("status", "digits").stdout


def test_a_refused_version_can_be_pushed_again_in_another_form(session: Session) -> None:
    """What an earlier attempt left in the folder does not keep the version from being complete."""
    session.put("models/loose/v1/notes.txt", b"left behind")

    told = ask("push", "v2.onnx", "--model", "loose", "--version", "v1")

    assert told["status"] == "registered"
    assert "no endpoint serves model 'loose'" in told["reason"]
    assert told["rollouts"] == []


def test_push_need_not_wait(session: Session) -> None:
    """--no-wait returns when the upload is done."""
    told = ask("push", "v1.onnx", "--model", "later", "--version", "v1", "--no-wait")

    assert told["status"] == "uploaded"
    assert session.keys("models/later/v1/") == ["models/later/v1/v1.onnx"]


def test_a_rollout_is_shown_taken_back_and_told_as_a_story(session: Session) -> None:
    """v2 gets its first share of traffic, somebody takes it back, and the ledger proves it."""
    told = ask("push", "v2.onnx", "--model", "digits", "--version", "v2", "--probes", "v2.json")
    perch("clock", "--advance", "5m")
    moving = endpoint()["rollout"]
    page = perch("status").stdout
    watched = perch("rollouts", "watch", "digits").stdout
    back = ask("rollback", "digits", "--reason", "users complain", "--actor", "ada")
    perch("clock", "--advance", "2m")
    after = endpoint()
    story = ask("rollouts", "show", moving["id"])

    assert taken_up(told) in TAKEN_UP
    assert (moving["candidate"], moving["phase"], moving["step"], moving["weight"]) == ("v2", "shifting", 1, 0.05)
    assert "shifting (v2, 5%)" in page
    assert f"{moving['id']} has been shifting (step 1 of 3, 5%)" in page
    assert back["rolled_back"]
    assert after["rollout"] is None
    assert after["alias"] == "2 at 100%"
    assert story["phase"] == "rolled back"
    assert [e["kind"] for e in story["ledger"]] == [
        "RolloutStarted",
        "RevisionPublished",
        "BaselineFrozen",
        "StepEntered",
        "RollbackDecided",
        "RolloutRolledBack",
    ]
    assert [e["reason"] for e in story["ledger"] if e["actor"] == "ada"] == ["users complain"]
    assert f"╭─ {moving['id']} ─" in watched
    assert "▶ step 1 5% for 6h, 50 requests" in watched
    assert "users complain" in perch("rollouts", "show", moving["id"]).stdout
    assert "ada decided to take it back at" in perch("rollouts", "explain", moving["id"]).stdout
    assert next(r["id"] for r in ask("rollouts", "list", "digits")) == moving["id"]

    started = ask("rollouts", "start", "digits", "v2", "--actor", "ada", "--reason", "it was the network")
    perch("clock", "--advance", "1m")
    assert "digits v2" in started["reason"]
    assert endpoint()["rollout"]["candidate"] == "v2"
    assert endpoint()["rollout"]["cause"] == "manual"


@pytest.mark.usefixtures("session")
def test_there_is_nothing_to_take_back_on_an_endpoint_that_never_served() -> None:
    """The use case's own sentence, and exit code 1."""
    result = perch("rollback", "digits-torch", "--reason", "x")

    assert result.exit_code == 1
    assert "no earlier revision" in result.stderr


def test_the_ledger_is_listed_and_its_chain_is_checked(session: Session) -> None:
    """An entry that somebody alters shows."""
    whole = ask("ledger", "digits", "--verify")
    table = session.cloud.client("cloudformation").describe_stacks(StackName="perch-store")["Stacks"][0]["Outputs"]
    name = next(o["OutputValue"] for o in table if o["OutputKey"] == "RegistryTable")
    key = {"pk": {"S": "ENDPOINT#digits"}, "sk": {"S": "LEDGER#00000002"}}
    dynamodb = session.cloud.client("dynamodb")
    item = dynamodb.get_item(TableName=name, Key=key)["Item"]
    altered = json.loads(json.dumps(item).replace("RolloutStarted", "RolloutRefused"))

    dynamodb.put_item(TableName=name, Item=altered)
    broken = perch("ledger", "digits", "--verify", "--json")
    dynamodb.put_item(TableName=name, Item=item)

    assert whole["broken_at"] is None
    assert [e["seq"] for e in whole["entries"]] == list(range(1, len(whole["entries"]) + 1))
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["broken_at"] == 2
    assert "entry 2" in broken.stderr
    assert perch("ledger", "digits", "--verify").exit_code == 0


@pytest.mark.usefixtures("session")
def test_logs_are_those_of_the_named_function_and_time() -> None:
    """Endpoints and control functions; nothing older than asked for."""
    perch("predict", "digits", "[[1]]")
    registered = ask("logs", "register-model", "--since", "1 day")
    predicted = ask("logs", "digits", "--since", "1m")

    assert any("model.upload_handled" in line["message"] for line in registered)
    assert any('"Failures"' in line["message"] or "ClientErrors" in line["message"] for line in predicted)
    assert all(line["stream"] for line in registered)
    assert registered == sorted(registered, key=lambda line: line["at"])
    assert len(ask("logs", "register-model", "--since", "1s")) < len(registered)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status", "nosuch"), "declared: digits, digits-torch"),
        (("rollouts", "list", "nosuch"), "declared: digits, digits-torch"),
        (("rollouts", "start", "digits", "v77"), "no registered version 'v77'"),
        (("rollouts", "start", "nosuch", "v1"), "declared: digits, digits-torch"),
        (("rollouts", "show", "digits-000999"), "`perch rollouts list`"),
        (("rollouts", "show", "nonsense"), "`perch rollouts list`"),
        (("rollback", "nosuch", "--reason", "x"), "declared: digits, digits-torch"),
        (("ledger", "nosuch"), "declared: digits, digits-torch"),
        (("logs", "nosuch"), "control functions: register-model"),
        (("--name", "shop", "status"), "npx cdk deploy --all"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(arguments: tuple[str, ...], words: str) -> None:
    """Exit code 1, and the sentence says what there is."""
    result = perch(*arguments)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert words in result.stderr


def test_status_names_the_alarms_that_are_off(session: Session) -> None:
    """With the reason that CloudWatch gives; the others are not mentioned."""
    cloudwatch, name = session.cloud.client("cloudwatch"), "perch/digits/probes-stable"
    session.cloud.clock.stop()  # the next evaluation would set it right again
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="trying [the bell]")
    (alarm,) = endpoint()["alarms"]
    page = perch("status").stdout
    session.cloud.run()
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="tried")

    assert (alarm["name"], alarm["reason"]) == (name, "trying [the bell]")
    assert f"digits: alarm {name} since " in page
    assert "trying [the bell]" in page
    assert endpoint()["alarms"] == []


@pytest.mark.usefixtures("session")
def test_following_logs_shows_each_line_once_until_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every poll sees lines again that the one before has shown."""
    polls = iter([None, None])

    def pause(_: float) -> None:
        if next(polls, KeyboardInterrupt) is KeyboardInterrupt:
            raise KeyboardInterrupt
        perch("predict", "digits", "[[1]]")

    monkeypatch.setattr("perch.cli.logs.time.sleep", pause)
    result = perch("logs", "digits", "--since", "1 day", "--follow", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    starts = [line["message"] for line in lines if line["message"].startswith("START RequestId")]

    assert result.exit_code == 130
    assert len(starts) >= 2
    assert len(starts) == len(set(starts))


def test_up_runs_until_it_is_told_to_end_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Empty, on free ports: it says where it is, leads other tools there, and goes with its files and processes."""
    perch_up = (
        *(sys.executable, "-c", "from perch.cli.main import main; main()"),
        *("up", "--empty", "--port", "0", "--gateway-port", "0", "--speed", "60", "--json"),
    )
    with subprocess.Popen(perch_up, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        try:
            assert up.stdout is not None
            told = json.loads("".join(iter(up.stdout.readline, "}\n")) + "}")
            children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
            shell = '. .perch/local/env.sh && echo "$AWS_ENDPOINT_URL"'
            led = subprocess.run(["sh", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True)
            found = find_running(tmp_path)
        finally:
            up.send_signal(signal.SIGTERM)
        _, err = up.communicate(timeout=120)

    assert found is not None
    assert found.api_url == told["api_url"] == led.stdout.strip()
    assert found.pid == up.pid
    assert up.returncode == 0, err
    assert err.splitlines()[-1] == "stopped"
    assert find_running(tmp_path) is None
    assert not (tmp_path / ".perch" / "local" / "env.sh").exists()
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_a_driver_that_may_not_be_invoked_is_left_to_its_schedule(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On AWS reading and deciding may be permitted where invoking is not."""
    from botocore.exceptions import ClientError

    from perch.cli.context import Context, Options

    place = Context(Options(local=True, name="perch"))
    woken = place.nudge()

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "Invoke")

    monkeypatch.setattr(place.clients.lambda_, "invoke", refuse)

    assert "was woken" in woken
    assert "at the next tick" in place.nudge()
