"""Nothing that serves models tells anybody about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local.tiny_models import onnx_model

LOAD = {
    "as it comes": "import onnxruntime; onnxruntime.InferenceSession(open('{0}', 'rb').read())",
    "served": "from perch.predictor.runtimes.onnx import load_onnx; load_onnx(open('{0}', 'rb').read())",
    "exported": "import perch.export.quantise, onnxruntime; onnxruntime.InferenceSession(open('{0}', 'rb').read())",
}


@pytest.mark.parametrize("how", LOAD)
def test_onnxruntime_reports_nothing(tmp_path, how):
    """Left alone, it notes an identity of this device for its reports to its maker; behind Perch it does not."""
    model, home = tmp_path / "rows.onnx", tmp_path / "home"
    model.write_bytes(onnx_model(1))
    home.mkdir()
    passed = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    command = (sys.executable, "-c", LOAD[how].format(model))
    done = subprocess.run(command, check=True, env={**passed, "HOME": str(home)}, capture_output=True, timeout=300)
    noted = [path.name for path in Path(home).rglob("*") if path.is_file()]
    assert ("deviceid" in noted) is (how == "as it comes")
    assert (noted, done.stderr) == ([], b"") or how == "as it comes"
