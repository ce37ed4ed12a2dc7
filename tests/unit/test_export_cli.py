"""`perch inspect` and `perch export`: what they say, what they write, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from perch.artifacts import Inspected, Signature, Tensor
from perch.cli.app import app
from perch.cli.context import Context
from perch.cli.inspection import look, meaning
from perch.domain.formats import FORMATS
from perch.domain.policy import LARGEST_MB, EndpointPolicy, Settings
from tests.hostile.good import GOOD


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, where nothing is declared."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(folder: Path) -> Path:
    """A small ONNX model."""
    return write("onnx", folder)


def write(kind: str, folder: Path) -> Path:
    name, build = GOOD[kind]
    path = folder / name
    path.write_bytes(build())
    return path


def perch(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def endpoint(**more: Any) -> EndpointPolicy:
    return EndpointPolicy(**{"name": "e", "model": "m", "runtime": "onnx", **more})


# -- inspect ------------------------------------------------------------------------------------------------------


def test_inspect_says_all_that_there_is_to_know(model: Path) -> None:
    """Format, hash, size, runtime, signature, meaning, details, code, memory; and exit code 0."""
    done = perch("inspect", model)
    assert done.exit_code == 0
    for words in (
        f"{model.stat().st_size:,} bytes",
        "onnx, runs on ONNX Runtime (onnx, zip)",
        "x: FP32 [any, 3]",
        "one column a class",
        "opsets: ai.onnx 18",
        "nothing in it can run code",
        "no model.sig lies beside it",
        "about 301 MB while it loads",
        "served as it is",
    ):
        assert words in done.stdout


def test_inspect_prints_json_and_nothing_else(model: Path) -> None:
    """For scripts: the same, in full."""
    told = json.loads(perch("inspect", "--json", model).stdout)
    assert told["verdict"] == "served"
    assert told["format"] == "onnx"
    assert told["code"] == ""
    assert told["signature"]["features"] == 3
    assert told["runtimes"] == [{"name": "onnx", "engine": "ONNX Runtime", "package": "zip"}]
    assert len(told["sha256"]) == 64


@pytest.mark.parametrize("kind", GOOD)
def test_every_format_is_told_with_where_it_runs(folder: Path, kind: str) -> None:
    """What can run code is not served as it is, and the reason says what to do."""
    finding = look(write(kind, folder))
    assert finding.inspected is not None
    assert finding.inspected.format == kind.split(" ", maxsplit=1)[0]
    assert finding.inspected.runtimes
    json.dumps(finding.to_json())
    if FORMATS[finding.inspected.format].code:
        assert finding.verdict == "needs trust"
        assert f'allow = ["{finding.inspected.format}"]' in finding.reason
        assert perch("inspect", finding.file).exit_code == 1
    else:
        assert finding.verdict == "served"


def test_a_signature_beside_the_file_is_mentioned(model: Path) -> None:
    """And left to `perch verify`."""
    model.with_name("model.sig").write_text("{}")
    assert "was not checked: `perch verify" in perch("inspect", model).stdout


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("model.pkl", b"\x80\x04cos\nsystem\n.", "pickle"),
        ("model.onnx", b"", "the file is empty"),
        ("model.onnx", b"not a model", "not a readable ONNX model"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "a Keras file can hold code"),
        ("notes.txt", b"hello", "the format is not known"),
    ],
)
def test_what_is_not_served_is_refused_with_exit_code_one(folder: Path, name: str, data: bytes, words: str) -> None:
    """In a sentence, and in JSON alike."""
    (folder / name).write_bytes(data)
    done = perch("inspect", name)
    assert done.exit_code == 1
    assert words in done.stdout
    told = perch("inspect", "--json", name)
    assert told.exit_code == 1
    assert words in json.loads(told.stdout)["reason"]


def test_what_people_try_is_answered_in_words(folder: Path, model: Path) -> None:
    """Folders, what is not there, and what is no file at all."""
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    assert "there is no such file" in look(Path("nowhere.onnx")).reason
    assert "name the file in it: " in look(folder).reason
    assert "it is a folder without files" in look(Path("empty")).reason
    assert "it is no ordinary file" in look(Path("pipe")).reason


def test_a_folder_is_told_by_the_model_that_it_names(folder: Path, model: Path) -> None:
    """MLflow's, and one with a manifest; what leads out of the folder or runs code is refused."""
    mlflow = folder / "mlflow"
    mlflow.mkdir()
    (mlflow / "model.onnx").write_bytes(model.read_bytes())
    flavours = (
        "flavors:\n  onnx: {data: model.onnx, onnx_version: 1.23.2}\n  python_function: {loader_module: mlflow.onnx}\n"
    )
    (mlflow / "MLmodel").write_text(flavours + "mlflow_version: 3.1.0\n")
    found = look(mlflow, [endpoint()])
    assert found.verdict == "served", found.reason
    assert "MLmodel names model.onnx as the model" in found.remarks
    assert found.places[0].serves
    (mlflow / "MLmodel").write_text(flavours.replace("mlflow.onnx", "os"))
    assert look(mlflow).verdict == "refused"
    (mlflow / "perch.json").write_text('{"artifact": "../model.onnx"}')
    assert "lies outside of the folder" in look(mlflow).reason
    (mlflow / "perch.json").write_text('{"artifact": "model.onnx"}')
    assert look(mlflow).verdict == "served"
    (mlflow / "perch.json").write_text('{"artifact": "no.onnx", "artifact": "model.onnx"}')
    assert "perch.json: " in look(mlflow).reason
    (mlflow / "perch.json").write_text("{")
    assert "perch.json: " in look(mlflow).reason


