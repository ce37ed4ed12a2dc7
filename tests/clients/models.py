"""The models that the clients ask: rows of features, and one of every datatype under its own name."""

from __future__ import annotations

from onnx import TensorProto, helper

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def mirror(*datatypes: str, columns: int = 2) -> bytes:
    """Return a model that gives every input back: `FP32` as `FP32_back`, rows of so many columns."""
    chosen = datatypes or tuple(TYPES)
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_back"]) for name in chosen],
        "mirror",
        [helper.make_tensor_value_info(name, TYPES[name], ["n", columns]) for name in chosen],
        [helper.make_tensor_value_info(f"{name}_back", TYPES[name], ["n", columns]) for name in chosen],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
