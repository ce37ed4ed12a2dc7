"""The real CDK command-line tool against a local cloud.

The tool is npm's `aws-cdk`, pinned in `package.json`, run with the Node of this environment; its environment variables
point every AWS call at the local endpoint and image builds at the container stand-in. Use `localhost`, not an address:
template URLs are recognised by their host name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from perch.local.deploy.synthesis import node


class CdkFailed(RuntimeError):
    """The command-line tool failed; the message is the end of what it said."""


def cdk_cli_environment(
    endpoint_url: str,
    *,
    image_store: Path,
    account: str = "123456789012",
    region: str = "us-east-1",
    docker: Path | None = None,
) -> dict[str, str]:
    """Return the variables that lead the CDK's command-line tool to a local cloud (to be added to your own).

    `docker` is an executable for CDK_DOCKER; by default the container stand-in.
    """
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",  # moto takes any
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_DEFAULT_ACCOUNT": account,
        "CDK_DEFAULT_REGION": region,
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "CDK_DOCKER": str(docker or stand_in_executable(image_store.parent)),
        "PERCH_IMAGE_STORE": str(image_store),
        "JSII_NODE": str(node()),
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
        # The app runs with this interpreter, and npx finds this Node.
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{node().parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def stand_in_executable(folder: Path) -> Path:
    """Write the small script that runs the container stand-in, because CDK_DOCKER names one executable."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "container-stand-in"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m perch.local.deploy.docker "$@"\n')
    script.chmod(0o755)
    return script


def run_cdk(
    arguments: Sequence[str],
    *,
    app_dir: Path,
    environment: Mapping[str, str],
    timeout_s: float = 900.0,
) -> str:
    """Run `npx cdk <arguments>` in `app_dir` and return what it printed; raises CdkFailed.

    The tool has to be installed there (`npm ci`); nothing is fetched.
    """
    tool = app_dir / "node_modules" / ".bin" / "cdk"
    if not tool.exists():
        raise CdkFailed(f"The CDK's command-line tool is not installed in {app_dir}: run `npm ci` there.")
    done = subprocess.run(  # noqa: S603 - the pinned tool with the caller's arguments
        [str(node().with_name("npx")), "--no-install", "cdk", *arguments],
        cwd=app_dir,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        last = "\n".join(done.stdout.strip().splitlines()[-40:])
        raise CdkFailed(f"cdk {' '.join(arguments)} failed:\n{last}")
    return done.stdout
