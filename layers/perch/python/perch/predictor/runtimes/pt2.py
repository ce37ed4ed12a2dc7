"""`.pt2` programs on torch, by a loader of our own: `torch.export.load` is never called.

    Program (checked by `perch.artifacts.pt2_file`) ─► one flat list of calls ─► run from top to bottom

A program is a list of operators on named values. Here each name becomes a place in a list, each operator torch's own
function of that name, and a run goes through the list once. There is nothing between the calls, which is why a call
costs no more than the module that was exported (`benchmarks/pt2_call.py`), and nothing to interpret: no expression, no
guard, no pickle. Values are dropped after their last use, so that a run needs the memory that the module needed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perch.artifacts.data import Data
from perch.artifacts.outputs import declared_output
from perch.artifacts.pt2_arguments import Argument, Value, Word
from perch.artifacts.pt2_file import Program, read_program
from perch.artifacts.pt2_graph import Step
from perch.artifacts.pt2_operators import COMPARISONS, WHOLE
from perch.predictor.errors import RequestRefused

from .pt2_guards import operator_of
from .tensor_views import ARRAYS, DTYPES, from_array, views

IDENTITIES = {
    f"aten.{name}.default"
    for name in (
        "alias",
        "alpha_dropout",
        "detach",
        "dropout",
        "feature_alpha_dropout",
        "feature_dropout",
        "lift_fresh",
    )
}
"""Give what they are given, once nobody trains."""

_Call = tuple[Callable[..., Any], tuple[int, ...], "int | tuple[int, ...]", tuple[int, ...]]
"""A function, the places of its arguments, the places of its results, and the places that nobody needs after it."""


class Calls:
    """A program as a list of calls: from the tensors of a request to those of its answer."""

    def __init__(self, data: Data, program: Program) -> None:
        self._values, self._calls, self._inputs, self._outputs = _compiled(data, program)

    def __call__(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run the program on its inputs, in the signature's order. Raises whatever torch raises."""
        values = self._values.copy()
        for place, tensor in zip(self._inputs, tensors, strict=True):
            values[place] = tensor
        for call, arguments, results, spent in self._calls:
            given = call(*[values[i] for i in arguments])
            if results.__class__ is int:
                values[results] = given
            else:
                for place, one in zip(results, given, strict=True):  # type: ignore[arg-type]  # a tuple
                    values[place] = one
            for place in spent:
                values[place] = None
        return [values[place] for place in self._outputs]


