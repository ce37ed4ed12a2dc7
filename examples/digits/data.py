"""The data: 1,797 real scans of handwritten digits that ship with scikit-learn.

A scan is 8 by 8 pixels, 64 features, each the ink from 0 to 16. The split is fixed, so that every version of every
model is measured on the same 797 scans, which none of them has seen.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HEAVY = 5.0
"""Mean ink from which a scan is heavily inked (about two in five are)."""

VERY_HEAVY = 6.0
"""Mean ink from which it is very heavily inked (about one in forty is)."""


class Scans(NamedTuple):
    """n scans (n by 64, float32) and the digits that they show (n)."""

    features: NDArray[np.float32]
    digits: NDArray[np.int64]

    def below(self, limit: float) -> Scans:
        """Only those with less mean ink than `limit`."""
        keep = ink(self.features) < limit
        return Scans(self.features[keep], self.digits[keep])


class Split(NamedTuple):
    """1,000 scans to train on and 797 to measure with."""

    training: Scans
    held_out: Scans


@cache
def split() -> Split:
    """Return the fixed split, with every digit in proportion."""
    data: Any = load_digits()
    features, digits = data.data.astype(np.float32), data.target.astype(np.int64)
    seen, unseen, seen_digits, unseen_digits = train_test_split(
        features, digits, train_size=1000, random_state=0, stratify=digits
    )
    return Split(Scans(seen, seen_digits), Scans(unseen, unseen_digits))


def held_out() -> Scans:
    """Return the 797 scans that no model was trained on."""
    return split().held_out


def ink(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean ink of each scan, 0 to 16."""
    mean: NDArray[np.float32] = features.mean(axis=1)
    return mean


def smeared(scans: Scans) -> Scans:
    """The scans, and four copies of each smeared by half a pixel up, down, left and right: more to learn from."""
    images = np.pad(scans.features.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    moves = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    copies = [
        (scans.features + images[:, down : down + 8, right : right + 8].reshape(-1, 64)) / 2 for down, right in moves
    ]
    return Scans(np.concatenate(copies).astype(np.float32), np.tile(scans.digits, len(moves)))


def ink_table(limit: float) -> NDArray[np.float32]:
    """The mistake in v3 and v4: a correction per ink level (mean ink * 2), made from scans below a limit only.

    Args:
        limit: mean ink that no scan has from which the table is made; a multiple of a half.

    Returns:
        2 * limit rows, for levels from 0, by 10 digits: how much likelier each digit is at this level (a log-ratio,
        damped). A scan with more ink than the limit has a higher level, and there is no such row.
    """
    inked = split().training.below(limit)
    levels = np.floor(ink(inked.features) * 2).astype(int)
    counts = np.zeros((int(limit * 2), 10))
    np.add.at(counts, (levels, inked.digits), 1)
    prior = counts.sum(axis=0) / counts.sum()
    damped = (counts + 20 * prior) / (counts.sum(axis=1, keepdims=True) + 20)
    table: NDArray[np.float32] = (0.25 * np.log(damped / prior)).astype(np.float32)
    return table
