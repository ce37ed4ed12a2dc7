"""Ranges that a manifest declares: of every format, registered as the file is, pinned, and enforced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from perch.app.probe import golden, request_of
from perch.app.register import Registered, Upload, register
from perch.artifacts.ranges import declare
from perch.domain.formats import FORMATS
from perch.domain.model import ModelVersion
from perch.domain.pointer import Pointer
from perch.domain.policy import SigningPolicy
from perch.predictor.handler import Handler, make_handler
from perch.signing import PrivateKey, Statement, sign_statement
from tests.aws.deployment import BUCKET, Deployment, deployment
from tests.hostile.good import GOOD

__all__ = ["deployment"]

TEAM = PrivateKey.new("team")
RANGES = {
    "features": ["age", "income", "debt"],
    "inputs": {"age": {"min": 18, "max": 90}, "3": {"max": 2}, "income": {"values": [0, 1]}},
}
SIGNATURE = {
    "inputs": [{"name": "rows", "datatype": "FP64", "shape": [-1, 3]}],
    "outputs": [{"name": "label", "datatype": "BOOL", "shape": [-1]}],
}
CONTEXT = SimpleNamespace(aws_request_id="r", function_version="7")
PAIRS = [(kind, runtime) for kind in GOOD for runtime in FORMATS[kind.split(" ")[0]].loaders]


def upload(d: Deployment, kind: str, ranges: Any, **more: Any) -> Registered:
    """Upload a good file of a format, signed, with a manifest that declares ranges; return what became of the last."""
    file, build = GOOD[kind]
    fmt = FORMATS[kind.split(" ", maxsplit=1)[0]]
    signing = SigningPolicy(keys={"team": TEAM.public.pem})
    policy = replace(d.world.settings.endpoints[0], allow=("torchscript", "joblib"))
    d.world = replace(d.world, settings=replace(d.world.settings, signing=signing, endpoints=(policy,)))
    manifest = {"artifact": file, "ranges": ranges, **({"signature": SIGNATURE} if fmt.declared else {}), **more}
    files = {"perch.json": json.dumps(manifest).encode(), file: build()}
    statement = Statement(model="m", files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    for name, data in {"model.sig": sign_statement(statement, TEAM), **files}.items():
        outcome = put(d, name, data)
    return outcome


def put(d: Deployment, name: str, data: bytes, version: str = "v1") -> Registered:
    key = f"models/digits/{version}/{name}"
    answer = d.clients.s3.put_object(Bucket=BUCKET, Key=key, Body=data)
    return register(d.world, Upload(key=key, version_id=answer["VersionId"], at=d.now, by="ada"))


def registered(d: Deployment) -> ModelVersion:
    return d.world.registry.require_version("digits", "v1")


def predictor(d: Deployment, runtime: str, change: Callable[[Pointer, bytes], bytes] = lambda _, data: data) -> Handler:
    """The predictor of the registered version, as its pointer alone makes it; `change` what it fetches."""
    pointer = registered(d).pointer

    def fetch(bucket: str, asked: Pointer) -> bytes:
        found = d.clients.s3.get_object(Bucket=bucket, Key=asked.key, VersionId=asked.version_id)
        return change(asked, found["Body"].read())

    environ = {"PERCH_ENDPOINT": "digits", "PERCH_STORE": BUCKET, "PERCH_POINTER": pointer.to_json()}
    return make_handler(runtime=runtime, environ=environ, fetch=fetch)


def ask(handler: Handler, *row: float) -> tuple[int, str]:
    """Ask for one row; the status, and what is said if it is refused."""
    answer = handler(
        {
            "requestContext": {"http": {"method": "POST", "path": "/models/digits/predict"}},
            "headers": {"content-type": "application/json"},
            "body": json.dumps({"features": [list(row)]}),
        },
        CONTEXT,
    )
    return answer["statusCode"], json.loads(answer["body"]).get("error", "")


@pytest.mark.parametrize(("kind", "runtime"), PAIRS, ids=[f"{kind} on {runtime}" for kind, runtime in PAIRS])
def test_ranges_beside_a_file_are_enforced_whatever_its_format(deployment: Deployment, kind: str, runtime: str) -> None:
    """By name, by number, as bounds and as values; made probes lie in them, and they are described."""
    assert upload(deployment, kind, RANGES).status == "registered"
    handler = predictor(deployment, runtime)
    assert ask(handler, 40, 1, 2) == (200, "")
    assert ask(handler, 100, 1, 2) == (400, "'age' in row 1 is 100.0; 18 to 90 is taken")
    assert ask(handler, 40, 1, 3) == (400, "column 3 in row 1 is 3.0; at most 2 is taken")
    assert ask(handler, 40, 0.5, 2) == (400, "'income' in row 1 is 0.5; 0, 1 are taken")
    for probe in golden(registered(deployment)):
        event = request_of("digits", probe, stage="perch-probe", request_id="p", now=deployment.now)
        assert handler(event, CONTEXT)["statusCode"] == 200


def test_a_model_without_such_ranges_pays_for_nothing(deployment: Deployment) -> None:
    """Its pointer pins no manifest, so none is fetched."""
    put(deployment, "perch.json", b'{"artifact": "model.onnx", "metadata": {"accuracy": 1}}')
    put(deployment, "model.onnx", GOOD["onnx"][1]())
    assert registered(deployment).pointer.manifest is None
    assert "manifest" not in registered(deployment).pointer.to_json()
    assert registered(deployment).pointer.manifest_pointer is None


def test_law_2_a_manifest_that_was_not_verified_is_not_read(deployment: Deployment) -> None:
    """It is compared with what was registered before anything parses it, and the revision serves nothing."""
    upload(deployment, "xgboost", RANGES)

    def widened(asked: Pointer, data: bytes) -> bytes:
        return data.replace(b"90", b"99") if asked.key.endswith("perch.json") else data

    status, said = ask(predictor(deployment, "onnx", widened), 95, 1, 2)
    assert status == 503
    assert "was registered, so it was not loaded" in said


def test_the_manifest_of_a_registered_version_is_the_one_that_counts_and_is_never_marked(
    deployment: Deployment,
) -> None:
    """Another one that comes later is refused in words, and its ranges are nobody's."""
    upload(deployment, "lightgbm", RANGES)
    pinned = registered(deployment).pointer.manifest
    assert pinned
    later = put(deployment, "perch.json", json.dumps({"artifact": "model.lgb", "ranges": {"inputs": {}}}).encode())
    assert later.status == "rejected"
    tags = deployment.clients.s3.get_object_tagging(
        Bucket=BUCKET, Key="models/digits/v1/perch.json", VersionId=pinned.version_id
    )
    assert tags["TagSet"] == []
    assert ask(predictor(deployment, "onnx"), 100, 1, 2)[0] == 400