class Pt2Model:
    """A program that answers requests, in one thread."""

    def __init__(self, data: Data) -> None:
        torch.set_num_threads(1)
        program = read_program(data)
        self.signature = program.signature
        self.axes: Mapping[str, Sequence[str | None]] = program.axes
        self.features = self.signature.features if self.signature.is_matrix else 0
        self.dtype: np.dtype[Any] = ARRAYS[self.signature.inputs[0].datatype]
        self.output: str | None = declared_output(program.metadata)
        self._bounds = _bounds(program)
        self._calls = Calls(data, program)

    def run(self, rows: NDArray[Any]) -> list[Any]:
        """All outputs, from the one input."""
        return self.run_named({self.signature.inputs[0].name: rows})

    def run_named(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """All outputs, from inputs by name. Raises `RequestRefused` (400) for a size that was not exported."""
        for name, axis, low, high in self._bounds:
            if not low <= (size := inputs[name].shape[axis]) <= high:
                raise RequestRefused(
                    400, f"input {name!a} has {size} in dimension {axis}; the model was exported for {low} to {high}"
                )
        tensors = [from_array(inputs[tensor.name]) for tensor in self.signature.inputs]
        with torch.inference_mode():
            return [tensor.numpy() for tensor in self._calls(tensors)]


class Pt2Module(torch.nn.Module):  # type: ignore[misc]  # torch is not typed
    """A program as a module, for those who want to export it once more."""

    def __init__(self, data: Data) -> None:
        super().__init__()
        self._calls = Calls(data, read_program(data))

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All outputs, from the inputs in the signature's order."""
        return tuple(self._calls(tensors))


def load_pt2(data: Data) -> Pt2Model:
    """Load a verified `.pt2` file."""
    return Pt2Model(data)


def _bounds(program: Program) -> list[tuple[str, int, int, int]]:
    """What the export says of sizes: of input, dimension, from, to; only where it says something."""
    found = []
    for name, axes in program.axes.items():
        for axis, symbol in enumerate(axes):
            low, high = program.sizes.get(symbol or "", (0, None))
            if low > 0 or high is not None:
                found.append((name, axis, low, 2**63 if high is None else high))
    return found


def _compiled(data: Data, program: Program) -> tuple[list[Any], list[_Call], tuple[int, ...], tuple[int, ...]]:
    """The values that are there before a run, the calls, and the places of what comes in and goes out."""
    values: list[Any] = []
    places: dict[str, int] = {}

    def new(value: Any = None) -> int:
        values.append(value)
        return len(values) - 1

    for name, tensor in views(data, program.tensors).items():
        places[name] = new(tensor)
    inputs = tuple(places.setdefault(name, new()) for name in program.inputs)
    calls: list[tuple[Callable[..., Any], tuple[int, ...], int | tuple[int, ...]]] = []

    def place_of(argument: Argument) -> int:
        """Where an argument is at run time; a list that holds values is put together by a call of its own."""
        if isinstance(argument, Value):
            return places[argument.name]
        if isinstance(argument, tuple):
            if any(isinstance(one, Value) for one in argument):
                made = new()
                calls.append((_listed, tuple(place_of(one) for one in argument), made))
                return made
            return new([_constant(one) for one in argument])
        return new(_constant(argument))

    for step in program.graph.steps:
        if step.operator in IDENTITIES:
            places[step.results[0]] = place_of(step.arguments[0])
            continue
        arguments = tuple(place_of(argument) for argument in step.arguments)
        results = tuple(new() for _ in step.results)
        places.update(zip(step.results, results, strict=True))
        single = len(results) == 1 and not step.is_list
        calls.append((_function(step), arguments, results[0] if single else results))
    outputs = tuple(places[name] for name in program.graph.outputs)
    made = {place for _, _, results in calls for place in ([results] if isinstance(results, int) else results)}
    made |= set(inputs)
    return values, _with_ends(calls, made - set(outputs)), inputs, outputs


def _with_ends(
    calls: Sequence[tuple[Callable[..., Any], tuple[int, ...], int | tuple[int, ...]]], spendable: set[int]
) -> list[_Call]:
    """Each call with the places that it is the last to use."""
    found: list[_Call] = []
    seen: set[int] = set()
    for function, arguments, results in reversed(calls):
        used = {*arguments, *([results] if isinstance(results, int) else results)}
        spent = (used & spendable) - seen
        seen |= used
        found.append((function, arguments, results, tuple(sorted(spent))))
    return found[::-1]


def _function(step: Step) -> Callable[..., Any]:
    """What a step calls: torch's operator, or arithmetic of sizes."""
    if step.operator in WHOLE | COMPARISONS:
        return partial(_sized, getattr(operator, step.operator))
    function = operator_of(step.operator)
    keywords = {name: _constant(value) for name, value in step.keywords.items()}
    return partial(function, **keywords) if keywords else function


def _sized(function: Callable[[int, int], int], one: int, other: int) -> int:
    """Arithmetic of sizes; a size that no tensor can have ends it, before numbers grow without end."""
    result = function(one, other)
    if not -(2**63) <= result < 2**63:
        raise ValueError("a size of the program is out of all proportion")
    return result


def _listed(*values: Any) -> list[Any]:
    return list(values)


def _constant(argument: Argument) -> Any:
    """A constant as torch takes it."""
    if isinstance(argument, Word):
        return DTYPES[argument.text] if argument.kind == "dtype" else _WORDS[argument.text]
    return list(map(_constant, argument)) if isinstance(argument, tuple) else argument


_WORDS: Mapping[str, Any] = {
    "contiguous_format": torch.contiguous_format,
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
    "preserve_format": torch.preserve_format,
    "cpu": torch.device("cpu"),
    "strided": torch.strided,
}
