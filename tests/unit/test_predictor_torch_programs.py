"""Programs, scripts and state dicts on torch: what is served is what was trained, without torch's own .pt2 loader."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from perch.artifacts import ArtifactRefused, inspect
from perch.domain.model import Pointer
from perch.export.torch_export import export_state_dict
from perch.export.torch_programs import export_pt2, export_torchscript
from perch.predictor.errors import RequestRefused
from perch.predictor.handler import make_handler
from perch.predictor.runtimes import loader_of
from perch.predictor.runtimes.pt2 import Pt2Module, load_pt2
from perch.predictor.runtimes.pt2_guards import operator_of
from tests.hostile.torch_files import program, script, state_dict


class Residual(nn.Module):
    """A block as ResNet has it, with a stem and a head; activations in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardswish(inplace=True))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 4))

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(self.stem(x), 2)
        y = self.body(x)
        y += x
        return self.head(F.relu_(y))


class Mobile(nn.Module):
    """Depthwise convolutions, squeeze and excitation, ReLU6, padding, upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 12, 1)
        self.deep = nn.Conv2d(12, 12, 3, stride=2, padding=1, groups=12)
        self.squeeze, self.excite = nn.Conv2d(12, 3, 1), nn.Conv2d(3, 12, 1)
        self.up = nn.ConvTranspose2d(12, 4, 2, 2)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: Any) -> Any:
        y = F.relu6(self.deep(F.silu(self.wide(F.pad(x, (1, 1, 1, 1))))))
        y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        y = F.interpolate(self.norm(self.up(y)), scale_factor=0.5, mode="bilinear", align_corners=False)
        return y.amax((2, 3))


class Attention(nn.Module):
    """A decoder by hand: positions, a causal mask, both ways to attend, a dict of answers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16, padding_idx=0), nn.Embedding(8, 16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.last = nn.LayerNorm(16), nn.RMSNorm(16)
        self.register_buffer("mask", torch.tril(torch.ones(8, 8)).bool())

    def forward(self, ids: Any) -> Any:
        batch, length = ids.shape
        x = self.words(ids) + self.places(torch.arange(length))
        q, k, v = (part.view(batch, length, 2, 8).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, dim=-1))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(8)
        scores = scores.masked_fill(~self.mask[:length, :length], float("-inf")).softmax(-1)
        x = x + self.out((scores @ v).transpose(1, 2).reshape(batch, length, 16))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.last(x + self.out(attended.permute(0, 2, 1, 3).contiguous().view(batch, length, -1)))
        return {"logits": x[:, -1], "best": x.max(dim=1).values, "index": x.argmax(-1)}


class Encoder(nn.Module):
    """PyTorch's own encoder, of two inputs that are equally long."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.place = nn.Parameter(torch.randn(6, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Any, mask: Any) -> Any:
        x = self.words(ids) + self.place
        return self.head(self.encoder(x, src_key_padding_mask=mask == 0).mean(1))


class Table(nn.Module):
    """Numbers that may be missing, categories, constants, two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(5, 3) for _ in range(2))
        self.register_buffer("mean", torch.arange(4.0))
        self.scale = torch.tensor([1.0, 2.0])
        self.head = nn.Linear(10, 1)

    def forward(self, numbers: Any, kinds: Any) -> Any:
        x = (numbers - self.mean) / (self.mean + 1.0)
        x = torch.where(torch.isnan(x), torch.zeros_like(x), x).clamp(-3, 3)
        x = torch.cat([x, *(table(kinds[:, i]) for i, table in enumerate(self.tables))], 1)
        return torch.sigmoid(self.head(x)).squeeze(-1), torch.log1p(numbers.abs()) * self.scale[0]


class Series(nn.Module):
    """Recurrent layers and a convolution over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, padding=1)
        self.lstm = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(10, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        y, _ = self.lstm(F.gelu(self.conv(x.transpose(1, 2))).transpose(1, 2))
        _, last = self.gru(y)
        return F.log_softmax(self.head(last[-1]), dim=-1)


class Halves(nn.Module):
    """Half precision inside, sizes that are computed, a batch that doubles."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4).bfloat16()

    def forward(self, x: Any) -> Any:
        return self.linear(x.bfloat16()).float().view(x.shape[0] * 2, -1)


