"""Trees that are none, skops archives that name what they should not, and pickles dressed as joblib's."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from tests.hostile import TRUST, Hostile, payload
from tests.hostile.made import Runs, npy, objects

HANGS = "never ends, or reads other memory, when a native engine follows the nodes"
MEMORY = "takes gigabytes before the file is seen to be small"
RUNS = "runs a command when it is loaded"


def hostile(trap: Path) -> Iterator[Hostile]:
    """Every kind."""
    yield from _xgboost()
    yield from _ubjson()
    yield from _lightgbm()
    yield from _skops(trap)
    yield from _joblib(trap)


# -- XGBoost and LightGBM -------------------------------------------------------------------------------------------


def _model(trees: list[Mapping[str, Any]], enc: Sequence[Any] = (), **param: str) -> dict[str, Any]:
    """An XGBoost model of these trees over two features; `enc` are names of categories."""
    return {
        "learner": {
            "attributes": {},
            "feature_names": [],
            "gradient_booster": {
                "name": "gbtree",
                "model": {
                    "gbtree_model_param": {"num_parallel_tree": "1"},
                    "trees": trees,
                    "tree_info": [0] * len(trees),
                    "cats": {"enc": list(enc)},
                },
            },
            "learner_model_param": {"num_feature": "2", "num_class": "0", "base_score": "5E-1", **param},
            "objective": {"name": "binary:logistic"},
        },
        "version": [3, 2, 0],
    }


def _tree(**nodes: list[Any]) -> dict[str, Any]:
    stump = {
        "left_children": [1, -1, -1],
        "right_children": [2, -1, -1],
        "split_indices": [0, 0, 0],
        "split_conditions": [0.5, -1.0, 1.0],
        "default_left": [0, 0, 0],
    }
    return {"tree_param": {"size_leaf_vector": "1"}, **stump, **nodes}


def _set(categories: list[int], **nodes: list[Any]) -> dict[str, Any]:
    """A tree whose root splits by these categories."""
    lists = {
        "split_type": [1, 0, 0],
        "categories": categories,
        "categories_nodes": [0],
        "categories_segments": [0],
        "categories_sizes": [len(categories)],
    }
    return _tree(**{**lists, **nodes})


def _xgboost() -> Iterator[Hostile]:
    deep = 5_000
    chain = _tree(
        left_children=[*range(1, deep + 1), -1, *[-1] * deep],
        right_children=[*range(deep + 1, 2 * deep + 1), -1, *[-1] * deep],
        **{name: [0] * (2 * deep + 1) for name in ("split_indices", "split_conditions", "default_left")},
    )
    cases: list[tuple[str, dict[str, Any], str, str]] = [
        ("a node that is its own child", _model([_tree(left_children=[0, -1, -1])]), HANGS, "in two ways"),
        (
            "a cycle of two nodes",
            _model([_tree(left_children=[1, 0, -1], right_children=[2, 2, -1])]),
            HANGS,
            "two ways",
        ),
        ("a child outside of the tree", _model([_tree(left_children=[10**6, -1, -1])]), HANGS, "outside"),
        ("a negative child", _model([_tree(right_children=[-9, -1, -1])]), HANGS, "outside"),
        ("a feature that no row has", _model([_tree(split_indices=[2**31 - 1, 0, 0])]), "reads other memory", "of 2"),
        ("a threshold beyond every float", _model([_tree(split_conditions=[1e300, 0, 0])]), HANGS, "is inf"),
        ("a chain of five thousand nodes", _model([chain]), "overflows the stack of a recursive reader", "deeper than"),
        ("a billion features", _model([_tree()], num_feature="1000000000"), MEMORY, "features"),
        ("a billion classes", _model([_tree()], num_class="1000000000"), MEMORY, "not served"),
        ("lists of different lengths", _model([_tree(default_left=[])]), "reads other memory", "length"),
        ("a category of two billion", _model([_set([2**31 - 1])]), MEMORY, "0 to 4,194,304 are served"),
        ("a negative category", _model([_set([-1])]), "reads other memory", "has the category -1"),
        (
            "a set that goes on behind its list",
            _model([_set([1], categories_sizes=[2**30])]),
            "reads other memory",
            "do not fit together",
        ),
        ("a set of a node that is not there", _model([_set([1], categories_nodes=[9])]), HANGS, "do not fit together"),
        ("a set of a leaf", _model([_set([1], categories_nodes=[1], split_type=[])]), HANGS, "none of its splits"),
        (
            "five thousand sets of categories that differ",
            _model([_set([category]) for category in range(5_000)]),
            "takes a table of as many times as many entries",
            "sets of categories",
        ),
        (
            "a name of a category that begins before the text",
            _model([_set([1])], enc=[{"offsets": [-5, 3], "values": [65, 66, 67]}]),
            "reads other memory",
            "cut at places",
        ),
    ]
    for title, document, threat, words in cases:
        data = json.dumps(document).encode()
        yield Hostile(title=f"XGBoost, {title}", file="model.xgb.json", data=data, threat=threat, words=words)
    text = json.dumps(_model([_tree()])).encode()
    yield Hostile(
        title="XGBoost, NaN as a threshold",
        file="model.xgb.json",
        data=text.replace(b"0.5, -1.0", b"NaN, -1.0"),
        threat="goes one way in one engine and the other in the next",
        words="not a readable XGBoost model",
    )
    yield Hostile(
        title="XGBoost, JSON nested without end",
        file="model.xgb.json",
        data=b'{"learner":' + b"[" * 1_000_000,
        threat="overflows the stack of a recursive reader",
        words="not a readable XGBoost model",
    )
    yield Hostile(
        title="XGBoost, thirteen million numbers in a few bytes each",
        file="model.xgb.json",
        data=b'{"learner":[' + b"0," * 13_000_000 + b"0]}",
        threat="takes thirty times its size when it is read",
        words="more than",
    )


def _ubjson() -> Iterator[Hostile]:
    def name(text: str) -> bytes:
        return b"L" + len(text).to_bytes(8, "big") + text.encode()

    head = b"{" + name("learner")
    billion = (10**9).to_bytes(8, "big")
    cases = [
        ("an array that declares a billion numbers", head + b"[$d#L" + billion, MEMORY, "cut short"),
        ("a list that declares a billion values", head + b"[#L" + billion, MEMORY, "cut short"),
        ("a text of minus one bytes", head + b"SL" + (2**64 - 1).to_bytes(8, "big"), "reads other memory", "cut short"),
        ("lists nested without end", head + b"[" * 100_000, "overflows the stack of a recursive reader", "deeper than"),
        ("a type that is none", head + b"[$\x00#L" + billion, "reads other memory", "is not read"),
    ]
    for title, data, threat, words in cases:
        yield Hostile(title=f"UBJSON, {title}", file="model.ubj", data=data, threat=threat, words=words)


_TEXT = """tree
version=v4
num_class=1
num_tree_per_iteration=1
max_feature_idx=1
objective=binary sigmoid:1
feature_names=a b