def test_a_manifest_of_ranges_that_comes_too_late_is_refused_in_words(deployment: Deployment) -> None:
    """The version was registered without them, and nobody is left to think that they hold."""
    assert put(deployment, "model.onnx", GOOD["onnx"][1]()).status == "registered"
    late = put(deployment, "perch.json", json.dumps({"artifact": "model.onnx", "ranges": RANGES}).encode())
    assert late.status == "rejected"
    assert "before this manifest could be seen" in late.reason


@pytest.mark.parametrize(
    ("kind", "ranges", "said"),
    [
        ("skops", [], "perch.json: perch.ranges is"),
        ("skops", {"inputs": {"4": {"min": 0}}}, "no input or column"),
        ("skops", {"inputs": {"1": {"min": "low"}}}, "no FP64 number"),
        ("pt2", {"features": ["a"]}, "has 1 names"),
        ("joblib", {"inputs": {"features": {"min": 0}}}, "no input or column; there are 1, 2, 3, rows"),
    ],
)
def test_ranges_that_do_not_fit_are_refused_at_registration(
    deployment: Deployment, kind: str, ranges: Any, said: str
) -> None:
    """By the same rules as those in a file; the predictor never sees them."""
    outcome = upload(deployment, kind, ranges)
    assert outcome.status == "rejected"
    assert said in outcome.reason


def test_a_pickle_calls_its_input_as_its_manifest_does(deployment: Deployment) -> None:
    """Only the manifest has a name for it, so a range of all columns uses that one."""
    upload(deployment, "joblib", {"inputs": {"rows": {"max": 5}}})
    assert ask(predictor(deployment, "sklearn"), 6, 0, 0) == (400, "'rows' in row 1 is 6.0; at most 5 is taken")


def test_what_the_file_says_is_said_in_one_place(deployment: Deployment) -> None:
    """A manifest may add to the ranges of a file, by the file's own names, and not change them."""
    data = declare(GOOD["onnx"][1](), RANGES)

    def both(version: str, ranges: Any) -> Registered:
        put(deployment, "perch.json", json.dumps({"artifact": "model.onnx", "ranges": ranges}).encode(), version)
        return put(deployment, "model.onnx", data, version)

    assert both("v1", {"inputs": {"debt": {"min": -1}}}).status == "registered"
    handler = predictor(deployment, "onnx")
    assert ask(handler, 40, 1, -2) == (400, "'debt' in row 1 is -2.0; at least -1 is taken")
    assert ask(handler, 100, 1, 1)[0] == 400
    assert "says what 'age' may be" in both("v2", {"inputs": {"age": {"max": 100}}}).reason
    assert "are named age, income, debt in the file" in both("v3", {"features": ["a", "b", "c"]}).reason
