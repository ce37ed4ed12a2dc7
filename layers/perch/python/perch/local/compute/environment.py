"""What a worker finds around it: the environment variables and the import path that Lambda would give it.

Variables that Lambda reserves win over the function's own, which win over what the local cloud adds for all functions
(`AWS_ENDPOINT_URL`) and over the defaults. Thread pools of numeric libraries are limited to one thread, unless the
function says otherwise, because here all workers share the few cores of one machine.

Not the same as in Lambda: the code lies where it was packaged rather than in /var/task, `AWS_EXECUTION_ENV` names the
Python that really runs, workers share /tmp, and the function's execution role is a pair of dummy credentials, which
are in the environment also where Lambda (with SnapStart) would have a container's endpoint for them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from perch.local.compute.spawner import Spawn
from perch.local.ports import FunctionVersion

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"

_DEFAULTS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_SESSION_TOKEN": "test",
    "LANG": "en_US.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "TZ": ":UTC",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def log_group(function: FunctionVersion) -> str:
    """Return the log group of a function."""
    return f"/aws/lambda/{function.name}"


def log_stream(function: FunctionVersion, at: datetime, unique: str) -> str:
    """Return the name of a worker's log stream, such as `2026/11/21/[7]0123…`."""
    return f"{at:%Y/%m/%d}/[{function.version}]{unique}"


def import_path(function: FunctionVersion) -> tuple[str, ...]:
    """Return the folders that come before site-packages: the code, then each layer's `python` folder (or the layer)."""
    layers = (layer / "python" if (layer / "python").is_dir() else layer for layer in function.layers)
    return tuple(str(folder.resolve()) for folder in (function.code, *layers))


def spawn_for(
    function: FunctionVersion, *, stream: str, runtime_api: str, region: str, extra: Mapping[str, str]
) -> Spawn:
    """Lay out the process of one worker.

    Args:
        function: The version to run.
        stream: Name of the worker's log stream.
        runtime_api: `host:port` of the worker's own Runtime API.
        region: AWS region to report.
        extra: Variables of the local cloud, weaker than the function's own.
    """
    path = import_path(function)
    code = str(Path(function.code).resolve())
    reserved = {
        "_HANDLER": function.handler,
        "AWS_DEFAULT_REGION": region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{_VERSION}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start" if function.snap_start else "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": log_group(function),
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_REGION": region,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": code,
    }
    path_variable = {"PYTHONPATH": ":".join(path)}
    environment = {**_DEFAULTS, **path_variable, **extra, **function.environment, **reserved}
    return Spawn(path=path, directory=code, handler=function.handler, environment=environment)
