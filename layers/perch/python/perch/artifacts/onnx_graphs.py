"""All graphs of an ONNX model, wherever they hide, and how many nodes they are once functions are written out.

A model may bring functions of its own, and onnxruntime puts the nodes of each in the place of every call. Ten functions
that call the next one ten times are a kilobyte of file and ten thousand million nodes, so the nodes are counted here
without writing any of them out. What a function's attribute is when its caller says nothing of it may be a graph or a
tensor as well, and is looked at as if it stood in a node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any

from .errors import ArtifactRefused

MAX_INLINED = 100_000
"""Nodes that a model with functions may become; transformers of a thousand million weights are some thousands."""

_Name = tuple[str, str, str]
_MAIN: _Name = ("", "", "")


def graphs_of(model: Any) -> Iterator[Any]:
    """Give the main graph, every function, and every graph inside of these (If, Loop, Scan), however deep."""
    for body in (model.graph, *model.functions):
        yield from _inside(body)


def attributes_of(graph: Any) -> Iterator[Any]:
    """Give the attributes of a graph's nodes; of a function also those that it has by default."""
    for node in graph.node:
        yield from node.attribute
    yield from getattr(graph, "attribute_proto", ())


def check_inlined(model: Any) -> None:
    """Make sure that the functions of a model, written out, leave it at a size that a runtime can load.

    Raises:
        ArtifactRefused: it becomes more than `MAX_INLINED` nodes, or nobody can count them: a function calls itself,
            or is given a graph, which it may use as often as it likes.
    """
    if not model.functions:
        return
    bodies = {(one.domain, one.name, one.overload): one for one in model.functions} | {_MAIN: model.graph}
    for body in bodies.values():
        _refuse_graphs_given(body, bodies.keys())
    calls = {
        name: Counter(_called(node) for graph in _inside(body) for node in graph.node) for name, body in bodies.items()
    }
    become: dict[_Name, int] = {}
    waiting, begun = [_MAIN], set[_Name]()
    while waiting:
        name = waiting[-1]
        unknown = [called for called in calls[name] if called in bodies and called not in become]
        if name in become or not unknown:
            nodes = sum(count * become.get(called, 1) for called, count in calls[name].items())
            become[waiting.pop()] = min(nodes, MAX_INLINED + 1)
        elif name in begun:
            raise ArtifactRefused(f"function {'.'.join(name).rstrip('.')} calls itself, so it has no end")
        else:
            begun.add(name)
            waiting += unknown
    if become[_MAIN] > MAX_INLINED:
        raise ArtifactRefused(
            f"the model becomes more than {MAX_INLINED:,} nodes when its functions are put in the place of their "
            "calls; export it without functions, or with smaller ones"
        )


def _refuse_graphs_given(body: Any, functions: Collection[_Name]) -> None:
    calls = (node for graph in _inside(body) for node in graph.node if _called(node) in functions)
    given = chain(getattr(body, "attribute_proto", ()), *(call.attribute for call in calls))
    if any(attribute.HasField("g") or attribute.graphs for attribute in given):
        raise ArtifactRefused("a function of the model is given a graph as an attribute; export it without functions")


def _called(node: Any) -> _Name:
    """What a node calls, as functions are told apart."""
    return node.domain, node.op_type, node.overload


def _inside(body: Any) -> Iterator[Any]:
    stack = [body]
    while stack:
        graph = stack.pop()
        yield graph
        for attribute in attributes_of(graph):
            if attribute.HasField("g"):
                stack.append(attribute.g)
            stack.extend(attribute.graphs)