class Windows(nn.Module):
    """What vision transformers do between their layers: patches, rolls, gathers, top k."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.register_buffer("order", torch.tensor([2, 0, 1]))

    def forward(self, x: Any) -> Any:
        y = self.patch(torch.roll(x, (1, 1), (2, 3))).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1)
        y = y + self.attend(y, y, y, need_weights=False)[0]
        values, places = y[:, 0].topk(3)
        picked = torch.gather(y[:, 0], 1, places)[:, self.order]
        return torch.stack([values, picked], 1).flatten(1), F.one_hot(places[:, 0], 8).cumsum(1)


class Equations(nn.Module):
    """einsum, batched products, norms, comparisons."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Any) -> Any:
        y = torch.einsum("bi,ij->bj", x, self.w)
        y = torch.bmm(y.unsqueeze(2), x.unsqueeze(1)).tril().sum(-1)
        y = F.normalize(y, dim=1) + torch.logsumexp(x, 1, keepdim=True) + x.pow(2).mean(1, keepdim=True).rsqrt()
        return torch.where((y > 0) & (x < 1), y, -y.exp()), x.std(1) + torch.linalg.vector_norm(x, dim=1)


def numbers(*shape: int) -> torch.Tensor:
    """Random numbers, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def whole(*shape: int) -> torch.Tensor:
    """Random whole numbers from 0 to 4."""
    return torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(sum(shape)))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[torch.Tensor, ...]]]] = {
    "a network": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ELU(), nn.Linear(8, 3), nn.Softmax(-1)),
        lambda n: (numbers(n, 6),),
    ),
    "residual": (Residual, lambda n: (numbers(n, 3, 8, 8),)),
    "mobile": (Mobile, lambda n: (numbers(n, 3, 8, 8),)),
    "attention": (Attention, lambda n: (whole(n, 8),)),
    "encoder": (Encoder, lambda n: (whole(n, 6), torch.cat([torch.ones(n, 3), whole(n, 3)], 1).long())),
    "table": (Table, lambda n: (numbers(n, 4), whole(n, 2))),
    "series": (Series, lambda n: (numbers(n, 5, 4),)),
    "halves": (Halves, lambda n: (numbers(n, 4),)),
    "windows": (Windows, lambda n: (numbers(n, 3, 8, 8),)),
    "equations": (Equations, lambda n: (numbers(n, 4),)),
}


def listed(given: Any) -> list[torch.Tensor]:
    """What a module gives, as a list."""
    if isinstance(given, dict):
        return list(given.values())
    return list(given) if isinstance(given, tuple) else [given]


def closed(*_: Any, **__: Any) -> Any:
    """Must not be called."""
    pytest.fail("something was unpickled, or loaded by torch")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", MODELS)
def test_a_program_gives_what_the_module_gives(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a batch of one and of another size than it was exported with; nothing of torch's loads it."""
    make, inputs = MODELS[name]
    torch.manual_seed(1)
    module = make()
    with torch.no_grad():
        module(*inputs(40))  # moves the statistics of the norms
    export_pt2(module, tmp_path / "model.pt2", inputs(2))
    data = (tmp_path / "model.pt2").read_bytes()
    for owner, function in ((torch, "load"), (torch.export, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, function, closed)
    found = inspect("model.pt2", data)
    model = load_pt2(memoryview(data))
    assert model.signature == found.signature
    for count in (1, 5):
        given = inputs(count)
        with torch.no_grad():
            expected = listed(module(*given))
        names = [tensor.name for tensor in model.signature.inputs]
        outputs = model.run_named({name: tensor.numpy() for name, tensor in zip(names, given, strict=True)})
        assert len(outputs) == len(expected) == len(model.signature.outputs)
        for output, wanted, declared in zip(outputs, expected, model.signature.outputs, strict=True):
            assert output.dtype == wanted.numpy().dtype
            assert output.shape == wanted.shape
            assert len(output.shape) == len(declared.shape or ())
            assert np.allclose(output, wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_outputs_have_the_names_that_the_module_gave_them(tmp_path: Path) -> None:
    """A dict of answers is asked for by its keys."""
    export_pt2(Attention(), tmp_path / "model.pt2", whole(2, 8))
    model = load_pt2((tmp_path / "model.pt2").read_bytes())
    assert [tensor.name for tensor in model.signature.outputs] == ["logits", "best", "index"]
    assert model.features == 8
    assert model.dtype == np.int64


@pytest.mark.parametrize("name", ["residual", "attention"])
def test_a_program_that_was_taken_apart_gives_the_same(name: str) -> None:
    """`run_decompositions` is what people call before they save; its operators are on the list too."""
    make, inputs = MODELS[name]
    torch.manual_seed(1)
    module = make().eval()
    exported = torch.export.export(module, inputs(2), dynamic_shapes=({0: torch.export.Dim("batch")},))
    buffer = io.BytesIO()
    torch.export.save(exported.run_decompositions(), buffer)
    assert not inspect("model.pt2", buffer.getvalue()).code
    with torch.no_grad():
        expected = listed(module(*inputs(5)))
    for output, wanted in zip(load_pt2(buffer.getvalue()).run(inputs(5)[0].numpy()), expected, strict=True):
        assert np.allclose(output, wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_a_module_that_switches_gradients_off_is_taken_apart_at_export(tmp_path: Path) -> None:
    """torch.export makes a graph inside of a node of it, which is not served."""

    class Quiet(nn.Module):
        def forward(self, x: Any) -> Any:
            with torch.no_grad():
                y = x * 2
            return y + 1

    export_pt2(Quiet(), tmp_path / "model.pt2", numbers(2, 3))
    [output] = load_pt2((tmp_path / "model.pt2").read_bytes()).run(np.ones((4, 3), dtype=np.float32))
    assert np.array_equal(output, np.full((4, 3), 3.0, dtype=np.float32))


def test_what_is_read_may_be_added_in_place_to_what_was_made(tmp_path: Path) -> None:
    """`y += x` writes into y alone: neither the request nor the weight beside it is touched."""

    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Any) -> Any:
            y = x * 2
            y += x
            return y.add_(self.weight)

    export_pt2(Added(), tmp_path / "model.pt2", numbers(2, 3))
    model = load_pt2((tmp_path / "model.pt2").read_bytes())
    rows = np.ones((4, 3), dtype=np.float32)
    for _ in range(2):
        assert np.array_equal(model.run(rows)[0], np.full((4, 3), 4.0))


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("aten._native_batch_norm_legit_no_training.default", [(2, 9), None, None, (1,), (9,), 0.1, 1e-5]),
        ("aten._native_batch_norm_legit_no_training.default", [(2, 9), (9,), (1,), (9,), (9,), 0.1, 1e-5]),
        ("aten._scaled_dot_product_flash_attention_for_cpu.default", [(8, 8, 4, 2), (1, 1, 4, 2), (1, 1, 4, 2)]),
        ("aten._scaled_dot_product_flash_attention_for_cpu.default", [(1, 1, 4, 2), (1, 1, 9, 2), (1, 1, 1, 2)]),
    ],
)
def test_an_operator_that_would_read_beside_its_arguments_raises(name: str, shapes: list[Any]) -> None:
    """Torch's inner operators take shapes at their word, and a program may name them."""
    arguments = [torch.ones(shape) if isinstance(shape, tuple) else shape for shape in shapes]
    with pytest.raises(ValueError, match=r"not one number|do not fit"):
        operator_of(name)(*arguments)


