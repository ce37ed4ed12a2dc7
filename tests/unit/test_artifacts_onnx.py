"""ONNX files: what is accepted, and what could reach outside the file."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from perch.artifacts import ArtifactRefused, Inspected, Signature, inspect
from perch.artifacts.onnx_cost import check_cost
from perch.artifacts.onnx_file import MAX_IR

OPSETS = [helper.make_opsetid("", 18)]


def model(
    *nodes: Any,
    inputs: list[Any] | None = None,
    opsets: list[Any] | None = None,
    functions: tuple[Any, ...] = (),
    weights: tuple[Any, ...] = (),
) -> Any:
    """A model of one input `x` [batch, 3] and one output `y`; without nodes it is the identity."""
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        inputs if inputs is not None else [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", None])],
        initializer=list(weights),
    )
    return helper.make_model(graph, opset_imports=opsets or OPSETS, functions=list(functions), ir_version=10)


def look(proto: Any) -> Inspected:
    """Inspect a model."""
    return inspect("model.onnx", proto.SerializeToString())


def refusal(proto: Any) -> str:
    """The reason why a model is refused."""
    with pytest.raises(ArtifactRefused) as refused:
        look(proto)
    return refused.value.reason


def tensor(shape: list[Any] | None, kind: int = TensorProto.FLOAT, name: str = "x") -> Any:
    """An input of this shape."""
    return helper.make_tensor_value_info(name, kind, shape)


@cache
def classifier(*, zipmap: bool) -> bytes:
    """A small scikit-learn classifier."""
    rows = np.eye(3, dtype=np.float32)
    fitted = LogisticRegression().fit(rows, [0, 1, 2])
    options = {} if zipmap else {"zipmap": False}
    data: bytes = to_onnx(fitted, rows[:1], options=options).SerializeToString()
    return data


def test_the_signature_of_a_scikit_learn_classifier_is_read() -> None:
    """Labels and probabilities, and three features."""
    found = inspect("model.onnx", classifier(zipmap=False))
    assert (found.format, found.runtimes, found.signature.features) == ("onnx", ("onnx",), 3)
    assert [(out.name, out.datatype) for out in found.signature.outputs] == [
        ("label", "INT64"),
        ("probabilities", "FP32"),
    ]
    assert found.details["producer"].startswith("skl2onnx")


def test_a_file_that_is_newer_than_the_runtime_is_refused() -> None:
    """What onnxruntime cannot load is said at registration; the version before it can."""
    proto = model()
    proto.ir_version = MAX_IR
    onnxruntime.InferenceSession(proto.SerializeToString())
    proto.ir_version = MAX_IR + 1
    assert "IR version 14, and ONNX Runtime here loads 13 at most" in refusal(proto)
    with pytest.raises(Exception, match="Unsupported model IR version"):
        onnxruntime.InferenceSession(proto.SerializeToString())


def test_a_zipmap_is_accepted() -> None:
    """What `to_onnx` gives without options is served too."""
    assert inspect("model.onnx", classifier(zipmap=True)).signature.outputs[1].datatype == "SEQUENCE"


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            [tensor(["n", 3], TensorProto.BFLOAT16)],
            "of type BFLOAT16, which cannot be sent; served are BOOL, BYTES, FP16",
        ),
        ([tensor(["n", 3], TensorProto.COMPLEX64)], "of type COMPLEX64"),
        ([tensor(None)], "has an undeclared shape"),
        ([tensor([1, 3])], "fixed batch of 1; export it with a variable first dimension"),
        ([tensor(["n", "m"])], "does not declare its number of features"),
        ([tensor(["n", 3]), tensor(None, name="z")], "input 'z' has an undeclared shape"),
        ([tensor(["n"], name="x" * 257)], "has 257 characters; at most 256 are taken"),
        ([tensor(["n"], name=f"x{i}") for i in range(1000)], "1,000 inputs and 1 outputs; together at most 1000"),
        ([], "the model has no input"),
    ],
)
def test_inputs_that_nobody_could_send_are_refused(inputs: list[Any], words: str) -> None:
    """Each with what would be right."""
    nodes = [] if inputs else [helper.make_node("Constant", [], ["y"], value_float=1.0)]
    assert words in refusal(model(*nodes, inputs=inputs))


@pytest.mark.parametrize(
    "inputs",
    [
        [tensor(["n", 3]), tensor(["n", 1], TensorProto.STRING, name="z")],
        [tensor(["n", 3, 8])],
        [tensor([1, 3, 8, 8])],
        [tensor(["n"], TensorProto.INT64)],
        [tensor(["n", 3], TensorProto.BOOL)],
    ],
)
def test_inputs_of_other_kinds_are_served_by_their_names(inputs: list[Any]) -> None:
    """Several of them, other types, other ranks: the signature says all, and has no features."""
    signature = look(model(inputs=inputs)).signature
    assert [wanted.name for wanted in signature.inputs] == [value.name for value in inputs]
    assert "features" not in signature.to_json()
    assert Signature.from_json(signature.to_json()) == signature
    with pytest.raises(ValueError, match="takes no rows of features"):
        _ = signature.features


def test_an_output_that_is_no_tensor_is_refused() -> None:
    """Unless it is the sequence of a ZipMap."""
    proto = model()
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.BFLOAT16
    assert "'y' is of type BFLOAT16, which cannot be sent" in refusal(proto)


def test_an_initializer_that_is_listed_as_input_is_no_input() -> None:
    """Old exporters list the weights among the inputs."""
    weight = numpy_helper.from_array(np.ones(3, dtype=np.float32), "w")
    proto = model(
        helper.make_node("Mul", ["x", "w"], ["y"]),
        inputs=[tensor(["n", 3]), tensor([3], name="w")],
        weights=(weight,),
    )
    assert [wanted.name for wanted in look(proto).signature.inputs] == ["x"]


def test_a_file_that_onnxruntime_could_read_as_another_format_is_refused() -> None:
    """A valid ONNX model with the marker of a flatbuffer in its producer's name is two graphs in one file."""
    proto = model()
    proto.ir_version, proto.producer_name = 8, "ORTM"
    assert proto.SerializeToString()[4:8] == b"ORTM"
    assert "onnxruntime's own format (ORT)" in refusal(proto)


