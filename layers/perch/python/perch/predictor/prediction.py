"""The Prediction metric: one number that stands for what a request was answered.

Predictions are compared between revisions by how they are distributed, so each request gives one number, that of its
first row: the rows of a request are often alike, and counting all of them would make one client look like many.

    a whole number from 0 on   itself: the class
    a text label               its CRC-32 modulo 16; two labels may share a number, and then a shift between them hides
    any other number v         1 + v from 0 on, 1 / (1 - v) below: it grows as v does and is above 0, because
                               CloudWatch has no percentiles of negative numbers

CloudWatch interpolates inside its own bins when it counts over a range. Neighbouring classes are told apart well where
they differ by more than a tenth or so; of a hundred classes the upper ones are counted with their neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

BUCKETS = 16
_LEAST, _MOST = 1e-100, 1e100  # CloudWatch takes no number that is closer to 0, or farther from it


def as_number(predictions: NDArray[Any] | Sequence[Any]) -> float | None:
    """Return the number of the first of `predictions` (one or more), None if it is neither a number nor a text.

    Of a row that holds several numbers, the first counts.
    """
    first = predictions.item(0) if isinstance(predictions, np.ndarray) else predictions[0]
    if isinstance(first, str):
        return crc32(first.encode("utf-8", "replace")) % BUCKETS
    if not isinstance(first, (int, float)) or not math.isfinite(first):
        return None
    if isinstance(first, int) and first >= 0:
        return min(int(first), _MOST)
    return min(1.0 + first, _MOST) if first >= 0 else max(1 / (1.0 - first), _LEAST)
