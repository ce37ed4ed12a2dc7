"""Every handler starts with exactly what is deployed with it: its folder, its layers, and what Lambda's runtime has."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.conftest import ROOT, Synthesized

RUNTIME_HAS = ("boto3", "botocore", "s3transfer", "dateutil", "urllib3", "six")
ENVIRONMENT = {
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_LAMBDA_FUNCTION_VERSION": "1",
    "PERCH_ENDPOINT": "digits",
    "PERCH_STORE": "store",
    "PERCH_TABLE": "table",
    "POWERTOOLS_SERVICE_NAME": "perch",
    "POWERTOOLS_METRICS_NAMESPACE": "Perch",
}
START = """
import sys
sys.path = [p for p in sys.path if not p.endswith("site-packages")] + sys.argv[1:]
import handler
assert callable(handler.handler)
"""


def link(folder: Path, packages: list[str]) -> Path:
    """Make a folder with some of this environment's packages, standing in for the ones built for Lambda."""
    folder.mkdir()
    for package in set(packages):
        module = package.partition(".")[0]  # a module may be a file: name.py, name.cpython-313-….so
        found = importlib.util.find_spec(module)
        if found is not None and found.submodule_search_locations:
            (folder / package).symlink_to(next(iter(found.submodule_search_locations)))
        elif found is not None and found.origin:
            (folder / Path(found.origin).name).symlink_to(found.origin)
    return folder


def start(*paths: Path, name: str) -> None:
    """Import a handler in a fresh interpreter that sees only these paths and the standard library."""
    environment = ENVIRONMENT | {"AWS_LAMBDA_FUNCTION_NAME": name}
    command = [sys.executable, "-I", "-c", START, *map(str, paths)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "perch-digits",
        "perch-describe-api",
        "perch-record-rewards",
        "perch-register-model",
        "perch-drive-rollouts",
        "perch-roll-back",
        "perch-check-health",
        "perch-replay-requests",
    ],
)
def test_a_zip_function_starts_with_its_layers(synthesized: Synthesized, tmp_path: Path, name: str) -> None:
    """Nothing that a handler imports is missing from what the template gives it."""
    function = synthesized.function(name)
    paths = [asset_of(synthesized, function["Code"]["S3Key"])]
    packages: list[str] = []
    layers = synthesized.of_type("AWS::Lambda::LayerVersion")
    for layer in function["Layers"]:
        folder = asset_of(synthesized, layers[layer["Ref"]]["Properties"]["Content"]["S3Key"])
        built = list(folder.glob("layers/*.json"))
        if built:
            packages += [package for package, _ in json.loads(built[0].read_text())["packages"]]
        else:
            paths.append(folder / "python")

    start(*paths, link(tmp_path / "packages", packages), link(tmp_path / "runtime", [*RUNTIME_HAS]), name=name)


def test_the_image_starts_with_its_requirements(synthesized: Synthesized, tmp_path: Path) -> None:
    """The container's handler finds all it imports in the build context and in its own requirements."""
    (dockerfile,) = synthesized.outdir.glob("asset.*/functions/predict_torch/Dockerfile")
    context = dockerfile.parents[2]
    lines = (ROOT / "functions" / "predict_torch" / "requirements.txt").read_text().splitlines()
    packages = [line.split("==")[0] for line in lines if line and not line.startswith("#")]
    modules = [*packages, "torchgen", "functorch"]

    start(
        context / "functions" / "predict_torch",
        context / "layers" / "perch" / "python",
        link(tmp_path / "packages", modules),
        link(tmp_path / "runtime", [*RUNTIME_HAS, "jmespath"]),
        name="perch-digits-torch",
    )


def asset_of(synthesized: Synthesized, key: str | dict[str, str]) -> Path:
    """Return the folder of a file asset, by the key under which it is uploaded."""
    text = key if isinstance(key, str) else key["Fn::Sub"]
    return synthesized.outdir / f"asset.{text.removesuffix('.zip')}"