def external() -> Any:
    """A tensor whose data is in another file."""
    weight = numpy_helper.from_array(np.ones(3, dtype=np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return weight


def test_data_outside_the_file_is_refused_wherever_it_is_named() -> None:
    """In the graph, in a constant, in a branch of an If, and in a function."""
    add = helper.make_node("Add", ["x", "w"], ["y"])
    constant = helper.make_node("Constant", [], ["w"], value=external())
    branch = helper.make_graph([constant], "b", [], [tensor(None, name="w")])
    truth = numpy_helper.from_array(np.array(True), "c")
    function = helper.make_function("local", "F", ["x"], ["y"], [constant, add], OPSETS)
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    for proto in (
        model(add, weights=(external(),)),
        model(constant, add),
        model(helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch), add, weights=(truth,)),
        model(call, opsets=[*OPSETS, helper.make_opsetid("local", 1)], functions=(function,)),
    ):
        assert "keeps its data in another file" in refusal(proto)


def test_operators_outside_standard_onnx_are_refused_wherever_they_are() -> None:
    """A custom domain would need a native library."""
    opsets = [*OPSETS, helper.make_opsetid("ai.onnx.contrib", 1), helper.make_opsetid("com.microsoft", 1)]
    custom = helper.make_node("PyOp", ["x"], ["y"], domain="ai.onnx.contrib")
    branch = helper.make_graph([custom], "b", [], [tensor(None, name="y")])
    truth = numpy_helper.from_array(np.array(True), "c")
    assert "operator ai.onnx.contrib.PyOp is not part of standard ONNX" in refusal(model(custom, opsets=opsets))
    nested = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    assert "ai.onnx.contrib.PyOp" in refusal(model(nested, opsets=opsets, weights=(truth,)))
    blob = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
    assert "com.microsoft.EPContext" in refusal(model(blob, opsets=opsets))


def test_functions_that_the_model_brings_along_are_served() -> None:
    """A local function is made of standard operators, so its domain does not matter."""
    function = helper.make_function("mine", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], OPSETS)
    call = helper.make_node("Twice", ["x"], ["y"], domain="mine")
    proto = model(call, opsets=[*OPSETS, helper.make_opsetid("mine", 1)], functions=(function,))
    assert look(proto).signature.features == 3


