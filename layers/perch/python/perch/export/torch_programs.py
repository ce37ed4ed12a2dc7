"""For users who train with torch: write a module as a `.pt2` program or as TorchScript, ready to be served.

    export_pt2(module, "model.pt2", example=rows, output="logits")
    export_torchscript(module, "model.ts", example=rows)

`torch.export.save` and `torch.jit.save` write files that are served as well, if they have a variable batch and, for
TorchScript, the member `extra/perch.signature`; these functions take care of both. `.pt2` is proved harmless when it is
registered, TorchScript needs a trusted signature. What would be refused at registration is refused here.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from inspect import signature as parameters_of
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from torch._ops import HigherOrderOperator

from perch.artifacts.outputs import OUTPUT_KEY
from perch.artifacts.pt2_file import inspect_pt2
from perch.artifacts.signature import Signature, Tensor
from perch.artifacts.torchscript_file import SIGNATURE_KEY, inspect_torchscript
from perch.predictor.runtimes.tensor_views import ARRAYS

Example: TypeAlias = "torch.Tensor | Sequence[torch.Tensor]"
"""The inputs of one request, in the order of `forward`; the first dimension of each is its rows, two or more."""

_NAMES = {dtype: name for name, dtype in ARRAYS.items()}


def export_pt2(
    module: nn.Module,
    path: str | Path,
    example: Example,
    *,
    output: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a module as a `.pt2` program with a batch of any size.

    Args:
        module: what was trained; it is exported in evaluation mode.
        path: the file to write, `*.pt2`.
        example: inputs to trace it with.
        output: what the numbers mean: `probabilities`, `logits` or `values`; see `perch.predictor.answer`.
        metadata: more texts for the file, such as `perch.ranges`.

    Raises:
        ArtifactRefused: the program calls what is not served.
    """
    inputs = _inputs(example)
    batch = torch.export.Dim("batch")
    program = torch.export.export(module.eval(), inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
    if any(isinstance(node.target, HigherOrderOperator) for node in program.graph.nodes):
        program = program.run_decompositions({})  # a forward under torch.no_grad() is a graph inside of a node
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=_texts(output, metadata))
    inspect_pt2(buffer.getvalue())
    Path(path).write_bytes(buffer.getvalue())


def export_torchscript(
    module: nn.Module,
    path: str | Path,
    example: Example,
    *,
    output: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a module as TorchScript, with its signature inside.

    Args:
        module: what was trained, or a script that torch.jit made of it; anything else is traced with the example.
        path: the file to write, `*.ts`.
        example: inputs; the signature is read off them, with a first dimension of any size.
        output: what the numbers mean, as in `export_pt2`.
        metadata: more texts for the file.

    Raises:
        ArtifactRefused: the script calls what is not served, or its answer is not tensors.
    """
    inputs, module = _inputs(example), module.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, about TorchScript as a whole
        script = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.trace(module, inputs)
        given = script(*inputs)
        outputs = list(given) if isinstance(given, tuple | list) else [given]
        names = [name for name in parameters_of(module.forward).parameters if name != "self"]
        if len(names) != len(inputs) or names[0] in ("args", "input_args"):
            names = ["input"] if len(inputs) == 1 else [f"input_{i}" for i in range(len(inputs))]
        answers = ["output"] if len(outputs) == 1 else [f"output_{i}" for i in range(len(outputs))]
        signature = Signature(inputs=tuple(map(_tensor, names, inputs)), outputs=tuple(map(_tensor, answers, outputs)))
        texts = _texts(output, metadata) | {SIGNATURE_KEY: json.dumps(signature.to_json(), separators=(",", ":"))}
        buffer = io.BytesIO()
        torch.jit.save(script, buffer, _extra_files=texts)
    inspect_torchscript(buffer.getvalue())
    Path(path).write_bytes(buffer.getvalue())


def _inputs(example: Example) -> tuple[torch.Tensor, ...]:
    return (example,) if isinstance(example, torch.Tensor) else tuple(example)


def _texts(output: str | None, metadata: Mapping[str, str] | None) -> dict[str, str]:
    return {**(metadata or {}), **({OUTPUT_KEY: output} if output is not None else {})}


def _tensor(name: str, tensor: Any) -> Tensor:
    return Tensor(name=name, datatype=_NAMES[tensor.numpy().dtype], shape=(-1, *tensor.shape[1:]))
