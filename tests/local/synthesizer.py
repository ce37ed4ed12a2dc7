"""A process that synthesizes the project's app for one settings file after the other.

Most of a synth is the start of Node and of the CDK, and copying layers of a hundred megabytes; both are done once here.
It says the same as `python app.py` (`tests/infra/test_synth.py`), with which the tests of `perch_assembly`, of the
command and of the real CDK begin. It ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]


def synthesize_settings(settings: Path, out_dir: Path) -> Path:
    """Synthesize the app with these settings; return the assembly's folder. Raises RuntimeError with what was wrong."""
    process = _started()
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps([str(settings), str(out_dir)]), file=process.stdin, flush=True)
    wrong = json.loads(process.stdout.readline() or '"the synthesizer ended"')
    if wrong:
        raise RuntimeError(wrong)
    return out_dir


@cache
def _started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.local.synthesizer"],
        cwd=ROOT,
        env={**os.environ, "CDK_VALIDATION": "false"},  # as in perch.local.deploy.synthesis
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _serve(requests: IO[str], answers: IO[str]) -> None:
    from cdk.node import provide_node

    provide_node()
    from tests.infra.conftest import synthesize

    staged: dict[str, Path] = {}
    for request in requests:
        settings, out_dir = map(Path, json.loads(request))
        wrong = ""
        try:
            out_dir.mkdir(parents=True)
            for name, layer in staged.items():
                (out_dir / name).symlink_to(layer)  # what is there already the CDK does not copy
            synthesize(out_dir, settings=settings)
            _keep(out_dir, staged)
        except BaseException:  # noqa: BLE001 - whoever asked is told
            wrong = traceback.format_exc()
        print(json.dumps(wrong), file=answers, flush=True)


def _keep(out_dir: Path, staged: dict[str, Path]) -> None:
    """Remember the layers of this assembly, and take away those that it has no use for."""
    told = "".join(path.read_text() for path in out_dir.glob("*.assets.json"))
    for asset in out_dir.glob("asset.*"):
        if asset.name not in told:
            asset.unlink()
        elif (asset / "layers").is_dir():
            staged.setdefault(asset.name, asset)


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout)
