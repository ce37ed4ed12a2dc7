"""Synth: the same everywhere, offline, and never a reason for CloudFormation to touch the alias."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.infra.conftest import ROOT, Synthesized, synthesize

OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


def copy_of_the_project(folder: Path) -> Path:
    """Copy what synth reads; the built layers are shared."""
    skip = shutil.ignore_patterns("__pycache__")
    for part in ("functions", "layers", "cdk"):
        shutil.copytree(ROOT / part, folder / part, ignore=skip)
    for part in ("app.py", "perch.toml", "cdk.json"):
        shutil.copy(ROOT / part, folder / part)
    (folder / ".perch").mkdir()
    (folder / ".perch" / "layers").symlink_to(ROOT / ".perch" / "layers")
    return folder


def owned_by_the_driver(synthesized: Synthesized) -> dict[str, Any]:
    """Return versions and aliases, by logical id."""
    return synthesized.of_type("AWS::Lambda::Version") | synthesized.of_type("AWS::Lambda::Alias")


def code_of(synthesized: Synthesized, function: str) -> str:
    """Return what decides a function's code and layers, as text."""
    properties = synthesized.function(function)
    layers = [layer["Ref"] for layer in properties.get("Layers", [])]
    contents = [synthesized.of_type("AWS::Lambda::LayerVersion")[layer]["Properties"]["Content"] for layer in layers]
    return json.dumps([properties["Code"], contents])


def test_other_code_changes_the_function_and_never_its_alias(tmp_path: Path) -> None:
    """Changed handlers and a changed package are a change of $LATEST alone: version and alias stay as they are."""
    project = copy_of_the_project(tmp_path / "project")
    before = synthesize(tmp_path / "before", root=project)
    for folder in ("predict_onnx", "predict_torch"):
        with (project / "functions" / folder / "handler.py").open("a") as handler:
            handler.write("\nCHANGED = True\n")
    with (project / "layers" / "perch" / "python" / "perch" / "domain" / "names.py").open("a") as module:
        module.write("\nCHANGED = True\n")

    after = synthesize(tmp_path / "after", root=project)

    for function in ("perch-digits", "perch-digits-torch"):
        assert code_of(after, function) != code_of(before, function)
    assert owned_by_the_driver(after) == owned_by_the_driver(before)


def test_a_change_of_control_code_is_no_new_revision(tmp_path: Path) -> None:
    """Predictors come without the control side, and nothing on a laptop is deployed at all."""
    project = copy_of_the_project(tmp_path / "project")
    before = synthesize(tmp_path / "before", root=project)
    package = project / "layers" / "perch" / "python" / "perch"
    for room in ("app", "aws", "local", "cli"):
        (package / room / "changed.py").write_text("CHANGED = True\n")
    (package / "domain" / "__pycache__").mkdir(exist_ok=True)
    (package / "domain" / "__pycache__" / "names.cpython-311.pyc").write_bytes(b"changed")

    after = synthesize(tmp_path / "after", root=project)

    for function in ("perch-digits", "perch-digits-torch", "perch-describe-api"):
        assert code_of(after, function) == code_of(before, function)
    assert code_of(after, "perch-drive-rollouts") != code_of(before, "perch-drive-rollouts")
    deployed = {p.name for p in (tmp_path / "after").glob("asset.*/python/perch/*")}
    assert {"app", "aws", "domain", "predictor"} <= deployed
    assert not deployed & {"local", "cli"}
    assert b"changed" not in {f.read_bytes() for f in (tmp_path / "after").glob("asset.*/python/perch/**/*.pyc")}


def test_synth_runs_offline_with_other_settings_and_gives_the_same_as_the_library(tmp_path: Path) -> None:
    """`python app.py` with a warm cache and no network; PERCH_SETTINGS names other settings than the project's."""
    settings = tmp_path / "other.toml"
    settings.write_text('name = "other"\n[api]\nauth = "none"\n[endpoints.one]\nruntime = "onnx"\ncapture = "2.5%"\n')
    environment = {k: v for k, v in os.environ.items() if k != "JSII_NODE"}
    environment |= {
        "PERCH_SETTINGS": str(settings),
        "CDK_OUTDIR": str(tmp_path / "out"),
        "PIP_NO_INDEX": "1",
        **OFFLINE,
    }
    command = [sys.executable, str(ROOT / "app.py")]
    if without_network := shutil.which("unshare"):
        isolated = [without_network, "--user", "--map-root-user", "--net"]
        if subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode == 0:
            command = [*isolated, *command]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    by_library = synthesize(tmp_path / "again", settings=settings)
    for stack, template in by_library.templates.items():
        assert json.loads((tmp_path / "out" / f"other-{stack}.template.json").read_text()) == template
    assert {r["AuthorizationType"] for r in by_library.properties("AWS::ApiGatewayV2::Route")} == {"NONE"}
    assert by_library.function("other-one")["Environment"]["Variables"]["PERCH_CAPTURE"] == "0.025"


@pytest.mark.parametrize("named_by", ["environment", "context"])
def test_wrong_settings_end_in_words(tmp_path: Path, named_by: str) -> None:
    """No traceback: one line a problem, with the file, the key and what would be right."""
    settings = tmp_path / "wrong.toml"
    settings.write_text('tick = "now"\n[endpoints.one]\nruntime = "onyx"\n')
    named = {
        "environment": {"PERCH_SETTINGS": str(settings)},
        "context": {"CDK_CONTEXT_JSON": json.dumps({"settings": str(settings)})},
    }[named_by]
    done = subprocess.run(
        [sys.executable, str(ROOT / "app.py")],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **named, "CDK_OUTDIR": str(tmp_path / "out")},
        cwd=ROOT,
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith(str(settings))]
    assert len(told) == 2
    assert "did you mean 'onnx'?" in done.stderr


def test_the_image_context_holds_what_the_image_needs_and_no_more(synthesized: Synthesized) -> None:
    """The Dockerfile, the handler and the data plane; no environment, no control side, no laptop tools."""
    (context,) = synthesized.outdir.glob("asset.*/functions/predict_torch/Dockerfile")
    root = context.parents[2]
    files = {str(f.relative_to(root)) for f in root.rglob("*") if f.is_file()}

    assert {f"functions/predict_torch/{name}" for name in ("Dockerfile", "handler.py", "requirements.txt")} <= files
    assert "layers/perch/python/perch/predictor/handler.py" in files
    rooms = {f.split("/")[4] for f in files if f.startswith("layers/perch/python/perch/")}
    assert not rooms & {"app", "aws", "local", "cli"}
    assert {f.split("/")[0] for f in files} == {"functions", "layers"}


def test_the_images_torch_is_the_one_that_is_tested() -> None:
    """The version in the image, and the one that the local cloud runs, are the same."""
    pins = (ROOT / "functions" / "predict_torch" / "requirements.txt").read_text().splitlines()
    (torch,) = [pin for pin in pins if pin.startswith("torch==")]

    assert torch == f"torch=={version('torch').partition('+')[0]}"