def test_two_requests_do_not_meet(tmp_path: Path) -> None:
    """Operators in place leave no trace in the weights, nor in the request."""
    export_pt2(Residual(), tmp_path / "model.pt2", numbers(2, 3, 8, 8))
    model = load_pt2((tmp_path / "model.pt2").read_bytes())
    request = numbers(3, 3, 8, 8).numpy()
    before = request.copy()
    first = [output.copy() for output in model.run(request)]
    assert np.array_equal(request, before)
    assert all(np.array_equal(a, b) for a, b in zip(first, model.run(request), strict=True))


def test_weights_are_in_memory_once() -> None:
    """They are views of the file, in whatever memory it is."""
    data = bytearray(program())
    model = load_pt2(memoryview(data))
    tensors = [value for value in model._calls._values if isinstance(value, torch.Tensor)]
    assert tensors
    begin = torch.frombuffer(data, dtype=torch.uint8).data_ptr()
    assert all(begin <= tensor.data_ptr() < begin + len(data) for tensor in tensors if tensor.numel())


def test_a_size_that_was_not_exported_is_the_requests_fault(tmp_path: Path) -> None:
    """400, and not a failure of the model that counts against it."""
    batch = torch.export.Dim("batch", min=1, max=4)
    exported = torch.export.export(nn.Linear(3, 2), (torch.zeros(2, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, str(tmp_path / "model.pt2"))
    model = load_pt2((tmp_path / "model.pt2").read_bytes())
    assert model.run(np.zeros((4, 3), dtype=np.float32))[0].shape == (4, 2)
    with pytest.raises(RequestRefused, match="has 5 in dimension 0; the model was exported for 0 to 4"):
        model.run(np.zeros((5, 3), dtype=np.float32))


def test_a_fixed_batch_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """torch.export fixes what nobody calls variable."""
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(2, 3),)), str(tmp_path / "model.pt2"))
    with pytest.raises(ArtifactRefused, match="fixed batch of 2; export with dynamic_shapes"):
        inspect("model.pt2", (tmp_path / "model.pt2").read_bytes())


