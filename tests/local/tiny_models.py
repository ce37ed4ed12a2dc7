"""Artifacts of a few hundred bytes, for both runtimes: rows of four features, three classes, one winner by name.

`favourite` is the class that a model answers for every ordinary row, so that versions can be told apart by what they
say. A fragile model looks a correction up in a table of eight rows, and raises on a row whose mean is eight or more.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ORDINARY = [1.0, 2.0, 3.0, 0.0]
TOO_MUCH = [9.0, 9.0, 9.0, 9.0]
"""A row that a fragile model raises on, and that no made-up probe resembles."""


def _weights(favourite: int) -> tuple[np.ndarray, np.ndarray]:
    weights = np.full((4, 3), 0.01, dtype=np.float32)
    bias = np.zeros(3, dtype=np.float32)
    bias[favourite] = 3.0
    return weights, bias


def onnx_model(favourite: int, *, fragile: bool = False, padding: int = 0) -> bytes:
    """Make an ONNX file; `padding` adds so many bytes of weights that nothing uses."""
    weights, bias = _weights(favourite)
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["plain"])]
    if fragile:
        constants += [
            numpy_helper.from_array(np.zeros((8, 3), dtype=np.float32), "table"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
        ]
        nodes += [
            helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=0),
            helper.make_node("Cast", ["mean"], ["level"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "level"], ["correction"], axis=0),
            helper.make_node("Add", ["plain", "correction"], ["scores"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["plain"], ["scores"]))
    nodes.append(helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1))
    if padding:
        # Random, because an artifact may not shrink on its way.
        noise = np.random.default_rng(0).integers(0, 256, padding, dtype=np.uint8)
        constants.append(numpy_helper.from_array(noise, "padding"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 3])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def torch_model(favourite: int, *, fragile: bool = False) -> bytes:
    """Make a safetensors file."""
    import torch
    from torch import nn

    from perch.export.torch_export import to_safetensors
    from perch.predictor.torch_layers import Sum, ToIndex

    weights, bias = _weights(favourite)
    linear = nn.Linear(4, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weights.T))
        linear.bias.copy_(torch.from_numpy(bias))
    module = nn.Sequential(linear)
    if fragile:
        table = nn.Embedding.from_pretrained(torch.zeros(8, 3))
        module = nn.Sequential(Sum(linear, [nn.AvgPool1d(4), ToIndex(1.0), table, nn.Flatten()]))
    return to_safetensors(module.eval(), output="logits")
