"""Functions run on Lambda's own version of Python with nothing but their layers, as they are deployed.

Elsewhere tests run on the Python that is here, with this environment's packages; what a layer lacks, or what another
version of Python minds, shows only here. The layers are built for this machine's processor. Where that Python is not
installed there is nothing to run.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from cdk.bytecode import find_compiler
from cdk.layers import HERE, PYTHON, build
from cdk.package_layer import PACKAGE, PREDICTOR_PACKAGE, cut
from perch.domain.formats import FORMATS, RUNTIMES
from tests.asking import ASK
from tests.hostile.good import GOOD
from tests.infra.conftest import ROOT
from tests.infra.test_deployed_code import ENVIRONMENT, RUNTIME_HAS, link

INTERPRETER = find_compiler(PYTHON)

pytestmark = pytest.mark.skipif(INTERPRETER is None, reason=f"Python {PYTHON} is not installed here")

HARMLESS = [kind for kind in GOOD if not FORMATS[kind.split(" ")[0]].code]
ON_LAYERS = [
    (kind, runtime) for kind in HARMLESS for runtime in FORMATS[kind.split(" ")[0]].loaders if RUNTIMES[runtime].layers
]

START = """
import sys
sys.path += sys.argv[1].split(":")
"""
INSPECT = """
from perch.artifacts import inspect
found = inspect(sys.argv[2], open(sys.argv[3], "rb").read())
print(found.format)
"""
HANDLER = """
import handler
print(callable(handler.handler))
"""
ANSWER = f"""
{ASK}
print(json.dumps(ask(*sys.argv[2:], [0.5, -1.0, 2.0])))
"""


def layer(name: str) -> Path:
    """A layer of packages, for this machine's processor."""
    return build(name, root=ROOT, architecture=HERE).path / "python"


def run(code: str, folders: list[Path], *arguments: str) -> str:
    """Run code where only the standard library and these folders are; return its last line."""
    assert INTERPRETER is not None
    command = [INTERPRETER, "-I", "-S", "-B", "-c", START + code, ":".join(map(str, folders)), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=ENVIRONMENT | {"AWS_LAMBDA_FUNCTION_NAME": "perch-f"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(("kind", "runtime"), ON_LAYERS, ids=[f"{kind} on {runtime}" for kind, runtime in ON_LAYERS])
def test_a_predictor_answers_on_its_layers(kind: str, runtime: str, tmp_path: Path) -> None:
    """Every format that its runtime serves, from bytes to a prediction."""
    name, write = GOOD[kind]
    (tmp_path / name).write_bytes(write())
    folders = [
        ROOT / "functions" / RUNTIMES[runtime].folder,
        cut(PREDICTOR_PACKAGE, root=ROOT) / "python",
        *(layer(one) for one in RUNTIMES[runtime].layers),
    ]
    answer = json.loads(run(ANSWER, folders, runtime, kind.split(" ", maxsplit=1)[0], str(tmp_path / name)))
    assert answer["statusCode"] == 200, answer["body"]


@pytest.mark.parametrize("kind", GOOD)
def test_registration_inspects_on_its_layers(kind: str, tmp_path: Path) -> None:
    """Every format; the layer brings what reads it."""
    name, write = GOOD[kind]
    (tmp_path / name).write_bytes(write())
    folders = [cut(PACKAGE, root=ROOT) / "python", layer("onnx")]
    assert run(INSPECT, folders, name, str(tmp_path / name)) == kind.split(" ", maxsplit=1)[0]


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        ("register_model", ("powertools", "onnx")),
        *((name, ("powertools",)) for name in ("drive_rollouts", "roll_back", "check_health", "replay_requests")),
    ],
)
def test_a_control_function_starts_on_its_layers(function: str, takes: tuple[str, ...], tmp_path: Path) -> None:
    """With what Lambda's runtime brings by itself, which is the SDK."""
    settings = tmp_path / "perch_settings"
    settings.mkdir()
    (settings / "__init__.py").touch()
    (settings / "endpoints.json").write_text(json.dumps({"name": "perch", "endpoints": []}))
    folders = [
        ROOT / "functions" / function,
        cut(PACKAGE, root=ROOT) / "python",
        *(layer(one) for one in takes),
        tmp_path,
        link(tmp_path / "runtime", [*RUNTIME_HAS, "jmespath"]),
    ]
    assert run(HANDLER, folders) == "True"
