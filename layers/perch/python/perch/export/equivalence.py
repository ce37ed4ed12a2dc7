"""Do two models say the same? One sample through both, and what differs, in numbers.

    sample ─► before.run ─► outputs ─┐
          └─► after.run  ─► outputs ─┴─► per output: the largest and the mean difference
                                         per row: the same answer, read as the predictor reads it
                                         one row: how long each takes

A number has to lie within the tolerance times max(1, |before|): float32 keeps seven digits, so a prediction of 200,000
cannot be right to four decimals. Texts and whole numbers have to be equal. A share of rows may be off, because a number
that lies on the threshold of a tree falls to the other side when it is rounded; the report says how many are.
Whether two rows have the same answer is asked of what a client gets: the same label; where a model gives numbers only,
numbers within 1 % of what they span over the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perch.predictor.answer import Answer, learn_reading
from perch.predictor.errors import UnusableAnswer

from .sample import Sample

SPAN = 0.01
_CALLS, _LEAST_CALLS, _BUDGET_S = 200, 5, 0.5


class Runnable(Protocol):
    """One side of a comparison."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of what `run` gives."""

    @property
    def size(self) -> int | None:
        """Bytes of its file; None if it has none."""

    @property
    def output(self) -> str | None:
        """What its author declared that the output means (`perch.output`)."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Return all outputs, in the order of `outputs`; None for one that it cannot give."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One output: `max_scaled` is the largest of |difference| / max(1, |before|), which the tolerance bounds.

    Labels are not `numbers`: each is 0 or 1 off.
    """

    name: str
    numbers: bool
    max_abs: float
    mean_abs: float
    max_scaled: float


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What passes: so many rows have the same answer, and numbers within `tolerance` (None: not asked)."""

    tolerance: float | None
    min_agreement: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """How two models compare.

    Attributes:
        what: what was done to the first to get the second.
        sample: where the rows are from; `rows`: how many they are.
        outputs: each that both give.
        left_out: names of outputs that only one of them gives, or in another shape.
        rows_off: how many rows have a number that is not within the tolerance.
        agreement: share of rows with the same answer; None where the outputs hold no predictions.
        agree_by: `labels` or `values`.
        bytes_before, bytes_after: sizes of the files.
        ms_before, ms_after: median of one row.
        passed: whether all is within the limits; `reason` says by how much, or what is not.
    """

    what: str
    sample: str
    rows: int
    outputs: tuple[Difference, ...]
    left_out: tuple[str, ...]
    rows_off: int
    agreement: float | None
    agree_by: str | None
    bytes_before: int | None
    bytes_after: int | None
    ms_before: float
    ms_after: float
    tolerance: float | None
    min_agreement: float
    passed: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, strings and numbers."""
        return asdict(self)


def compare(
    before: Runnable, after: Runnable, sample: Sample, *, what: str, limits: Limits, clock: Callable[[], float]
) -> Report:
    """Send a sample through both models, which take the same inputs, and judge what comes back.

    Args:
        before: the model to be equalled.
        after: the model that has to.
        sample: rows for both.
        what: what was done, for the report.
        limits: what passes.
        clock: seconds, such as `time.perf_counter`.
    """
    old, new = before.run(sample.inputs), after.run(sample.inputs)
    given = dict(zip(after.outputs, new, strict=True))
    pairs = [(name, *_alike(value, given.get(name))) for name, value in zip(before.outputs, old, strict=True)]
    compared = {name: (a, b) for name, a, b in pairs if a is not None and b is not None}
    left_out = tuple(name for name in dict.fromkeys([*before.outputs, *after.outputs]) if name not in compared)
    gaps = {name: _gaps(a, b) for name, (a, b) in compared.items()}
    outputs = tuple(_difference(name, _is_real(compared[name][0]), *gaps[name]) for name in gaps)
    off = _rows_off([scaled for _, scaled in gaps.values()], limits.tolerance)
    agreement, agree_by = _agreement([a for a, _ in compared.values()], [b for _, b in compared.values()], before)
    passed, reason = _judge(outputs, off, agreement, limits, sample.rows)
    return Report(
        what=what,
        sample=sample.origin,
        rows=sample.rows,
        outputs=outputs,
        left_out=left_out,
        rows_off=off,
        agreement=agreement,
        agree_by=agree_by,
        bytes_before=before.size,
        bytes_after=after.size,
        ms_before=_latency_ms(before, sample, clock),
        ms_after=_latency_ms(after, sample, clock),
        tolerance=limits.tolerance,
        min_agreement=limits.min_agreement,
        passed=passed,
        reason=reason,
    )


