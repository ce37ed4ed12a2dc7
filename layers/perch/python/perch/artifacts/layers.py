"""The allow-list of layers: for each its options, what it makes of a shape, and the tensors that it owns.

Adding a layer is adding an entry to `KINDS`, and one to the builder's table in `perch.predictor.runtimes.torch`.
Shapes are those of one row, without the batch. Options have `torch.nn`'s names and defaults; an option that torch has
and that is not listed here is not served.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_SIZE = 2**20
"""The largest size that an option may name; the tensors in the file bound the rest."""

Options = Mapping[str, Any]
Tensors = dict[str, tuple[str, tuple[int, ...]]]


class Misfit(Exception):
    """A layer cannot take the shape that reaches it."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What one row is between two layers: its shape, and whether it holds row numbers of a table (integers)."""

    shape: tuple[int, ...]
    index: bool = False


@dataclass(frozen=True, kw_only=True)
class Option:
    """A rule for one option.

    `check` returns the value to build with; it raises `ValueError` with what follows the name of the option.
    """

    check: Callable[[Any], Any]
    default: Any = None


def _size(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MAX_SIZE:
        raise ValueError(f"has to be a whole number from 1 to {MAX_SIZE}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("has to be true or false")  # noqa: TRY004 - all option faults are one kind
    return value


def _between(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise ValueError(f"has to be a number from {low:g} to {high:g}")
        return float(value)

    return check


def _sizes(value: Any) -> tuple[int, ...]:
    value = [value] if type(value) is int else value
    if not isinstance(value, list) or not 1 <= len(value) <= 4:
        raise ValueError("has to be a list of one to four sizes")
    return tuple(_size(size) for size in value)


def _pair(least: int) -> Callable[[Any], tuple[int, int]]:
    def check(value: Any) -> tuple[int, int]:
        pair = [value, value] if type(value) is int else value
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) is int and least <= n <= 4096 for n in pair):
            raise ValueError(f"has to be a whole number from {least} to 4096, or two of them")
        return pair[0], pair[1]

    return check


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"has to be one of {', '.join(words)}")
        return str(value)

    return check


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One type of layer.

    Attributes:
        options: rule per option name.
        flow: what it makes of a row; raises `Misfit`.
        tensors: its tensors, named as in torch's state dict.
        features: for a layer that may come first, how many features it demands.
        elementwise: whether it takes any shape and leaves it.
    """

    options: Mapping[str, Option] = field(default_factory=dict)
    flow: Callable[[Options, Flow], Flow]
    tensors: Callable[[Options], Tensors] = lambda _: {}
    features: Callable[[Options], int | None] | None = None
    elementwise: bool = False


def _numbers(flow: Flow) -> tuple[int, ...]:
    if flow.index:
        raise Misfit("row numbers reach it; only an Embedding or Flatten takes those")
    return flow.shape


def _same(_: Options, flow: Flow) -> Flow:
    return Flow(shape=_numbers(flow))


def _ends_with(flow: Flow, wanted: tuple[int, ...]) -> tuple[int, ...]:
    shape = _numbers(flow)
    if shape[-len(wanted) :] != wanted:
        raise Misfit(f"it takes {list(wanted)} and {list(shape)} reaches it")
    return shape


def _linear(o: Options, flow: Flow) -> Flow:
    return Flow(shape=(*_ends_with(flow, (o["in_features"],))[:-1], o["out_features"]))


def _begins_with(size: int, ranks: tuple[int, ...]) -> Callable[[Flow], Flow]:
    def check(flow: Flow) -> Flow:
        shape = _numbers(flow)
        if len(shape) not in ranks or shape[0] != size:
            raise Misfit(f"it takes {size} channels and {list(shape)} reaches it")
        return flow

    return check


def _embedding(o: Options, flow: Flow) -> Flow:
    if not flow.index:
        raise Misfit("numbers reach it; put a ToIndex before it")
    return Flow(shape=(*flow.shape, o["embedding_dim"]))


def _unflatten(o: Options, flow: Flow) -> Flow:
    if _numbers(flow) != (math.prod(o["unflattened_size"]),):
        raise Misfit(f"{list(flow.shape)} reaches it and cannot become {list(o['unflattened_size'])}")
    return Flow(shape=o["unflattened_size"])


def _windows(size: int, kernel: int, stride: int, padding: int) -> int:
    count = (size + 2 * padding - kernel) // stride + 1
    if count < 1:
        raise Misfit(f"a window of {kernel} is larger than what reaches it ({size} and padding {padding})")
    return count


def _conv2d(o: Options, flow: Flow) -> Flow:
    shape = _begins_with(o["in_channels"], (3,))(flow).shape
    sides = (_windows(*n) for n in zip(shape[1:], o["kernel_size"], o["stride"], o["padding"], strict=True))
    return Flow(shape=(o["out_channels"], *sides))


def _pool2d(o: Options, flow: Flow) -> Flow:
    shape = _numbers(flow)
    if len(shape) != 3:
        raise Misfit(f"it takes [channels, height, width] and {list(shape)} reaches it")
    stride = o["stride"] or o["kernel_size"]
    if any(2 * padding > kernel for padding, kernel in zip(o["padding"], o["kernel_size"], strict=True)):
        raise Misfit("padding is more than half of the window")
    sides = (_windows(*n) for n in zip(shape[1:], o["kernel_size"], stride, o["padding"], strict=True))
    return Flow(shape=(shape[0], *sides))


def _avg_pool1d(o: Options, flow: Flow) -> Flow:
    shape = _numbers(flow)
    if len(shape) > 2:
        raise Misfit(f"it takes [length] or [channels, length] and {list(shape)} reaches it")
    return Flow(shape=(*shape[:-1], _windows(shape[-1], o["kernel_size"], o["stride"] or o["kernel_size"], 0)))


def _batch_norm(o: Options) -> Tensors:
    size = (o["num_features"],)
    weights: Tensors = {"weight": ("F32", size), "bias": ("F32", size)}
    statistics: Tensors = {
        "running_mean": ("F32", size),
        "running_var": ("F32", size),
        "num_batches_tracked": ("I64", ()),
    }
    return {**weights, **statistics} if o["affine"] else statistics


def _weights(weight: tuple[int, ...], bias: tuple[int, ...] | None) -> Tensors:
    found: Tensors = {"weight": ("F32", weight)}
    return found if bias is None else {**found, "bias": ("F32", bias)}


def _layer_norm(o: Options) -> Tensors:
    shape = o["normalized_shape"]
    return _weights(shape, shape if o["bias"] else None) if o["elementwise_affine"] else {}


_SIZE = Option(check=_size)
_YES = Option(check=_flag, default=True)
_EPS = Option(check=_between(0, 1), default=1e-5)
_KERNEL = Option(check=_pair(1))
_PADDING = Option(check=_pair(0), default=0)
_POOL = {"kernel_size": _KERNEL, "stride": Option(check=_or_none(_pair(1))), "padding": _PADDING}
_NORM = {"num_features": _SIZE, "eps": _EPS, "affine": _YES}

KINDS: Mapping[str, Kind] = {
    "Linear": Kind(
        options={"in_features": _SIZE, "out_features": _SIZE, "bias": _YES},
        flow=_linear,
        tensors=lambda o: _weights((o["out_features"], o["in_features"]), (o["out_features"],) if o["bias"] else None),
        features=lambda o: o["in_features"],
    ),
    "Conv2d": Kind(
        options={
            "in_channels": _SIZE,
            "out_channels": _SIZE,
            "kernel_size": _KERNEL,
            "stride": Option(check=_pair(1), default=1),
            "padding": _PADDING,
            "bias": _YES,
        },
        flow=_conv2d,
        tensors=lambda o: _weights(
            (o["out_channels"], o["in_channels"], *o["kernel_size"]), (o["out_channels"],) if o["bias"] else None
        ),
    ),
    "BatchNorm1d": Kind(
        options=_NORM,
        flow=lambda o, flow: _begins_with(o["num_features"], (1, 2))(flow),
        tensors=_batch_norm,
        features=lambda o: o["num_features"],
    ),
    "BatchNorm2d": Kind(
        options=_NORM, flow=lambda o, flow: _begins_with(o["num_features"], (3,))(flow), tensors=_batch_norm
    ),
    "LayerNorm": Kind(
        options={"normalized_shape": Option(check=_sizes), "eps": _EPS, "elementwise_affine": _YES, "bias": _YES},
        flow=lambda o, flow: Flow(shape=_ends_with(flow, o["normalized_shape"])),
        tensors=_layer_norm,
        features=lambda o: o["normalized_shape"][0] if len(o["normalized_shape"]) == 1 else None,
    ),
    "Embedding": Kind(
        options={"num_embeddings": _SIZE, "embedding_dim": _SIZE},
        flow=_embedding,
        tensors=lambda o: _weights((o["num_embeddings"], o["embedding_dim"]), None),
    ),
    "ToIndex": Kind(
        options={"scale": Option(check=_between(-1e6, 1e6), default=1.0)},
        flow=lambda _, flow: Flow(shape=_numbers(flow), index=True),
        elementwise=True,
    ),
    "Flatten": Kind(
        flow=lambda _, flow: Flow(shape=(math.prod(flow.shape),), index=flow.index),
        elementwise=True,
    ),
    "Unflatten": Kind(
        options={"unflattened_size": Option(check=_sizes)},
        flow=_unflatten,
        features=lambda o: math.prod(o["unflattened_size"]),
    ),
    "MaxPool2d": Kind(options=_POOL, flow=_pool2d),
    "AvgPool2d": Kind(options=_POOL, flow=_pool2d),
    "AvgPool1d": Kind(
        options={"kernel_size": _SIZE, "stride": Option(check=_or_none(_size))},
        flow=_avg_pool1d,
    ),
    "Dropout": Kind(options={"p": Option(check=_between(0, 1), default=0.5)}, flow=_same, elementwise=True),
    "GELU": Kind(
        options={"approximate": Option(check=_one_of("none", "tanh"), default="none")}, flow=_same, elementwise=True
    ),
    "ReLU": Kind(flow=_same, elementwise=True),
    "Tanh": Kind(flow=_same, elementwise=True),
    "Sigmoid": Kind(flow=_same, elementwise=True),
    "Softmax": Kind(flow=_same, elementwise=True),
}
"""Every layer that is served, by its name in `torch.nn` (and our `ToIndex`; `Sum` is in `architecture`)."""

IN_NUMPY = frozenset(
    [
        "BatchNorm1d",
        "Dropout",
        "Flatten",
        "GELU",
        "LayerNorm",
        "Linear",
        "ReLU",
        "Sigmoid",
        "Softmax",
        "Sum",
        "Tanh",
        "Unflatten",
    ]
)
"""Layers that need no torch: `perch.predictor.runtimes.numpy` has them too."""
