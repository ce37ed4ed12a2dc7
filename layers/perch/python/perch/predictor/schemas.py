"""JSON Schemas (2020-12, as OpenAPI 3.1 has them) of what requests and answers may be.

Of a model's inputs they say all that a schema can: names, datatypes, ranks, fixed sizes, the declared ranges. That the
elements of a tensor are as many as its shape says, and that two inputs are equally long, no schema can say; the
predictor does. Standard library only: `describe_api` has no NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perch.artifacts.signature import NUMBERS, Range, Ranges, Signature, Tensor

if TYPE_CHECKING:
    from .interface import Interface

Schema = dict[str, Any]

MAX_ROWS = 1_000
"""As `perch.predictor.decode` has it; tests hold the two together."""

_LARGEST = {"FP16": math.nextafter(65_520, 0), "FP32": math.nextafter(2**128 - 2**103, 0)}
"""The largest numbers that are not rounded to infinity."""

_WIDE = 200
"""Columns up to which a schema tells each one's range; of wider rows it only tells that they are numbers."""


def element(datatype: str, rule: Range | None = None, *, missing: bool = False) -> Schema:
    """Return the schema of one element; true and false are 1 and 0 wherever a number is taken, null is a gap."""
    if missing:
        return {"anyOf": [element(datatype, rule), {"type": "null"}]}
    if datatype == "BYTES":
        return {"type": "string"} | ({"enum": list(rule.values)} if rule and rule.values else {})
    if datatype == "BOOL":
        return {"enum": [True, False, 0, 1]}
    found: Schema = {"type": "number"}
    if datatype.startswith("FP"):
        if (largest := _LARGEST.get(datatype)) is not None:
            found |= {"minimum": -largest, "maximum": largest}
    else:
        signed, bits = not datatype.startswith("U"), int(datatype.lstrip("UINT"))
        found = {
            "type": "integer",
            "minimum": -(2 ** (bits - 1)) if signed else 0,
            "maximum": 2 ** (bits - 1) - 1 if signed else 2**bits - 1,
        }
    if rule is None:
        return {"anyOf": [found, {"type": "boolean"}]}
    if rule.values is not None:
        return {"enum": [*rule.values, *(flag for flag in (False, True) if flag in rule.values)]}
    if rule.min is not None:
        found["minimum"] = rule.min
    if rule.max is not None:
        found["maximum"] = rule.max
    flags = [flag for flag in (False, True) if found.get("minimum", 0) <= flag <= found.get("maximum", 1)]
    return {"anyOf": [found, {"enum": flags}]} if flags else found


def array(items: Schema, least: int = 1, most: int | None = None) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items, "minItems": least} | ({} if most is None else {"maxItems": most})


def one_of(*schemas: Schema) -> Schema:
    """Return the schema of what fits any of these."""
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def features(signature: Signature) -> Schema:
    """Return the schema of rows of features, or of one row."""
    row = _row(signature)
    return one_of(row, array(row, most=MAX_ROWS))


def _row(signature: Signature) -> Schema:
    given, width = signature.inputs[0], signature.features
    rules: dict[int | None, Range] = {}
    for name, rule in signature.ranges.rules if signature.ranges else ():
        rules[signature.column(name)] = rule
    if not rules or width > _WIDE:
        return array(element(given.datatype, missing=given.missing), width, width)
    columns = [
        element(given.datatype, rules.get(column, rules.get(None)), missing=given.missing) for column in range(width)
    ]
    # Without `items`: whatever stands behind the last column is too many.
    return {"type": "array", "prefixItems": columns, "minItems": width, "maxItems": width}


def any_rows() -> Schema:
    """Return the schema of rows of a model that is not known."""
    row = array({"type": ["number", "boolean"]})
    return one_of(row, array(row, most=MAX_ROWS))


def record(signature: Signature) -> Schema:
    """Return the schema of one row of a columns model: a value for each input."""
    rules = _rules(signature.ranges)
    return {
        "type": "object",
        "properties": {
            tensor.name: element(tensor.datatype, rules.get(tensor.name), missing=tensor.missing)
            for tensor in signature.inputs
        },
        "required": [tensor.name for tensor in signature.inputs],
        "additionalProperties": False,
    }


def invocation(signature: Signature, *, columns: bool) -> Schema:
    """Return the schema of what MLflow's clients send: exactly one of four envelopes."""
    envelopes = _of_matrix(signature) if signature.is_matrix else _of_others(signature, columns=columns)
    return {
        "type": "object",
        "properties": envelopes,
        "oneOf": [{"required": [name]} for name in envelopes],
    }


def _of_matrix(signature: Signature) -> dict[str, Schema]:
    width, rows = signature.features, features(signature)
    one = element(signature.inputs[0].datatype, missing=signature.inputs[0].missing)
    records = array(
        {"type": "object", "additionalProperties": one, "minProperties": width, "maxProperties": width}, most=MAX_ROWS
    )
    named = {
        "type": "object",
        "properties": {signature.inputs[0].name: array(array(one, width, width))},
        "required": [signature.inputs[0].name],
        "additionalProperties": False,
    }
    split = {
        "type": "object",
        "properties": {
            "columns": {"type": ["array", "null"], "minItems": width, "maxItems": width, "uniqueItems": True},
            "data": rows,
        },
        "required": ["data"],
    }
    return {
        "dataframe_split": split,
        "dataframe_records": one_of(rows, records),
        "instances": one_of(rows, records, named),
        "inputs": one_of(rows, named),
    }


