"""Sets of categories as numbers: what lets an ONNX ensemble that only compares ask whether a category is in a set.

    row ─► code of each categorical feature ─► for each set, 0 (in it) or 1 ─► columns behind the row's own
    "town in {1, 4}?" becomes "column 17 < 0.5?"

ONNX knows sets (BRANCH_MEMBER). An exported file may meet an onnxruntime that unrolls each into a chain of comparisons
with a copy of the subtree at every link, so that sets inside of sets multiply; ours does not, and takes longer the
larger the set. Compared as numbers, nodes stay as many as they were and a set costs what a threshold costs. Of each
feature and each different set there is one column, looked up in a table of bytes; a category that no set names, and a
number that is none, have a place of their own in it, and so has a missing one, which each set sends its own way.

All tables together are bounded, since a file can name a high category in a few bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArtifactRefused
from .onnx_bytes import element, node

if TYPE_CHECKING:
    from .trees import Trees

MAX_SETS, MAX_TABLE = 100_000, 16_000_000
"""Different sets, and bytes of all tables."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sets:
    """What looks the sets up.

    Attributes:
        features: which ones have categories.
        limits: one more than the highest category that a set of each names.
        starts: where the places of each begin in `places`.
        places: the row of its feature's table in which a category stands; behind those of a feature come the ones of
            any other category and of a missing one.
        tables: of each feature, a row a category and a column a set: 0 if the category goes left, else 1.
    """

    features: NDArray[np.int64]
    limits: NDArray[np.int64]
    starts: NDArray[np.int64]
    places: NDArray[np.int32]
    tables: Sequence[NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """The different sets that trees ask for.

    `nodes` ask for the set of number `column`. Each of `features` has `sets`, counted on from one feature to the next:
    whether what is missing is in it, and which categories; `named` are all of the feature's.
    """

    nodes: NDArray[np.int64]
    column: NDArray[np.int64]
    features: NDArray[np.int64]
    sets: Sequence[Sequence[tuple[bool, NDArray[np.int64]]]]
    named: Sequence[NDArray[np.int64]]


def check_sets(trees: Trees) -> None:
    """Make sure that the tables of grown trees can be held. Raises `ArtifactRefused`."""
    if len(trees.members):
        _asked(trees)


def without_sets(trees: Trees, features: int) -> tuple[Trees, Sets]:
    """Return trees that compare numbers only, of rows with more columns, and what the columns are made of.

    Args:
        trees: grown, with members.
        features: how many columns a row has of its own.

    Raises:
        ArtifactRefused: the tables would be too large.
    """
    asked = _asked(trees)
    feature, value = trees.feature.copy(), trees.value.copy()
    feature[asked.nodes] = features + asked.column
    value[asked.nodes] = 0.5
    return replace(trees, feature=feature, value=value, members=trees.members[:0]), _sets(asked)


def _asked(trees: Trees) -> _Asked:
    nodes, first = np.unique(trees.members[:, 0], return_index=True)
    nodes_of: dict[int, dict[tuple[bool, bytes], list[int]]] = {}
    for one, members in zip(nodes.tolist(), np.split(trees.members[:, 1], first[1:]), strict=True):
        key = (bool(trees.missing_left[one]), members.tobytes())
        nodes_of.setdefault(int(trees.feature[one]), {}).setdefault(key, []).append(one)
    features = sorted(nodes_of)
    sets = [
        [(missing, np.frombuffer(members, dtype=np.int64)) for missing, members in nodes_of[feature]]
        for feature in features
    ]
    named = [np.unique(np.concatenate([members for _, members in several])) for several in sets]
    count = sum(map(len, sets))
    size = sum(len(several) * (len(one) + 2) + 4 * int(one[-1]) for several, one in zip(sets, named, strict=True))
    if count > MAX_SETS or size > MAX_TABLE:
        raise ArtifactRefused(
            f"the trees split by {count:,} sets of categories, of {size:,} bytes; at most {MAX_SETS:,} of "
            f"{MAX_TABLE:,} bytes are served: number categories from 0 on, put rare ones together, or train fewer trees"
        )
    askers = [asking for feature in features for asking in nodes_of[feature].values()]
    return _Asked(
        nodes=np.concatenate(askers),
        column=np.repeat(np.arange(count), [len(asking) for asking in askers]),
        features=np.array(features),
        sets=sets,
        named=named,
    )


def _sets(asked: _Asked) -> Sets:
    limits = np.array([categories[-1] + 1 for categories in asked.named])
    places, tables = [], []
    for limit, categories, several in zip(limits, asked.named, asked.sets, strict=True):
        place = np.full(limit + 2, len(categories), dtype=np.int32)
        place[categories] = np.arange(len(categories))
        place[limit + 1] = len(categories) + 1
        table = np.ones((len(categories) + 2, len(several)), dtype=np.uint8)
        for column, (missing, members) in enumerate(several):
            table[place[members], column] = 0
            table[-1, column] = not missing
        places.append(place)
        tables.append(table)
    return Sets(
        features=asked.features,
        limits=limits,
        starts=np.cumsum([0, *limits[:-1] + 2]),
        places=np.concatenate(places),
        tables=tables,
    )


def append_columns(
    sets: Sets,
    given: str,
    first_category: float,
    dtype: np.dtype[Any],
    nodes: list[bytes],
    constants: dict[str, NDArray[Any]],
) -> str:
    """Append to an ONNX graph what puts the columns of sets behind those of a matrix, and return its name.

    Args:
        sets: as above.
        given: the name of the matrix.
        first_category: the least number that is a category; a category is the whole part of its number.
        dtype: of the matrix.
        nodes: of the graph.
        constants: of the graph.
    """
    constants |= {
        "/features": sets.features,
        "/lowest": np.array(first_category, dtype=dtype),
        "/limits": sets.limits.astype(dtype),
        "/gaps": (sets.limits + 1).astype(dtype),
        "/starts": sets.starts,
        "/places": sets.places,
    }
    nodes += [
        node("Gather", [given, "/features"], ["/picked"], {"axis": 1}),
        node("GreaterOrEqual", ["/picked", "/lowest"], ["/not below"]),
        node("Less", ["/picked", "/limits"], ["/not above"]),
        node("And", ["/not below", "/not above"], ["/is named"]),
        node("Abs", ["/picked"], ["/positive"]),
        node("Floor", ["/positive"], ["/whole"]),
        node("Where", ["/is named", "/whole", "/limits"], ["/of present"]),
        node("IsNaN", ["/picked"], ["/is gap"]),
        node("Where", ["/is gap", "/gaps", "/of present"], ["/category"]),
        node("Cast", ["/category"], ["/category number"], {"to": element(np.dtype(np.int64))}),
        node("Add", ["/category number", "/starts"], ["/where"]),
        node("Gather", ["/places", "/where"], ["/place"]),
    ]
    columns = []
    for at, table in enumerate(sets.tables):
        constants |= {f"/at {at}": np.array(at), f"/table {at}": table}
        nodes += [
            node("Gather", ["/place", f"/at {at}"], [f"/place {at}"], {"axis": 1}),
            node("Gather", [f"/table {at}", f"/place {at}"], [f"/sides {at}"]),
        ]
        columns.append(f"/sides {at}")
    nodes += [
        node("Concat", columns, ["/sides as bytes"], {"axis": 1}),
        node("Cast", ["/sides as bytes"], ["/sides"], {"to": element(dtype)}),
        node("Concat", [given, "/sides"], ["/widened"], {"axis": 1}),
    ]
    return "/widened"
