"""The `perch` command where nothing is deployed: arguments, errors, and what is checked before anything is sent."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, NoRegionError, ProfileNotFound
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from perch.cli.app import app
from perch.cli.context import Context, Options, enter
from perch.cli.durations import parse_span, span
from perch.cli.errors import explain
from perch.cli.running import Running, find_running
from perch.domain.errors import Invalid, NotFound
from perch.local.clock import VirtualClock
from perch.local.control import Control

PICKLE = b"\x80\x04\x95\x00."


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, and an environment without AWS in it, both put back afterwards."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith(("AWS_", "PERCH_"))]:
        del os.environ[name]
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def control(folder: Path) -> Iterator[Control]:
    """A local cloud's controls without the cloud: what `perch --local` finds."""
    clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
    addresses = {"api_url": "http://localhost:1", "gateway_url": "http://localhost:2"}
    running = Control(clock, clock.advance, addresses, folder / ".perch" / "local")
    running.start()
    yield running
    running.stop()


def perch(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


# -- help and usage -----------------------------------------------------------------------------------------------


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    """Neither an SDK nor a model runtime nor a server is needed to say what the commands are."""
    heavy = {"boto3", "botocore", "moto", "aws_cdk", "torch", "onnx", "numpy", "rich"}
    code = (
        "import sys; sys.argv = ['perch', '--help']\n"
        "from perch.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "rollback" in done.stdout
    assert done.stdout.splitlines()[-1] == "HEAVY []"


INTERRUPTED = """
import atexit, os, signal, sys

when, ignored = sys.argv[1:]

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == when:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
if when == "the end":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
from perch.cli.main import main
sys.argv[1:] = ["inspect", "none"]
main()
"""


@pytest.mark.parametrize("when", ["typer", "perch.cli.app", "perch.cli.verify", "perch.cli.inspection", "the end"])
@pytest.mark.parametrize("ignored", ["", "ignored"])
def test_an_interruption_ends_quietly_before_and_after_a_command_as_within(when: str, ignored: str) -> None:
    """While it is imported, while it runs, and after its last word; where it is ignored the command goes on."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, when, ignored], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (1 if ignored else 130, b"")


def test_the_first_sentence_of_every_command_fits_the_help_page() -> None:
    """A sentence that is cut in the list of commands helps nobody."""
    for page in (perch("--help").stdout, perch("-h").stdout, perch("rollouts", "-h").stdout):
        assert "..." not in page.partition("Commands:")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("rollouts", "no-such-command"),
        ("push", "m.onnx", "--model", "digits"),
        ("push", "m.onnx", "--model", "d", "--version", "v1", "--timeout", "0"),
        ("rollback", "digits"),
        ("rollouts", "pause", "digits"),
        ("rollouts", "promote", "digits"),
        ("rollouts", "abort", "digits"),
        ("rollouts", "answer", "digits-000001", "1", "--reason", "x"),
        ("rollouts", "answer", "digits-000001", "0", "--yes", "--reason", "x"),
        ("replay", "digits-000001"),
        ("up", "--port", "70000"),
        ("status", "--no-such-option"),
        ("rollouts", "list", "--limit", "0"),
    ],
)
def test_a_command_line_that_is_not_understood_exits_with_2(arguments: tuple[str, ...]) -> None:
    """Standard output stays empty, for whoever reads it."""
    result = perch(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: perch" in result.stderr


def test_the_version_is_told() -> None:
    """`perch --version` needs no command."""
    result = perch("--version")

    assert result.exit_code == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", result.stdout)


# -- errors -------------------------------------------------------------------------------------------------------


def refusal(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "GetItem")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotFound("no endpoint 'x' is declared"), ["no endpoint 'x' is declared"]),
        (refusal("AccessDeniedException", "not authorized"), ["GetItem", "not authorized", "lack this permission"]),
        (refusal("ExpiredToken", "The token has expired"), ["expired", "sign in again"]),
        (refusal("InternalError", ""), ["refused GetItem", "InternalError"]),
        (NoCredentialsError(), ["no AWS credentials", "AWS_PROFILE", "--profile"]),
        (NoRegionError(), ["AWS_REGION", "--region"]),
        (ProfileNotFound(profile="zzz"), ["zzz", "--profile"]),
        (EndpointConnectionError(endpoint_url="http://localhost:1"), ["http://localhost:1", "Is it running"]),
        (FileNotFoundError(2, "No such file or directory", "rows.json"), ["rows.json: No such file"]),
        (ZeroDivisionError("division by zero"), ["a bug", "ZeroDivisionError", "--debug"]),
    ],
)
def test_every_kind_of_error_becomes_a_sentence(error: Exception, words: list[str]) -> None:
    """It says what was wrong, and where there is something to do, what."""
    sentence = explain(error)

    assert "Traceback" not in sentence
    assert all(word in sentence for word in words), sentence


def test_a_bug_ends_as_a_sentence_and_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback ever, unless it is asked for."""

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Context, "policies", broken)

    plain, debug = perch("status"), perch("--debug", "status")

    assert plain.exit_code == 1
    assert plain.stderr.startswith("perch: perch met a bug: ZeroDivisionError")
    assert plain.stdout == ""
    assert isinstance(debug.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("models",),
        ("rollouts", "list"),
        ("rollouts", "show", "digits-000001"),
        ("rollouts", "start", "digits", "v1"),
        ("rollouts", "watch"),
        ("rollouts", "explain", "digits-000001"),
        ("rollouts", "promote", "digits", "--reason", "x"),
        ("rollback", "digits", "--reason", "x"),
        ("ledger", "digits"),
        ("logs", "digits"),
        ("predict", "digits", "[[1]]"),
    ],
)
def test_without_an_account_every_command_says_what_to_configure(arguments: tuple[str, ...]) -> None:
    """No region, no credentials: one sentence, and exit code 1."""
    result = perch(*arguments)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "--region" in result.stderr or "--profile" in result.stderr


