"""A good file of every format that is served, small, to be damaged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def _onnx() -> bytes:
    from onnx import TensorProto, helper

    from tests.hostile.onnx_files import model

    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [3, 3], [0.5 * number for number in range(9)]),
        helper.make_tensor("b", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
    ]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Softmax", ["h"], ["y"], axis=1)]
    data: bytes = model(*nodes, weights=weights).SerializeToString()
    return data


def _rows() -> tuple[Any, Any]:
    import numpy as np

    rows = np.random.default_rng(0).normal(size=(40, 3))
    return rows, rows[:, 0] > 0


def _forest() -> bytes:
    from sklearn.ensemble import RandomForestClassifier

    from perch.export.sklearn_onnx import estimator_to_onnx

    return estimator_to_onnx(RandomForestClassifier(3, max_depth=3, random_state=0).fit(*_rows()))


def _module() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()


def _safetensors() -> bytes:
    from perch.export.torch_export import to_safetensors

    return to_safetensors(_module())


def _written(write: Callable[[Path], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        write(path)
        return path.read_bytes()


def _pt2() -> bytes:
    import torch

    from perch.export.torch_programs import export_pt2

    return _written(lambda path: export_pt2(_module(), path, torch.zeros(2, 3)))


def _torchscript() -> bytes:
    import torch

    from perch.export.torch_programs import export_torchscript

    return _written(lambda path: export_torchscript(_module(), path, torch.zeros(2, 3)))


def _state_dict() -> bytes:
    import json

    import torch

    from perch.export.torch_export import architecture_of

    module = _module()
    saved = {"perch.architecture": json.dumps(architecture_of(module)), "state_dict": module.state_dict()}
    return _written(lambda path: torch.save(saved, path))


def _xgboost(suffix: str) -> bytes:
    import xgboost

    rows, labels = _rows()
    options = {"objective": "binary:logistic", "max_depth": 2, "nthread": 1}
    grown = xgboost.train(options, xgboost.DMatrix(rows, labels), num_boost_round=2)
    return bytes(grown.save_raw(suffix))


def _lightgbm() -> bytes:
    import lightgbm

    rows, labels = _rows()
    options = {"objective": "binary", "max_depth": 2, "min_data_in_leaf": 2, "num_threads": 1, "verbose": -1}
    grown = lightgbm.train(options, lightgbm.Dataset(rows, labels), num_boost_round=2)
    return str(grown.model_to_string()).encode()


def _skops() -> bytes:
    import skops.io
    from sklearn.linear_model import LogisticRegression

    data: bytes = skops.io.dumps(LogisticRegression().fit(*_rows()))
    return data


def _joblib() -> bytes:
    import joblib
    from sklearn.linear_model import LogisticRegression

    return _written(lambda path: joblib.dump(LogisticRegression().fit(*_rows()), path))


GOOD: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "onnx": ("model.onnx", _onnx),
    "onnx (trees)": ("model.onnx", _forest),
    "safetensors": ("model.safetensors", _safetensors),
    "pt2": ("model.pt2", _pt2),
    "state_dict": ("model.pt", _state_dict),
    "torchscript": ("model.ts", _torchscript),
    "xgboost": ("model.xgb.json", lambda: _xgboost("json")),
    "xgboost (UBJSON)": ("model.ubj", lambda: _xgboost("ubj")),
    "lightgbm": ("model.lgb", _lightgbm),
    "skops": ("model.skops", _skops),
    "joblib": ("model.joblib", _joblib),
}
"""Format (and kind) → the name of a file and what builds it."""
