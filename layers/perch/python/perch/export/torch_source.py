"""Sources that run on torch: a module in memory, and the artifacts that Perch's own readers turn into modules."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from perch.artifacts import Inspected
from perch.artifacts.outputs import OUTPUT_KEY
from perch.artifacts.safetensors_file import Header, read_architecture, read_header
from perch.artifacts.signature import Signature, Tensor
from perch.artifacts.state_dict_file import read_state_dict
from perch.domain.errors import Refused
from perch.export.torch_export import to_safetensors
from perch.predictor.runtimes.pt2 import Pt2Module
from perch.predictor.runtimes.tensor_views import views
from perch.predictor.runtimes.torch import build

from .equivalence import Runnable
from .sample import Sample
from .source import Source, read_file, said
from .torch_onnx import leaves, module_to_onnx, script_to_onnx


class Module:
    """A module as one side of a comparison."""

    def __init__(self, module: nn.Module, outputs: Sequence[str], size: int, output: str | None) -> None:
        self._module = module
        self.outputs = outputs
        self.size = size
        self.output = output

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """All outputs, in the order in which the module gives them."""
        with torch.no_grad():  # a script may hold weights that want gradients
            given = self._module(*(torch.from_numpy(array.copy()) for array in inputs.values()))
        return [leaf.detach().numpy() for leaf in leaves(given)]


def module_source(module: nn.Module, signature: Signature | None = None) -> Source:
    """A module in memory; without a signature it has to begin with a layer that says how many features it takes.

    Raises:
        Refused: nothing tells what it takes.
    """
    module = module.eval()
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if signature is None:
        first = next((part for part in module.modules() if isinstance(part, nn.Linear | nn.BatchNorm1d)), None)
        if first is None:
            raise Refused("nothing tells what the module takes; give a signature (perch.artifacts.Signature)")
        features = first.in_features if isinstance(first, nn.Linear) else first.num_features
        signature = Signature(
            inputs=(Tensor(name="features", datatype="FP32", shape=(-1, features)),),
            outputs=(Tensor(name="output", datatype="FP32", shape=None),),
        )
    return _source(f"a {type(module).__name__}", module, signature, size, {})


def file_source(data: bytes, inspected: Inspected) -> Source:
    """A file whose format is in `MODULES`."""
    module = MODULES[inspected.format](data).eval().requires_grad_(requires_grad=False)
    return _source(f"a {inspected.format} file", module, inspected.signature, len(data), said(inspected))


def script_source(data: bytes, inspected: Inspected) -> Source:
    """TorchScript that somebody trusts: it is loaded by torch, and can do whatever a script can."""
    script = torch.jit.load(io.BytesIO(data), map_location="cpu").eval()
    signature, metadata = inspected.signature, said(inspected)
    return Source(
        kind="a torchscript file",
        signature=signature,
        convert=lambda sample, extra: script_to_onnx(script, sample, signature, metadata=extra),
        ask=lambda outputs: Module(script, outputs, len(data), metadata.get(OUTPUT_KEY)),
        metadata=metadata,
    )


def as_safetensors(model: Any, output: str | None) -> bytes:
    """Return an `nn.Sequential`, or a file that declares its layers, as a safetensors file with declared layers.

    Raises:
        Invalid: there is no such file.
        Refused: the model is no list of served layers.
    """
    if isinstance(model, nn.Module):
        return to_safetensors(model, output=output)
    data, inspected = read_file(Path(model), trust=False)
    if inspected.format not in DECLARED:
        raise Refused(
            f"a {inspected.format} file does not declare its layers; call perch.export.to_safetensors with the "
            "nn.Sequential that it was made from, or export to ONNX"
        )
    words = said(inspected)
    meaning = output or words.pop(OUTPUT_KEY, None)
    return to_safetensors(DECLARED[inspected.format](data).eval(), output=meaning, metadata=words)


def _layers(header: Header, data: bytes) -> nn.Module:
    """The layers that a file declares, with its weights."""
    with torch.device("meta"):
        module = build(read_architecture(header))
    module.load_state_dict(views(data, header.stored), strict=True, assign=True)
    return module


DECLARED: Mapping[str, Callable[[bytes], nn.Module]] = {
    "safetensors": lambda data: _layers(read_header(data), data),
    "state_dict": lambda data: _layers(read_state_dict(data), data),
}
"""Formats that declare their layers."""

MODULES: Mapping[str, Callable[[bytes], nn.Module]] = {**DECLARED, "pt2": Pt2Module}
"""Format → its reader, which gives a module without running anything of the file."""


def _source(kind: str, module: nn.Module, signature: Signature, size: int, metadata: Mapping[str, str]) -> Source:
    def convert(sample: Sample, extra: Mapping[str, str]) -> bytes:
        return module_to_onnx(module, sample, signature, metadata=extra)

    ask: Callable[[Sequence[str]], Runnable] = lambda outputs: Module(  # noqa: E731 - typed on one line
        module, outputs, size, metadata.get(OUTPUT_KEY)
    )
    return Source(kind=kind, signature=signature, convert=convert, ask=ask, metadata=metadata)
