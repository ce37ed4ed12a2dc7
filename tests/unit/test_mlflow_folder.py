"""An `MLmodel` names one file by a flavour that is served; whatever would run code is refused, and never run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
import yaml

from perch.artifacts import ArtifactRefused
from perch.artifacts.mlflow_folder import FILES, MAX_BYTES, MAX_EVENTS, MAX_TEXT, read_mlmodel
from perch.cli.upload import read_upload

COLUMNS = json.dumps([{"type": "double", "name": name, "required": True} for name in "abc"])
TENSOR = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}])
LABELS = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}])


def mlmodel(flavor: str = "xgboost", **changes: Any) -> dict[str, Any]:
    """A document as mlflow 3 writes it."""
    own = {
        "xgboost": {"code": None, "data": "model.xgb", "model_class": "xgboost.core.Booster", "xgb_version": "3.2.0"},
        "lightgbm": {"code": None, "data": "model.lgb", "lgb_version": "4.7.0"},
        "onnx": {"code": None, "data": "model.onnx", "onnx_version": "1.23.2", "providers": ["CPUExecutionProvider"]},
        "sklearn": {"code": None, "pickled_model": "model.pkl", "serialization_format": "cloudpickle",
                    "sklearn_version": "1.9.1"},
    }[flavor]  # fmt: skip
    function = {
        "data": "model.xgb",
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        "loader_module": f"mlflow.{flavor}",
        "python_version": "3.11.9",
    }
    return {
        "flavors": {"python_function": function, flavor: own},
        "mlflow_version": "3.18.0",
        "model_id": "m-1",
        "model_size_bytes": 5_000,
        "model_uuid": "0f1e",
        "run_id": "r-2",
        "signature": {"inputs": COLUMNS, "outputs": LABELS, "params": None},
        "utc_time_created": "2026-11-21 12:00:00.000000",
        **changes,
    }


def with_function(**said: str) -> dict[str, Any]:
    """A document whose `python_function` says this."""
    return mlmodel(flavors=mlmodel()["flavors"] | {"python_function": said})


def read(document: Any) -> Any:
    """The document, through YAML."""
    return read_mlmodel(yaml.safe_dump(document).encode())


@pytest.mark.parametrize(
    ("flavor", "file"),
    [("xgboost", "model.xgb"), ("lightgbm", "model.lgb"), ("onnx", "model.onnx"), ("sklearn", "model.pkl")],
)
def test_a_flavour_names_its_file(flavor: str, file: str) -> None:
    """With the facts that MLflow keeps."""
    found = read(mlmodel(flavor))
    assert found.artifact == file
    facts = {"mlflow.flavor": flavor, "mlflow.version": "3.18.0", "mlflow.run_id": "r-2", "mlflow.model_id": "m-1"}
    assert facts.items() <= found.metadata.items()
    assert f"mlflow.{FILES[flavor][1]}" in found.metadata
    assert found.manifest["artifact"] == file
    json.dumps(found.manifest)


@pytest.mark.parametrize("inputs", [COLUMNS, TENSOR])
def test_a_recorded_signature_of_a_matrix_is_taken_over(inputs: str) -> None:
    """Columns or a tensor; for files that cannot say what they take."""
    found = read(mlmodel(signature={"inputs": inputs, "outputs": LABELS}))
    assert found.signature["inputs"] == [{"name": "features", "datatype": "FP64", "shape": [-1, 3]}]
    assert found.signature["outputs"] == [{"name": "label", "datatype": "INT64", "shape": [-1]}]


@pytest.mark.parametrize(
    "signature",
    [
        None,
        {"inputs": None, "outputs": None},
        {"inputs": "{", "outputs": LABELS},
        {"inputs": json.dumps([{"type": "string", "name": "a"}]), "outputs": LABELS},
        {"inputs": "[" * 30, "outputs": LABELS},
        {"inputs": COLUMNS, "outputs": "[]"},
        {"inputs": COLUMNS, "outputs": '[{"type": ["long"]}]'},
        {
            "inputs": '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, Infinity]}}]',
            "outputs": LABELS,
        },
        "text",
    ],
)
def test_any_other_signature_is_only_kept(signature: Any) -> None:
    """It is the author's note, and no reason to refuse."""
    assert read(mlmodel(signature=signature)).signature is None


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"flavors": {"pytorch": {"model_data": "data"}, "python_function": {}}}, "flavors python_function, pytorch"),
        ({"flavors": {"python_function": {"loader_module": "os"}}}, "python_function"),
        ({"flavors": {}}, "none"),
        ({"flavors": []}, "no flavors"),
        ([], "names and values"),
        (
            mlmodel() | {"flavors": mlmodel()["flavors"] | {"python_function": {"loader_module": "evil"}}},
            "loader_module",
        ),
        (mlmodel() | {"flavors": mlmodel()["flavors"] | {"python_function": {"code": "code"}}}, "code"),
        (
            mlmodel() | {"flavors": mlmodel()["flavors"] | {"python_function": {"python_model": "p.pkl"}}},
            "python_model",
        ),
        (mlmodel() | {"flavors": {"xgboost": {"data": "../../etc/passwd"}}}, "file of the folder"),
        (mlmodel() | {"flavors": {"xgboost": {"data": "code/model.xgb"}}}, "file of the folder"),
        (mlmodel() | {"flavors": {"xgboost": {"data": None}}}, "file of the folder"),
    ],
)
def test_what_is_not_served_is_refused(document: Any, words: str) -> None:
    """Other flavours, loaders of one's own, paths that lead elsewhere."""
    with pytest.raises(ArtifactRefused, match=words):
        read(document)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flavors: !!python/object/apply:os.system ['touch {trap}']", "not plain YAML"),
        ("flavors: !!python/name:os.system", "not plain YAML"),
        ("a: &a [1]\nb: *a\n", "anchors"),
        ("a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\n", "anchors"),
        ("a: &a\n  - *a\n", "anchors"),
        ("- " * 1_900, "not plain YAML"),
        ("- " * 5_000, "names and values"),
        ("[" * 90_000, "brackets"),
        ("# " + "]" * 40_000 + "\na: " + "[" * 40_000, "brackets"),
        ("a: " + "[\n" * 45_000, "brackets"),
        ("a: !!bool maybe", "not plain YAML"),
        ("a: !!int ''", "not plain YAML"),
        ("a: !!timestamp soon", "not plain YAML"),
        ("\0", "not plain YAML"),
        ("a: [", "not plain YAML"),
        ("x" * (MAX_BYTES + 1), "at most"),
        ("a: b\n" * 20_000, "names and values"),
        ("- a\n" * 25_000, "names and values"),
        ("a: [" + "b," * 49_000 + "]", "names and values"),
        ("? a\n: b\n" * 12_000, "names and values"),
        ("---\n" * 25_000, "names and values"),
        ("a: !!int 1" + ":1" * 40_000, "of what type"),
        ("", "names and values"),
    ],
)
def test_yaml_that_means_harm_is_refused(text: str, words: str, tmp_path: Path) -> None:
    """No tag makes an object, nothing grows beyond its text."""
    trap = tmp_path / "it-ran"
    with pytest.raises(ArtifactRefused, match=words):
        read_mlmodel(text.replace("{trap}", str(trap)).encode())
    assert not trap.exists()


