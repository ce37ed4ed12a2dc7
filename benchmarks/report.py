"""What every benchmark tells of itself: the machine, the versions and the command, saved beside the numbers."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def save(name: str, found: Mapping[str, Any], *, packages: tuple[str, ...], load: tuple[float, ...]) -> Path:
    """Write a result to `results/<name>.json` and return its path.

    Args:
        name: of the benchmark.
        found: its numbers, and whatever is needed to read them.
        packages: whose versions matter.
        load: the machine's load average before the benchmark began, to see whether it was quiet.
    """
    about = {
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "load_before": [round(one, 2) for one in load],
        },
        "versions": {"python": platform.python_version(), **{package: version(package) for package in packages}},
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**about, **found}, indent=2) + "\n")
    return path


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