def manifest_beside(model: Path, **said: Any) -> Path:
    """A folder with a model and what is said of it."""
    folder = model.parent / "pair"
    folder.mkdir()
    model.rename(folder / model.name)
    (folder / "perch.json").write_text(json.dumps({"artifact": model.name, **said}))
    return folder


def test_the_ranges_of_a_folder_are_shown(model: Path) -> None:
    """What its perch.json declares, as registration will read it."""
    rules = {"1": {"min": 0, "max": 130}, "2": {"max": 9}, "3": {"values": [1, 2, 4]}}
    folder = manifest_beside(model, ranges={"inputs": rules})
    shown = perch("inspect", folder).stdout
    for words in ("1: at least 0 and at most 130", "2: at most 9", "3: one of 1, 2, 4"):
        assert f"range      {words}" in shown
    assert json.loads(perch("inspect", "--json", folder).stdout)["signature"]["ranges"]["inputs"] == rules


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"ranges": {"inputs": {"age": {"min": 0}}}}, "perch.json: perch.ranges names 'age', which is no input"),
        ({"ranges": {"inputs": {"1": {"min": 2, "max": 1}}}}, "has a min of 2, above its max 1"),
        ({"metadata": []}, "perch.json: metadata must be an object"),
        ({"probes": [{}]}, "perch.json: a probe looks like"),
        ({"probes": [{"features": [[1.0]], "expect": {}}]}, "perch.json: probe 0 "),
        ({"probes": [0] * 21}, "perch.json: probes must be a list of at most 20"),
    ],
)
def test_what_registration_would_refuse_of_a_folder_is_refused(model: Path, said: dict[str, Any], words: str) -> None:
    """By inspect as a finding, by push before anything is sent."""
    folder = manifest_beside(model, **said)
    found = perch("inspect", folder)
    assert (found.exit_code, words in found.stdout) == (1, True)
    pushed = perch("push", folder, "--model", "m", "--version", "v1")
    assert (pushed.exit_code, words in pushed.stderr) == (1, True)


