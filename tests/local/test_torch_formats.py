"""Torch formats on the local cloud: what is proved harmless is served, what is not never reaches an endpoint."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from perch.export.torch_export import export_state_dict
from perch.export.torch_programs import export_pt2, export_torchscript
from tests.hostile.made import Runs, members, zipped
from tests.local.whole import Trial, trial

pytestmark = pytest.mark.slow


def module(favourite: int) -> nn.Module:
    """Rows of four features, three classes, one winner."""
    linear = nn.Linear(4, 3)
    with torch.no_grad():
        linear.weight.fill_(0.01)
        linear.bias.copy_(torch.from_numpy(np.eye(3, dtype=np.float32)[favourite] * 3))
    return nn.Sequential(linear, nn.Softmax(dim=-1)).eval()


def pt2(favourite: int, path: Path) -> bytes:
    """A program."""
    export_pt2(module(favourite), path, torch.zeros(2, 4), output="probabilities")
    return path.read_bytes()


def pt(favourite: int, path: Path) -> bytes:
    """A state dict with its layers."""
    export_state_dict(module(favourite), path, output="probabilities")
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(trial_assembly, tmp_path_factory):
    with trial(trial_assembly, tmp_path_factory.mktemp("cloud")) as found:
        yield found


def upload(whole: Trial, file: str, data: bytes) -> str:
    """Upload a file for the torch endpoint; return its version."""
    version = whole.new_version()
    whole.put(f"models/beta/{version}/{file}", data)
    return version


def rejection(whole: Trial, version: str) -> dict[str, Any]:
    """What is announced of a version that is not taken."""
    found: list[dict[str, Any]] = []

    def told() -> bool:
        found.extend(
            event["detail"]
            for event in whole.announced()
            if event["detail-type"] == "ModelVersionRejected" and event["detail"]["version"] == version
        )
        return bool(found)

    whole.wait(told, "beta")
    return found[0]


def test_a_program_and_then_a_state_dict_are_served(whole: Trial, tmp_path: Path) -> None:
    """Uploaded, inspected without torch, probed, live; the second takes over and no request fails."""
    makers: list[tuple[str, Callable[[int, Path], bytes]]] = [("model.pt2", pt2), ("model.pt", pt)]
    for favourite, (file, make) in enumerate(makers, 1):
        version = upload(whole, file, make(favourite, tmp_path / file))
        if favourite == 1:
            whole.wait(lambda version=version: whole.stable("beta") == version, "beta")
        else:
            traffic = whole.live_traffic("beta", lambda version=version: whole.stable("beta") == version)
            assert traffic.failed == []
        answer = whole.predict("beta")
        assert (answer.status, answer.body["version"], answer.body["predictions"]) == (200, version, [favourite])
        assert whole.registry.require_version("beta", version).signature["features"] == 4


def test_a_program_that_would_run_a_command_is_refused_and_nothing_runs(whole: Trial, tmp_path: Path) -> None:
    """Neither at registration, which announces why, nor anywhere after it."""
    mark = tmp_path / "it-ran"
    before = whole.stable("beta")
    entries = members(pt2(0, tmp_path / "model.pt2"))
    entries["archive/data/constants/opaque_obj_0"] = pickle.dumps(Runs(Path.touch, mark))
    version = upload(whole, "model.pt2", zipped(entries))
    assert "holds an object as a pickle, which can run code" in rejection(whole, version)["reason"]
    assert whole.stable("beta") == before
    assert not mark.exists()


def test_a_script_is_not_taken_where_nobody_asked_for_it(whole: Trial, tmp_path: Path) -> None:
    """The endpoint would have to allow TorchScript by name, and a trusted key to sign it."""
    export_torchscript(module(0), tmp_path / "model.ts", torch.zeros(2, 4))
    version = upload(whole, "model.ts", (tmp_path / "model.ts").read_bytes())
    assert "TorchScript is a program" in rejection(whole, version)["reason"]
