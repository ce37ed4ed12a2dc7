"""What an XGBoost file says of categories: which of them a node sends right, and what they were called in training.

    tree: categories [0 2 5 1], of node 0 from 0 on two of them, of node 3 from 2 on two of them
    cats: {"enc": [one a feature: {} | {"type", "values": [3 7 11]} | {"offsets": [0 1 3], "values": bytes of texts}]}

Names are there since XGBoost 3.1, if it was trained on a data frame; before, and without one, rows hold the codes.
From pandas, XGBoost 3.2 takes as many bytes of all names as they have characters: of "Zürich", "Bern" it keeps "Züric",
"hBer". What was lost cannot be told from the file, so names are ASCII here or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .columns import Categories, named
from .errors import ArtifactRefused

_BITS = {10: 8, 12: 16, 14: 32, 16: 64}  # types of whole numbers without a sign, which UBJSON writes as those with one


class Encoded(msgspec.Struct):
    """The names of one feature's categories."""

    values: list[int] = []
    offsets: list[int] | None = None
    type: int = 0


class Cats(msgspec.Struct):
    """The names of all features' categories; none, or one entry a feature."""

    enc: list[Encoded] = []


def pairs(
    categories: Sequence[int], nodes: Sequence[int], segments: Sequence[int], sizes: Sequence[int], number: int
) -> NDArray[np.int64]:
    """Return which categories each node of a tree has, as (node, category).

    Args:
        categories: of all nodes, end to end.
        nodes: those that have any.
        segments: where the categories of each begin.
        sizes: how many each has.
        number: of the tree, for a refusal.

    Raises:
        ArtifactRefused: the lists do not fit together.
    """
    try:
        first, count = np.array(segments, dtype=np.int64), np.array(sizes, dtype=np.int64)
        owners, found = np.array(nodes, dtype=np.int64), np.array(categories, dtype=np.int64)
    except OverflowError as error:
        raise ArtifactRefused(f"tree {number} has a category of more than 64 bits") from error
    fits = len(first) == len(count) == len(owners) and bool((count > 0).all() and (count <= len(found)).all())
    if not fits or count.sum() != len(found) or (first != np.cumsum(count) - count).any():
        raise ArtifactRefused(f"tree {number} has lists of categories that do not fit together")
    return np.stack([np.repeat(owners, count), found], axis=1)


def names_of(cats: Cats) -> dict[int, Categories]:
    """Return the names of categories by feature. Raises `ArtifactRefused`."""
    return {feature: named(_values(one)) for feature, one in enumerate(cats.enc) if one.values}


def _values(one: Encoded) -> list[Any]:
    if one.offsets is None:
        bits = _BITS.get(one.type)
        return [value % 2**bits for value in one.values] if bits else one.values
    text, ends = bytes(value & 0x7F for value in one.values), one.offsets
    if any(not 0 <= value < 0x80 for value in one.values):
        raise ArtifactRefused(
            "a category's name is not ASCII, and XGBoost cuts such names when it is trained on pandas; rename it"
        )
    if ends[:1] != [0] or ends[-1] != len(text) or any(end < start for start, end in pairwise(ends)):
        raise ArtifactRefused("the names of categories are cut at places that are none")
    return [str(text[start:end], "ascii") for start, end in pairwise(ends)]
