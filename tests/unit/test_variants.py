"""A revision with an experiment: who is answered by which model, what is said of it, and what is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from perch.domain.experiment import Split
from perch.domain.ramp import ramp, whole
from perch.predictor.handler import Handler, make_handler
from perch.predictor.journal import PROBE_STAGE
from tests.unit.test_predictor import CONTEXT, MODEL, environment, event, lines, onnx_model, pointer

__all__ = ["lines"]  # the fixture

OTHER = onnx_model(11)  # TensorProto.DOUBLE: other bytes, the same table
V1 = pointer(MODEL)
V2 = pointer(OTHER, version="v2", key="models/table/v2/model.onnx")
STORE = {V1.key: MODEL, V2.key: OTHER}
SPLIT = Split(
    id="table-x000003",
    salt="salt",
    champion="champion",
    segments=ramp(whole("champion"), "champion", {"challenger": 5_000}),
    challengers={"challenger": V2},
)
USERS = [f"user-{i}" for i in range(40)]


def make(split: Split | str = SPLIT, store: dict[str, bytes] | None = None) -> Handler:
    """A handler of a revision that holds an experiment."""
    text = split if isinstance(split, str) else split.to_json()
    stored = STORE if store is None else store
    environ = {**environment(V1), "PERCH_EXPERIMENT": text}
    return make_handler(runtime="onnx", environ=environ, fetch=lambda _, found: stored[found.key])


def ask(handler: Handler, **headers: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Answer and body of one request with some headers (an underscore is a hyphen)."""
    answer = handler(
        event({"features": [1, 0, 0]}, headers={k.replace("_", "-"): v for k, v in headers.items()}), CONTEXT
    )
    return answer, json.loads(answer["body"])


def test_each_user_is_answered_by_the_variant_of_the_split() -> None:
    """The model, the body and the header agree with the hash, for both variants, each time."""
    handler = make()
    for user in USERS * 2:
        answer, body = ask(handler, x_perch_user=user)
        variant = SPLIT.variant_of(user)
        assert answer["headers"]["x-perch-variant"] == body["variant"] == variant
        assert body["version"] == {"champion": "v1", "challenger": "v2"}[variant]
    assert {SPLIT.variant_of(user) for user in USERS} == {"champion", "challenger"}


def test_a_variant_can_be_forced_whoever_the_user_is() -> None:
    """So that people can look at each, and probes can reach each."""
    handler = make()
    for name in ("champion", "challenger"):
        assert {ask(handler, x_perch_user=user, x_perch_variant=name)[1]["variant"] for user in USERS[:9]} == {name}


def test_a_variant_that_there_is_not_is_refused_in_words() -> None:
    """400 that names those that there are; no variant is charged with it."""
    answer, body = ask(make(), x_perch_variant="chalenger")

    assert answer["statusCode"] == 400
    assert body["error"] == ("there is no variant 'chalenger'; experiment table-x000003 has champion, challenger")
    assert "x-perch-variant" not in answer["headers"]


def test_a_user_id_longer_than_256_characters_is_refused() -> None:
    """It is an id, not a document."""
    assert ask(make(), x_perch_user="u" * 256)[0]["statusCode"] == 200
    assert ask(make(), x_perch_user="u" * 257)[0]["statusCode"] == 400


def test_without_a_user_each_request_is_dealt_anew(lines) -> None:
    """By its own id; the log says that it is not sticky, and never who the user was."""
    handler = make()
    lines()
    _, body = ask(handler)
    assert body["variant"] == SPLIT.variant_of(CONTEXT.aws_request_id)
    ask(handler, x_perch_user="ada")
    ask(handler, x_perch_user="ada", x_perch_variant="champion")
    told = lines()

    assert [line["sticky"] for line in told] == [False, True, False]
    assert "ada" not in json.dumps(told)


