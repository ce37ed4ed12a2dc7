"""perch.toml is read whole, checked whole, and every mistake is named with what would be right."""

from __future__ import annotations

import json
import tomllib
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdk.reading import WrongValueError, duration, fraction, proportion, spell
from cdk.settings import Settings, SettingsError, load, parse
from perch.domain.policy import CachePolicy, GuardPolicy, RolloutPolicy, load_settings

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("perch.toml")
SMALL = '[endpoints.digits]\nruntime = "onnx"\n'


def read(text: str) -> Settings:
    return parse(tomllib.loads(text), HERE)


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(text)
    return caught.value.problems


def test_the_projects_own_settings_are_right() -> None:
    """What a new user starts from loads, and declares one endpoint of each runtime."""
    settings = load(ROOT / "perch.toml")

    assert {e.runtime for e in settings.endpoints} == {"onnx", "torch"}
    assert settings.api.auth == "iam"


def test_an_endpoint_needs_only_its_runtime() -> None:
    """Everything else has a default that suits production: a canary, guards, automatic approval."""
    (endpoint,) = read(SMALL).endpoints

    assert endpoint.model == "digits"
    assert endpoint.rollout.strategy == "canary"
    assert endpoint.rollout.steps
    assert endpoint.approval == "auto"


def test_the_functions_can_read_what_is_written_for_them() -> None:
    """The canonical document is understood by the package, value by value, and is always the same text."""
    settings = load(ROOT / "perch.toml")
    document = settings.as_endpoints_json()
    read_back = load_settings(document)

    assert read_back.name == settings.name
    for written, understood in zip(settings.endpoints, read_back.endpoints, strict=True):
        assert json.loads(json.dumps(_plain(understood))) == json.loads(json.dumps(_plain(written)))
    assert document == load(ROOT / "perch.toml").as_endpoints_json()


def _plain(value: object) -> object:
    from dataclasses import asdict

    return asdict(value)  # type: ignore[call-overload]


def test_the_document_has_the_shape_of_the_contract() -> None:
    """Keys are those of docs/contracts.md, times are seconds and weights are fractions."""
    text = SMALL + '[endpoints.digits.rollout]\nsteps = [{weight = "5%", hold = "1 hour", requests = 100}]\n'
    (endpoint,) = json.loads(read(text).as_endpoints_json())["endpoints"]

    contract = "name model runtime memory_mb timeout_s snapstart approval health_check_s max_artifact_mb capture cache "
    contract += "allow rollout guards"
    assert list(endpoint) == contract.split()
    step = {"weight": 0.05, "hold_s": 3600, "requests": 100, "proof": True, "gate": "", "watch": False}
    assert endpoint["rollout"]["steps"] == [step]
    for written, understood in ((endpoint["rollout"], RolloutPolicy), (endpoint["guards"], GuardPolicy)):
        assert set(written) == {field.name for field in fields(understood)}


def test_each_strategy_is_written_out_as_steps() -> None:
    """Whatever a strategy is called, what is deployed is a list of shares of the traffic."""

    def steps(rollout: str) -> list[tuple[float, bool, str, bool]]:
        (endpoint,) = read(SMALL + 'capture = "10%"\n[endpoints.digits.rollout]\n' + rollout).endpoints
        return [(step.weight, step.proof, step.gate, step.watch) for step in endpoint.rollout.steps]

    assert steps('strategy = "direct"\n') == []
    assert steps('strategy = "blue-green"\nbake = "1 hour"\n') == [(1.0, True, "", False)]
    assert steps('strategy = "shadow"\n') == [(0.0, False, "person", False)]
    assert steps('strategy = "linear"\nincrement = "40%"\n') == [(0.4, False, "", False), (0.8, True, "", False)]
    everything = """
        steps = [{weight = "5%", hold = "1 hour", gate = "nightly-tests"}, {weight = "50%", hold = "1 hour"}]
        bake = "2 hours"
        [endpoints.digits.rollout.shadow]
        [endpoints.digits.rollout.holdback]
        weight = "3%"
    """
    assert steps(everything) == [
        (0.0, False, "", False),
        (0.05, False, "nightly-tests", False),
        (0.5, True, "", False),
        (0.97, False, "", True),
        (1.0, False, "", True),
    ]