def test_who_has_no_account_at_hand_is_reminded_of_the_local_cloud(control: Control) -> None:
    """Forgetting --local is the commonest mistake."""
    assert "`perch --local`" in perch("status").stderr
    control.stop()
    assert "`perch --local`" not in perch("status").stderr


# -- the running local cloud --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("--local", "status"), ("clock",)])
def test_without_a_running_local_cloud_one_is_told_how_to_start_it(arguments: tuple[str, ...]) -> None:
    """Nothing is guessed."""
    result = perch(*arguments)

    assert result.exit_code == 1
    assert "`perch up`" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "not JSON",
        '{"api_url": "http://localhost:1", "gateway_url": "", "control_url": "http://localhost:1", "pid": 1}',
    ],
)
def test_a_file_that_a_dead_cloud_left_is_not_believed(folder: Path, text: str) -> None:
    """Only a cloud that answers is a running one."""
    file = folder / ".perch" / "local" / "cloud.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)

    assert find_running() is None


def test_the_local_cloud_is_found_from_a_folder_below(
    control: Control, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As git finds its repository."""
    below = folder / "notebooks" / "first"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    found = find_running()

    assert found is not None
    assert found.api_url == "http://localhost:1"
    assert found.pid == os.getpid()


def test_going_local_leaves_no_trace_of_another_account() -> None:
    """A profile or a session token of a real account must not reach the local cloud, nor a service's own endpoint."""
    os.environ |= {"AWS_PROFILE": "production", "AWS_SESSION_TOKEN": "t", "AWS_ENDPOINT_URL_S3": "https://example.com"}

    enter(Running(api_url="http://localhost:5", gateway_url="", control_url="", pid=1))

    assert os.environ["AWS_ENDPOINT_URL"] == "http://localhost:5"
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"} & set(os.environ)


@pytest.mark.usefixtures("control")
def test_the_clock_is_read_stepped_and_sped_up() -> None:
    """`perch clock` needs no --local: there is no other clock."""
    before = json.loads(perch("clock", "--json").stdout)
    after = json.loads(perch("clock", "--advance", "1 day 30m", "--speed", "60", "--json").stdout)

    assert datetime.fromisoformat(after["now"]) - datetime.fromisoformat(before["now"]) == timedelta(days=1, minutes=30)
    assert after["speed"] == 60
    assert "2026-01-02 00:30:00 UTC, standing still" in perch("clock").stdout


@pytest.mark.usefixtures("control")
@pytest.mark.parametrize("wrong", [("--advance", "soon"), ("--advance", "0s"), ("--speed", "0"), ("--speed", "nan")])
def test_time_only_goes_forward(wrong: tuple[str, str]) -> None:
    """A wrong amount is refused in words, and the clock stays."""
    result = perch("clock", *wrong)

    assert result.exit_code == 1
    assert wrong[1] in result.stderr
    assert "2026-01-01 00:00:00" in perch("clock").stdout


# -- spans of time ------------------------------------------------------------------------------------------------


@given(st.integers(0, 999), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_a_span_means_the_sum_of_its_parts(d: int, h: int, m: int, s: int) -> None:
    """However the units are spelled."""
    length = timedelta(days=d, hours=h, minutes=m, seconds=s)
    if length:
        assert parse_span(f"{d} days {h}h {m} min {s}s") == length
        assert parse_span(f"{d}d{h}hours{m}m {s} seconds") == length


@given(st.integers(0, 10**8))
def test_what_a_span_is_called_is_at_most_it_and_close_to_it(seconds: int) -> None:
    """Two units are enough for a person, and never say more than there is."""
    length = timedelta(seconds=seconds)
    said = parse_span(span(length)) if seconds else timedelta()

    assert said <= length
    assert length - said < max(length / 24, timedelta(seconds=1))


@pytest.mark.parametrize("text", ["", "  ", "3", "3x", "h", "-1h", "1h and more", "1e9 days", "0 s", "٣h x"])
def test_what_is_no_span_is_refused_with_an_example(text: str) -> None:
    """The way out is in the sentence."""
    with pytest.raises(Invalid, match="write it like 90s"):
        parse_span(text)


# -- push ---------------------------------------------------------------------------------------------------------


def push(*more: str, file: str = "model.onnx", model: str = "digits", version: str = "v1") -> Result:
    return perch("push", file, "--model", model, "--version", version, *more)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("model.onnx", None, "model.onnx is not there"),
        ("model.onnx", b"", "the file is empty"),
        ("model.onnx", b"not a model", "model.onnx is not uploaded"),
        ("model.pkl", PICKLE, "a pickle can run code"),
        ("model.onnx", PICKLE, "the bytes are a pickle"),
        ("notes.txt", b"hello", "the format is not known"),
        ("perch.json", b"{}", "goes with an artifact"),
    ],
)
def test_a_file_that_would_be_refused_is_refused_before_it_is_sent(
    folder: Path, name: str, data: bytes | None, words: str
) -> None:
    """There is no account here: a sentence about anything else would mean that AWS was asked first."""
    if data is not None:
        (folder / name).write_bytes(data)

    result = push(file=name)

    assert result.exit_code == 1
    assert words in result.stderr