def test_what_is_not_served_is_refused_at_export(tmp_path: Path) -> None:
    """Before an upload, and nothing is written."""

    class Random(nn.Module):
        def forward(self, x: Any) -> Any:
            return x + torch.rand(3)

    with pytest.raises(ArtifactRefused, match=r"aten.rand.default.*export the model to ONNX"):
        export_pt2(Random(), tmp_path / "model.pt2", numbers(2, 3))
    assert not list(tmp_path.iterdir())


def test_a_program_can_be_exported_once_more() -> None:
    """To ONNX, for example: as a module it is traced like any other."""
    module = Pt2Module(program())
    batch = torch.export.Dim("batch")
    again = torch.export.export(module, (numbers(2, 3),), dynamic_shapes=(({0: batch},),))
    rows = numbers(5, 3)
    [expected] = load_pt2(program()).run(rows.numpy())
    with torch.no_grad():
        assert np.allclose(again.module()(rows)[0].numpy(), expected, atol=1e-6)


def test_a_size_out_of_proportion_ends_the_run() -> None:
    """Sizes are computed in 64 bits; a graph that squares on and on raises at its first call."""
    from tests.hostile.torch_files import hostile

    [data] = [one.data for one in hostile(Path("nowhere")) if "squares" in one.title]
    model = load_pt2(data)
    with pytest.raises(ValueError, match="out of all proportion"):
        model.run(np.zeros((1, 3), dtype=np.float32))


@pytest.mark.parametrize("name", ["a network", "residual", "series", "table"])
def test_a_script_gives_what_the_module_gives(name: str, tmp_path: Path) -> None:
    """Bit by bit: it is frozen, and not rearranged."""
    make, inputs = MODELS[name]
    torch.manual_seed(1)
    module = make().eval()
    export_torchscript(module, tmp_path / "model.ts", inputs(2), output="values")
    data = (tmp_path / "model.ts").read_bytes()
    assert inspect("model.ts", data).code
    model = loader_of("torchscript", "torch")(data)
    assert model.output == "values"
    for count in (1, 5):
        given = inputs(count)
        names = [tensor.name for tensor in model.signature.inputs]
        arrays = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
        for array in arrays.values():
            array.flags.writeable = False
        with torch.no_grad():
            expected = listed(module(*given))
        for output, wanted in zip(model.run_named(arrays), expected, strict=True):
            assert np.array_equal(output, wanted.numpy())


