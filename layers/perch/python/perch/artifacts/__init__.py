"""What a model file is, what it expects, and whether anything in it could run code.

Pure functions of bytes: no AWS, no clock, no loading. Registration calls `inspect(name, data)`; the predictor uses the
same reading of architectures, so both sides agree on what a file says.

    formats            one file against the table of formats (`perch.domain.formats`), and the words for all others
    onnx_file          ONNX, through protobuf and onnx.checker
    safetensors_file   safetensors, parsed here
    architecture       the layers that a safetensors file declares
    layers             the allow-list of those layers
    outputs            the metadata key that says what the numbers mean
    signature          inputs and outputs
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