def test_what_no_endpoint_takes_is_not_even_read(folder: Path) -> None:
    """A file larger than this machine's memory would else end the command, and not in words."""
    with (folder / "model.onnx").open("wb") as file:
        file.truncate(10**12)

    result = push()

    assert result.exit_code == 1
    assert "it has 1,000,000 MB; an endpoint takes 500 MB at most" in result.stderr


@pytest.mark.parametrize(("model", "version"), [("dígits", "v1"), ("digits", "v 1"), ("../x", "v1"), ("digits", "")])
def test_a_name_that_cannot_be_a_key_is_refused_before_it_is_sent(folder: Path, model: str, version: str) -> None:
    """The sentence says which characters are permitted."""
    (folder / "model.onnx").write_bytes(b"x")

    result = push(model=model, version=version)

    assert result.exit_code == 1
    assert "ASCII letters" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--metric", "accuracy"), "is not NAME=VALUE"),
        (("--metric", "accuracy=high"), "a metric is NAME=NUMBER"),
        (("--metric", "accuracy=nan"), "a metric is NAME=NUMBER"),
        (("--metric", "accuracy=1e999"), "a metric is NAME=NUMBER"),
        (("--meta", "=x"), "is not NAME=VALUE"),
        (("--metric", "a=1", "--meta", "a=x"), "a is given twice"),
    ],
)
def test_what_is_said_of_a_version_must_be_pairs(options: tuple[str, ...], words: str) -> None:
    """A mistake on the command line is a usage error."""
    result = push(*options)

    assert result.exit_code == 2
    assert words in result.stderr