def test_no_more_is_read_of_it_than_mlflow_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred kilobytes have room for fifty thousand values, for which YAML's reader takes ten seconds."""
    seen = []
    parse = yaml.parse

    def counting(*given: Any, **more: Any) -> Iterator[Any]:
        for event in parse(*given, **more):
            seen.append(event)
            yield event

    monkeypatch.setattr(yaml, "parse", counting)
    with pytest.raises(ArtifactRefused, match="names and values"):
        read_mlmodel(b"a: b\n" * 20_000)
    assert len(seen) == MAX_EVENTS + 1


def test_what_looks_like_a_number_stays_the_text_that_it_is() -> None:
    """One to the base of 60 would take seconds to add up, and a version 1.10 would be 1.1."""
    text = "1" + ":1" * 40_000
    document = {**mlmodel("onnx"), "run_id": "RUN", "mlflow_version": "VERSION"}
    data = yaml.safe_dump(document).replace("RUN", text).replace("VERSION", "3.10").encode()
    found = read_mlmodel(data)
    assert found.metadata["mlflow.run_id"] == text[:MAX_TEXT]
    assert found.metadata["mlflow.version"] == "3.10"


def test_pushing_a_folder_uploads_its_model_with_a_manifest_of_what_mlflow_said(tmp_path: Path) -> None:
    """The other files stay where they are."""
    booster = xgboost.train({}, xgboost.DMatrix(np.eye(4), [0, 1, 2, 3]), num_boost_round=1)
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(mlmodel()))
    (tmp_path / "model.xgb").write_bytes(bytes(booster.save_raw("ubj")))
    (tmp_path / "conda.yaml").write_text("name: x")
    upload = read_upload(tmp_path, model="digits", version="v1", metadata={}, probes=None, signer=None)
    assert (upload.file, upload.key) == ("model.xgb", "models/digits/v1/model.xgb")
    assert json.loads(upload.manifest or b"")["metadata"]["mlflow.run_id"] == "r-2"