def _alike(a: Any, b: Any) -> tuple[Any, Any]:
    """Both as arrays of one shape; a column counts as a flat list, as the predictor reads it. None if they differ."""
    if a is None or b is None:
        return None, None
    a, b = _array(a), _array(b)
    if a.shape != b.shape and a.size == b.size and len(a) == len(b):
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return (a, b) if a.shape == b.shape else (None, None)


def _array(output: Any) -> NDArray[Any]:
    if isinstance(output, list) and output and isinstance(output[0], dict):  # a ZipMap
        return np.array([list(row.values()) for row in output])
    array = np.asarray(output)
    return array.astype(np.int64) if array.dtype.kind == "b" else array  # ONNX has labels of 0 and 1 for them


def _is_real(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f"


def _gaps(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far each number is off, and how far as a share of max(1, |before|)."""
    if not (_is_real(a) or _is_real(b)):  # labels: a difference is a difference
        unequal = (a.astype(np.str_) != b.astype(np.str_)).astype(np.float64)
        return unequal, unequal
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        gap = np.where(np.isnan(gap), np.inf, gap)
        return gap, gap / np.maximum(1.0, np.nan_to_num(np.abs(a), nan=1.0, posinf=1.0))


def _difference(name: str, numbers: bool, gap: NDArray[np.float64], scaled: NDArray[np.float64]) -> Difference:
    if gap.size == 0:
        return Difference(name=name, numbers=numbers, max_abs=0.0, mean_abs=0.0, max_scaled=0.0)
    return Difference(
        name=name, numbers=numbers, max_abs=float(gap.max()), mean_abs=float(gap.mean()), max_scaled=float(scaled.max())
    )


def _rows_off(scaled: Sequence[NDArray[np.float64]], tolerance: float | None) -> int:
    if tolerance is None or not scaled:
        return 0
    off = [(one.reshape(len(one), -1) > tolerance).any(axis=1) for one in scaled]
    return int(np.logical_or.reduce(off).sum())


def _agreement(
    old: Sequence[NDArray[Any]], new: Sequence[NDArray[Any]], before: Runnable
) -> tuple[float | None, str | None]:
    """Share of rows with the same answer; the reading is learnt once, as the predictor learns it."""
    try:
        reading = learn_reading([array[:1] for array in old], before.output)
        rows = len(old[0])
        a, b = _predictions(reading.read(old, rows)), _predictions(reading.read(new, rows))
    except (UnusableAnswer, IndexError, ValueError):
        return None, None
    if not _is_real(a):
        return float(np.mean(a.astype(np.str_) == b.astype(np.str_))), "labels"
    span = float(a.max() - a.min()) or max(1.0, float(abs(a).max()))
    same = np.abs(a.astype(np.float64) - b).reshape(rows, -1).max(axis=1) <= SPAN * span
    return float(same.mean()), "values"


def _predictions(answer: Answer) -> NDArray[Any]:
    return np.asarray(answer.predictions)


def _judge(
    outputs: Sequence[Difference], off: int, agreement: float | None, limits: Limits, rows: int
) -> tuple[bool, str]:
    if not outputs:
        return False, "no output of the two models can be compared"
    if agreement is None and limits.tolerance is None:
        return False, "the outputs hold no predictions that could agree, and no tolerance was asked for"
    numbers = [one.max_abs for one in outputs if one.numbers]
    said = [f"at most {max(numbers):.3g} apart"] if numbers else []
    if off:
        said.append(f"{off:,} of {rows:,} rows are off by more than {limits.tolerance:g}")
    if agreement is not None:
        said.append(f"{agreement:.2%} of {rows:,} rows have the same answer")
    least = min(1 - off / rows, 1.0 if agreement is None else agreement)
    passed = least >= limits.min_agreement
    return passed, ", ".join(said) + ("" if passed else f"; asked for are {limits.min_agreement:.2%} of the rows")


def _latency_ms(model: Runnable, sample: Sample, clock: Callable[[], float]) -> float:
    """Median time of one row, over as many calls as fit into half a second, at most 200."""
    row = sample.first(1)
    model.run(row)
    taken: list[float] = []
    until = clock() + _BUDGET_S
    while len(taken) < _LEAST_CALLS or (len(taken) < _CALLS and clock() < until):
        began = clock()
        model.run(row)
        taken.append(clock() - began)
    return median(taken) * 1000
