"""`POST /experiments/{endpoint}/rewards`: what a body may hold, and with which status each refusal is answered."""

from __future__ import annotations

import base64
import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from perch.app.record_rewards import Reward, rewards_in
from perch.domain.errors import Invalid, NotReady
from perch.domain.rollout import Endpoint
from tests.unit.test_experiment_moves import live, serving, started
from tests.unit.values import T0

HANDLER = Path(__file__).parents[2] / "functions" / "record_rewards" / "handler.py"
CONTEXT = SimpleNamespace(
    aws_request_id="request-1", function_name="record-rewards", memory_limit_in_mb=512,
    invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:record-rewards",
)  # fmt: skip
ONE = {"user": "ada", "reward": 1}


def body(*events: Any) -> str:
    return json.dumps({"events": events})


def test_a_body_holds_users_rewards_and_ids() -> None:
    """Whole numbers are rewards too; an id may be left out."""
    found = rewards_in(body(ONE, {"user": "bob", "reward": 0.25, "id": "order-17"}))

    assert found == (Reward(user="ada", reward=1.0), Reward(user="bob", reward=0.25, event="order-17"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must be"),
        ('{"events": {}}', "must be"),
        (body(), "1 to 100 events"),
        (body(*[ONE] * 101), "1 to 100 events"),
        (body("ada"), r"events\[0\] is not"),
        (body(ONE, {"reward": 1}), r"events\[1\].user"),
        (body({"user": "", "reward": 1}), r"events\[0\].user"),
        (body({"user": 7, "reward": 1}), r"events\[0\].user"),
        (body({"user": "u" * 257, "reward": 1}), r"events\[0\].user"),
        (body({"user": "ada"}), r"events\[0\].reward"),
        (body({"user": "ada", "reward": True}), r"events\[0\].reward"),
        (body({"user": "ada", "reward": "1"}), r"events\[0\].reward"),
        (body({"user": "ada", "reward": -0.1}), r"events\[0\].reward"),
        (body({"user": "ada", "reward": 1.1}), r"events\[0\].reward"),
        (body({"user": "ada", "reward": math.nan}), r"events\[0\].reward"),
        (body({"user": "ada", "reward": 1, "id": ""}), r"events\[0\].id"),
    ],
)
def test_a_body_that_is_wrong_is_refused_whole_and_says_where(text: str, why: str) -> None:
    """Nothing of it counts, so that it can be mended and sent again."""
    with pytest.raises(Invalid, match=why):
        rewards_in(text)


@given(st.binary(max_size=80))
def test_no_bytes_do_anything_but_be_refused(data: bytes) -> None:
    """A client may send what it likes."""
    with pytest.raises(Invalid):
        rewards_in(data)


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The handler as Lambda imports it, on a registry in which an experiment runs, and with nothing behind it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("PERCH_TABLE", "registry")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "record-rewards")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Perch")
    spec = importlib.util.spec_from_file_location("record_rewards_handler", HANDLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    holds(module, serving())
    return module


def holds(function: ModuleType, state: Endpoint) -> None:
    """Let the registry hold this state."""
    function.registry = SimpleNamespace(endpoint=lambda _: state)


def ask(function: ModuleType, text: str, **fields: Any) -> tuple[int, Any]:
    event = {
        "pathParameters": {"endpoint": "digits"},
        "requestContext": {"timeEpoch": int(T0.timestamp() * 1000)},
        "body": text,
    } | fields
    answer = function.handler(event, CONTEXT)
    return answer["statusCode"], json.loads(answer["body"])


def test_what_was_counted_is_answered(function: ModuleType) -> None:
    """With the experiment that it counts for; a body in base64 is one too."""
    counted: list[Any] = []

    def record(endpoint: str, experiment: str, earned: list[Any], **_: Any) -> int:
        counted.append((endpoint, experiment, [one.user for one in earned]))
        return 1

    function.experiments = SimpleNamespace(record=record)
    text = body(ONE, ONE)
    encoded = base64.b64encode(text.encode()).decode()

    answered = {"experiment": "digits-x000001", "new": 1, "known": 1, "request_id": "request-1"}
    assert ask(function, text) == (200, answered)
    assert ask(function, encoded, isBase64Encoded=True) == (200, answered)
    assert counted == [("digits", "digits-x000001", ["ada", "ada"])] * 2


def _raise(error: Exception) -> Any:
    def record(*_: Any, **__: Any) -> int:
        raise error

    return SimpleNamespace(record=record)


def test_each_refusal_has_its_status(function: ModuleType) -> None:
    """400 mend it, 404 there is nothing to count for, 409 not yet, 503 send it again; the sentence says which."""
    assert ask(function, "{}")[0] == 400
    holds(function, live())
    assert ask(function, body(ONE)) == (
        404,
        {"error": "no experiment runs on endpoint 'digits'", "request_id": "request-1"},
    )
    holds(function, started())
    assert ask(function, body(ONE))[0] == 409
    holds(function, serving())
    function.experiments = _raise(NotReady("too many"))
    assert ask(function, body(ONE))[0] == 503
    throttled = {"Error": {"Code": "ThrottlingException"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    function.experiments = _raise(ClientError(throttled, "TransactWriteItems"))
    assert ask(function, body(ONE))[0] == 503


def test_trouble_that_stays_is_not_called_busy(function: ModuleType) -> None:
    """A missing permission is the function's failure, which its metrics show."""
    denied = {"Error": {"Code": "AccessDeniedException"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    function.experiments = _raise(ClientError(denied, "TransactWriteItems"))
    with pytest.raises(ClientError):
        ask(function, body(ONE))


def test_rewards_count_by_the_split_that_is_served_not_by_the_one_that_is_wanted(function: ModuleType) -> None:
    """Between a decision and its revision users still meet the old shares."""
    state = serving()
    wanted = replace(state, experiment=replace(state.experiment, segments=state.experiment.segments[-1:]))
    holds(function, wanted)
    counted: list[Any] = []
    function.experiments = SimpleNamespace(record=lambda *a, **_: counted.extend(a[2]) or len(a[2]))
    users = [f"u{i}" for i in range(60)]
    ask(function, body(*({"user": user, "reward": 1} for user in users)))

    split = state.experiment.split
    assert [one.tally.users.index(1) for one in counted] == [split.names.index(split.variant_of(u)) for u in users]