def test_a_script_that_was_written_by_hand_is_served(tmp_path: Path) -> None:
    """With a loop, which a trace cannot have."""

    class Loop(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            total = torch.zeros_like(rows)
            for i in range(rows.shape[1]):
                total[:, i] = rows[:, : i + 1].sum(1)
            return total

    export_torchscript(torch.jit.script(Loop()), tmp_path / "model.ts", numbers(2, 3))
    model = loader_of("torchscript", "torch")((tmp_path / "model.ts").read_bytes())
    rows = numbers(4, 3).numpy()
    assert np.allclose(model.run(rows)[0], rows.cumsum(1), atol=1e-6)


def test_a_script_that_gives_other_than_it_declares_raises(tmp_path: Path) -> None:
    """Its signature is its author's word."""
    export_torchscript(nn.Linear(3, 2), tmp_path / "model.ts", numbers(2, 3))
    model = loader_of("torchscript", "torch")((tmp_path / "model.ts").read_bytes())
    model.signature = SimpleNamespace(inputs=model.signature.inputs, outputs=())
    with pytest.raises(ValueError, match="gave 1 outputs; 0 are declared"):
        model.run(numbers(2, 3).numpy())


def test_a_state_dict_is_served_and_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same layers and numbers as the module, from views of the file."""
    module = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2))).eval()
    export_state_dict(module, tmp_path / "model.pt", output="logits")
    data = (tmp_path / "model.pt").read_bytes()
    for owner, function in ((torch, "load"), (pickle, "loads"), (pickle, "load"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, function, closed)
    model = loader_of("state_dict", "torch")(memoryview(data))
    rows = numbers(5, 3)
    with torch.no_grad():
        assert np.array_equal(model.run(rows.numpy())[0], module(rows).numpy())
    assert model.output == "logits"


def test_weights_that_lie_askew_are_served(tmp_path: Path) -> None:
    """A transposed weight shares its memory with another; torch.save keeps it so."""
    weight = torch.arange(6.0).reshape(3, 2)
    layers = '[{"type": "Linear", "in_features": 3, "out_features": 2, "bias": false}]'
    buffer = io.BytesIO()
    torch.save({"perch.architecture": layers, "state_dict": {"0.weight": weight.t()}}, buffer)
    [output] = loader_of("state_dict", "torch")(buffer.getvalue()).run(np.eye(3, dtype=np.float32))
    assert np.array_equal(output, weight.numpy())


@pytest.mark.parametrize(("file", "build"), [("model.pt2", program), ("model.pt", state_dict), ("model.ts", script)])
def test_every_format_answers_a_request(file: str, build: Callable[[], bytes]) -> None:
    """From the pointer to the answer, through the handler."""
    data = build()
    found = inspect(file, data)
    pointer = Pointer(
        model="m", version="v1", key="k", version_id="1",
        sha256=hashlib.sha256(data).hexdigest(), size=len(data), format=found.format,
        signed_by="somebody" if found.code else "",
    )  # fmt: skip
    environ = {"PERCH_ENDPOINT": "m", "PERCH_STORE": "store", "PERCH_POINTER": pointer.to_json()}
    handler = make_handler(runtime="torch", environ=environ, fetch=lambda *_: data)
    http = {"http": {"method": "POST", "path": "/models/m/predict"}, "timeEpoch": 1}
    event = {"requestContext": http, "body": json.dumps({"features": [[1.0, 2.0, 3.0], [0.0, 0.5, 1.0]]})}
    answer = handler(event, SimpleNamespace(aws_request_id="r", function_version="1"))
    assert answer["statusCode"] == 200, answer
    assert len(json.loads(answer["body"])["predictions"]) == 2
