"""For users who train with torch: write the safetensors file, or the state dict, that the torch runtime serves.

    module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    ...train...
    export_safetensors(module, "model.safetensors", output="logits")

The layers are read off the module, so there is nothing to keep in step by hand. Only what the runtime can build is
written: an unknown layer, or an option that is not served, is refused here with the same words as at registration.
"""

from __future__ import annotations

import inspect as introspection
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from perch.artifacts.architecture import check_architecture
from perch.artifacts.errors import ArchitectureRefused
from perch.artifacts.layers import KINDS
from perch.artifacts.outputs import OUTPUT_KEY
from perch.artifacts.safetensors_file import ARCHITECTURE_KEY, inspect_safetensors
from perch.artifacts.state_dict_file import inspect_torch_zip
from perch.predictor.runtimes.torch import build
from perch.predictor.torch_layers import Sum, ToIndex

_OURS = {Sum: "Sum", ToIndex: "ToIndex"}


def export_safetensors(
    module: nn.Module, path: str | Path, *, output: str | None = None, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a trained module as an artifact.

    Args:
        module: an `nn.Sequential` of served layers (`perch.artifacts.layers.KINDS`, `Sum`, `ToIndex`).
        path: the file to write, `*.safetensors`.
        output: what the numbers mean: `probabilities`, `logits` or `values`; see `perch.predictor.answer`.
        metadata: more strings for the file's header.

    Raises:
        ArtifactRefused: the module holds something that is not served.
    """
    Path(path).write_bytes(to_safetensors(module, output=output, metadata=metadata))


def to_safetensors(module: nn.Module, *, output: str | None = None, metadata: Mapping[str, str] | None = None) -> bytes:
    """Like `export_safetensors`, but return the bytes; the same module gives the same bytes."""
    tensors, header = _parts(module, output, metadata)
    data = _sorted_header(save(tensors, metadata=header))
    inspect_safetensors(data)
    return data


def export_state_dict(
    module: nn.Module, path: str | Path, *, output: str | None = None, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a trained module with torch.save: its state dict, beside texts that say what a safetensors header says.

    Takes and raises what `export_safetensors` does; the file is `*.pt`.
    """
    tensors, header = _parts(module, output, metadata)
    buffer = io.BytesIO()
    torch.save({**header, "state_dict": tensors}, buffer)
    inspect_torch_zip(buffer.getvalue())
    Path(path).write_bytes(buffer.getvalue())


def _parts(
    module: nn.Module, output: str | None, metadata: Mapping[str, str] | None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A module's tensors, named as the built layers name them, and the texts beside them."""
    layers = architecture_of(module)
    with torch.device("meta"):
        names = list(build(check_architecture(layers)).state_dict())
    # Nested Sequentials are flattened, which renames tensors and keeps their order.
    tensors = [tensor.detach().cpu().contiguous().clone() for tensor in module.state_dict().values()]
    header = {**(metadata or {}), ARCHITECTURE_KEY: json.dumps(layers, separators=(",", ":"))}
    if output is not None:
        header[OUTPUT_KEY] = output
    return dict(zip(names, tensors, strict=True)), header


def architecture_of(module: nn.Module) -> list[dict[str, Any]]:
    """Read the list of layers off a module. Raises `ArchitectureRefused` for a layer that is not served."""
    if isinstance(module, nn.Sequential):
        return [layer for child in module for layer in architecture_of(child)]
    if isinstance(module, Sum):
        return [{"type": "Sum", "branches": [architecture_of(branch) for branch in module.branches]}]
    name = type(module).__name__
    known = type(module) in _OURS or getattr(nn, name, None) is type(module)
    if not known or name not in KINDS:
        raise ArchitectureRefused(f"a {name} is not served; served are {', '.join(sorted([*KINDS, 'Sum']))}")
    _refuse_other_options(module, name)
    return [{"type": name, **{option: _option(module, option) for option in KINDS[name].options}}]


def _option(module: nn.Module, option: str) -> Any:
    value = getattr(module, option)
    if option == "bias":
        return value is not None
    if isinstance(value, tuple):
        return value[0] if isinstance(module, nn.AvgPool1d) else list(value)
    return value


_HARMLESS = {"device", "dtype", "inplace", "momentum", "padding_idx", "scale_grad_by_freq", "sparse"}
"""Options that matter while training and change nothing in an answer."""

_BUILT_WITH = {("Softmax", "dim"): -1, ("Unflatten", "dim"): 1}
"""Options that the builder sets to something else than torch's default."""


def _refuse_other_options(module: nn.Module, name: str) -> None:
    """An option of torch that is not in our table has to be at the value that the builder will use."""
    for option, parameter in introspection.signature(type(module).__init__).parameters.items():
        if option in {"self", *_HARMLESS, *KINDS[name].options} or option.startswith("_"):
            continue
        wanted = _BUILT_WITH.get((name, option), parameter.default)
        value = getattr(module, option, wanted)
        if option == "bias":
            value = value is not None or not getattr(module, "affine", True)
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]  # torch keeps dilation=1 as (1, 1)
        if value != wanted:
            raise ArchitectureRefused(f"{name} with {option}={value!r} is not served; make it with {option}={wanted!r}")


def _sorted_header(data: bytes) -> bytes:
    """Write the header again with its keys in order: the library's order of metadata changes from run to run."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
