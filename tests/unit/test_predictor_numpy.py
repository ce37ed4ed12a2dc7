"""A small network gives in NumPy what it gives in torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perch.artifacts import inspect
from perch.artifacts.layers import IN_NUMPY
from perch.export.torch_export import export_safetensors
from perch.predictor.runtimes.numpy import STEPS, load_numpy
from perch.predictor.runtimes.torch import load_torch
from perch.predictor.torch_layers import Sum

CLOSE = 1e-5


def saved(module: nn.Sequential, folder: Path) -> bytes:
    """The artifact of a module whose every number is random, those of a BatchNorm too."""
    generator = torch.Generator().manual_seed(5)
    for tensor in (*module.parameters(), *(one for one in module.buffers() if one.is_floating_point())):
        tensor.data = torch.rand(tensor.shape, generator=generator) * 1.6 - 0.3
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d) and layer.running_var is not None:
            layer.running_var.abs_()
    export_safetensors(module, folder / "m.safetensors")
    return (folder / "m.safetensors").read_bytes()


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "Linear": lambda: nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2, bias=False)),
    "ReLU": lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU()),
    "Tanh": lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh()),
    "Sigmoid": lambda: nn.Sequential(nn.Linear(6, 4), nn.Sigmoid()),
    "GELU": lambda: nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.GELU(approximate="tanh")),
    "Softmax": lambda: nn.Sequential(nn.Linear(6, 4), nn.Softmax(dim=-1)),
    "Dropout": lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.9)),
    "BatchNorm1d": lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3), nn.BatchNorm1d(3, affine=False)),
    "BatchNorm1d of channels": lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.BatchNorm1d(2), nn.Flatten()),
    "LayerNorm": lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3), nn.LayerNorm(3, elementwise_affine=False)),
    "LayerNorm of two sides": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.LayerNorm([2, 3], bias=False), nn.Linear(3, 2), nn.Flatten()
    ),
    "Sum": lambda: nn.Sequential(
        nn.Linear(6, 4), Sum(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), nn.Sequential()), nn.Tanh()
    ),
    "Sum of sums": lambda: nn.Sequential(
        Sum(nn.Sequential(nn.Linear(6, 6), Sum(nn.Sequential(), nn.Sequential(nn.ReLU()))), nn.Sequential(nn.Sigmoid()))
    ),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_is_answered_as_by_torch(network: str, tmp_path: Path) -> None:
    """For each layer, with few and many rows, with small and large numbers."""
    data = saved(NETWORKS[network](), tmp_path)
    ours, theirs = load_numpy(data), load_torch(data)
    random = np.random.default_rng(1)
    for rows in (1, 17):
        for scale in (0.01, 1, 30):
            given_rows = (random.normal(size=(rows, 6)) * scale).astype(np.float32)
            kept = given_rows.copy()
            [found], [wanted] = ours.run(given_rows), theirs.run(given_rows)
            np.testing.assert_allclose(found, wanted, rtol=CLOSE, atol=CLOSE)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(given_rows, kept)  # a request is not written to


@given(numbers=st.lists(st.floats(-60, 60, width=32), min_size=6, max_size=6))
@settings(max_examples=100)
def test_no_number_is_far_from_torchs(numbers: list[float]) -> None:
    """Also at the ends of the curves."""
    rows = np.array([numbers], dtype=np.float32)
    for name in ("ReLU", "Tanh", "Sigmoid", "GELU", "Softmax"):
        step = STEPS[name]({"approximate": "none"}, {})
        module = nn.Softmax(dim=-1) if name == "Softmax" else getattr(nn, name)()
        np.testing.assert_allclose(step(rows), module(torch.from_numpy(rows)).numpy(), rtol=CLOSE, atol=CLOSE)


def test_every_layer_that_needs_no_torch_is_there() -> None:
    """The inspector's list and the engine's are one."""
    assert {*STEPS, "Sum", "Dropout"} == IN_NUMPY


def test_a_file_says_where_it_runs(tmp_path: Path) -> None:
    """A small network runs without torch; a convolution does not."""
    data = saved(NETWORKS["Linear"](), tmp_path)
    assert inspect("m.safetensors", data).runtimes == ("numpy", "onnx", "torch")
    deep = nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), Sum(nn.Sequential(nn.Conv2d(1, 1, 1)), nn.Sequential()), nn.Flatten()
    )
    assert inspect("m.safetensors", saved(deep, tmp_path)).runtimes == ("torch",)


def test_weights_are_views_of_the_file(tmp_path: Path) -> None:
    """Loading takes no second copy of them, wherever the header ends."""
    data = saved(nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 2)), tmp_path)
    for raw in (data, padded(data, 1)):
        model = load_numpy(memoryview(raw))
        assert model.features == 512
        assert np.isfinite(model.run(np.zeros((1, 512), dtype=np.float32))[0]).all()


def padded(data: bytes, count: int) -> bytes:
    """The same file, with tensors that begin at another place."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    text = json.dumps(header).encode()
    text += b" " * (count - len(text) % 4)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
