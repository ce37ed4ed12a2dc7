"""The Open Inference Protocol's infer request and answer (REST, version 2), with the binary tensor extension.

    body ─► JSON, and tensors in bytes behind it ─► inputs by name, checked ─► the model ─► outputs by name ─► body

A tensor comes as JSON (flat, or nested as its shape is) or in bytes (`binary_data_size`; the header
`Inference-Header-Content-Length` says where the JSON ends, and 0 that there is none and the body is the only input).
It goes out in bytes where the request says so, for all outputs (`binary_data_output`) or one (`binary_data`).

`id` and the request's own parameters come back with the answer; those that mean something to the protocol do not.
Left out: shared memory and classification, which are refused, and sequences, whose parameters mean nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from numpy.typing import NDArray

from .body import body_of
from .decode import not_json
from .encode import encode
from .errors import PredictionFailed, RequestRefused
from .infer import Inferred
from .interface import Interface, as_array
from .tensors import KINDS, from_bytes, from_json, is_finite, to_bytes, to_flat_list

HEADER = "inference-header-content-length"

_Parameters = dict[str, Any]
Tail = list[bytes | memoryview]
"""What stands behind the JSON of a body, piece by piece."""

_OF_THE_PROTOCOL = frozenset(
    {
        *("binary_data_output", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout"),
        *("content_type", "headers"),  # MLServer's: how a client would have the answer read
    }
)
_NOT_SERVED = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size", "classification")


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters | None = None
    data: list[Any] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: _Parameters | None = None


class _Request(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    parameters: _Parameters | None = None
    outputs: list[_Output] | None = None


_decoder = msgspec.json.Decoder(_Request)


class Asked(NamedTuple):
    """A request, checked: inputs by name, names of the outputs with whether each goes in bytes, id and parameters."""

    inputs: dict[str, NDArray[Any]]
    outputs: list[tuple[str, bool]]
    id: str | None = None
    parameters: _Parameters | None = None


def decode_request(event: Mapping[str, Any], interface: Interface) -> Asked:
    """Read an infer request.

    Raises:
        RequestRefused: 400, 413 or 415; the sentence names the field.
    """
    body = body_of(event)
    if not body:
        raise RequestRefused(400, 'the request has no body; send {"inputs": [{"name", "shape", "datatype", "data"}]}')
    length = (event.get("headers") or {}).get(HEADER)
    if length is None:
        request, tail = _parsed(body), memoryview(b"")
    else:
        data = memoryview(body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass"))
        size = _json_size(length, len(data))
        if size == 0:
            return _raw(data, interface)
        request, tail = _parsed(bytes(data[:size])), data[size:]
    inputs: dict[str, NDArray[Any]] = {}
    for given in request.inputs:
        if given.name in inputs:
            raise RequestRefused(400, f"input {given.name[:60]!a} is there twice")
        interface.check(given.name, given.datatype, given.shape)
        inputs[given.name], tail = _array(given, tail, missing=interface.inputs[given.name].missing)
    if len(tail):
        raise RequestRefused(400, f"{len(tail):,} bytes at the end of the body belong to no input")
    interface.agree(inputs)
    return Asked(inputs, _outputs(request, interface), request.id, _own(request.parameters))


def encode_answer(
    asked: Asked, inferred: Inferred, interface: Interface, *, name: str, version: str
) -> tuple[dict[str, Any], Tail | None]:
    """Write the answer to an infer request.

    Args:
        asked: the request.
        inferred: what the model gave.
        interface: of the model.
        name: under which the client asked for the model.
        version: of the model.

    Returns:
        The JSON document, and the bytes that follow it (None: nothing was asked for in bytes).

    Raises:
        PredictionFailed: an output is not finite, or no tensor.
    """
    parts: Tail = []
    outputs = []
    for output, binary in asked.outputs:
        position, tensor = interface.outputs[output]
        array = finite(output, inferred.outputs[position], inferred.rows)
        told: dict[str, Any] = {"name": output, "datatype": tensor.datatype, "shape": array.shape}
        if binary:
            parts.append(to_bytes(array))
            told["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            told["data"] = to_flat_list(array)
        outputs.append(told)
    document: dict[str, Any] = {"model_name": name, "model_version": version}
    if asked.id is not None:
        document["id"] = asked.id
    if asked.parameters:
        document["parameters"] = asked.parameters
    document["outputs"] = outputs
    return document, parts if any(binary for _, binary in asked.outputs) else None


def finite(name: str, output: Any, rows: int) -> NDArray[Any]:
    """Return an output as an array without NaN or infinity. Raises `PredictionFailed`."""
    array = as_array(output)
    if array is None:
        raise PredictionFailed(f"the model gave no tensor as output {name!a}", rows)
    if array.dtype.kind == "f" and not is_finite(array):
        raise PredictionFailed(f"the model answered NaN or infinity in output {name!a}", rows)
    return array


def with_tail(document: dict[str, Any], tail: Tail) -> tuple[bytes, dict[str, str]]:
    """Return a body of JSON with tensors behind it, and the headers that say so."""
    head = encode(document).encode()
    return b"".join((head, *tail)), {"content-type": "application/octet-stream", HEADER: str(len(head))}


def metadata(interface: Interface, *, name: str, versions: list[str], platform: str) -> dict[str, Any]:
    """Return a model's metadata as the protocol has it."""
    return {
        "name": name,
        "versions": versions,
        "platform": platform,
        "inputs": [tensor.to_json() for tensor in interface.inputs.values()],
        "outputs": [tensor.to_json() for _, tensor in interface.outputs.values()],
    }