def test_a_preset_is_a_starting_point() -> None:
    """It gives what is not written, and what is written wins."""
    (endpoint,) = read(SMALL + '[endpoints.digits.guards]\npreset = "conservative"\nalpha = 0.2\n').endpoints

    assert (endpoint.guards.error_rate, endpoint.guards.alpha, endpoint.guards.margin) == (0.02, 0.2, 1.5)


def test_a_guard_can_be_turned_off() -> None:
    """Predictions of a regression that is retrained on purpose may shift as they like."""
    (endpoint,) = read(SMALL + '[endpoints.digits.guards]\nshift_odds = "off"\n').endpoints

    assert endpoint.guards.shift_odds is None


def test_all_problems_are_reported_at_once() -> None:
    """Three mistakes make three sentences, and each line of the message names the file."""
    text = 'tick = "90 seconds"\n[endpoints.digits]\nruntime = "onyx"\nmemory_mb = 64\n'

    with pytest.raises(SettingsError) as caught:
        read(text)

    assert len(caught.value.problems) == 3
    assert all(line.startswith("perch.toml: ") for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("text", "key", "advice"),
    [
        (SMALL + "memory = 512\n", "endpoints.digits.memory", "did you mean 'memory_mb'?"),
        (SMALL + "memory_mb = 64\n", "endpoints.digits.memory_mb", "from 128 to 10240"),
        (SMALL + "memory_mb = 1024.5\n", "endpoints.digits.memory_mb", "whole number"),
        (SMALL + "memory_mb = true\n", "endpoints.digits.memory_mb", "whole number"),
        (SMALL + 'snapstart = "yes"\n', "endpoints.digits.snapstart", "true or false"),
        (SMALL + "provisioned_concurrency = 1\n", "endpoints.digits.provisioned_concurrency", "not a known key"),
        (SMALL + "timeout_s = 60\n", "endpoints.digits.timeout_s", "from 1 to 30"),
        (SMALL + 'health_check = "90 seconds"\n', "endpoints.digits.health_check", "whole minutes"),
        (SMALL + 'health_check = "often"\n', "endpoints.digits.health_check", '"5 minutes"'),
        (SMALL + 'approval = "manuel"\n', "endpoints.digits.approval", "did you mean 'manual'?"),
        (SMALL + "max_artifact_mb = 600\n", "endpoints.digits.max_artifact_mb", "from 1 to 500"),
        (SMALL + "memory_mb = 512\nmax_artifact_mb = 300\n", "endpoints.digits.memory_mb", "raise it to 660 or more"),
        (SMALL + "memory_mb = 539\n", "endpoints.digits.memory_mb", "raise it to 540 or more, or lower max_artifact"),
        (SMALL + "memory_mb = 128\nmax_artifact_mb = 1\n", "endpoints.digits.memory_mb", "raise it to 302 or more"),
        (SMALL + 'model = "dígits"\n', "endpoints.digits.model", "1 to 64 letters"),
        (SMALL + 'rollout = "canary"\n', "endpoints.digits.rollout", "not a table"),
        (SMALL + '[endpoints.digits.rollout]\nstrategy = "shadow"\n', "endpoints.digits.capture", 'capture = "10%"'),
        (
            SMALL + '[endpoints.digits.rollout]\nat_deadline = "promote"\n',
            ".rollout.at_deadline",
            "'roll back', 'hold'",
        ),
        (SMALL + "[endpoints.digits.rollout]\nbudget = 0\n", ".rollout.budget", "from 1"),
        (SMALL + '[endpoints.digits.rollout]\nstrategy = "blue-green"\nbudget = 9\n', ".rollout.budget", "no share"),
        (SMALL + '[endpoints.digits.guards]\npreset = "bold"\n', ".guards.preset", "'conservative', 'balanced'"),
        (SMALL + '[endpoints.digits.guards]\ndry_run = ["eror"]\n', ".guards.dry_run", "did you mean 'errors'?"),
        (SMALL + "[endpoints.digits.guards]\nmargin = 1\n", ".guards.margin", "from 1.05"),
        (
            SMALL + '[endpoints.digits.guards]\ncustom = [{name = "x", namespace = "N"}]\n',
            "custom[0].metric",
            "is miss",
        ),
        (SMALL + '[endpoints.digits.rollout]\nstrategy = "canry"\n', ".rollout.strategy", "did you mean 'canary'?"),
        (SMALL + '[endpoints.digits.rollout]\nstrategy = "direct"\nsteps = []\n', ".rollout.steps", "not a known key"),
        (SMALL + "[endpoints.digits.rollout]\nsteps = []\n", ".rollout.steps", "at least one step"),
        (SMALL + '[endpoints.digits.rollout]\nsteps = [{weight = "100%", hold = "1 hour"}]\n', "steps[0].weight", "5%"),
        (SMALL + '[endpoints.digits.rollout]\nsteps = [{weight = "5%"}]\n', "steps[0].hold", "is missing"),
        (SMALL + "[endpoints.digits.guards]\nerror_rate = 5\n", ".guards.error_rate", 'as "5%" or 0.05'),
        (SMALL + "[endpoints.digits.guards]\nlatency_p99_ms = 11000\n", ".guards.latency_p99_ms", "up to timeout_s"),
        ("[endpoints.digits]\n", "endpoints.digits.runtime", "is missing"),
        ('[endpoints.Digits]\nruntime = "onnx"\n', "endpoints.Digits", "lower-case"),
        ('[endpoints.roll-back]\nruntime = "onnx"\n', "endpoints.roll-back", "Perch's own functions"),
        ('name = "-"\n' + SMALL, "name", "1 to 20 lower-case"),
        ('architecture = "arm"\n' + SMALL, "architecture", "did you mean 'arm64'?"),
        ("log_days = 31\n" + SMALL, "log_days", "30"),
        ('[api]\nauth = "jwt"\n' + SMALL, "api.auth", "'iam', 'none'"),
        ('name = "perch"\n', "endpoints", "declare at least one"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(text: str, key: str, advice: str) -> None:
    """One mistake makes one sentence: the key's path, and the advice."""
    (problem,) = problems(text)

    assert key in problem.split(": ")[0]
    assert advice in problem


def test_an_artifact_may_be_as_large_as_memory_holds() -> None:
    """Three times its size and 300 MB for the runtime is just enough."""
    (endpoint,) = read(SMALL + "memory_mb = 1800\nmax_artifact_mb = 500\n").endpoints

    assert (endpoint.memory_mb, endpoint.max_artifact_mb) == (1800, 500)


def test_weights_must_grow() -> None:
    """A step that gives less traffic than the one before is refused, with the weights in order."""
    steps = '[{weight = "20%", hold = "1 hour"}, {weight = "5%", hold = "1 hour"}]'
    (problem,) = problems(SMALL + f"[endpoints.digits.rollout]\nsteps = {steps}\n")

    assert "0.2, 0.05" in problem


def test_a_step_must_end_within_the_deadline() -> None:
    """Holding a step for longer than a step may take could never end well."""
    rollout = '[endpoints.digits.rollout]\ndeadline = "1 hour"\nsteps = [{weight = 0.5, hold = "2 hours"}]\n'
    (problem,) = problems(SMALL + rollout)

    assert "endpoints.digits.rollout.deadline" in problem
    assert "2 hours" in problem


@given(st.integers(min_value=1, max_value=99))
def test_a_linear_rollout_takes_equal_steps_and_leaves_the_last_to_the_promotion(percent: int) -> None:
    """Whatever the increment, weights grow by it, stay below one, and one more step would reach everything."""
    text = SMALL + f'[endpoints.digits.rollout]\nstrategy = "linear"\nincrement = "{percent}%"\ninterval = "1 hour"\n'
    weights = [step.weight for step in read(text).endpoints[0].rollout.steps]

    assert weights == sorted(set(weights))
    assert weights[0] == pytest.approx(percent / 100)
    assert weights[-1] < 1
    assert weights[-1] + percent / 100 >= 1 - 1e-9


@given(st.integers(min_value=1, max_value=10_000_000))
def test_a_time_survives_being_written_and_read(seconds: int) -> None:
    """The words for a time mean that time."""
    assert duration(1, 10_000_000)(spell(seconds)) == seconds


@given(st.floats(min_value=0.0001, max_value=0.9999).map(lambda share: round(share, 4)))
def test_percent_and_fraction_are_the_same_share(share: float) -> None:
    """`"5%"` and `0.05` are two ways to write one number."""
    assert fraction(f"{share * 100:.2f}%") == pytest.approx(fraction(share))


@pytest.mark.parametrize("value", ["0%", "100%", 0, 1, 1.7, "5", "five", True, None, [0.5], "-5%"])
def test_what_is_no_share_is_refused(value: object) -> None:
    """Nothing outside (0, 1) passes, nor anything that is not a number."""
    with pytest.raises(WrongValueError):
        fraction(value)


@pytest.mark.parametrize(
    ("written", "share"), [("0%", 0), ("1%", 0.01), ("0.5 %", 0.005), (0.25, 0.25), ("100%", 1), (1, 1), (0, 0)]
)
def test_the_captured_share_may_be_none_or_all(written: object, share: float) -> None:
    """It reaches the functions as a fraction; without the key nothing is captured."""
    (endpoint,) = load_settings(read(SMALL + f"capture = {json.dumps(written)}\n").as_endpoints_json()).endpoints

    assert endpoint.capture == share
    assert read(SMALL).endpoints[0].capture == 0


@pytest.mark.parametrize("value", ["101%", 1.01, -0.1, "much", True, None, float("nan")])
def test_a_captured_share_that_is_none_is_refused(value: object) -> None:
    """In words that show how to write one."""
    with pytest.raises(WrongValueError, match="from 0 % to 100 %"):
        proportion(value)


@given(
    st.dictionaries(
        st.text(max_size=12),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
        ),
        max_size=4,
    )
)
def test_nonsense_is_refused_in_words(document: dict[str, object]) -> None:
    """Any document either gives settings or a SettingsError; never another exception."""
    for shape in (document, {"endpoints": {"digits": document}}, {"endpoints": {"digits": {"rollout": document}}}):
        with suppress(SettingsError):
            parse(shape, HERE)


def test_a_missing_file_says_how_to_name_another(tmp_path: Path) -> None:
    """The message tells of `-c settings=`."""
    with pytest.raises(SettingsError, match="-c settings=FILE"):
        load(tmp_path / "absent.toml")


def test_a_file_that_is_not_toml_says_where(tmp_path: Path) -> None:
    """The line of the mistake is in the message."""
    path = tmp_path / "perch.toml"
    path.write_text("name = perch\n")

    with pytest.raises(SettingsError, match="line 1"):
        load(path)


def test_a_cache_is_opted_in_to_and_reaches_the_functions() -> None:
    """Without the table there is none; `ttl` has no default, because only the user knows how long an answer is true."""
    text = SMALL + '[endpoints.digits.cache]\nttl = "5 minutes"\nurl = "rediss://cache.example:6379/0"\n'
    (endpoint,) = load_settings(read(text).as_endpoints_json()).endpoints
    assert endpoint.cache == CachePolicy(ttl_s=300, size_mb=64, url="rediss://cache.example:6379/0")
    assert load_settings(read(SMALL).as_endpoints_json()).endpoints[0].cache is None


@pytest.mark.parametrize(
    ("written", "where"),
    [
        ("size_mb = 64", "endpoints.digits.cache.ttl"),
        ('ttl = "5 minutes"\nsize_mb = 0', "endpoints.digits.cache.size_mb"),
        ('ttl = "5 minutes"\nurl = "http://cache.example"', "endpoints.digits.cache.url"),
        ('ttl = "5 minutes"\nsize_mb = 900', "endpoints.digits.memory_mb"),
        ('ttl = "5 minutes"\nsiz_mb = 9', "endpoints.digits.cache.siz_mb"),
    ],
)
def test_a_cache_that_cannot_be_is_refused(written: str, where: str) -> None:
    """Each with the key that it is about."""
    with pytest.raises(SettingsError) as refused:
        read(SMALL + f"[endpoints.digits.cache]\n{written}\n")
    [problem] = refused.value.problems
    assert problem.startswith(f"{where}: ")
