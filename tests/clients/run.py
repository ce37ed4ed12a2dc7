"""Run the tests of unmodified clients, each in an environment of its own, against one local cloud.

    python -m tests.clients.run [triton] [kserve] [mlserver] [model_signing]

`tests/clients/<name>.txt` pins everything that is in an environment; it is installed into `.perch/clients/<name>` once,
and again when the file changes. The cloud has no authorization, because these clients sign nothing. They learn its
address from the variable `PERCH_URL` and import nothing of Perch. `model_signing` needs no cloud, only the command
`perch`, which `PERCH_COMMAND` names.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.clients.models import mirror
from tests.local.synthesizer import ROOT
from tests.local.tiny_models import onnx_model
from tests.local.whole import Trial, synthesize_trial, trial

HERE = Path(__file__).parent
ENVIRONMENTS = ROOT / ".perch" / "clients"
CLIENTS = ("triton", "kserve", "mlserver")
WITHOUT_CLOUD = ("model_signing",)

SETTINGS = """
name = "perch"

[api]
auth = "none"

[endpoints.rows]
runtime = "onnx"
[endpoints.rows.rollout]
strategy = "direct"

[endpoints.mirror]
runtime = "onnx"
[endpoints.mirror.rollout]
strategy = "direct"

[endpoints.nothing]
runtime = "onnx"
"""


def main(names: list[str]) -> int:
    """Return 0 if the tests of all clients passed."""
    wanted = names or [*WITHOUT_CLOUD, *CLIENTS]
    for name in wanted:
        install(name)
    failed = [name for name in wanted if name in WITHOUT_CLOUD and not passes(name)]
    if clients := [name for name in wanted if name not in WITHOUT_CLOUD]:
        failed += _asking_a_cloud(clients)
    print(f"failed: {', '.join(failed)}" if failed else f"passed: {', '.join(wanted)}")  # noqa: T201 - a command
    return 1 if failed else 0


def _asking_a_cloud(names: list[str]) -> list[str]:
    """Run the tests of those that need one; return who failed."""
    with tempfile.TemporaryDirectory() as folder:
        assembly = synthesize_trial(Path(folder), text=SETTINGS)
        with trial(assembly, Path(folder) / "cloud") as cloud:
            serve(cloud)
            return [name for name in names if not passes(name, cloud.cloud.gateway_url)]


def serve(cloud: Trial) -> None:
    """Bring both models into service."""
    for endpoint, data in (("rows", onnx_model(1)), ("mirror", mirror())):
        cloud.put(f"models/{endpoint}/v1/model.onnx", data)
        cloud.wait(lambda endpoint=endpoint: bool(cloud.stable(endpoint)), endpoint)  # type: ignore[misc]  # a default


def install(name: str) -> None:
    """Make the environment of a client, unless it is there as it should be."""
    pins, place = HERE / f"{name}.txt", ENVIRONMENTS / name
    stamp, digest = place / ".installed", hashlib.sha256(pins.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"installing {name} …", flush=True)  # noqa: T201 - a command that takes a while
    venv.create(place, with_pip=True, clear=True)
    subprocess.run([place / "bin" / "pip", "install", "-q", "-r", pins], check=True)
    stamp.write_text(digest)


def passes(name: str, url: str = "") -> bool:
    """Run the tests of one client, without anything of this project in its way."""
    place = ENVIRONMENTS / name
    command = [place / "bin" / "python", "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider"]
    options = ["-c", os.devnull, "--rootdir", HERE, "--import-mode=importlib", HERE / f"test_{name}.py"]
    environ = {
        **os.environ,
        "PERCH_URL": url,
        "PERCH_COMMAND": str(Path(sys.executable).with_name("perch")),
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
    }
    return subprocess.run([*command, *options], env=environ, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
