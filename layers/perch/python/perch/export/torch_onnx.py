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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from perch.domain.errors import Refused

from .onnx_file import finished
from .sample import Sample


def module_to_onnx(
    module: torch.nn.Module, sample: Sample, outputs: Sequence[str], *, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Export a module.

    Args:
        module: in evaluation mode; takes the sample's inputs in their order.
        sample: at least two rows of it are traced; the first dimension of every input becomes variable.
        outputs: names for what it gives.
        metadata: strings for the file.

    Raises:
        Refused: torch cannot express the module in ONNX; says what it stumbled over.
    """
    rows = [torch.from_numpy(array.copy()) for array in sample.first(2).values()]
    batch = torch.export.Dim("batch")
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                tuple(rows),
                dynamo=True,
                input_names=list(sample.inputs),
                output_names=list(outputs),
                dynamic_shapes=tuple({0: batch} for _ in rows),
                verbose=False,
            )
    except ImportError as missing:
        raise Refused(f"{missing.name} is not installed: pip install 'perch[export]'") from missing
    except Exception as error:  # the exporter wraps whatever goes wrong in classes of its own
        raise Refused(f"torch cannot write this model as ONNX: {_cause(error)}") from error
    return finished(program.model_proto, metadata or {})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporter says along the way: of packages it could use, and of its own deprecations."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


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