def test_requests_failures_and_latency_count_for_the_variant_too(lines) -> None:
    """In a set of dimensions of its own, beside those of the endpoint and the revision."""
    handler = make()
    ask(handler)  # the first request has no Latency: it is counted apart
    lines()
    ask(handler, x_perch_user=USERS[0])
    [line] = lines()
    directives = line["_aws"]["CloudWatchMetrics"]

    assert line["Variant"] == f"table-x000003/{SPLIT.variant_of(USERS[0])}"
    assert directives[0]["Dimensions"] == [["Endpoint"], ["Endpoint", "Revision"]]
    assert directives[1]["Dimensions"] == [["Endpoint", "Variant"]]
    assert [metric["Name"] for metric in directives[1]["Metrics"]] == ["Requests", "Failures", "Latency"]


def test_a_failure_is_charged_to_the_variant_that_failed(lines) -> None:
    """The model raises on this row; the answer still says who failed."""
    handler = make()
    lines()
    broken = event({"features": [9, 0, 0]}, headers={"x-perch-variant": "challenger"})
    answer = handler(broken, CONTEXT)
    line = lines()[-1]

    assert answer["statusCode"] == 500
    assert answer["headers"]["x-perch-variant"] == "challenger"
    assert (line["Variant"], line["Failures"]) == ("table-x000003/challenger", 1)


def test_a_probe_of_a_variant_is_not_counted(lines) -> None:
    """Probes are no traffic, of whichever variant."""
    handler = make()
    lines()
    probe = event({"features": [1, 0, 0]}, headers={"x-perch-variant": "challenger"})
    probe["requestContext"]["stage"] = PROBE_STAGE
    handler(probe, CONTEXT)
    [line] = lines()

    assert line["event"] == "predictor.probed"
    assert line["variant"] == "challenger"
    assert "_aws" not in line


def test_without_an_experiment_nothing_is_said_of_variants(lines) -> None:
    """No header, no field, no dimension, though the client sends the headers."""
    handler = make_handler(runtime="onnx", environ=environment(V1), fetch=lambda *_: MODEL)
    lines()
    answer, body = ask(handler, x_perch_user="ada", x_perch_variant="challenger")
    [line] = lines()

    assert answer["statusCode"] == 200
    assert "x-perch-variant" not in answer["headers"]
    assert "variant" not in body
    assert "Variant" not in line
    assert "Variant" not in json.dumps(line["_aws"])


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({V2.key: OTHER[:-1] + b"?"}, "variant challenger of experiment table-x000003: "),
        ({V2.key: b""}, "variant challenger"),
        ({V1.key: b""}, "the artifact has 0 bytes"),
    ],
)
def test_a_revision_with_a_variant_that_does_not_load_serves_nobody(broken: dict[str, bytes], why: str) -> None:
    """503 for all, so that its probes fail; it does not leave the others to do its work (law 2 holds for each)."""
    handler = make(store=STORE | broken)
    answer, body = ask(handler, x_perch_variant="champion")

    assert answer["statusCode"] == 503
    assert why in body["error"]


def test_a_text_that_is_no_experiment_serves_nobody() -> None:
    """It says which variable is wrong."""
    answer, body = ask(make("{}"))

    assert answer["statusCode"] == 503
    assert body["error"].startswith("PERCH_EXPERIMENT: this is not the split of an experiment")


def test_two_variants_of_one_model_load_it_once() -> None:
    """An A/A test costs no second copy."""
    fetched = []
    same = replace(SPLIT, challengers={"challenger": V1})
    environ = {**environment(V1), "PERCH_EXPERIMENT": same.to_json()}

    def fetch(_: str, found: Any) -> bytes:
        fetched.append(found.version)
        return MODEL

    handler = make_handler(runtime="onnx", environ=environ, fetch=fetch)

    assert fetched == ["v1"]
    assert ask(handler, x_perch_variant="challenger")[1]["version"] == "v1"


def test_the_description_tells_the_split() -> None:
    """GET /models/{endpoint} answers as the champion and names the experiment."""
    answer = make()(event(method="GET", path="/models/table"), CONTEXT)
    body = json.loads(answer["body"])

    assert (answer["statusCode"], body["version"]) == (200, "v1")
    assert body["experiment"] == {
        "id": "table-x000003",
        "variants": [
            {"name": "champion", "version": "v1", "share": 0.5},
            {"name": "challenger", "version": "v2", "share": 0.5},
        ],
    }
