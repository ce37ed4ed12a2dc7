"""Gradient-boosted trees on onnxruntime: read in Python, checked, written as ONNX in memory, run like any ONNX file."""

from __future__ import annotations

from perch.artifacts.data import Data
from perch.artifacts.lightgbm_file import read_lightgbm
from perch.artifacts.trees import Forest
from perch.artifacts.trees_onnx import to_onnx
from perch.artifacts.xgboost_file import read_xgboost

from .onnx import OnnxModel


class TreesModel(OnnxModel):
    """A session over the trees; elements of its rows may be missing."""

    def __init__(self, forest: Forest) -> None:
        super().__init__(to_onnx(forest))
        self.signature = forest.signature


def load_xgboost(data: Data) -> TreesModel:
    """Load a verified XGBoost file."""
    return TreesModel(read_xgboost(data))


def load_lightgbm(data: Data) -> TreesModel:
    """Load a verified LightGBM file."""
    return TreesModel(read_lightgbm(data))
