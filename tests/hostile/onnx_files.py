"""ONNX files that reach for other files, name operators of others, declare absurd sizes, or nest without end."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from onnx import AttributeProto, TensorProto, helper

from perch.artifacts.protobuf import field
from tests.hostile import SERVED, Hostile

READS = "makes the loader read a file of the machine into the model"
OUTSIDE = "keeps its data in another file"


def hostile(trap: Path) -> Iterator[Hostile]:
    """Every kind."""
    for what, location in (
        ("an absolute path", "/etc/passwd"),
        ("a path upwards", "../../../../etc/passwd"),
        ("a path upwards in the middle", "weights/../../secret.bin"),
        ("a neighbour", "weights.bin"),
        ("a device", "/dev/zero"),
        ("an empty path", ""),
        ("a path with a NUL", "weights.bin\0/etc/passwd"),
    ):
        yield _onnx(f"external data at {what}", _external(location), READS, OUTSIDE)
    yield _onnx("external data in a node's attribute", _external_attribute("/etc/passwd"), READS, OUTSIDE)
    yield _onnx("external data inside the branch of an If", _in_branch(_external("/etc/passwd")), READS, OUTSIDE)
    yield _onnx("external data of a sparse tensor", _external_sparse("/etc/passwd"), READS, OUTSIDE)
    yield _onnx(
        "an operator of a custom domain",
        model(helper.make_node("Backdoor", ["x"], ["y"], domain="evil"), domains=("evil",)),
        "needs a native library that somebody would have to load",
        "evil.Backdoor is not part of standard ONNX",
    )
    yield _onnx(
        "a custom operator inside a loop's body",
        _in_branch(model(helper.make_node("Run", ["x"], ["y"], domain="evil"), domains=("evil",))),
        "as above, out of sight",
        "evil.Run is not part of standard ONNX",
    )
    yield _onnx(
        "an operator that does not exist",
        model(helper.make_node("Sysetm", ["x"], ["y"])),
        "is looked up in whatever is registered",
        "not valid",
    )
    yield Hostile(
        title="ONNX, onnxruntime's own format under its name",
        file="model.onnx",
        data=b"\x08\x09\x12\x02ORTM" + b"\0" * 64,
        threat="is one model to the inspector and another to the runtime",
        words="onnxruntime's own format",
    )
    yield _onnx(
        "a constant of 2^60 numbers with no data",
        _weight([2**30, 2**30], b""),
        "makes the loader take memory for what is not there",
        "not valid",
    )
    yield _onnx(
        "a constant of negative size",
        _weight([-4, 3], b""),
        "turns into a huge unsigned size",
        "not valid",
    )
    yield _onnx(
        "an input of 2^62 features",
        model(helper.make_node("Identity", ["x"], ["y"]), features=2**62),
        "makes whoever warms the model take memory for one row",
        "",
        verdict=SERVED,
    )
    yield _onnx(
        "a constant that declares more numbers than it has",
        _weight([1_000, 1_000], b"\0" * 40),
        "makes the runtime read behind the end of the data",
        "not valid",
    )
    yield _onnx(
        "2,000 If nodes inside each other",
        _nested(2_000),
        "exhausts the stack of whoever walks it",
        "",
    )
    yield _onnx("a cycle of nodes", _cycle(), "never ends where nodes are sorted", "not valid")
    yield _onnx("a function that calls itself", _recursive(), "is inlined without end", "")
    yield from _of_functions()
    yield _onnx(
        "a Loop that never ends",
        _endless(),
        "keeps the predictor busy for ever; the probe of the candidate revision runs into its time limit",
        "",
        verdict=SERVED,
    )
    yield _onnx(
        "a Loop that doubles a tensor 60 times",
        _doubling(60),
        "takes all memory when it runs; the candidate's process dies of it, stable's does not",
        "",
        verdict=SERVED,
    )
    yield _onnx("no graph at all", b"\x08\x0a", "crashes a reader that expects one", "no ONNX graph")
    yield Hostile(
        title="ONNX, a protobuf of 60,000 groups inside each other",
        file="model.onnx",
        data=b"\x08\x0a" + b"\x0b" * 60_000,
        threat="exhausts the stack of a parser",
        words="not a readable ONNX model",
    )
    yield Hostile(
        title="ONNX, a length of 2^63",
        file="model.onnx",
        data=b"\x08\x0a\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        threat="makes a parser take memory, or wrap around",
        words="not a readable ONNX model",
    )
    for what, graph in (
        ("nodes", b"\x0a\x00" * 1_000_000),
        ("attributes of one node", field(1, b"\x2a\x00" * 1_000_000)),
        ("inputs of one node", field(1, b"\x0a\x00" * 1_000_000)),
        ("dimensions of one output", field(12, field(2, field(1, field(2, b"\x0a\x00" * 1_000_000))))),
    ):
        yield _onnx(
            f"a million empty {what}",
            b"\x08\x09" + field(7, graph) + field(8, b"\x10\x12"),
            "becomes a hundred times its size in memory",
            "countless small parts",
        )
    yield _onnx(
        "a million empty nodes behind a group",
        b"\x08\x09" + field(7, b"\xa3\x06\xa4\x06" + b"\x0a\x00" * 1_000_000) + field(8, b"\x10\x12"),
        "as above, if whoever counts stops at what has no length",
        "countless small parts",
    )


def _of_functions() -> Iterator[Hostile]:
    """What functions of the model's own may hide, or become."""
    for what, default, words in (
        ("external data", _default(t=_elsewhere("/etc/passwd")), OUTSIDE),
        ("a custom operator", _default(g=_branch([_evil("v")], "v")), "evil.Run is not part of standard ONNX"),
    ):
        threat = "makes the loader read a file of the machine, or look for a library"
        yield _onnx(
            f"{what} in what a function takes by default", _with(_function("Own", _neg, default)), threat, words
        )
    yield _onnx(
        "a function by the name of an operator of the runtime's own",
        _with(_function("FastGelu", _neg, domain="com.microsoft"), domain="com.microsoft"),
        "the runtime takes its own operator in place of what was inspected",
        "com.microsoft.FastGelu is not part of standard ONNX",
    )
    chain = [_function(f"F{i}", [_call(f"F{i + 1}")] * 10 if i < 9 else _neg) for i in range(10)]
    yield _onnx(
        "functions that call the next one ten times",
        _with(*chain),
        "a kilobyte becomes a thousand million nodes when the runtime writes it out",
        "more than 100,000 nodes",
    )
    for number, function in enumerate(chain):
        function.name, function.overload = "F", str(number)
        for node in function.node if number < 9 else ():
            node.op_type, node.overload = "F", str(number + 1)
    overloaded = _with(*chain)
    overloaded.graph.node[0].overload = "0"
    yield _onnx(
        "functions of one name that call the next one ten times",
        overloaded,
        "as above, if whoever counts goes by the name alone",
        "more than 100,000 nodes",
    )
    yield _onnx(
        "a function that is given a graph",
        _with(_function("Own", _neg, _default(g=_branch([helper.make_node("Identity", ["a"], ["v"])], "v")))),
        "as above, by as many uses of what it is given",
        "is given a graph as an attribute",
    )


