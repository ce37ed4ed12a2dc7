"""Registration in folders that hold more than a model, and of models that say more of themselves than is kept."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from onnx import TensorProto, helper

from perch.app.register import register
from perch.aws.registry import MAX_DOCUMENT
from perch.domain.policy import SigningPolicy
from perch.signing import PrivateKey, Statement, sign_statement
from tests.aws.deployment import BUCKET, deployment
from tests.aws.test_register import go, known, manifest_of, model, put
from tests.aws.test_register_signed import sha
from tests.unit.test_mlflow_folder import mlmodel

__all__ = ["deployment", "go", "put"]


@pytest.mark.parametrize("junk", ["", ".DS_Store", "notes/read.me", "weights (1).bin"])
@pytest.mark.parametrize("order", list(itertools.permutations([0, 1])))
def test_what_no_upload_may_be_named_keeps_no_model_waiting(
    deployment: Any, put: Any, go: Any, junk: str, order: tuple[int, ...]
) -> None:
    """Consoles mark a folder by an empty object, file managers leave their notes; their events come when they like."""
    uploads = [put(f"models/digits/v1/{junk}", b""), put("models/digits/v1/model.onnx", model())]
    outcomes = [go(uploads[at]).status for at in order]

    assert sorted(outcomes) == ["registered", "rejected"]
    assert known(deployment).pointer.key == "models/digits/v1/model.onnx"


def test_a_folder_may_hold_more_files_than_s3_lists_at_once(deployment: Any, put: Any, go: Any) -> None:
    """S3 lists a thousand; the manifest and the model may stand behind them."""
    for number in range(1_001):
        deployment.clients.s3.put_object(Bucket=BUCKET, Key=f"models/digits/v1/a{number:04}", Body=b"x")
    put("models/digits/v1/model.onnx", model(), perch="part")
    outcome = go(put("models/digits/v1/perch.json", manifest_of()))

    assert outcome.status == "registered"


def test_a_model_that_says_too_much_of_itself_is_refused_in_words(deployment: Any, put: Any, go: Any) -> None:
    """An item of DynamoDB has an end; a write behind it would fail as often as the event is tried."""
    names = [f"{number:03}{'ä' * 250}" for number in range(499)]
    inputs = [helper.make_tensor_value_info(f"x{name}", TensorProto.FLOAT, [None, 1]) for name in names]
    outputs = [helper.make_tensor_value_info(f"y{name}", TensorProto.FLOAT, [None, 1]) for name in names]
    nodes = [helper.make_node("Identity", [f"x{name}"], [f"y{name}"]) for name in names]
    graph = helper.make_graph(nodes, "wide", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    outcome = go(put("models/digits/v1/model.onnx", made.SerializeToString()))

    assert outcome.status == "rejected"
    assert f"has room for {MAX_DOCUMENT:,}" in outcome.reason
    assert known(deployment) is None
    assert deployment.world.registry.rejections()[0].reason == outcome.reason


def test_whatever_an_inspector_stumbles_over_is_a_reason(deployment: Any, put: Any) -> None:
    """The next try would stumble as well, and then the event would be lost."""

    def stumble(_name: str, _data: bytes) -> Any:
        raise KeyError("graph")

    outcome = register(deployment.world, put("models/digits/v1/model.onnx", model()), look_into=stumble)

    assert outcome.status == "rejected"
    assert outcome.reason == "it cannot be read: KeyError: 'graph'"


@pytest.mark.parametrize("artifact", ["\ud800.onnx", "../v2/model.onnx", "a b.onnx", ".onnx", ""])
def test_a_manifest_names_a_file_that_can_come(put: Any, go: Any, artifact: str) -> None:
    """Otherwise the folder would wait for ever."""
    outcome = go(put("models/digits/v1/perch.json", json.dumps({"artifact": artifact}).encode()))

    assert outcome.status == "rejected"
    assert "it must be a file of the same folder" in outcome.reason
    assert outcome.reason.encode()


@pytest.mark.parametrize(("tolerance", "why"), [("NaN", "not JSON"), ("Infinity", "not JSON"), ("-1", "tolerance")])
def test_a_golden_request_that_takes_any_answer_is_refused(put: Any, go: Any, tolerance: str, why: str) -> None:
    """Nothing is farther away than NaN."""
    put("models/digits/v1/model.onnx", model(), perch="part")
    probe = f'{{"features": [[1, 2, 3, 4]], "expect": {{"predictions": [7]}}, "tolerance": {tolerance}}}'
    manifest = f'{{"artifact": "model.onnx", "probes": [{probe}]}}'.encode()
    outcome = go(put("models/digits/v1/perch.json", manifest))

    assert outcome.status == "rejected"
    assert why in outcome.reason


def test_a_file_of_a_signed_mlflow_folder_is_no_model_by_itself(deployment: Any, put: Any, go: Any) -> None:
    """Who signed the folder said by its MLmodel which file is the model; without that another could be put up as it."""
    key, other = PrivateKey.new("team"), model(2.0)
    description = yaml.safe_dump(mlmodel("onnx")).encode()
    files = {"MLmodel": description, "model.onnx": model(), "other.onnx": other}
    bundle = sign_statement(Statement(model="m", files={name: sha(data) for name, data in files.items()}), key)
    signing = SigningPolicy(keys={"team": key.public.pem})
    deployment.world = replace(deployment.world, settings=replace(deployment.world.settings, signing=signing))
    put("models/digits/v1/model.sig", bundle)
    outcome = go(put("models/digits/v1/other.onnx", other))

    assert (outcome.status, outcome.reason) == ("waiting", "waits for MLmodel, which was signed with other.onnx")
    assert known(deployment) is None
