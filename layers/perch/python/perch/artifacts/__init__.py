"""What a model file is, what it expects, and whether anything in it could run code.

Pure functions of bytes: no AWS, no clock, no loading. Registration calls `inspect(name, data)`; the predictor uses the
same reading of architectures, so both sides agree on what a file says.

    formats            one file against the table of formats (`perch.domain.formats`), and the words for all others
    onnx_file, onnx_cost, onnx_graphs      ONNX: what it is, and how much it becomes when it is parsed, and inlined
    safetensors_file, state_dict_file      tensors with declared layers: `architecture`, and the allow-list of `layers`
    pt2_file, pt2_*                        torch programs: graph, arguments, operators, signature
    torchscript_file, torch_pickle         TorchScript, and torch's pickles, read and not unpickled
    xgboost_*, lightgbm_*, ubjson          trees (`trees`), as ONNX (`trees_onnx`, `onnx_bytes`)
    skops_file, sklearn_*, npy             scikit-learn without pickles: which classes, whether they fit, their columns
    joblib_file, pickle_names              scikit-learn with them: the names that they import
    mlflow_folder                          which file of an MLflow folder is the model
    zip_archive, stored_tensor, protobuf, pickle_machine
                                           what several formats are made of
    signature, served, outputs, ranges     inputs and outputs, which of them can be served, and what their numbers mean
"""

from .errors import ArchitectureRefused, ArtifactRefused
from .formats import inspect
from .inspected import Inspected
from .signature import Signature, Tensor

__all__ = [
    "ArchitectureRefused",
    "ArtifactRefused",
    "Inspected",
    "Signature",
    "Tensor",
    "inspect",
]