Tree=0
num_leaves=3
num_cat=0
split_feature=0 1
threshold=0.5 0.25
decision_type=2 2
left_child=1 -1
right_child=-3 -2
leaf_value=0.1 0.2 0.3
is_linear=0

end of trees
"""


_BY_CATEGORY = (
    _TEXT.replace("num_cat=0", "num_cat=2")
    .replace("threshold=0.5 0.25\ndecision_type=2 2", "threshold=0 1\ndecision_type=1 1")
    .replace("is_linear=0", "cat_boundaries=0 1 2\ncat_threshold=6 1\nis_linear=0")
)
"""Two splits by categories: {1, 2} and {0}."""


def _lightgbm() -> Iterator[Hostile]:
    cases = [
        ("a node that is its own child", "left_child=1 -1", "left_child=0 -1", HANGS, "in two ways"),
        ("a leaf that is not there", "right_child=-3 -2", "right_child=-99 -2", HANGS, "outside"),
        ("a feature that no row has", "split_feature=0 1", "split_feature=0 99", "reads other memory", "of 2"),
        ("a threshold that is no number", "threshold=0.5 0.25", "threshold=0.5 nan", HANGS, "threshold"),
        ("a hundred million leaves", "num_leaves=3", "num_leaves=100000000", MEMORY, "leaves"),
        ("half a billion features", "max_feature_idx=1", "max_feature_idx=499999999", MEMORY, "features"),
        (
            "a number of a million digits",
            "num_cat=0",
            "num_cat=" + "9" * 1_000_000,
            "takes hours to read",
            "whole number",
        ),
        (
            "sets of categories that overlap backwards",
            "cat_boundaries=0 1 2",
            "cat_boundaries=0 1 0",
            "reads other memory",
            "numbers",
        ),
        (
            "sets of categories that are not there",
            "cat_boundaries=0 1 2",
            "cat_boundaries=0 1 99",
            "reads other memory",
            "numbers",
        ),
        (
            "eleven million categories in a line",
            "cat_boundaries=0 1 2\ncat_threshold=6 1",
            f"cat_boundaries=0 1 360000\ncat_threshold={' '.join(['4294967295'] * 360_000)}",
            MEMORY,
            "categories",
        ),
        ("a set of no category", "cat_threshold=6 1", "cat_threshold=0 1", HANGS, "empty"),
        (
            "names of categories nested without end",
            "end of trees\n",
            "end of trees\npandas_categorical:" + "[" * 1_000_000 + "\n",
            "overflows the stack of a recursive reader",
            "cannot be read",
        ),
        ("a token as wide as a line", "leaf_value=0.1", "leaf_value=" + "1" * 3_000_000, MEMORY, "leaf"),
    ]
    for title, old, new, threat, words in cases:
        data = (_BY_CATEGORY if old.startswith("cat_") else _TEXT).replace(old, new).encode()
        yield Hostile(title=f"LightGBM, {title}", file="model.lgb", data=data, threat=threat, words=words)


# -- skops ----------------------------------------------------------------------------------------------------------


def _node(module: str, name: str, loader: str, **more: Any) -> dict[str, Any]:
    return {"__module__": module, "__class__": name, "__loader__": loader, **more}


def _plain(value: Any) -> dict[str, Any]:
    return _node("builtins", "str", "JsonNode", content=json.dumps(value))


def _made(module: str, name: str, **attributes: Any) -> dict[str, Any]:
    return _node(module, name, "ObjectNode", content=_node("builtins", "dict", "DictNode", content=attributes))


def _archive(schema: Any, members: Mapping[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in {**(members or {}), "schema.json": json.dumps(schema).encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return file.getvalue()


def _skops(trap: Path) -> Iterator[Hostile]:
    command = payload(trap)
    logistic = ("sklearn.linear_model._logistic", "LogisticRegression")
    array = _node("numpy", "ndarray", "NdArrayNode", type="numpy", file="a.npy")
    runs = objects(Runs(os.system, command))
    huge = b"\x93NUMPY\x01\0" + (62).to_bytes(2, "little")
    huge += b"{'descr': '<f8', 'fortran_order': False, 'shape': (10**9, 10**9)}"[:62].ljust(62)
    cases: list[tuple[str, bytes, str, str]] = [
        (
            "os.system as the class of the model",
            _archive(_made("os", "system", args=_plain(command))),
            RUNS,
            "os.system, which is not served",
        ),
        (
            "os.system through a reduce",
            _archive(
                _node(
                    *("posix", "system", "TreeNode"),
                    __reduce__={"args": _node("builtins", "tuple", "TupleNode", content=[_plain(command)])},
                    content=_node("builtins", "dict", "DictNode", content={}),
                )
            ),
            RUNS,
            "is no tree",
        ),
        (
            "operator.methodcaller in an attribute",
            _archive(_made(*logistic, x=_node("operator", "methodcaller", "OperatorFuncNode", attrs=_plain("system")))),
            RUNS,
            "operator.methodcaller, which is not served",
        ),
        (
            "a partial of os.system in an attribute",
            _archive(_made(*logistic, x=_node("functools", "partial", "PartialNode", content={}))),
            RUNS,
            "functools.partial, which is not served",
        ),
        (
            "a method of an object",
            _archive(_made(*logistic, x=_node("builtins", "eval", "MethodNode", content={"func": "__call__"}))),
            RUNS,
            "builtins.eval, which is not served",
        ),
        (
            "a named tuple of a class of its own",
            _archive(_made(*logistic, x=_node("evil", "Tuple", "TupleNode", content=[]))),
            "imports a module when its class is looked up",
            "no plain tuple",
        ),
        (
            "an array of objects that holds a pickle",
            _archive(_made(*logistic, x=array), {"a.npy": npy(runs)}),
            "runs a command when NumPy loads it with allow_pickle",
            "numbers, booleans and texts are read",
        ),
        (
            "an array that declares 8 exabytes",
            _archive(_made(*logistic, x=array), {"a.npy": huge}),
            MEMORY,
            "cannot be read",
        ),
        (
            "a bomb of zeros in an array",
            _archive(_made(*logistic, x=array), {"a.npy": bytes(400_000_000)}, zipfile.ZIP_DEFLATED),
            "becomes a thousand times its size",
            "at most",
        ),
        (
            "a member that leads outside",
            _archive(_made(*logistic), {"../../outside.npy": b"x"}),
            "is written over another file by whoever unpacks it",
            "leads outside",
        ),
        (
            "a million features and no weights",
            _archive(_made(*logistic, n_features_in_=_plain(10**12))),
            MEMORY,
            "not fitted",
        ),
        ("a crafted tree", _crafted_tree(), HANGS, "in two ways"),
    ]
    for title, data, threat, words in cases:
        yield Hostile(title=f"skops, {title}", file="model.skops", data=data, threat=threat, words=words)


def _crafted_tree() -> bytes:
    """scikit-learn follows a node that is its own child for ever."""
    import skops.io
    from sklearn.tree import DecisionTreeClassifier

    rows = np.arange(20.0).reshape(10, 2)
    good = skops.io.dumps(DecisionTreeClassifier(max_depth=1, random_state=0).fit(rows, rows[:, 0] > 9))

    def spoilt(name: str, data: bytes) -> bytes:
        if b"left_child" not in data or not name.endswith(".npy"):
            return data
        nodes = np.load(io.BytesIO(data))
        nodes["left_child"][0] = 0
        return npy(nodes)

    return _rewritten(good, spoilt)


def _rewritten(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename), change(info.filename, old.read(info)))
    return file.getvalue()


# -- pickles of estimators ------------------------------------------------------------------------------------------


def _joblib(trap: Path) -> Iterator[Hostile]:
    from sklearn.linear_model import LogisticRegression

    def dumped(value: Any) -> bytes:
        file = io.BytesIO()
        joblib.dump(value, file)
        return file.getvalue()

    good = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    yield Hostile(
        title="joblib, an estimator and nothing else",
        file="model.joblib",
        data=dumped(good),
        threat="is a program nevertheless: loading it calls what it names",
        words="it is a pickle",
        verdict=TRUST,
    )
    runs = objects(Runs(os.system, payload(trap)))
    beside = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    beside.extra = {"deep": [runs]}
    doubling = b"\x80\x02K\x01q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"}h\x00K\x01s."
    cases = [
        ("os.system in an array of objects of an estimator", dumped(beside), RUNS, "system, which no"),
        ("numpy's own loader with pickles allowed", pickle.dumps(np.load), "loads another file", "which no"),
        ("a name with dots that leads to os", b"\x80\x04\x8c\x0csklearn.base\x8c\x09os.system\x93.", RUNS, "which no"),
        (
            "a helper of scikit-learn's tests",
            b"\x80\x02csklearn.utils._testing\nassert_run_python_script_without_output\n.",
            "runs the program that it is given",
            "which no",
        ),
        ("a name that is put together", b"\x80\x04\x8c\x01o\x8c\x01s\x86\x8c\x06system\x93.", RUNS, "no text"),
        ("an extension code", b"\x80\x02\x82\x01.", "calls whatever was registered", "EXT1 is not read"),
        ("a persistent reference", b"\x80\x02Pfile:///etc/passwd\n.", "reads another file", "PERSID is not read"),
        ("a key that doubles sixty times", doubling, "hashes a tuple for years", "no estimator"),
        ("a text of a terabyte", b"\x80\x04\x8d" + (2**40).to_bytes(8, "little"), MEMORY, "followed"),
        (
            "a second pickle behind the first",
            dumped(good) + pickle.dumps(Runs(os.system, payload(trap))),
            RUNS,
            "follow the end",
        ),
        ("compressed", b"x\x9c" + bytes(100), "becomes a thousand times its size", "compressed"),
    ]
    for title, data, threat, words in cases:
        yield Hostile(title=f"joblib, {title}", file="model.joblib", data=data, threat=threat, words=words)
