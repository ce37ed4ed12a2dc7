"""Weights are used where they lie: the same answers bit for bit, no second copy, and no file that confuses the walk."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from perch.artifacts.safetensors_file import read_header
from perch.domain.memory import has_room_to_prepare, needed_mb
from perch.export.torch_export import export_safetensors
from perch.predictor.runtimes import onnx as onnx_runtime
from perch.predictor.runtimes import onnx_weights
from perch.predictor.runtimes.onnx import OnnxModel
from perch.predictor.runtimes.onnx_weights import Outline, take_apart
from perch.predictor.runtimes.tensor_views import views
from perch.predictor.runtimes.torch import load_torch

LITTLE, PLENTY = 1.0, 1e6  # MB of memory: none for prepared weights, or enough


def fetched(data: bytes) -> memoryview:
    """The bytes as they are after fetching: in memory of their own, to be read only."""
    memory = mmap.mmap(-1, len(data), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(data)
    return memoryview(memory).toreadonly()


def plain(data: bytes, *, prepared: bool, **inputs: Any) -> list[Any]:
    """What onnxruntime answers when it is simply given the bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not prepared:
        options.add_session_config_entry("session.disable_prepacking", "1")
    answer: list[Any] = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(
        None, inputs
    )
    return answer


def model_of(nodes: list[Any], weights: dict[str, Any], *, outputs: list[str], ir: int = 9, **inputs: Any) -> bytes:
    """A model whose weights stand in the file as most exporters write them: anywhere."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    if ir < 4:  # weights had to be inputs as well
        graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, w.shape) for n, w in weights.items())
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir)
    data: bytes = made.SerializeToString()
    return data


def random(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32) * 0.05


def perceptron(ir: int = 9) -> bytes:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b"], ["y"], transB=1),
    ]
    weights = {"w1": random(512, 700), "w2": random(600, 700), "b": random(600)}
    return model_of(nodes, weights, outputs=["y"], ir=ir, x=(TensorProto.FLOAT, [None, 512]))


def convolution() -> bytes:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["image"]),
        helper.make_node("Conv", ["image", "k"], ["c"], kernel_shape=[1, 3], pads=[0, 1, 0, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        helper.make_node("ReduceMean", ["n"], ["y"], axes=[2, 3], keepdims=0),
    ]
    weights = {
        "axes": np.array([2]),
        "k": random(600, 512, 1, 3),
        **{name: np.abs(random(600)) + 1 for name in "sbmv"},
    }
    return model_of(nodes, weights, outputs=["y"], x=(TensorProto.FLOAT, [None, 512, 8]))


def folded() -> bytes:
    """At load onnxruntime works out what depends on nothing: it has to see the weights."""
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("Mul", ["t", "two"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    weights = {"w": random(600, 512), "two": np.float32([2.0])}
    return model_of(nodes, weights, outputs=["y"], x=(TensorProto.FLOAT, [None, 512]))


def branching() -> bytes:
    """A weight of the graph that only a branch uses, and one of its own that the branch has."""
    then = helper.make_graph(
        [helper.make_node("MatMul", ["x", "outer"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("MatMul", ["x", "inner"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(random(512, 513), "inner")],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]
    weights = {"outer": random(512, 513), "zero": np.float32(0)}
    return model_of(nodes, weights, outputs=["y"], x=(TensorProto.FLOAT, [None, 512]))


def many_types() -> bytes:
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["wide", "double"], ["a"]),
        helper.make_node("Cast", ["a"], ["a32"], to=TensorProto.FLOAT),
        helper.make_node("DequantizeLinear", ["bytes", "scale"], ["w8"]),
        helper.make_node("MatMul", ["x", "w8"], ["b"]),
        helper.make_node("Cast", ["half"], ["w16"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w16"], ["c"]),
        helper.make_node("Concat", ["a32", "b", "c"], ["y"], axis=1),
    ]
    weights = {
        "odd": np.zeros(1, dtype=np.int8),
        "bytes": (random(512, 2100) * 100).astype(np.int8),
        "half": random(512, 1100).astype(np.float16),
        "double": random(512, 300).astype(np.float64),
        "scale": np.float32(0.01),
    }
    nodes.append(helper.make_node("Identity", ["odd"], ["unused"]))
    return model_of(nodes, weights, outputs=["y"], x=(TensorProto.FLOAT, [None, 512]))


MODELS = {
    "perceptron": (perceptron(), (512,)),
    "weights that are inputs too": (perceptron(ir=3), (512,)),
    "convolution": (convolution(), (512, 8)),
    "folded": (folded(), (512,)),
    "branching": (branching(), (512,)),
    "many types": (many_types(), (512,)),
}


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "not prepared"])
@pytest.mark.parametrize("keep", [fetched, bytes], ids=["fetched", "bytes"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_the_same_bit_for_bit(name: str, keep: Any, prepared: bool) -> None:
    """Whether its weights are parsed into copies or used where they lie."""
    data, shape = MODELS[name]
    outline = take_apart(fetched(data))
    assert isinstance(outline, Outline)
    assert len(outline.model) + outline.lent <= len(data) + 2000
    model = OnnxModel(keep(data), PLENTY if prepared else LITTLE)
    for rows in (1, 3):
        x = random(rows, *shape)
        ours, theirs = model.run_named({"x": x}), plain(data, prepared=prepared, x=x)
        assert [one.tobytes() for one in ours] == [one.tobytes() for one in theirs]


def test_prepared_or_not_the_answers_differ_in_their_last_bits_at_most() -> None:
    """The same products, added up in another order."""
    data, _ = MODELS["perceptron"]
    x = random(3, 512)
    ours, theirs = OnnxModel(fetched(data), LITTLE).run(x), OnnxModel(fetched(data), PLENTY).run(x)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-6)


def test_the_walk_keeps_all_but_the_bytes_of_large_weights() -> None:
    """Names, types, shapes, nodes, metadata: what onnx reads from the outline is what it reads from the file."""
    made = onnx.load_from_string(MODELS["many types"][0])
    made.metadata_props.add(key="perch.output", value="values")
    outline = take_apart(fetched(made.SerializeToString()))
    assert outline is not None
    left = onnx.load_from_string(outline.model)
    lent = {tensor.name for tensor in left.graph.initializer if tensor.external_data}
    assert lent == {"bytes", "half", "double"}
    for tensor in [*left.graph.initializer, *made.graph.initializer]:
        if tensor.name in lent:
            for name in ("raw_data", "external_data", "data_location"):
                tensor.ClearField(name)
    assert left == made


def test_every_weight_begins_where_its_elements_may() -> None:
    """Else onnxruntime would copy it."""
    data = fetched(MODELS["many types"][0])
    before = {t.name: t.raw_data for t in onnx.load_from_string(MODELS["many types"][0]).graph.initializer}
    outline = take_apart(data)
    assert outline is not None
    for tensor in onnx.load_from_string(outline.model).graph.initializer:
        if tensor.external_data:
            said = {entry.key: entry.value for entry in tensor.external_data}
            begin, size = int(said["offset"]), int(said["length"])
            assert begin % helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize == 0
            assert data[begin : begin + size] == before[tensor.name]


def test_small_models_are_left_to_onnxruntime() -> None:
    """There is nothing to save."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    data = model_of(nodes, {"w": random(8, 8)}, outputs=["y"], x=(TensorProto.FLOAT, [None, 8]))
    assert take_apart(fetched(data)) is None
    assert OnnxModel(fetched(data)).run(random(1, 8))[0].shape == (1, 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.external_data.add(key="location", value="/etc/passwd"),
        lambda t: setattr(t, "data_location", TensorProto.EXTERNAL),
        lambda t: t.float_data.append(1.0),
        lambda t: setattr(t, "data_type", TensorProto.INT4),
        lambda t: setattr(t, "data_type", TensorProto.STRING),
    ],
)
def test_a_weight_with_more_to_it_than_its_bytes_stays_as_it_is(change: Any) -> None:
    """What onnxruntime makes of it is its own affair."""
    made = onnx.load_from_string(MODELS["folded"][0])
    change(made.graph.initializer[0])
    assert take_apart(fetched(made.SerializeToString())) is None