def test_a_graph_that_does_not_hold_together_is_refused() -> None:
    """A node reads what nothing writes."""
    assert "the ONNX model is not valid" in refusal(model(helper.make_node("Add", ["x", "nowhere"], ["y"])))


def test_a_function_that_calls_itself_is_refused() -> None:
    """It would never come to an end."""
    call = helper.make_node("Again", ["x"], ["y"], domain="mine")
    opsets = [*OPSETS, helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Again", ["x"], ["y"], [call], opsets)
    assert "must not be recursive" in refusal(model(call, opsets=opsets, functions=(function,)))


def test_a_huge_declared_shape_takes_no_memory() -> None:
    """A shape is compared as a number; the weights that it promises are not there."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40, 2**20])
    assert "not valid" in refusal(model(helper.make_node("Add", ["x", "w"], ["y"]), weights=(weight,)))


def test_the_declared_meaning_of_the_output_is_read_and_checked() -> None:
    """`perch.output` is one of three words."""
    proto = model()
    helper.set_model_props(proto, {"perch.output": "values"})
    assert look(proto).details["output"] == "values"
    helper.set_model_props(proto, {"perch.output": "magic"})
    assert "it can be probabilities, logits, values" in refusal(proto)


def test_a_cut_file_is_refused() -> None:
    """Unless the cut lies behind the whole graph, between two fields: what is left is then the same model."""
    whole = classifier(zipmap=False)
    graph = onnx.load_model_from_string(whole).graph
    for length in range(len(whole)):
        with suppress(ArtifactRefused):
            inspect("model.onnx", whole[:length])
            assert onnx.load_model_from_string(whole[:length]).graph == graph


@given(st.data())
def test_a_flipped_bit_is_refused_or_leaves_a_model_with_a_signature(data: st.DataObject) -> None:
    """Damage never shows as another error than a refusal."""
    whole = bytearray(classifier(zipmap=False))
    position = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[position // 8] ^= 1 << position % 8
    with suppress(ArtifactRefused):
        signature = inspect("model.onnx", bytes(whole)).signature
        assert signature.inputs
        assert not signature.is_matrix or signature.features >= 1


def test_the_library_that_made_these_files_agrees_that_they_are_models() -> None:
    """The tests' own models are valid, so that each refusal above has the one cause that it names."""
    onnx.checker.check_model(model())


@given(st.integers(1, 300), st.integers(1, 4), st.booleans())
def test_files_of_exporters_are_never_out_of_proportion(nodes: int, outputs: int, named: bool) -> None:
    """Thousands of small nodes, also without names, are a model."""
    chain = [
        helper.make_node("Relu", ["x" if i == 0 else f"n{i - 1}"], [f"n{i}"], name=f"node {i}" if named else None)
        for i in range(nodes * 10)
    ]
    last = helper.make_node("Sum", [f"n{nodes * 10 - 1}"] * outputs, ["y"])
    check_cost(model(*chain, last).SerializeToString())


@pytest.mark.parametrize("part", [b"\x0a\x00", b"\x2a\x00", b"\x5a\x00", b"\x8a\x80\x00\x00"])
def test_files_of_countless_small_parts_are_refused_before_they_are_parsed(part: bytes) -> None:
    """Nodes, tensors and inputs of nothing, also with a tag that is written longer than it has to be."""
    graph = part * 1_000_000
    length = bytes(
        [len(graph) & 0x7F | 0x80, len(graph) >> 7 & 0x7F | 0x80, len(graph) >> 14 & 0x7F | 0x80, len(graph) >> 21]
    )
    with pytest.raises(ArtifactRefused, match="countless small parts"):
        inspect("model.onnx", b"\x08\x09\x3a" + length + graph)


@given(st.binary(max_size=200))
def test_counting_ends_on_any_bytes(data: bytes) -> None:
    """It neither raises nor goes on for ever; the parser says what is wrong."""
    check_cost(b"\x08\x09\x3a" + data)
