"""The graph of a `.pt2` archive, checked node by node: a list of steps, each an allowed operator on named values.

    models/model.json ─► inputs (weights, constants, what a request brings) ─► steps ─► outputs

Nothing of it is trusted. An operator is one of `pt2_operators`; an argument is a tensor by name, a number, a truth
value, one of a few texts, or a list of those; a name means something before it is used and is given once. Expressions
about sizes are never evaluated: sizes are computed by the graph's own arithmetic, of whole numbers. Graphs inside of
nodes, custom objects and operators of other libraries have no meaning here.

An operator in place may only write to memory that no weight, constant or request can see: values that may share their
memory are followed through views.

Left to others: the archive around it (`pt2_file`), and calling the operators (`perch.predictor.runtimes.pt2`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import ArtifactRefused
from .pt2_arguments import (
    MAX_LIST,
    Argument,
    Value,
    a_list,
    a_name,
    an_object,
    names_in,
    read_argument,
    tensor_name,
    unreadable,
)
from .pt2_operators import ASSERTIONS, COMPARISONS, IN_PLACE, OPERATORS, PINNED, VIEWS, WHOLE

MAX_NODES = 20_000


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call: `aten.add.Tensor` of torch's operators, or one of `WHOLE` or `COMPARISONS` on sizes.

    Attributes:
        results: names of what it gives; several if it gives a tuple or (`is_list`) a list.
    """

    operator: str
    arguments: tuple[Argument, ...]
    keywords: Mapping[str, Argument] = field(default_factory=dict)
    results: tuple[str, ...]
    is_list: bool = False


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A checked graph: names of its inputs, its steps in order, names of its outputs."""

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]


def read_graph(graph: Any) -> Graph:
    """Check the graph of a program, as its JSON holds it. Raises `ArtifactRefused`."""
    nodes = a_list(graph.get("nodes"), "nodes", most=MAX_NODES)
    if graph.get("custom_obj_values"):
        raise ArtifactRefused("the graph holds custom objects, which are code; only tensors and numbers are served")
    inputs = tuple(tensor_name(entry, "input") for entry in a_list(graph.get("inputs"), "inputs"))
    known: dict[str, bool] = {}  # every name so far, and whether its memory may be a weight's or a request's
    for name in inputs:
        _define(known, name, shared=True)
    steps = []
    for node in nodes:
        step = _step(an_object(node, "node"), known)
        if step is not None:
            steps.append(step)
    outputs = tuple(tensor_name(entry, "output") for entry in a_list(graph.get("outputs"), "outputs"))
    if unknown := next((name for name in outputs if name not in known), None):
        raise ArtifactRefused(f"the graph gives {unknown[:80]!r}, which no step makes")
    return Graph(inputs=inputs, steps=_needed(steps, outputs), outputs=outputs)


def _step(node: Mapping[str, Any], known: dict[str, bool]) -> Step | None:
    operator = _operator(node.get("target"))
    if operator in ASSERTIONS:
        return None
    arguments: list[Argument] = []
    keywords: dict[str, Argument] = {}
    for entry in a_list(node.get("inputs"), f"arguments of {operator}"):
        entry = an_object(entry, f"argument of {operator}")  # noqa: PLW2901 - the same, checked
        name, kind = entry.get("name"), entry.get("kind")
        if not isinstance(name, str) or kind not in (None, 1, 2) or (keywords and kind != 2):
            raise ArtifactRefused(f"an argument of {operator} has no name or is out of order")
        value = read_argument(entry.get("arg"), operator, known)
        if kind == 2:
            if isinstance(value, Value | tuple) or name in keywords:
                raise ArtifactRefused(f"{operator} takes {name[:40]!r} by keyword from another step, or twice")
            keywords[name] = value
        else:
            arguments.append(value)
    _refuse_unpinned(operator, arguments, keywords)
    results, is_list = _results(node.get("outputs"), operator)
    # What is written to is the first argument; the others are only read.
    seen = names_in(arguments[:1] if operator in IN_PLACE else arguments if operator in VIEWS else ())
    shared = any(known[name] for name in seen)
    if operator in IN_PLACE and shared:
        raise ArtifactRefused(
            f"{operator} writes into a weight or into its input; export the module with inplace=False, and in eval mode"
        )
    for name in results:
        _define(known, name, shared=shared)
    return Step(operator=operator, arguments=tuple(arguments), keywords=keywords, results=results, is_list=is_list)


def _operator(target: Any) -> str:
    if not isinstance(target, str):
        raise ArtifactRefused("a node of the graph names no operator")
    name = target.removeprefix("torch.ops.")
    whole = target.removeprefix("_operator.")
    if whole != target and whole in WHOLE | COMPARISONS:
        return whole
    if name.startswith("higher_order."):
        raise ArtifactRefused(
            f"the graph calls {target[:120]!r}, which runs a graph inside of the node; take it apart with "
            "program.run_decompositions({}) before torch.export.save, or export the model to ONNX"
        )
    if name == target or name not in OPERATORS | ASSERTIONS | {"aten.sym_size.int"}:
        raise ArtifactRefused(
            f"the graph calls {target[:120]!r}, which is not on the list of operators that are known to be harmless; "
            "export the model to ONNX (torch.onnx.export)"
        )
    return name


def _refuse_unpinned(operator: str, arguments: Sequence[Argument], keywords: Mapping[str, Argument]) -> None:
    """What a module does only while it is trained, and modes that torch takes at their word."""
    for place, (name, taken, reason) in PINNED.get(operator, {}).items():
        value = arguments[place] if place < len(arguments) else keywords.get(name, taken[0])
        if value not in taken:
            raise ArtifactRefused(f"{operator} {reason}")


def _results(outputs: Any, operator: str) -> tuple[tuple[str, ...], bool]:
    """Names of what a node gives, and whether they come as a list."""
    found = []
    for entry in a_list(outputs, f"results of {operator}"):
        if not isinstance(entry, dict) or len(entry) != 1:
            unreadable(operator, entry)
        [(kind, value)] = entry.items()
        if kind == "as_tensors" and len(outputs) == 1 and isinstance(value, list) and len(value) <= MAX_LIST:
            return tuple(tensor_name({"as_tensor": one}, f"result of {operator}") for one in value), True
        if kind in ("as_sym_int", "as_sym_bool") and isinstance(value, dict):
            found.append(a_name(value.get("as_name"), f"result of {operator}"))
        else:
            found.append(tensor_name(entry, f"result of {operator}"))
    if not found:
        raise ArtifactRefused(f"{operator} gives nothing, so nothing can come of it")
    return tuple(found), False


def _define(known: dict[str, bool], name: str, *, shared: bool) -> None:
    if name in known:
        raise ArtifactRefused(f"the graph gives the name {name[:80]!r} twice")
    known[name] = shared


def _needed(steps: list[Step], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    """The steps without those that nothing comes of: what assertions compared, results that nobody asked for."""
    wanted, kept = set(outputs), []
    for step in reversed(steps):
        if step.operator in IN_PLACE or not wanted.isdisjoint(step.results):
            wanted |= names_in(step.arguments)
            kept.append(step)
    return tuple(reversed(kept))