@settings(max_examples=150)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_file_is_taken_apart_whole_or_not_touched(at: int, bit: int, cut: bool) -> None:
    """No damage raises; and where the walk gives up, the bytes that onnxruntime then reads are the file's."""
    whole = bytearray(MODELS["folded"][0])
    at = at % 900 if at % 2 else len(whole) - 1 - at % 900  # the outline is at both ends
    whole[at] ^= 1 << bit
    data = fetched(bytes(whole[:at] if cut and at else whole))
    before = bytes(data)
    if take_apart(data) is None:
        assert bytes(data) == before


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=6),
    kinds=st.lists(st.sampled_from(["float32", "float64", "int8", "int64"]), min_size=6, max_size=6),
    name=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=30),
)
def test_weights_of_any_size_type_and_name_are_the_same(
    monkeypatch: pytest.MonkeyPatch, shapes: Any, kinds: Any, name: str
) -> None:
    """With a low limit, weights stand close together; none is moved into another."""
    monkeypatch.setattr(onnx_weights, "LARGE", 130)
    monkeypatch.setattr(onnx_runtime, "SMALL", 0)
    weights = {f"{name}{i}": random(*shape).astype(kind) for i, (shape, kind) in enumerate(zip(shapes, kinds))}  # noqa: B905 - as many as there are shapes
    nodes = [helper.make_node("Cast", [key], [f"out{i}"], to=TensorProto.FLOAT) for i, key in enumerate(weights)]
    outputs = [f"out{i}" for i in range(len(weights))]
    nodes.append(helper.make_node("Identity", ["x"], ["y"]))
    data = model_of(nodes, weights, outputs=[*outputs, "y"], x=(TensorProto.FLOAT, [None, 1]))
    x = np.ones((1, 1), dtype=np.float32)
    ours, theirs = OnnxModel(fetched(data), LITTLE).run(x), plain(data, prepared=False, x=x)
    assert [one.tobytes() for one in ours] == [one.tobytes() for one in theirs]