def _parsed(body: str | bytes) -> _Request:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        what, _, where = str(error).replace("`", "").partition(" - at $.")
        what = what[:1].lower() + what[1:]
        raise RequestRefused(400, f"{where}: {what}" if where else f"the request: {what}") from error
    except (ValueError, RecursionError) as error:
        raise RequestRefused(400, not_json(body, error)) from error


def _json_size(text: str, size: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) > size:
        raise RequestRefused(
            400,
            f"Inference-Header-Content-Length is {text[:40]!a}; it is how many of the body's {size:,} bytes are JSON",
        )
    return int(text)


def _array(given: _Input, tail: memoryview, *, missing: bool) -> tuple[NDArray[Any], memoryview]:
    """The elements of one input, and the bytes that are left for the next ones."""
    size = None
    if given.parameters:
        _refuse_unserved(given.parameters, f"input {given.name!a}")
        size = given.parameters.get("binary_data_size")
    if size is None:
        if given.data is None:
            raise RequestRefused(400, f"input {given.name!a} has no data and no binary_data_size")
        return from_json(given.name, given.datatype, given.shape, given.data, missing=missing), tail
    if given.data is not None:
        raise RequestRefused(400, f"input {given.name!a} has data and binary_data_size; it can have one of them")
    if type(size) is not int or not 0 <= size <= len(tail):
        raise RequestRefused(
            400, f"binary_data_size of input {given.name!a} is {size!a:.40}; {len(tail):,} bytes are left in the body"
        )
    return from_bytes(given.name, given.datatype, given.shape, tail[:size], missing=missing), tail[size:]


def _outputs(request: _Request, interface: Interface) -> list[tuple[str, bool]]:
    everywhere = _flag(request.parameters, "binary_data_output", "the request") or False
    if not request.outputs:
        return [(name, everywhere) for name in interface.outputs]
    found: dict[str, bool] = {}
    for wanted in request.outputs:
        if wanted.name not in interface.outputs:
            names = ", ".join(f"{name!a}" for name in interface.outputs)
            raise RequestRefused(400, f"there is no output {wanted.name[:60]!a}; the model gives {names}")
        if wanted.name in found:
            raise RequestRefused(400, f"output {wanted.name!a} is asked for twice")
        if wanted.parameters:
            _refuse_unserved(wanted.parameters, f"output {wanted.name!a}")
        binary = _flag(wanted.parameters, "binary_data", f"output {wanted.name!a}")
        found[wanted.name] = everywhere if binary is None else binary
    return list(found.items())


def _flag(parameters: _Parameters | None, name: str, where: str) -> bool | None:
    value = parameters.get(name) if parameters else None
    if value is not None and not isinstance(value, bool):
        raise RequestRefused(400, f"parameter {name} of {where} is true or false")
    return value


def _refuse_unserved(parameters: _Parameters, where: str) -> None:
    for name in _NOT_SERVED:
        if name in parameters:
            raise RequestRefused(400, f"{where} has parameter {name}, which is not served")


def _own(parameters: _Parameters | None) -> _Parameters | None:
    """The client's own parameters; of what the protocol allows as a value, nothing is kept that JSON cannot say."""
    if not parameters:
        return None
    return {
        name: value
        for name, value in parameters.items()
        if name not in _OF_THE_PROTOCOL and isinstance(value, (str, int, float, bool))
    }


def _raw(data: memoryview, interface: Interface) -> Asked:
    """A body that is nothing but the one input; its shape follows from its length."""
    if len(interface.inputs) != 1:
        raise RequestRefused(400, "a body without JSON is one input; the model takes several")
    [tensor] = interface.inputs.values()
    sizes, kind = tensor.shape or (), KINDS[tensor.datatype]
    if tensor.datatype == "BYTES":
        shape, count = [1] * len(sizes), 1
        data = memoryview(len(data).to_bytes(4, "little") + bytes(data))
    else:
        known = math.prod(size for size in sizes if size > 0) * kind.dtype.itemsize
        count = len(data) // known
        if sizes.count(-1) > 1 or not count:
            raise RequestRefused(400, f"the shape of input {tensor.name!a} does not follow from {len(data):,} bytes")
        shape = [count if size < 0 else size for size in sizes]
    interface.check(tensor.name, tensor.datatype, shape)
    inputs = {tensor.name: from_bytes(tensor.name, tensor.datatype, shape, data, missing=tensor.missing)}
    return Asked(inputs, [(name, True) for name in interface.outputs])
