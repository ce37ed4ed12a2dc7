"""The table of formats: what a model file can be, who reads it, and where it runs.

    file name ─► Format ─► inspector (registration)     what the file is, and whether anything in it can run code
                        └► loader, one a runtime        the predictor's way from verified bytes to a model
    Runtime   ─► the predictor function of an endpoint: a zip with layers, or a container image

A new format is a file that inspects it, a file that loads it, and a row here. Functions are named by their place
("module:function") and imported when they are used, because none of them is at home everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A kind of predictor, of `functions/predict_<name>`: a zip with these layers, or an image if it has none."""

    name: str
    engine: str
    layers: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The folder of its handler, under `functions/`."""
        return f"predict_{self.name}"


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format that is served: how its files end, who reads them, and what loads them on which runtime.

    `platform` is what the Open Inference Protocol calls it. The first runtime is the one that suits it best. `code`
    tells that a file of it can hold code, whether or not this one does: such bytes are only loaded when an inspection
    proved them harmless, or on the word of a trusted key (law 2). `declared` says that only loading it could tell
    what a model takes and gives, so that the manifest has to.
    """

    name: str
    suffixes: tuple[str, ...]
    platform: str
    inspector: str
    loaders: Mapping[str, str]
    code: bool = False
    declared: bool = False


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime(name="onnx", engine="ONNX Runtime", layers=("onnxruntime",)),
        Runtime(name="torch", engine="PyTorch"),
        Runtime(name="numpy", engine="NumPy", layers=("numpy",)),
        Runtime(name="sklearn", engine="scikit-learn", layers=("sklearn",)),
    )
}

FORMATS = {
    fmt.name: fmt
    for fmt in (
        Format(
            name="onnx",
            suffixes=(".onnx",),
            platform="onnx_onnxv1",
            inspector="perch.artifacts.onnx_file:inspect_onnx",
            loaders={"onnx": "perch.predictor.runtimes.onnx:load_onnx"},
        ),
        Format(
            name="safetensors",
            suffixes=(".safetensors",),
            platform="pytorch_safetensors",
            inspector="perch.artifacts.safetensors_file:inspect_safetensors",
            loaders={
                "numpy": "perch.predictor.runtimes.numpy:load_numpy",
                "onnx": "perch.predictor.runtimes.numpy:load_numpy",
                "torch": "perch.predictor.runtimes.torch:load_torch",
            },
        ),
        Format(
            name="pt2",
            suffixes=(".pt2",),
            platform="pytorch_pt2",
            inspector="perch.artifacts.pt2_file:inspect_pt2",
            loaders={"torch": "perch.predictor.runtimes.pt2:load_pt2"},
        ),
        Format(
            name="state_dict",
            suffixes=(".pt", ".pth"),
            platform="pytorch_state_dict",
            inspector="perch.artifacts.state_dict_file:inspect_torch_zip",  # which may find TorchScript
            loaders={"torch": "perch.predictor.runtimes.state_dict:load_state_dict"},
        ),
        Format(
            name="torchscript",
            suffixes=(".ts", ".torchscript"),
            platform="pytorch_torchscript",
            inspector="perch.artifacts.torchscript_file:inspect_torchscript",
            loaders={"torch": "perch.predictor.runtimes.torchscript:load_torchscript"},
            code=True,
        ),
        Format(
            name="xgboost",
            suffixes=(".ubj", ".xgb", ".xgb.json"),
            platform="xgboost_xgboost",
            inspector="perch.artifacts.xgboost_file:inspect_xgboost",
            loaders={"onnx": "perch.predictor.runtimes.trees:load_xgboost"},
        ),
        Format(
            name="lightgbm",
            suffixes=(".lgb", ".lgb.txt"),
            platform="lightgbm_lightgbm",
            inspector="perch.artifacts.lightgbm_file:inspect_lightgbm",
            loaders={"onnx": "perch.predictor.runtimes.trees:load_lightgbm"},
        ),
        Format(
            name="skops",
            suffixes=(".skops",),
            platform="sklearn_skops",
            inspector="perch.artifacts.skops_file:inspect_skops",
            loaders={"sklearn": "perch.predictor.runtimes.sklearn:load_skops"},
        ),
        Format(
            name="joblib",
            suffixes=(".joblib", ".pkl", ".pickle"),
            platform="sklearn_joblib",
            inspector="perch.artifacts.joblib_file:inspect_joblib",
            loaders={"sklearn": "perch.predictor.runtimes.joblib:load_joblib"},
            code=True,
            declared=True,
        ),
    )
}


def format_of(name: str) -> Format | None:
    """Return the format that a file name stands for, or None when it is not the name of a model that is served."""
    return next((fmt for fmt in FORMATS.values() if name.lower().endswith(fmt.suffixes)), None)


def formats_of(runtime: str) -> tuple[str, ...]:
    """Return the names of the formats that a runtime loads."""
    return tuple(fmt.name for fmt in FORMATS.values() if runtime in fmt.loaders)


def may_hold_code() -> tuple[str, ...]:
    """Return the names of the formats whose files can hold code: those that an endpoint may `allow`."""
    return tuple(fmt.name for fmt in FORMATS.values() if fmt.code)


def named(place: str) -> Callable[..., Any]:
    """Import the function that a row names as "module:function"."""
    module, _, function = place.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