def test_a_file_that_no_endpoint_takes_is_refused_before_it_is_sent(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the deployed endpoints of its model say; a store that were asked for anything would fail here."""
    world = SimpleNamespace(store=SimpleNamespace(bucket="store"), registry=SimpleNamespace(version=lambda *_: None))
    monkeypatch.setattr(Context, "world", world)
    monkeypatch.setattr(Context, "settings", Settings(name="perch", endpoints=(endpoint(max_artifact_mb=0),)))
    pushed = perch("push", model, "--model", "m", "--version", "v1", "--no-wait")
    assert pushed.exit_code == 1
    assert f"{model.name} is not uploaded: it has 0.0 MB, the limit is 0 MB; raise max_artifact_mb" in pushed.stderr


def test_a_file_of_five_gigabytes_is_not_read(folder: Path) -> None:
    """It is sparse here, and would be zeros in memory."""
    with (folder / "big.onnx").open("wb") as file:
        file.truncate(5_000_000_000)
    assert f"it has 5,000 MB; an endpoint takes {LARGEST_MB} MB at most" in look(Path("big.onnx")).reason


def test_the_largest_size_is_that_of_the_settings() -> None:
    """Of `cdk/settings.py`, which the package cannot import."""
    from cdk import settings

    document = {"endpoints": {"e": {"runtime": "onnx", "memory_mb": 10_240, "max_artifact_mb": LARGEST_MB}}}
    assert settings.parse(document, Path("perch.toml")).endpoints[0].max_artifact_mb == LARGEST_MB
    document["endpoints"]["e"]["max_artifact_mb"] = LARGEST_MB + 1
    with pytest.raises(settings.SettingsError, match="max_artifact_mb"):
        settings.parse(document, Path("perch.toml"))


def test_each_endpoint_says_whether_it_would_serve_the_file(model: Path) -> None:
    """Its runtime, its limits and what it allows."""
    endpoints = (
        endpoint(name="fits"),
        endpoint(name="other", runtime="torch"),
        endpoint(name="small", max_artifact_mb=0),
        endpoint(name="tight", memory_mb=256),
    )
    places = {place.endpoint: (place.serves, place.why) for place in look(model, endpoints).places}
    assert places["fits"] == (True, "")
    assert places["other"] == (False, "its runtime is torch")
    assert places["small"] == (False, "its max_artifact_mb is 0")
    assert places["tight"] == (False, "its memory_mb is 256, and this takes about 301")


def test_code_is_served_where_it_is_allowed_and_signed(folder: Path) -> None:
    """The endpoint opts in by name, and the key has to be trusted."""
    script = write("torchscript", folder)
    endpoints = (endpoint(name="no", runtime="torch"), endpoint(name="yes", runtime="torch", allow=("torchscript",)))
    no, yes = look(script, endpoints).places
    assert (no.serves, yes.serves) == (False, True)
    assert "does not allow torchscript" in no.why
    assert yes.why == "with the signature of a trusted key"


def test_the_endpoints_of_the_project_are_shown() -> None:
    """Read by the project's own checks."""
    root = Path(__file__).resolve().parents[2]
    code = "from perch.cli.inspect import _endpoints; print([e.name for e in _endpoints()])"
    said = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert "digits" in said


@pytest.mark.parametrize(
    ("outputs", "declared", "words"),
    [
        ([("label", "INT64", (-1,)), ("p", "FP32", (-1, 3))], None, "labels in 'label', scores beside them"),
        ([("y", "FP32", (-1, 1))], None, "one number a row"),
        ([("y", "FP32", (-1, 4))], None, "one column a class"),
        ([("y", "FP32", (-1, 4))], "values", "values: numbers as they are"),
        ([("y", "FP32", (-1, 4, 4))], None, "the shape of its first answer decides"),
        ([("y", "BOOL", (-1, 4))], None, "nothing that is read as a prediction"),
    ],
)
def test_the_meaning_of_an_answer_follows_the_predictor(outputs: Any, declared: str | None, words: str) -> None:
    """By the rule of `perch.predictor.answer`."""
    tensors = tuple(Tensor(name=name, datatype=datatype, shape=shape) for name, datatype, shape in outputs)
    signature = Signature(inputs=(), outputs=tensors)
    found = Inspected(format="onnx", runtimes=("onnx",), signature=signature, details={"output": declared})
    assert words in meaning(found)


# -- export -------------------------------------------------------------------------------------------------------


def test_export_writes_what_passes_and_reports_how(model: Path, folder: Path) -> None:
    """The file, the report beside it, and the comparison on standard output."""
    np.save(folder / "rows.npy", np.ones((5, 3)))
    done = perch("export", model, "-o", "out.onnx", "--sample", "rows.npy", "--report", "report.json")
    assert done.exit_code == 0
    assert "PASS" in done.stdout
    assert "5 rows, rows.npy" in done.stdout
    assert look(Path("out.onnx")).verdict == "served"
    report = json.loads((folder / "report.json").read_text())
    assert report["passed"] is True
    assert report["comparisons"][0]["rows"] == 5
    assert report["comparisons"][0]["outputs"][0]["max_abs"] == 0.0


def test_export_writes_nothing_that_does_not_pass(folder: Path) -> None:
    """Exit code 1, and the report says why all the same."""
    forest = write("lightgbm", folder)
    done = perch("export", forest, "-o", "out.onnx", "--tolerance", "0", "--min-agreement", "1", "--report", "r.json")
    if done.exit_code == 0:  # where all sums come out to the last bit, there is nothing to refuse
        assert json.loads((folder / "r.json").read_text())["comparisons"][0]["rows_off"] == 0
        return
    assert "is not written" in done.stderr
    assert not (folder / "out.onnx").exists()
    assert json.loads((folder / "r.json").read_text())["passed"] is False


def test_export_does_not_replace_a_file_unasked(model: Path, folder: Path) -> None:
    """`--force` asks."""
    (folder / "out.onnx").write_text("mine")
    refused = perch("export", model, "-o", "out.onnx")
    assert refused.exit_code == 1
    assert "out.onnx is there already; --force replaces it" in refused.stderr
    assert (folder / "out.onnx").read_text() == "mine"
    assert perch("export", model, "-o", "out.onnx", "--force", "--json").exit_code == 0
    assert look(Path("out.onnx")).verdict == "served"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "tensorflow"], "--to is onnx or safetensors"),
        (["--quantize", "int4"], "there are dynamic, float16"),
        (["--meaning", "magic"], "it can be probabilities, logits, values"),
        (["--sample", "none.npy"], "there is no file none.npy"),
        (["--to", "safetensors"], "does not declare its layers"),
        (["--to", "safetensors", "--quantize", "dynamic"], "only ONNX files are quantised"),
    ],
)
def test_what_export_cannot_do_is_said_in_words(model: Path, folder: Path, arguments: list[str], words: str) -> None:
    """With exit code 1 and nothing written."""
    output = folder / ("out.safetensors" if "safetensors" in arguments else "out.onnx")
    done = perch("export", model, "-o", output, *arguments)
    assert done.exit_code == 1
    assert words in done.stderr
    assert not output.exists()


def test_code_is_not_opened_without_trust(folder: Path) -> None:
    """The words say what it means to trust."""
    done = perch("export", write("torchscript", folder), "-o", "out.onnx")
    assert done.exit_code == 1
    assert "say --trust; whatever is in it then runs as you" in done.stderr


def test_quantising_is_refused_where_it_costs_too_many_answers(model: Path) -> None:
    """Nine weights have nothing to lose but their sense."""
    done = perch("export", model, "-o", "out.onnx", "--quantize", "dynamic")
    assert done.exit_code == 1
    assert "would have" in done.stderr or "is not written" in done.stderr
    assert not Path("out.onnx").exists()


def test_a_file_whose_name_would_hide_what_it_is_is_not_written(model: Path, folder: Path) -> None:
    """Files are known by their endings."""
    found = perch("export", model, "-o", folder / "model.txt")

    assert found.exit_code == 1
    assert "call it model.onnx" in found.output
    assert not (folder / "model.txt").exists()