def _onnx(title: str, proto: Any, threat: str, words: str, **more: Any) -> Hostile:
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    return Hostile(title=f"ONNX, {title}", file="model.onnx", data=data, threat=threat, words=words, **more)


def model(*nodes: Any, weights: Any = (), features: int = 3, domains: tuple[str, ...] = (), functions: Any = ()) -> Any:
    """A model from `x` to `y`, both [n, features]."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", features]) for name in ("x", "y")]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:], initializer=list(weights))
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=list(functions))


def _weight(shape: list[int], raw: bytes) -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape, raw_data=raw)
    return model(helper.make_node("Add", ["x", "w"], ["y"]), weights=[tensor])


def _elsewhere(location: str) -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def _external(location: str) -> Any:
    return model(helper.make_node("Add", ["x", "w"], ["y"]), weights=[_elsewhere(location)])


def _external_attribute(location: str) -> Any:
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.add(name="value", type=4, t=_elsewhere(location))
    return model(constant, helper.make_node("Add", ["x", "w"], ["y"]))


def _external_sparse(location: str) -> Any:
    proto = model(helper.make_node("Identity", ["x"], ["y"]))
    sparse = proto.graph.sparse_initializer.add(dims=[3])
    sparse.values.CopyFrom(_elsewhere(location))
    return proto


def _branch(nodes: Any, name: str, weights: Any = ()) -> Any:
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), name, [], [out], initializer=list(weights))


def _in_branch(inner: Any) -> Any:
    """Put the nodes and weights of a model into a branch of an If."""
    then = _branch(inner.graph.node, "y", inner.graph.initializer)
    other = _branch([helper.make_node("Identity", ["x"], ["z"])], "z")
    domains = tuple(opset.domain for opset in inner.opset_import if opset.domain)
    return model(
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        weights=[helper.make_tensor("c", TensorProto.BOOL, [], [True])],
        domains=domains,
    )


def _nested(depth: int) -> bytes:
    """If nodes inside each other; written byte by byte, because the library that writes ONNX gives up at thirty."""
    graph = b""
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"  # g, of type GRAPH
        graph = field(1, field(4, b"If") + field(2, b"y") + field(5, attribute)) + field(2, b"g")
    return b"\x08\x09" + field(7, graph + field(12, field(1, b"y"))) + field(8, b"\x10\x12")


def _cycle() -> Any:
    return model(
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Identity", ["b"], ["y"]),
    )


def _recursive() -> Any:
    again = helper.make_node("Again", ["a"], ["b"], domain="local")
    function = helper.make_function(
        "local", "Again", ["a"], ["b"], [again], [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    )
    return model(helper.make_node("Again", ["x"], ["y"], domain="local"), domains=("local",), functions=[function])


_neg = [helper.make_node("Neg", ["a"], ["b"])]


def _evil(output: str) -> Any:
    return helper.make_node("Run", ["a"], [output], domain="evil")


def _call(name: str) -> Any:
    return helper.make_node(name, ["a"], ["b"], domain="local")


def _default(**value: Any) -> Any:
    return AttributeProto(name="v", type=AttributeProto.TENSOR if "t" in value else AttributeProto.GRAPH, **value)


def _function(name: str, nodes: Any, *defaults: Any, domain: str = "local") -> Any:
    """A function from `a` to `b`; of nodes that all make `b` each but the last makes something else."""
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(other, 1) for other in ("local", "evil"))]
    named = [deepcopy(node) for node in nodes]
    for number, node in enumerate(named[:-1]):
        node.output[0] = f"b{number}"
    function = helper.make_function(domain, name, ["a"], ["b"], named, opsets)
    function.attribute_proto.extend(defaults)
    return function


def _with(*functions: Any, domain: str = "local") -> Any:
    """A model that calls the first of its functions."""
    call = helper.make_node(functions[0].name, ["x"], ["y"], domain=domain)
    return model(call, domains=(domain,), functions=functions)


def _loop(body_nodes: list[Any], trips: str, weights: list[Any]) -> Any:
    body = helper.make_graph(
        body_nodes,
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", [trips, "true", "x"], ["l"], body=body)
    axes = helper.make_tensor("first", TensorProto.INT64, [1], [0])
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    shorten = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Reshape", ["l0", "s"], ["y"]),
    ]
    head = [
        helper.make_node("Shape", ["x"], ["s0"]),
        helper.make_node("Gather", ["s0", "zero"], ["n"]),
        helper.make_node("Slice", ["l", "first", "n1", "first"], ["l0"]),
        helper.make_node("Unsqueeze", ["n", "first"], ["n1"]),
    ]
    zero = helper.make_tensor("zero", TensorProto.INT64, [], [0])
    return model(loop, head[0], head[1], head[3], head[2], *shorten, weights=[axes, true, zero, *weights])


def _endless() -> Any:
    """No trip count, and a condition that stays true."""
    return _loop([helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])], "", [])


def _doubling(times: int) -> Any:
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [times])
    return _loop(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Concat", ["v", "v"], ["w"], axis=0)],
        "trips",
        [trips],
    )