# -- torch ------------------------------------------------------------------------------------------------------------


def saved(tmp_path: Any) -> tuple[Any, bytes]:
    module = torch.nn.Sequential(torch.nn.Linear(40, 300), torch.nn.BatchNorm1d(300), torch.nn.Linear(300, 3)).eval()
    path = tmp_path / "m.safetensors"
    export_safetensors(module, path)
    return module, path.read_bytes()


def test_tensors_are_views_of_the_file(tmp_path: Any) -> None:
    """They lie inside of the fetched memory, and are what was saved."""
    module, data = saved(tmp_path)
    memory = fetched(data)
    begin = np.frombuffer(memory, dtype=np.uint8).ctypes.data
    tensors = views(memory, read_header(memory).stored)
    assert all(begin <= tensor.data_ptr() < begin + len(data) for tensor in tensors.values())
    assert all(torch.equal(tensors[name], value) for name, value in module.state_dict().items())


def test_a_tensor_that_begins_nowhere_in_particular_is_copied(tmp_path: Any) -> None:
    """Its elements could not be used where they are; it answers the same."""
    module, data = saved(tmp_path)
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].rstrip(b" ")
    text += b" " * ((3 - len(text)) % 4)
    moved = len(text).to_bytes(8, "little") + text + data[8 + length :]
    x = random(5, 40)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    for file in (data, moved):  # where a tensor begins decides how its products are grouped: last bits may differ
        np.testing.assert_allclose(load_torch(fetched(file)).run(x)[0], expected, rtol=1e-4, atol=1e-6)


# -- memory -----------------------------------------------------------------------------------------------------------


def write_large(kind: str, path: Path) -> None:
    """128 MB of weights in eight layers."""
    n = 2000
    if kind == "torch":
        export_safetensors(torch.nn.Sequential(*(torch.nn.Linear(n, n) for _ in range(8))), path)
        return
    nodes = [helper.make_node("MatMul", [f"x{i}" if i else "x", f"w{i}"], [f"x{i + 1}"]) for i in range(8)]
    weights = {f"w{i}": np.ones((n, n), dtype=np.float32) for i in range(8)}
    path.write_bytes(model_of(nodes, weights, outputs=["x8"], x=(TensorProto.FLOAT, [None, n])))


_LOAD = """
import mmap, os, sys
import numpy as np
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
from importlib import import_module
load = getattr(import_module(f"perch.predictor.runtimes.{sys.argv[1]}"), f"load_{sys.argv[1]}")
size = os.path.getsize(sys.argv[2])
before = peak()
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
view = memoryview(memory)
with open(sys.argv[2], "rb", buffering=0) as file:
    done = 0
    while done < size:
        done += file.readinto(view[done:])
model = load(view.toreadonly())
model.run(np.ones((1, 2000), dtype=np.float32))
print((peak() - before) / size)
"""


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_loaded_model_takes_its_size_once(kind: str, tmp_path: Path) -> None:
    """128 MB of weights, from the first byte to the first answer, where there is no memory for more."""
    path = tmp_path / "large.safetensors"
    write_large(kind, path)
    found = subprocess.run(
        [sys.executable, "-c", _LOAD, kind, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "456", "PATH": ""},
    )
    assert float(found.stdout) < 1.2


def test_an_endpoint_has_memory_for_its_models_and_prepares_them_where_it_has_more() -> None:
    """The numbers that the settings, the experiments and the loader go by are one."""
    assert needed_mb([("onnx", 200)]) == pytest.approx(540)
    assert needed_mb([("safetensors", 100), ("another", 50)]) == pytest.approx(570)
    assert has_room_to_prepare(200, 740)
    assert not has_room_to_prepare(200, 739)
