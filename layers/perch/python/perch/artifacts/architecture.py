"""The declared architecture of a safetensors model: a list of layers, checked before torch sees it.

    [{"type": "Linear", "in_features": 64, "out_features": 32}, {"type": "ReLU"},
     {"type": "Sum", "branches": [[…layers…], […layers…]]}, …]

Layers are those of `torch.nn`, with its names, options and defaults, taken from an allow-list; what is not listed is
refused by name. Two are ours: `Sum` adds what its branches give for the same input (an empty branch is the input
itself, a residual connection), and `ToIndex` turns numbers into rows of an `Embedding`: floor(x * scale).

A row of features flows through the list as a shape (without the batch), so that layers that do not fit together,
a layer too many or a size out of proportion are found here. The same walk says which tensors the layers own; the
inspector compares them with the file, which bounds the memory that building the model can take by the file's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from perch.domain import strict_json

from .errors import ArchitectureRefused
from .layers import IN_NUMPY, KINDS, Flow, Misfit

MAX_LAYERS = 256
MAX_DEPTH = 4
MAX_ACTIVATION = 2**20
"""Numbers that one row may become on its way through the layers (4 MB)."""

TensorSpec = tuple[str, tuple[int, ...]]
"""A safetensors type and a shape."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer with every option filled in; only a `Sum` has branches."""

    type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    branches: tuple[tuple[Layer, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A checked architecture: its layers, the size of a row in and out, and the tensors that it owns."""

    layers: tuple[Layer, ...]
    features: int
    outputs: int
    tensors: Mapping[str, TensorSpec]

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Where it runs, the best first: without torch if every layer can do without."""
        return ("numpy", "onnx", "torch") if _kinds(self.layers) <= IN_NUMPY else ("torch",)

    @property
    def summary(self) -> str:
        """The layers in one line: `Linear → ReLU → Sum(Linear | identity)`."""
        return _summary(self.layers)


def parse_architecture(text: str) -> Architecture:
    """Read and check the JSON of an architecture. Raises `ArchitectureRefused`."""
    try:
        value = strict_json.read(text.encode())
    except ValueError as error:
        raise ArchitectureRefused(f"the architecture is not readable JSON: {str(error)[:200]}") from error
    return check_architecture(value)


def check_architecture(value: Any) -> Architecture:
    """Check an architecture that is already parsed. Raises `ArchitectureRefused`."""
    budget = iter(range(MAX_LAYERS))
    layers = _layers(value, "layers", budget, MAX_DEPTH)
    features = _pinned(layers)
    if features is None:
        raise ArchitectureRefused(
            "the number of features cannot be told from the first layers; begin with a Linear, BatchNorm1d, LayerNorm "
            "or Unflatten, or with a Sum that has one first in a branch"
        )
    tensors: dict[str, TensorSpec] = {}
    flow = _walk(layers, Flow(shape=(features,)), "", tensors)
    if flow.index or len(flow.shape) != 1:
        what = "row numbers" if flow.index else f"shape {list(flow.shape)}"
        raise ArchitectureRefused(
            f"the last layer gives {what} for each row; a flat list of numbers is served (add Flatten)"
        )
    return Architecture(layers=layers, features=features, outputs=flow.shape[0], tensors=tensors)


def _layers(value: Any, where: str, budget: Iterator[int], depth: int) -> tuple[Layer, ...]:
    if not isinstance(value, list):
        raise ArchitectureRefused(f"{where} has to be a list of layers")
    return tuple(_layer(entry, f"{where}[{i}]", budget, depth) for i, entry in enumerate(value))


def _layer(value: Any, where: str, budget: Iterator[int], depth: int) -> Layer:
    if next(budget, None) is None:
        raise ArchitectureRefused(f"the architecture has more than {MAX_LAYERS} layers")
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ArchitectureRefused(f'{where} has to be an object with a "type"')
    name = value["type"]
    if name == "Sum":
        return _sum(value, where, budget, depth)
    kind = KINDS.get(name)
    if kind is None:
        raise ArchitectureRefused(
            f"{where} is a {name[:60]!r}, which is not served; served are {', '.join(sorted([*KINDS, 'Sum']))}"
        )
    if unknown := sorted(value.keys() - {"type"} - kind.options.keys()):
        raise ArchitectureRefused(f"{where} ({name}) has an unknown option {unknown[0][:60]!r}")
    options = {}
    for option, rule in kind.options.items():
        try:
            options[option] = rule.check(value.get(option, rule.default))
        except ValueError as error:
            raise ArchitectureRefused(f"{where} ({name}): {option} {error}") from error
    return Layer(type=name, options=options)


def _sum(value: Mapping[str, Any], where: str, budget: Iterator[int], depth: int) -> Layer:
    branches = value.get("branches")
    if value.keys() != {"type", "branches"} or not isinstance(branches, list) or len(branches) < 2:
        raise ArchitectureRefused(
            f'{where} (Sum) has to have "branches", two lists of layers or more, and nothing else'
        )
    if depth == 0:
        raise ArchitectureRefused(f"{where} (Sum) is nested deeper than {MAX_DEPTH}")
    return Layer(
        type="Sum",
        branches=tuple(
            _layers(branch, f"{where}.branches[{i}]", budget, depth - 1) for i, branch in enumerate(branches)
        ),
    )


def _pinned(layers: Sequence[Layer]) -> int | None:
    """How many features the first layers demand; None when they would take any number."""
    for layer in layers:
        if layer.type == "Sum":
            found = next((size for branch in layer.branches if (size := _pinned(branch)) is not None), None)
            return found if found is not None or any(layer.branches) else _pinned(layers[1:])
        kind = KINDS[layer.type]
        if kind.features is not None:
            return kind.features(layer.options)
        if not kind.elementwise:
            return None
    return None


def _walk(layers: Sequence[Layer], flow: Flow, prefix: str, tensors: dict[str, TensorSpec]) -> Flow:
    """Follow one row through the layers, collecting tensor names as `torch.nn.Sequential` makes them."""
    for i, layer in enumerate(layers):
        name = f"{prefix}{i}"
        if layer.type == "Sum":
            ends = [_walk(branch, flow, f"{name}.branches.{j}.", tensors) for j, branch in enumerate(layer.branches)]
            if any(end != ends[0] for end in ends) or ends[0].index:
                shapes = " and ".join(str(list(end.shape)) for end in ends)
                _misfit(name, layer, f"its branches give {shapes}; they have to give numbers of one shape")
            flow = ends[0]
            continue
        kind = KINDS[layer.type]
        try:
            flow = kind.flow(layer.options, flow)
        except Misfit as error:
            _misfit(name, layer, str(error))
        if math.prod(flow.shape) > MAX_ACTIVATION:
            _misfit(name, layer, f"one row becomes {math.prod(flow.shape)} numbers here (at most {MAX_ACTIVATION})")
        for suffix, spec in kind.tensors(layer.options).items():
            tensors[f"{name}.{suffix}"] = spec
    return flow


def _misfit(name: str, layer: Layer, reason: str) -> NoReturn:
    raise ArchitectureRefused(f"layer {name} ({layer.type}) does not fit: {reason}")


def _kinds(layers: Sequence[Layer]) -> set[str]:
    """The types of all layers, also inside a `Sum`."""
    return {layer.type for layer in layers}.union(*(_kinds(branch) for layer in layers for branch in layer.branches))


def _summary(layers: Sequence[Layer]) -> str:
    names = (
        f"Sum({' | '.join(_summary(branch) for branch in layer.branches)})" if layer.branches else layer.type
        for layer in layers
    )
    return " → ".join(names) or "identity"
