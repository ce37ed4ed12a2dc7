"""torch → ONNX, through torch's own exporter (onnxscript), with a batch of any size.

    nn.Module + a few example rows ─► torch.export ─► ONNX, inputs and outputs named as the signature names them

The exporter runs the module's Python code, so the module has to be the user's own, or one that Perch's own readers
built from an inspected file; a file is never unpickled here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from inspect import Parameter
from inspect import signature as signature_of
from typing import Any

import torch

from perch.artifacts.signature import Signature, Tensor
from perch.domain.errors import Refused

from .onnx_file import finished
from .sample import Sample

_LARGEST_BATCH = 2**20
"""Of what torch traces; without a bound it finds products of sizes that might overflow. The ONNX file has none."""


def module_to_onnx(
    module: torch.nn.Module, sample: Sample, signature: Signature, *, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Export a module.

    Args:
        module: in evaluation mode; takes the sample's inputs in their order.
        sample: two rows of it are traced.
        signature: names of inputs and outputs; the first dimension of every input becomes variable, and so do those
            that are -1.
        metadata: strings for the file.

    Raises:
        Refused: torch cannot express the module in ONNX; says what it stumbled over.
    """
    rows = sample.first(2)
    tensors = tuple(torch.from_numpy(rows[tensor.name].copy()) for tensor in signature.inputs)
    sizes = tuple(map(_sizes, signature.inputs))
    together = any(
        parameter.kind is Parameter.VAR_POSITIONAL for parameter in signature_of(module.forward).parameters.values()
    )
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                tensors,
                dynamo=True,
                input_names=[tensor.name for tensor in signature.inputs],
                output_names=[tensor.name for tensor in signature.outputs],
                dynamic_shapes=(sizes,) if together else sizes,
                verbose=False,
            )
    except ImportError as missing:
        raise Refused(f"{missing.name} is not installed: pip install 'perch[export]'") from missing
    except Exception as error:  # the exporter wraps whatever goes wrong in classes of its own
        raise Refused(f"torch cannot write this model as ONNX: {_cause(error)}") from error
    return finished(program.model_proto, metadata or {})


def script_to_onnx(
    script: Any, sample: Sample, signature: Signature, *, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Export TorchScript, by the older exporter, which is the one that takes it; otherwise as `module_to_onnx`."""
    import onnx  # noqa: PLC0415 - a module needs none

    rows, file = sample.first(2), io.BytesIO()
    names = [tensor.name for tensor in signature.inputs]
    outputs = [tensor.name for tensor in signature.outputs]
    try:
        with _quiet():
            torch.onnx.export(
                script,
                tuple(torch.from_numpy(rows[name].copy()) for name in names),
                file,
                dynamo=False,
                input_names=names,
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)},
            )
    except Exception as error:  # as above
        raise Refused(f"torch cannot write this script as ONNX: {_cause(error)}") from error
    return finished(onnx.load_model_from_string(file.getvalue()), metadata or {})


def _sizes(tensor: Tensor) -> dict[int, Any]:
    """What of an input's shape varies: the batch, which has a name, and other dimensions that are not told."""
    others = [axis for axis, size in enumerate((tensor.shape or ())[1:], start=1) if size < 0]
    return {0: torch.export.Dim("batch", max=_LARGEST_BATCH)} | dict.fromkeys(others, torch.export.Dim.DYNAMIC)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporter says along the way: of packages it could use, and of its own deprecations."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _cause(error: BaseException) -> str:
    """The first line of what went wrong at the bottom."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].strip()[:300]


def leaves(value: Any) -> list[Any]:
    """What a module gave, as a flat list of tensors."""
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value
    return [leaf for one in values for leaf in leaves(one)]
