"""Rows by name: records, and the four ways in which MLflow's clients write rows.

    {"records": [{"age": 41, "town": "Bern"}, …]}                          POST …/predict, for a columns model
    {"dataframe_split": {"columns": […], "data": [[…], …]}}                POST …/invocations
    {"dataframe_records": [{…}, …]} · {"instances": […]} · {"inputs": …}

A matrix model has no names for its columns: of a data frame it takes the values in the order in which they come. A
model of another kind takes `inputs` (each by name) or `instances` (each row's by name).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perch.artifacts.signature import Tensor

from .decode import MAX_ROWS, object_of, rows_of
from .errors import RequestRefused
from .interface import Interface
from .tensors import from_json

Inputs = dict[str, NDArray[Any]]

_RECORDS = 'send {"records": [{"name": value, …}]}'
_ENVELOPES = ("dataframe_split", "dataframe_records", "instances", "inputs")
_INVOCATION = "send one of " + ", ".join(_ENVELOPES)


def decode_records(body: str | bytes, interface: Interface) -> Inputs:
    """Read `{"records": […]}` for a columns model. Raises `RequestRefused` (400)."""
    document = object_of(body, _RECORDS) if body else {}
    if "records" not in document:
        raise RequestRefused(400, f'the body has no "records"; {_RECORDS}, with {", ".join(interface.inputs)}')
    return _columns(document["records"], "records", interface)


def decode_invocation(body: str | bytes, interface: Interface, dtype: np.dtype[Any]) -> Inputs:
    """Read what a client of MLflow's scoring server sends.

    Args:
        body: JSON.
        interface: of the model.
        dtype: of its features, if it takes a matrix.

    Raises:
        RequestRefused: 400, the sentence names the row and the column or input.
    """
    document = object_of(body, _INVOCATION) if body else {}
    found = [name for name in _ENVELOPES if name in document]
    if len(found) != 1:
        raise RequestRefused(400, f"the body has {' and '.join(found) or 'nothing to predict'}; {_INVOCATION}")
    [envelope] = found
    given = document[envelope]
    if envelope == "dataframe_split":
        given = _split(given)
    elif envelope == "inputs":
        return _inputs(given, interface, dtype)
    if envelope == "instances" and not _are_records(given):
        return _inputs(given, interface, dtype)
    if interface.matrix is not None:
        return _matrix(_in_order(given, envelope), interface.matrix, dtype)
    return _columns(given, envelope, interface)


def _columns(records: Any, what: str, interface: Interface) -> Inputs:
    """Records as one tensor an input; every record has to have exactly the inputs."""
    if not _are_records(records):
        raise RequestRefused(400, f"{what} has to be a list of objects, one a row, and at least one")
    if len(records) > MAX_ROWS:
        raise RequestRefused(400, f"the request has {len(records):,} rows; at most {MAX_ROWS:,} are taken at once")
    wanted = interface.inputs.keys()
    for number, record in enumerate(records, start=1):
        if record.keys() != wanted:
            missing, extra = sorted(wanted - record.keys()), sorted(record.keys() - wanted)
            told = f"has no {missing[0]!a}" if missing else f"has {extra[0][:60]!a}, which the model does not take"
            raise RequestRefused(400, f"row {number} of {what} {told}; the inputs are {', '.join(interface.inputs)}")
    inputs = {}
    for name, tensor in interface.inputs.items():
        values = [record[name] for record in records]
        shape = [len(records), *_shape(values[0])]
        if interface.is_columns:
            shape = [len(records), *((1,) if len(tensor.shape or ()) == 2 else ())]
            if list in set(map(type, values)):
                row = next(number for number, value in enumerate(values, start=1) if isinstance(value, list))
                raise RequestRefused(400, f"{name!a} in row {row} of {what} is a list; it is one value")
        interface.check(name, tensor.datatype, shape)
        inputs[name] = from_json(name, tensor.datatype, shape, values, missing=tensor.missing)
    interface.agree(inputs)
    return inputs


def _inputs(given: Any, interface: Interface, dtype: np.dtype[Any]) -> Inputs:
    """Whole tensors: by name, or the only one."""
    if interface.matrix is not None and not isinstance(given, dict):
        return _matrix(given, interface.matrix, dtype)
    if not isinstance(given, dict):
        if len(interface.inputs) != 1:
            names = ", ".join(interface.inputs)
            raise RequestRefused(400, f"the model has several inputs, so each needs its name: {names}")
        given = {next(iter(interface.inputs)): given}
    found = {}
    for name, data in given.items():
        tensor = interface.inputs.get(name)
        values = data if isinstance(data, list) else [data]
        shape = _shape(values)
        if tensor is not None and tensor.shape == (-1, 1) and len(shape) == 1:
            shape = [*shape, 1]
        interface.check(name, tensor.datatype if tensor else "", shape)
        if tensor is not None:
            found[name] = from_json(name, tensor.datatype, shape, values, missing=tensor.missing)
    interface.agree(found)
    return found


def _matrix(given: Any, matrix: Tensor, dtype: np.dtype[Any]) -> Inputs:
    """Rows of features."""
    features = (matrix.shape or ())[1]
    return {matrix.name: rows_of(given, features, dtype, missing=matrix.missing)}


def _split(given: Any) -> Any:
    """A data frame in its split form, as records (or as rows, when its columns have no names)."""
    if not isinstance(given, dict) or not isinstance(given.get("data"), list):
        raise RequestRefused(400, 'dataframe_split is {"columns": […], "data": [[…], …]}')
    columns, data = given.get("columns"), given["data"]
    if columns is None:
        return data
    if not isinstance(columns, list) or len(set(map(str, columns))) != len(columns):
        raise RequestRefused(400, "the columns of dataframe_split have to be a list of different names")
    for number, row in enumerate(data, start=1):
        if not isinstance(row, list) or len(row) != len(columns):
            raise RequestRefused(400, f"row {number} of dataframe_split is not a list of {len(columns)} values")
    return [dict(zip(map(str, columns), row, strict=True)) for row in data]


def _in_order(given: Any, what: str) -> Any:
    """The values of records, for a model whose columns have no names; all in the order of the first."""
    if not _are_records(given):
        return given
    names = list(given[0])
    for number, record in enumerate(given, start=1):
        if list(record) != names:
            raise RequestRefused(400, f"row {number} of {what} has other columns than the first, or in another order")
    return [list(record.values()) for record in given]


def _are_records(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and set(map(type, given)) == {dict}


def _shape(given: Any) -> list[int]:
    """The sizes of nested lists, by their first elements."""
    shape = []
    while isinstance(given, list):
        shape.append(len(given))
        given = given[0] if given else None
    return shape
