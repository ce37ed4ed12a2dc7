"""An MLflow folder in the store is one version, whatever order its files come in."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml

from perch.app.register import Upload, register
from tests.aws.deployment import BUCKET, deployment
from tests.aws.test_register import model
from tests.unit.test_mlflow_folder import mlmodel

__all__ = ["deployment"]

FILES = {
    "MLmodel": yaml.safe_dump(mlmodel("onnx")).encode(),
    "model.onnx": model(),
    "conda.yaml": b"name: x\n",
    "requirements.txt": b"onnx\n",
}


@pytest.fixture
def folder(deployment: Any) -> Any:
    """Puts files of a folder; returns what S3's events say of them."""

    def put(*names: str, files: dict[str, bytes] = FILES) -> list[Upload]:
        uploads = []
        for name in names:
            key = f"models/digits/v1/{name}"
            answer = deployment.clients.s3.put_object(Bucket=BUCKET, Key=key, Body=files[name])
            uploads.append(Upload(key=key, version_id=answer["VersionId"], at=deployment.now, by="ada"))
        return uploads

    return put


def test_a_folder_registers_its_model_with_what_mlflow_recorded(deployment: Any, folder: Any) -> None:
    """Once, with the other files waiting for nothing."""
    for order in itertools.islice(itertools.permutations(FILES), 0, None, 7):
        uploads = folder(*order)
        statuses = [register(deployment.world, upload).status for upload in uploads]
        assert set(statuses) <= {"registered", "repeated", "waiting"}
    found = deployment.world.registry.version("digits", "v1")
    assert found.pointer.key == "models/digits/v1/model.onnx"
    assert found.metadata["mlflow.flavor"] == "onnx"
    assert found.metadata["mlflow.run_id"] == "r-2"


def test_files_that_come_before_the_mlmodel_wait(deployment: Any, folder: Any) -> None:
    """Nobody is told of a requirements.txt that it is no model."""
    [beside] = folder("requirements.txt")
    assert register(deployment.world, beside).status == "waiting"
    [artifact] = folder("model.onnx")
    assert register(deployment.world, artifact).status == "waiting"
    [last] = folder("MLmodel")
    assert register(deployment.world, last).status == "registered"


def test_a_folder_that_brings_code_is_refused(deployment: Any, folder: Any) -> None:
    """Before its model is looked at."""
    document = mlmodel("onnx")
    document["flavors"]["python_function"]["loader_module"] = "evil"
    uploads = folder("MLmodel", "model.onnx", files=FILES | {"MLmodel": yaml.safe_dump(document).encode()})
    outcomes = [register(deployment.world, upload) for upload in uploads]
    assert [outcome.status for outcome in outcomes] == ["rejected", "waiting"]
    assert all("loader_module" in outcome.reason for outcome in outcomes)
    assert deployment.world.registry.version("digits", "v1") is None
