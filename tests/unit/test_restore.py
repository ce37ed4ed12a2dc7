"""SnapStart: what is drawn after a restore differs, each environment has its cold request, and nothing else changes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import snapshot_restore_py
from snapshot_restore_py import get_after_restore

from perch.predictor.restore import after_restore, reseed
from tests.unit.test_predictor import CONTEXT, MODEL, environment, event, pointer


@pytest.fixture(autouse=True)
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry of its own for each test."""
    monkeypatch.setattr(snapshot_restore_py, "_after_restore_registry", [])
    return None


def restore() -> None:
    """Do what Lambda's runtime does when it wakes an environment."""
    for act, args, kwargs in get_after_restore():
        act(*args, **kwargs)


def drawn() -> list[Any]:
    import torch

    return [random.random(), np.random.random(), float(torch.rand(1))]  # noqa: NPY002, S311 - these are what is seeded


def test_two_environments_of_one_snapshot_draw_different_numbers() -> None:
    """Python's generator, NumPy's and torch's, whatever they were seeded with at init."""
    import torch

    after_restore(lambda: None)
    results = []
    for _ in range(2):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 - as a model's own code may
        torch.manual_seed(1)
        restore()
        results.append(drawn())
    assert all(one != other for one, other in zip(*results, strict=True))


def test_only_generators_that_are_loaded_are_seeded() -> None:
    """Reseeding imports nothing: torch would take seconds, of the ten that hooks have."""
    code = (
        "import sys; from perch.predictor.restore import reseed; reseed(); "
        "print([name for name in ('numpy', 'torch') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    reseed()


def test_elsewhere_there_is_no_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library nothing is registered, and nothing fails."""
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", None)
    assert not after_restore(lambda: None)


def logged(handler: Callable[..., Any], capfd: Any) -> dict[str, Any]:
    handler(event({"features": [[1, 0, 0]]}), CONTEXT)
    return dict(json.loads(capfd.readouterr().out.splitlines()[-1]))


def test_the_first_request_of_each_restored_environment_is_its_cold_one(capfd: Any) -> None:
    """Its time would otherwise count as that of a warm one, and stand against the revision."""
    from perch.predictor.handler import make_handler

    handler = make_handler(runtime="onnx", environ=environment(pointer(MODEL)), fetch=lambda *_: MODEL)
    colds = []
    for act in (None, None, restore, None):
        if act is not None:
            act()
        colds.append("ColdStarts" in logged(handler, capfd))
    assert colds == [True, False, True, False]
