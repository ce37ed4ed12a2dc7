"""Load from `wrk`, which takes far less of the machine than a load generator in Python would."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_SCRIPT = """
wrk.method = "POST"
wrk.body = %s
%s
done = function(summary, latency, requests)
  local e = summary.errors
  local form = '"requests": %%d, "requests_s": %%.1f, "p50_ms": %%.2f, "p95_ms": %%.2f, "p99_ms": %%.2f, "errors": %%d'
  io.write(string.format('RESULT {' .. form .. '}\\n', summary.requests,
    summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def need_wrk() -> None:
    """Leave with a sentence if there is no wrk."""
    if shutil.which("wrk") is None:
        sys.exit("This benchmark needs wrk: apt-get install -y wrk")


def post(url: str, body: bytes, headers: Mapping[str, str], *, seconds: int, connections: int) -> dict[str, float]:
    """POST one body over and over; return requests a second and latency percentiles in milliseconds.

    Raises:
        RuntimeError: a request failed.
    """
    lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % (json.dumps(body.decode()), "\n".join(lines)))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(Path(script.name)), url]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"RESULT (\{.*\})", output)
    if found is None:
        raise RuntimeError(f"wrk printed no result:\n{output}")
    result: dict[str, float] = json.loads(found[1])
    if result["errors"]:
        raise RuntimeError(f"{result['errors']:.0f} requests failed:\n{output}")
    return result
