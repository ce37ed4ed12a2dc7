"""What a LightGBM file says of categories: which of them a node sends left, and what they were called in training.

    tree:     cat_boundaries=0 1 3 · cat_threshold=37 0 4     sets of bits: {0, 2, 5} in one word, {34} in two
              threshold of a node that splits by categories: the number of its set
    the end:  [categorical_feature: 1,2] · pandas_categorical:[["a", "b"], [3, 7]]

The names are those of pandas' columns of categories, in the order of columns; which ones they are stands nowhere. They
are the model's categorical features, unless somebody ordered the categories or named other columns. That shows if there
are more or fewer, or if training saw a code that has no name, and then the file is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .columns import Categories, named
from .errors import ArtifactRefused

NAMES, FEATURES = "pandas_categorical:", "[categorical_feature: "

_WAY_OUT = "train on unordered categories with categorical_feature='auto', or on codes of your own"


def pairs(
    nodes: NDArray[np.int64], numbers: NDArray[np.float64], boundaries: NDArray[Any], words: NDArray[Any], tree: int
) -> NDArray[np.int64]:
    """Return which categories each node of a tree has, as (node, category).

    Args:
        nodes: those that split by categories.
        numbers: the number of the set of each.
        boundaries: where the words of each set begin; one more for the end.
        words: 32 categories each, from 0 to below 2**32.
        tree: its number, for a refusal.

    Raises:
        ArtifactRefused: they do not fit together, or a set is empty.
    """
    count = len(boundaries) - 1
    fits = boundaries[0] == 0 and boundaries[-1] == len(words) and (boundaries[1:] > boundaries[:-1]).all()
    if not fits or not np.array_equal(np.sort(numbers), np.arange(count)):
        raise ArtifactRefused(f"tree {tree} has sets of categories that do not fit together")
    used = np.flatnonzero(words)
    bits = np.unpackbits(words[used].astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    word, bit = np.nonzero(bits)
    owner = np.empty(count, dtype=np.int64)
    owner[numbers.astype(np.int64)] = nodes
    of_set = np.searchsorted(boundaries, used, side="right") - 1
    found = np.stack([owner[of_set[word]], (used - boundaries[of_set])[word] * 32 + bit], axis=1)
    if len(np.unique(found[:, 0])) != count:
        raise ArtifactRefused(f"tree {tree} has a set of categories that is empty")
    return found


def names_of(end: Iterable[str], infos: str, features: int) -> dict[int, Categories]:
    """Return the names of categories by feature.

    Args:
        end: the lines behind the trees.
        infos: the header's line of what values each feature had.
        features: how many there are.

    Raises:
        ArtifactRefused: whose names they are is not clear, or they are no names.
    """
    said = {start: line for line in end for start in (NAMES, FEATURES) if line.startswith(start)}
    try:
        names = msgspec.json.decode(said.get(NAMES, "").removeprefix(NAMES) or "null", type=list[list[Any]] | None)
        listed = said.get(FEATURES, "").removeprefix(FEATURES).rstrip("]")
        columns = sorted(int(one) for one in listed.split(",") if one)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ArtifactRefused("the names of categories, or of what has them, cannot be read") from error
    if not names:
        return {}
    if (
        len(columns) != len(names)
        or len(set(columns)) != len(columns)
        or not all(0 <= one < features for one in columns)
    ):
        raise ArtifactRefused(
            f"there are names for {len(names)} columns of categories, and {len(columns)} features have any; {_WAY_OUT}"
        )
    found = {column: named(values) for column, values in zip(columns, names, strict=True)}
    _check_codes(found, infos.split(" "), features)
    return found


def _check_codes(names: Mapping[int, Categories], infos: list[str], features: int) -> None:
    """Compare names with the codes that training saw: `-1:0:2`, where a number has `[0:2]` and a lone value `none`."""
    if len(infos) != features:
        return
    for column, values in names.items():
        codes = infos[column].split(":") if infos[column] != "none" else []
        if not all(code.lstrip("-").isdecimal() and int(code[:10]) < len(values) for code in codes):
            raise ArtifactRefused(f"feature {column} had codes in training that its names do not have; {_WAY_OUT}")
