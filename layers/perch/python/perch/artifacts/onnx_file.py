"""Inspect an ONNX file without running it: does it parse, does it stay inside itself, what does it take and give.

    bytes → not onnxruntime's own format → not out of proportion → protobuf → no external data → only known operators
          → inputs and outputs that can be named, typed and sent → onnx.checker → functions of a bounded size

ONNX describes a computation; it holds no code. What could still reach outside is refused here: external data (a path
that a loader would follow) and operators of custom domains (native libraries that somebody would have to load).
Shapes that the file declares are compared as numbers and never allocated.

Left to others: whether the runtime can run it (its probes say), and how much memory or time a run takes (Lambda's
limits say).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .errors import ArtifactRefused
from .inspected import Inspected
from .onnx_cost import check_cost
from .onnx_graphs import attributes_of, check_inlined, graphs_of
from .outputs import declared_output
from .ranges import read_ranges
from .served import check_served
from .signature import Signature, Tensor

STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})

CONTRIB_OPERATORS = frozenset({"CDist", "MurmurHash3", "Solve", "Tokenizer"})
"""Operators of `com.microsoft` that skl2onnx emits; all are compiled into onnxruntime."""

RUNTIME_DOMAINS = ("ai.onnx.", "com.microsoft", "com.ms.", "com.xilinx", "org.pytorch.aten")
"""Where onnxruntime looks for operators of its own first, and takes them in place of a function of the same name."""

MAX_IR = 13
"""The newest version of the file format that the pinned onnxruntime loads; the onnx package writes newer ones."""

ORT_MARKER = b"ORTM"
"""Bytes 4 to 8 of a model in onnxruntime's own flatbuffer format."""


def inspect_onnx(data: bytes) -> Inspected:
    """Read what an ONNX file is. Raises `ArtifactRefused`."""
    import onnx  # noqa: PLC0415 - only the registration function has the onnx layer

    if data[4:8] == ORT_MARKER:
        # Such bytes can be a valid ONNX model of another graph as well; what can be read in two ways is not served.
        raise ArtifactRefused(
            "the file is marked as a model in onnxruntime's own format (ORT), which is not inspected; save it as ONNX"
        )
    check_cost(data)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError has no stable home
        raise ArtifactRefused(
            "the file is not a readable ONNX model: it is damaged, cut short or of another format"
        ) from error
    if not model.HasField("graph") or not model.graph.output:
        raise ArtifactRefused("the file holds no ONNX graph: it is damaged, cut short or of another format")
    if model.ir_version > MAX_IR:
        raise ArtifactRefused(
            f"the file is of ONNX IR version {model.ir_version}, and ONNX Runtime here loads {MAX_IR} at most; save it "
            f"with model.ir_version = {MAX_IR}"
        )
    _refuse_external_data(onnx, model)
    _refuse_unknown_operators(model)
    signature = _signature(onnx, model.graph)
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise ArtifactRefused(f"the ONNX model is not valid: {_first_line(error)}") from error
    check_inlined(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Inspected(
        format="onnx",
        runtimes=("onnx",),
        signature=replace(signature, ranges=read_ranges(metadata, signature)),
        details={
            "ir_version": int(model.ir_version),
            "opsets": {opset.domain or "ai.onnx": int(opset.version) for opset in model.opset_import},
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
            "nodes": len(model.graph.node),
            "output": declared_output(metadata),
        },
    )


def _tensors(model: Any) -> Iterator[Any]:
    """Every constant of the model, wherever it sits."""
    for graph in graphs_of(model):
        sparse = list(getattr(graph, "sparse_initializer", ()))  # a function has no initializers
        yield from getattr(graph, "initializer", ())
        for attribute in attributes_of(graph):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                sparse.append(attribute.sparse_tensor)
            sparse.extend(attribute.sparse_tensors)
        for tensor in sparse:
            yield tensor.values
            yield tensor.indices


def _refuse_external_data(onnx: Any, model: Any) -> None:
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ArtifactRefused(
                f"tensor {tensor.name!r} keeps its data in another file; save the model with its weights inside "
                "(onnx.save_model(..., save_as_external_data=False))"
            )


def _refuse_unknown_operators(model: Any) -> None:
    local = {(one.domain, one.name) for one in model.functions if not one.domain.startswith(RUNTIME_DOMAINS)}
    for graph in graphs_of(model):
        for node in graph.node:
            known = (
                (node.domain, node.op_type) in local
                or node.domain in STANDARD_DOMAINS
                or (node.domain == "com.microsoft" and node.op_type in CONTRIB_OPERATORS)
            )
            if not known:
                raise ArtifactRefused(
                    f"operator {node.domain}.{node.op_type} is not part of standard ONNX; "
                    "only ai.onnx and ai.onnx.ml operators are served"
                )


def _signature(onnx: Any, graph: Any) -> Signature:
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = tuple(_tensor(onnx, value) for value in graph.input if value.name not in constants)
    outputs = tuple(_tensor(onnx, value) for value in graph.output)
    signature = Signature(inputs=inputs, outputs=outputs)
    check_served(signature, "export it with a variable first dimension", answers=("SEQUENCE",))  # what a ZipMap gives
    return signature


def _tensor(onnx: Any, value: Any) -> Tensor:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":  # ZipMap gives a sequence of maps
        return Tensor(name=value.name, datatype=(kind or "unknown").removesuffix("_type").upper(), shape=None)
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(int(size.dim_value) if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
        shape = tuple(size if size > 0 else -1 for size in shape)
    return Tensor(name=value.name, datatype=_datatype(onnx, tensor.elem_type), shape=shape)


def _datatype(onnx: Any, element: int) -> str:
    try:
        name = str(onnx.TensorProto.DataType.Name(element))
    except ValueError:
        return f"type {element}"
    return {"FLOAT16": "FP16", "FLOAT": "FP32", "DOUBLE": "FP64", "STRING": "BYTES"}.get(name, name)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
