"""One run of a model for one request: its outputs, and the answer that is read out of them.

An endpoint with a cache (`cache`) answers from it what it was asked before. Values outside of the ranges that the
model's author declared are refused first, cached or not. Whatever a model raises is a failure of the request and never
of the process; the client is told what was raised, the log where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from . import telemetry
from .answer import Answer
from .errors import PredictionFailed, RequestRefused, UnusableAnswer
from .loading import Served, first_line
from .telemetry import Found

if TYPE_CHECKING:
    from .cache import Memo


class Inferred(NamedTuple):
    """What a model gave for `rows` rows: all outputs in its own order, and the answer if it can be read as one.

    `cache` says whether they come from the cache; None if there is none, or the request does not take part.
    """

    outputs: list[Any]
    rows: int
    answer: Answer | None
    cache: Found | None = None


def infer(served: Served, inputs: Mapping[str, NDArray[Any]], request_id: str, memo: Memo | None = None) -> Inferred:
    """Run a model on inputs by name, or find in `memo` what it gave for them before.

    Raises:
        RequestRefused: 400, a value is outside of its range, or a size of those that the model was made for.
        PredictionFailed: the model raised, or gave what is no answer.
    """
    interface = served.interface
    if interface.limits is not None:
        interface.limits.check(inputs)
    rows = interface.rows(inputs)
    try:
        if memo is None:
            outputs = served.model.run_named(inputs)
            return Inferred(outputs, rows, _read(served, outputs, rows))
        key = memo.key(served.pointer, inputs)
        kept = memo.get(key, lambda found: _may_be(served, found, rows))
        outputs = served.model.run_named(inputs) if kept is None else kept
        answer = _read(served, outputs, rows)
        if kept is None:
            memo.put(key, outputs)
        return Inferred(outputs, rows, answer, "miss" if kept is None else "hit")
    except RequestRefused:  # a size that the model was not made for
        raise
    except UnusableAnswer as error:
        raise PredictionFailed(str(error), rows) from error
    except Exception as error:
        telemetry.write_failure("predictor.model_raised", error, request_id=request_id)
        raise PredictionFailed(f"the model raised {type(error).__name__}: {first_line(error)}", rows) from error


def _may_be(served: Served, outputs: Sequence[Any], rows: int) -> bool:
    """Whether outputs that another process kept can be what the model gives: else they would fail in its name."""
    if not served.interface.fits(outputs):
        return False
    try:
        _read(served, outputs, rows)
    except Exception:  # noqa: BLE001 - whatever an array can be made so that it raises
        return False
    return True


def _read(served: Served, outputs: Sequence[Any], rows: int) -> Answer | None:
    return None if served.reading is None else served.reading.read(outputs, rows)
