"""What the built layers weigh, against their budgets (`tests/budgets.toml`) and Lambda's limit of 250 MB.

    python -m cdk.layers && python -m benchmarks.layer_budget

Sizes are of millions of bytes, unpacked, as Lambda counts them. Of several builds of a layer the newest counts.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

from benchmarks.report import save

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Print the table and save it."""
    load = os.getloadavg()
    budgets = tomllib.loads((ROOT / "tests/budgets.toml").read_text())["layers"]
    found: dict[str, dict[str, object]] = {}
    built = sorted((ROOT / ".perch" / "layers").glob("*/layers/*.json"), key=lambda path: path.stat().st_mtime)
    for path in built:
        about = json.loads(path.read_text())
        largest = {package: round(size / 1e6, 1) for package, size in about["packages"][:4]}
        found[f"{about['name']} {about['architecture']}"] = {
            "mb": round(about["size"] / 1e6, 1), "budget_mb": budgets.get(about["name"]), "largest": largest,
        }  # fmt: skip
    if not found:
        raise SystemExit("No layer was built here; run `python -m cdk.layers` first.")
    for name, row in sorted(found.items()):
        print(f"{name:24} {row['mb']:>7} MB of {row['budget_mb']}  {row['largest']}")
    save("layer_budget", {"layers": dict(sorted(found.items()))}, packages=(), load=load)


if __name__ == "__main__":
    main()
