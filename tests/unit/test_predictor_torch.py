"""The torch runtime: what is exported is what is served, layer by layer, and nothing is unpickled."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from perch.artifacts import ArtifactRefused, inspect
from perch.artifacts.architecture import check_architecture
from perch.artifacts.layers import KINDS
from perch.domain.model import Pointer
from perch.export.torch_export import architecture_of, export_safetensors, to_safetensors
from perch.predictor.handler import make_handler
from perch.predictor.runtimes.torch import CLASSES, load_torch
from perch.predictor.torch_layers import Sum, ToIndex

MODULES: dict[str, nn.Module] = {
    "a network": nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 2, bias=False)),
    "a convolution": nn.Sequential(
        nn.Unflatten(1, (2, 2, 2)),
        nn.Conv2d(2, 3, (2, 1), padding=1, stride=(1, 2)),
        nn.BatchNorm2d(3),
        nn.GELU("tanh"),
        nn.MaxPool2d(2, stride=1),
        nn.AvgPool2d(1),
        nn.Flatten(),
        nn.LazyLinear(2),
    ),
    "norms": nn.Sequential(
        nn.BatchNorm1d(8, eps=0.1), nn.LayerNorm(8), nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False), nn.Tanh()
    ),
    "a residual connection": nn.Sequential(Sum([], nn.Sequential(nn.Linear(8, 8), nn.Sigmoid())), nn.Softmax(dim=-1)),
    "nested sequences": nn.Sequential(nn.Sequential(nn.Linear(8, 4), nn.Sequential(nn.ReLU())), nn.Linear(4, 2)),
    "a table": nn.Sequential(
        nn.LayerNorm(8, elementwise_affine=False),
        nn.AvgPool1d(4),
        nn.Sigmoid(),
        ToIndex(5.0),
        nn.Embedding(6, 3),
        nn.Flatten(),
    ),
}


def rows(count: int = 5) -> Any:
    """Rows of eight features."""
    return np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)


@pytest.mark.parametrize("name", MODULES)
def test_what_is_served_is_what_was_trained(name: str) -> None:
    """Export, inspect, load: the same numbers as the module in evaluation mode."""
    module = MODULES[name]
    module.train()
    with torch.no_grad():
        module(torch.from_numpy(rows(50)))  # moves the statistics of the norms
        module.eval()
        expected = module(torch.from_numpy(rows())).numpy()
    data = to_safetensors(module)
    served = load_torch(data)
    [output] = served.run(rows())
    assert np.allclose(output, expected, atol=1e-6)
    signature = inspect("model.safetensors", data).signature
    assert signature == served.signature
    assert (signature.features, signature.outputs[0].shape) == (8, (-1, expected.shape[1]))


def test_every_allowed_layer_can_be_built() -> None:
    """The allow-list and the builder's table name the same layers."""
    assert CLASSES.keys() == KINDS.keys()


def test_every_allowed_layer_is_covered_by_a_module_of_these_tests() -> None:
    """So that the shapes that we compute are compared with torch's."""
    seen = set()
    for module in MODULES.values():
        seen |= {type(part).__name__ for part in module.modules()}
    assert KINDS.keys() <= {name.replace("Lazy", "") for name in seen}


def test_the_same_module_gives_the_same_bytes() -> None:
    """A version is known by its digest."""
    assert to_safetensors(MODULES["a network"], metadata={"b": "1", "a": "2"}) == to_safetensors(
        MODULES["a network"], metadata={"a": "2", "b": "1"}
    )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.LSTM(8, 2)), "a LSTM is not served"),
        (nn.Sequential(nn.Linear(8, 2), nn.Softmax(dim=0)), "Softmax with dim=0 is not served"),
        (nn.Sequential(nn.Unflatten(1, (1, 2, 4)), nn.Conv2d(1, 1, 1, dilation=2), nn.Flatten()), "dilation=2"),
        (nn.Sequential(nn.Linear(8, 2).double()), "F32 is served"),
        (nn.Sequential(nn.ReLU()), "the number of features cannot be told"),
        (nn.Sequential(nn.Linear(8, 2), nn.Linear(8, 2)), "does not fit"),
        (type("Linear", (nn.Linear,), {})(8, 2), "a Linear is not served"),
    ],
)
def test_what_cannot_be_served_is_refused_at_export(module: nn.Module, words: str) -> None:
    """Before an upload, with the words of the registration."""
    with pytest.raises(ArtifactRefused, match=words):
        to_safetensors(module)


def test_an_architecture_read_off_a_module_is_plain_json() -> None:
    """It goes into the header of the file."""
    for module in MODULES.values():
        layers = json.loads(json.dumps(architecture_of(module)))
        assert check_architecture(layers).features == 8


def test_the_exported_file_is_served_end_to_end(tmp_path: Path) -> None:
    """A request is answered, and what a torch module raises is a 500."""
    path = tmp_path / "model.safetensors"
    export_safetensors(nn.Sequential(nn.LayerNorm(1), nn.Linear(1, 1), nn.ReLU()), path)
    table = nn.Sequential(Sum([nn.Linear(1, 2)], [ToIndex(2.0), nn.Embedding(3, 2), nn.Flatten()]))
    export_safetensors(table, path, output="logits")
    data = path.read_bytes()
    found = Pointer(
        model="table",
        version="v1",
        key="k",
        version_id="1",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        format="safetensors",
    )
    environ = {"PERCH_ENDPOINT": "table", "PERCH_STORE": "store", "PERCH_POINTER": found.to_json()}
    handler = make_handler(runtime="torch", environ=environ, fetch=lambda *_: data)
    context = SimpleNamespace(aws_request_id="r", function_version="1")
    http = {"http": {"method": "POST", "path": "/models/table/predict"}, "timeEpoch": 1}

    def ask(*features: float) -> Any:
        body = json.dumps({"features": [[feature] for feature in features]})
        answer = handler({"requestContext": http, "body": body}, context)
        return answer["statusCode"], json.loads(answer["body"])

    status, body = ask(0.0, 1.4)
    assert status == 200
    with torch.no_grad():
        expected = table(torch.tensor([[0.0], [1.4]])).softmax(dim=1).numpy()
    assert np.allclose(body["probabilities"], expected, atol=1e-6)
    assert body["predictions"] == expected.argmax(axis=1).tolist()
    assert ask(1.5) == (500, {"error": "the model raised IndexError: index out of range in self", "request_id": "r"})


def test_a_torch_pickle_is_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 2: `torch.save`, old and new format, under every name; neither torch.load nor pickle is called."""

    def closed(*_: Any, **__: Any) -> Any:
        pytest.fail("something was unpickled")

    files = []
    for new in (True, False):
        buffer = io.BytesIO()
        torch.save(nn.Linear(2, 2), buffer, _use_new_zipfile_serialization=new)
        files.append(buffer.getvalue())
    monkeypatch.setattr(torch, "load", closed)
    monkeypatch.setattr(pickle, "loads", closed)
    monkeypatch.setattr(pickle, "load", closed)
    monkeypatch.setattr(pickle, "Unpickler", closed)
    for data in files:
        for name in ("m.pt", "m.pth", "m.safetensors", "m.onnx", "m.bin"):
            with pytest.raises(ArtifactRefused, match="pickle"):
                inspect(name, data)
        with pytest.raises(ArtifactRefused):
            load_torch(data)
