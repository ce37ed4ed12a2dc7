"""Budgets: no heavy import creeps into a predictor, and no layer grows unseen (`tests/budgets.toml`)."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from cdk.layers import megabytes
from tests.asking import ASK
from tests.local.tiny_models import ORDINARY, onnx_model, torch_model

ROOT = Path(__file__).resolve().parents[2]
BUDGETS = tomllib.loads((ROOT / "tests/budgets.toml").read_text())

LOADED = f"""
import hashlib, json, sys
runtime, fmt, path, folder = sys.argv[1:]
before = set(sys.modules)
sys.path.insert(0, folder)
{ASK}
from perch.predictor.s3 import S3Object
S3Object("store", "key", "version", {{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}})
answer = ask(runtime, fmt, path, [1.0, 2.0, 3.0, 0.0])
assert answer["statusCode"] == 200, answer
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.parametrize(
    ("runtime", "fmt"),
    [("onnx", "onnx"), ("torch", "safetensors"), ("numpy", "safetensors")],
    ids=["onnx", "torch", "numpy"],
)
def test_a_predictor_loads_what_is_on_its_list_and_nothing_else(runtime: str, fmt: str, tmp_path: Path) -> None:
    """From import to the first answer, in a fresh process: cold starts are paid by users."""
    model = tmp_path / "model"
    model.write_bytes(onnx_model(1) if fmt == "onnx" else torch_model(1))
    assert len(ORDINARY) == 4
    folder = ROOT / "functions" / f"predict_{runtime}"
    done = subprocess.run(
        [sys.executable, "-c", LOADED, runtime, fmt, str(model), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    loaded = {name.split(".")[0] for name in modules}
    ours = {name for name in loaded if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert ours <= {*BUDGETS["modules"]["everywhere"], *BUDGETS["modules"][runtime]}
    if runtime != "torch":
        assert not loaded & set(BUDGETS["slow"]["never"])
        assert not modules & set(BUDGETS["later"]["never"])


def test_the_list_notices_what_is_not_on_it(tmp_path: Path) -> None:
    """One import of an SDK in a handler is enough."""
    (tmp_path / "handler.py").write_text("import boto3\n")
    model = tmp_path / "model"
    model.write_bytes(onnx_model(1))
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "onnx", "onnx", str(model), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"boto3", "botocore", "logging"} <= set(json.loads(done.stdout.splitlines()[-1]))


def built() -> dict[str, list[tuple[str, int]]]:
    """The layers that were built here: by name, each folder with its size in bytes."""
    found: dict[str, list[tuple[str, int]]] = {}
    for about in (ROOT / ".perch" / "layers").glob("*/layers/*.json"):
        told = json.loads(about.read_text())
        found.setdefault(told["name"], []).append((about.parents[1].name, told["size"]))
    return found


@pytest.mark.parametrize("layer", sorted(BUDGETS["layers"]))
def test_a_layer_weighs_no_more_than_it_may(layer: str) -> None:
    """Unpacked, because that is what Lambda counts and what a cold start reads."""
    layers = built().get(layer)
    if not layers:
        pytest.skip(f"layer {layer} was not built here; `make layers` builds it")
    for name, size in layers:
        assert size <= BUDGETS["layers"][layer] * 1_000_000, f"{name} is {megabytes(size)}"


def test_every_layer_has_a_budget() -> None:
    """A new one gets its number when it is made."""
    folders = {path.parent.name for path in (ROOT / "layers").glob("*/requirements.txt")}
    assert folders == set(BUDGETS["layers"])


def test_what_is_needed_later_is_there() -> None:
    """A name on that list that no module has any more would forbid nothing."""
    assert all(find_spec(name) is not None for name in BUDGETS["later"]["never"])
