"""Read an answer out of what a model gives: predictions, and probabilities where there are any.

The rule, learnt once from the outputs for a row of zeros:

1. A flat output of whole numbers or strings holds the labels: it is the predictions (scikit-learn's classifiers).
2. A matrix of numbers with two columns or more holds scores, one column a class. Without labels the prediction is the
   number of the highest column. What the scores mean is what the artifact declares in `perch.output`; without a
   declaration, rows that are not negative and sum to 1 are probabilities; and otherwise, without labels, they are taken
   for logits and normalised with softmax. Scores beside labels that are no probabilities (distances, margins) are left
   out of the answer.
3. One column of numbers, or `perch.output` = `values`: the predictions are the numbers (regression).

The first output of each kind counts. scikit-learn's ZipMap (a dict per row) is read as a matrix of scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from perch.artifacts.outputs import MEANINGS

from .errors import UnusableAnswer
from .tensors import is_finite


class Answer(NamedTuple):
    """Predictions for n rows (array or list of n), and probabilities (n by classes) or None."""

    predictions: Any
    probabilities: NDArray[Any] | None

    def to_json(self) -> dict[str, Any]:
        """Return what is told of it."""
        if self.probabilities is None:
            return {"predictions": self.predictions}
        return {"predictions": self.predictions, "probabilities": self.probabilities}


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Where in a model's outputs the answer is.

    `labels`, `scores` and `values` are positions; `meaning` says what the scores are: `probabilities`, `logits`, or
    None when they are nothing to publish. Without `values` or `labels` there are always scores with a meaning.
    """

    labels: int | None = None
    scores: int | None = None
    values: int | None = None
    meaning: str | None = None

    def read(self, outputs: Sequence[Any], rows: int) -> Answer:
        """Turn the outputs for `rows` rows into an answer. Raises `UnusableAnswer`."""
        if self.values is not None:
            return Answer(_checked(outputs[self.values], rows, flat=True), None)
        probabilities = None
        if self.scores is not None and self.meaning is not None:
            scores = _checked(_matrix(outputs[self.scores]), rows)
            probabilities = scores if self.meaning == "probabilities" else softmax(scores)
        if self.labels is not None:
            return Answer(_checked(outputs[self.labels], rows, flat=True), probabilities)
        return Answer(None if probabilities is None else probabilities.argmax(axis=1), probabilities)


def learn_reading(outputs: Sequence[Any], declared: str | None) -> Reading:
    """Decide from the outputs for one row how this model's answers are read. Raises `UnusableAnswer`."""
    if declared is not None and declared not in MEANINGS:
        raise UnusableAnswer(f"perch.output is {declared!r}; it can be {', '.join(MEANINGS)}")
    numbers = [i for i, output in enumerate(outputs) if isinstance(output, np.ndarray) and output.dtype.kind == "f"]
    labels = next((i for i, output in enumerate(outputs) if _is_labels(output)), None)
    scores = next((i for i, output in enumerate(outputs) if _is_scores(output)), None)
    if declared == "values" and numbers:
        return Reading(values=numbers[0])
    if scores is not None:
        fallback = None if labels is not None else "logits"
        meaning = declared or ("probabilities" if _normalised(_matrix(outputs[scores])) else fallback)
        return Reading(labels=labels, scores=scores, meaning=meaning)
    if labels is not None:
        return Reading(labels=labels)
    column = next((i for i in numbers if outputs[i].size == 1 and outputs[i].ndim <= 2), None)
    if column is not None and declared is None:
        return Reading(values=column)
    shapes = ", ".join(str(list(getattr(output, "shape", ()))) for output in outputs)
    raise UnusableAnswer(
        f"its outputs (shapes {shapes} for one row) hold neither labels, nor one column per class, nor one number; "
        "declare perch.output in the artifact's metadata"
    )


def softmax(scores: NDArray[Any]) -> NDArray[Any]:
    """Normalise each row to sum to 1."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    normalised: NDArray[Any] = powers / powers.sum(axis=1, keepdims=True)
    return normalised


def _checked(output: NDArray[Any], rows: int, *, flat: bool = False) -> Any:
    """The output, sure to have one finite answer a row; one column becomes a flat list."""
    if flat and output.ndim == 2 and output.shape[1] == 1:
        output = output.ravel()
    if output.ndim == 0 or len(output) != rows:
        raise UnusableAnswer(f"the model gave {len(output) if output.ndim else 1} answers for {rows} rows")
    if output.dtype.kind == "f" and not is_finite(output):
        bad = np.argwhere(~np.isfinite(output))[0][0]
        raise UnusableAnswer(f"the model answered NaN or infinity for row {bad + 1}")
    return output.tolist() if output.dtype.kind == "O" else np.ascontiguousarray(output)


def _matrix(output: Any) -> NDArray[Any]:
    """Scores as an array; a ZipMap gives a list of dicts, whose order is that of the classes."""
    if isinstance(output, list):
        return np.array([list(row.values()) for row in output], dtype=np.float32)
    matrix: NDArray[Any] = output
    return matrix


def _is_labels(output: Any) -> bool:
    return isinstance(output, np.ndarray) and output.dtype.kind in "iuO" and output.size == 1 and output.ndim <= 2


def _is_scores(output: Any) -> bool:
    if isinstance(output, list):
        return len(output) == 1 and isinstance(output[0], dict) and len(output[0]) >= 2
    return isinstance(output, np.ndarray) and output.dtype.kind == "f" and output.ndim == 2 and output.shape[1] >= 2


def _normalised(scores: NDArray[Any]) -> bool:
    return bool((scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) < 1e-3).all())