def _of_others(signature: Signature, *, columns: bool) -> dict[str, Schema]:
    rules = _rules(signature.ranges)
    given = {tensor.name: _values(tensor, rules.get(tensor.name)) for tensor in signature.inputs}
    named: Schema = {
        "type": "object",
        "properties": given,
        "required": list(given),
        "additionalProperties": False,
    }
    lone = list(given.values()) if len(given) == 1 else []
    inputs = one_of(named, *lone)
    if not columns:
        rows = array({"type": "object"}, most=MAX_ROWS)
        return {"instances": one_of(rows, inputs), "inputs": inputs, "dataframe_records": rows}
    records = array(record(signature), most=MAX_ROWS)
    width = len(signature.inputs)
    split = {
        "type": "object",
        "properties": {
            "columns": {"type": "array", "items": {"enum": list(given)}, "minItems": width, "uniqueItems": True},
            "data": array({"type": "array", "minItems": width, "maxItems": width}, most=MAX_ROWS),
        },
        "required": ["columns", "data"],
    }
    return {
        "dataframe_split": split,
        "dataframe_records": records,
        "instances": one_of(records, inputs),
        "inputs": inputs,
    }


def _values(tensor: Tensor, rule: Range | None) -> Schema:
    """Return the schema of a whole tensor, nested as its shape is; a lone column may be flat, one value alone."""
    found = one = element(tensor.datatype, rule, missing=tensor.missing)
    for size in reversed(tensor.shape or ()):
        found = array(found, max(size, 1), size if size > 0 else None)
    rank = len(tensor.shape or ())
    ways = [found, *([array(one), one] if tensor.shape == (-1, 1) else []), *([one] if rank == 1 else [])]
    return one_of(*ways)


def infer_request(interface: Interface | None) -> Schema:
    """Return the schema of an infer request in JSON; without an interface, that of any model."""
    parameters: Schema = {
        "type": ["object", "null"],
        "properties": {"binary_data_output": {"type": ["boolean", "null"]}},
    }
    output: Schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"} if interface is None else {"enum": list(interface.outputs)},
            "parameters": {
                "type": ["object", "null"],
                "properties": {"binary_data": {"type": ["boolean", "null"]}},
            },
        },
        "required": ["name"],
    }
    if interface is None:
        inputs = array(_any_tensor())
    else:
        count = len(interface.inputs)
        inputs = array(one_of(*map(_tensor, interface.inputs.values())), count, count)
        if count > 1:
            inputs["allOf"] = [
                {"contains": {"properties": {"name": {"const": name}}, "required": ["name"]}}
                for name in interface.inputs
            ]
    return {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": parameters,
            "inputs": inputs,
            "outputs": {"type": ["array", "null"], "items": output},
        },
        "required": ["inputs"],
    }


def _tensor(tensor: Tensor) -> Schema:
    sizes = [{"const": size} if size > 0 else {"type": "integer", "minimum": 1} for size in tensor.shape or ()]
    shape: Schema = {"type": "array", "minItems": len(sizes), "maxItems": len(sizes)}
    return {
        "type": "object",
        "properties": {
            "name": {"const": tensor.name},
            "datatype": {"const": tensor.datatype},
            "shape": shape | ({"prefixItems": sizes} if sizes else {}),
            "data": _flat_or_nested(element(tensor.datatype, missing=tensor.missing), len(sizes)),
            "parameters": {"type": ["object", "null"]},
        },
        "required": ["name", "shape", "datatype", "data"],
    }


def _any_tensor() -> Schema:
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "datatype": {"enum": ["BOOL", "BYTES", *sorted(NUMBERS)]},
            "shape": array({"type": "integer", "minimum": 1}, 0),
            "data": {"type": "array"},
            "parameters": {"type": ["object", "null"]},
        },
        "required": ["name", "shape", "datatype", "data"],
    }


def _flat_or_nested(one: Schema, rank: int) -> Schema:
    nested = one
    for _ in range(max(rank, 1)):
        nested = array(nested)
    return one_of(array(one), nested) if rank > 1 else nested


def infer_answer(outputs: Mapping[str, tuple[int, Tensor]] | None) -> Schema:
    """Return the schema of an answer to `infer`, in JSON; None: of any model."""
    output: Schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"} if outputs is None else {"enum": list(outputs)},
            "datatype": {"type": "string"},
            "shape": array({"type": "integer"}, 0),
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
        "required": ["name", "datatype", "shape"],
    }
    return closed(
        {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "outputs": array(output, 0),
        },
        optional=("id", "parameters"),
    )


def closed(properties: Mapping[str, Any], *, optional: Sequence[str] = ()) -> Schema:
    """Return the schema of an object with these members and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _rules(ranges: Ranges | None) -> dict[str, Range]:
    return dict(ranges.rules) if ranges else {}
