"""SnapStart on the local cloud: a worker runs the hooks before it answers, and says how it was started."""

from __future__ import annotations

import json

import pytest

from perch.local.compute import DataPlane
from tests.local.compute_fakes import FakeFunctions, FixedClock, RecordedLogs, RecordedMetrics

SOURCE = """
import os
from snapshot_restore_py import register_after_restore, register_before_snapshot
story = []
register_before_snapshot(story.append, "snapshot")
register_after_restore(story.append, "restored")
def handler(event, context):
    return [os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], *story]
"""


@pytest.fixture
def cloud(tmp_path):
    functions, logs = FakeFunctions(tmp_path), RecordedLogs()
    plane = DataPlane(functions, FixedClock(), RecordedMetrics(), logs)
    plane.start()
    yield functions, plane, logs
    plane.stop()


def answer(plane: DataPlane, name: str) -> object:
    return json.loads(plane.invoke(name, b"").payload)


def test_a_function_with_snapstart_is_restored_before_it_answers(cloud) -> None:
    """Its hooks run in Lambda's order; a function without is started as ever."""
    functions, plane, _ = cloud
    functions.add("snapped", SOURCE, snap_start=True)
    functions.add("plain", SOURCE)
    assert answer(plane, "snapped") == ["snap-start", "snapshot", "restored"]
    assert answer(plane, "plain") == ["on-demand"]


def test_a_hook_that_raises_fails_the_restore(cloud) -> None:
    """The environment is thrown away, and whoever asked is told why."""
    functions, plane, _ = cloud
    functions.add(
        "broken", SOURCE + "\n@register_after_restore\ndef broken():\n    raise ValueError('no')\n", snap_start=True
    )
    found = answer(plane, "broken")
    assert isinstance(found, dict)
    assert (found["errorType"], found["errorMessage"]) == ("ValueError", "no")
