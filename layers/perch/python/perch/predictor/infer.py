"""One run of a model for one request: its outputs, and the answer that is read out of them.

Whatever a model raises is a failure of the request and never of the process; the client is told what was raised, the
log where.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from . import telemetry
from .answer import Answer
from .errors import PredictionFailed, UnusableAnswer
from .loading import Served, first_line


class Inferred(NamedTuple):
    """What a model gave for `rows` rows: all outputs in its own order, and the answer if it can be read as one."""

    outputs: list[Any]
    rows: int
    answer: Answer | None


def infer(served: Served, inputs: Mapping[str, NDArray[Any]], request_id: str) -> Inferred:
    """Run a model on inputs by name. Raises `PredictionFailed`."""
    rows = served.interface.rows(inputs)
    try:
        outputs = served.model.run_named(inputs)
        answer = None if served.reading is None else served.reading.read(outputs, rows)
    except UnusableAnswer as error:
        raise PredictionFailed(str(error), rows) from error
    except Exception as error:
        telemetry.write_failure("predictor.model_raised", error, request_id=request_id)
        raise PredictionFailed(f"the model raised {type(error).__name__}: {first_line(error)}", rows) from error
    return Inferred(outputs, rows, answer)
