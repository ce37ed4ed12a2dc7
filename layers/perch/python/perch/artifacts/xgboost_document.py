"""The document in an XGBoost file, JSON or UBJSON, as typed values: lists, numbers and texts, of bounded size.

    {"version", "learner": {"objective": {"name"}, "learner_model_param": {…}, "attributes": {…}, "feature_names": […],
                            "gradient_booster": {"name", "model": {"trees": […], "tree_info": […], "cats": {…}}}}}

Fields of a learner that do not bear on an answer are passed over; where one would (the booster and its model), a field
that is not known here is refused. What the values mean, and whether they fit together, is looked at in `xgboost_file`.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from .data import Data
from .errors import ArtifactRefused
from .trees import MAX_BYTES
from .ubjson import read_ubjson
from .xgboost_categories import Cats

MAX_NUMBERS = 12_000_000
"""What bounds the memory that they take when they are read (up to 32 bytes each); in JSON a comma counts as one."""

_UNUSED = frozenset({"base_weights", "loss_changes", "parents", "sum_hessian"})
"""Lists as long as the tree that no answer needs."""


class LearnerParam(msgspec.Struct):
    """Sizes, and what every sum begins with, as texts."""

    num_feature: str
    num_class: str = "0"
    num_target: str = "1"
    base_score: str = "5E-1"


class ObjectiveName(msgspec.Struct):
    """What it was trained for."""

    name: str


class TreeParam(msgspec.Struct):
    """How many values a leaf has, as a text."""

    size_leaf_vector: str = "1"


class Tree(msgspec.Struct):
    """The nodes of one tree, one list a property."""

    tree_param: TreeParam
    left_children: list[int]
    right_children: list[int]
    split_indices: list[int]
    split_conditions: list[float]
    default_left: list[int | bool]
    split_type: list[int] = []
    categories: list[int] = []
    categories_nodes: list[int] = []
    categories_segments: list[int] = []
    categories_sizes: list[int] = []
    leaf_weights: list[float] = []


class BoosterParam(msgspec.Struct):
    """How many trees an iteration adds for each output, as a text."""

    num_parallel_tree: str = "1"


class Model(msgspec.Struct, forbid_unknown_fields=True):  # what it does not know, it would answer without
    """Trees and the output that each adds to, or the weights of a linear model."""

    gbtree_model_param: BoosterParam = msgspec.field(default_factory=BoosterParam)
    trees: list[Tree] = []
    tree_info: list[int] = []
    cats: Cats = msgspec.field(default_factory=Cats)
    weights: list[float] = []
    weight_drop: list[float] = []
    iteration_indptr: list[int] = []
    boosted_rounds: int = 0


class Nested(msgspec.Struct, forbid_unknown_fields=True):
    """The trees inside of a booster that drops some (DART)."""

    model: Model
    name: str = ""


class Booster(msgspec.Struct, forbid_unknown_fields=True):
    """Trees, trees with dropout, or a linear model."""

    name: str
    model: Model | None = None
    gbtree: Nested | None = None
    weight_drop: list[float] = []


class Learner(msgspec.Struct):
    """The model."""

    learner_model_param: LearnerParam
    objective: ObjectiveName
    gradient_booster: Booster
    attributes: dict[str, str] = {}
    feature_names: list[str] = []


class Document(msgspec.Struct):
    """The whole file."""

    learner: Learner
    version: list[int] = []


def read_document(data: Data) -> Document:
    """Read an XGBoost file. Raises `ArtifactRefused`."""
    if len(data) > MAX_BYTES:
        raise ArtifactRefused(f"the file has {len(data):,} bytes; XGBoost files of up to {MAX_BYTES:,} are served")
    if data[:1] != b"{":
        raise ArtifactRefused(
            "this is no XGBoost model in JSON or UBJSON; save it with Booster.save_model('model.ubj'), or .xgb.json"
        )
    is_json = bytes(data[1:2]) in b'" \t\r\n'
    try:
        if not is_json:
            value = read_ubjson(data)
            if (count := _kept(value)) > MAX_NUMBERS:
                raise ArtifactRefused(f"the model has {count:,} numbers; at most {MAX_NUMBERS:,} are served")
            return msgspec.convert(_plain(value), Document)
        if _count(data, b",") > MAX_NUMBERS:
            raise ArtifactRefused(f"the JSON has more than {MAX_NUMBERS:,} numbers; save the model as UBJSON (*.ubj)")
        return msgspec.json.decode(data, type=Document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactRefused(f"the file is not a readable XGBoost model: {str(error)[:200]}") from error


def _kept(value: Any) -> int:
    """How many numbers of arrays `_plain` would make objects of."""
    if isinstance(value, dict):
        return sum(_kept(one) for name, one in value.items() if name not in _UNUSED)
    return value.size if isinstance(value, np.ndarray) else sum(map(_kept, value)) if isinstance(value, list) else 0


def _plain(value: Any) -> Any:
    """UBJSON's arrays as lists, in the few places where the model has such."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items() if name not in _UNUSED}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _count(data: Data, wanted: bytes) -> int:
    view = memoryview(data)
    size = 2**20
    return sum(bytes(view[at : at + size]).count(wanted) for at in range(0, len(view), size))