@pytest.fixture
def onnx_file(folder: Path) -> Path:
    """A small valid model of two features."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor("w", TensorProto.FLOAT, [2, 3], [1, 2, 3, 4, 5, 6])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file = folder / "model.onnx"
    file.write_bytes(made.SerializeToString())
    return file


@pytest.mark.usefixtures("onnx_file")
@pytest.mark.parametrize(
    ("probes", "words"),
    [
        ("nonsense", "is not JSON"),
        ("[]", "must hold a list of golden requests"),
        ('{"features": [[1, 2]]}', "must hold a list of golden requests"),
        ("[1]", "probe 0 must look like"),
        ('[{"features": [[1, 2]]}, {"expect": {}}]', "probe 1 must look like"),
        ('[{"features": [[1, 2, 3]]}]', "rows of [3] features, the model takes 2"),
    ],
)
def test_probes_that_do_not_fit_are_refused_before_anything_is_sent(folder: Path, probes: str, words: str) -> None:
    """Each sentence names the file and the probe."""
    (folder / "probes.json").write_text(probes)

    result = push("--probes", "probes.json")

    assert result.exit_code == 1
    assert "probes.json" in result.stderr
    assert words in result.stderr


@pytest.mark.usefixtures("onnx_file")
def test_a_good_file_gets_past_every_check_here(folder: Path) -> None:
    """The first thing that is missing then is the account."""
    (folder / "probes.json").write_text('{"probes": [{"features": [[1, 2]], "expect": {"predictions": [2]}}]}')

    result = push("--probes", "probes.json", "--metric", "accuracy=0.9", "--meta", "team=a", "--dataset", "d")

    assert "--region" in result.stderr


# -- predict ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "words"), [("[[1, 2", "is not JSON"), ("@nowhere.json", "nowhere.json")])
def test_a_body_that_cannot_be_sent_is_refused_here(body: str, words: str) -> None:
    """It says so before it asks for an account."""
    result = perch("predict", "digits", body)

    assert result.exit_code == 1
    assert words in result.stderr


# -- up -----------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_named_with_its_option() -> None:
    """Port 5000 is taken on many machines, so the way out must be at hand."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        api, gateway = (
            perch("up", "--empty", "--port", port),
            perch("up", "--empty", "--port", "0", "--gateway-port", port),
        )

    assert api.exit_code == gateway.exit_code == 1
    assert f"port {port} cannot be had" in api.stderr
    assert "--port" in api.stderr
    assert "--gateway-port" in gateway.stderr


@pytest.mark.usefixtures("control")
def test_a_second_local_cloud_in_a_folder_is_refused() -> None:
    """The first one's address file must not be overwritten."""
    result = perch("up", "--empty", "--port", "0", "--gateway-port", "0")

    assert result.exit_code == 1
    assert "a local cloud runs here already" in result.stderr
    assert "http://localhost:1" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "there is no app.py"),
        (("--app", "elsewhere"), "elsewhere"),
        (("--empty", "--speed", "0"), "--speed 0"),
        (("--empty", "--settings", "none.toml"), "none.toml"),
    ],
)
def test_up_refuses_before_it_starts_anything(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    """And leaves nothing behind."""
    result = perch("up", *arguments)

    assert result.exit_code == 1
    assert words in result.stderr
    assert not (folder / ".perch").exists()


# -- the deployment's name ----------------------------------------------------------------------------------------


def test_the_name_comes_from_the_option_then_the_folder_then_is_perch(folder: Path) -> None:
    """In this order."""
    assert Context(Options()).name == "perch"
    (folder / "perch.toml").write_text('name = "shop"\n')
    assert Context(Options()).name == "shop"
    assert Context(Options(name="other")).name == "other"


def test_a_broken_perch_toml_is_named(folder: Path) -> None:
    """Rather than quietly working on another deployment."""
    (folder / "perch.toml").write_text("name = \n")

    with pytest.raises(Invalid, match=r"perch\.toml is not TOML"):
        _ = Context(Options()).name
