"""TorchScript on torch, one thread, for files whose signature somebody trusted (`perch.artifacts.torchscript_file`).

    bytes ─► torch.jit.load ─► eval ─► freeze: weights become constants, and the numbers stay what they were

Torch would watch the first calls, write a faster program from what it saw, and do so again for every shape it has not
met: a request in the middle of the traffic that takes a second. Here it runs what was frozen, from the first call to
the last (`torch.jit.optimized_execution`).

A script may write into what it is given, so a request's array that may only be read is copied first. `torch.jit.load`
reads bytes: a file that was fetched into other memory is copied once, and dropped when the weights are out of it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perch.artifacts.data import Data
from perch.artifacts.outputs import declared_output
from perch.artifacts.torchscript_file import read_metadata, read_signature
from perch.artifacts.zip_archive import read_archive

from .tensor_views import ARRAYS


class TorchScriptModel:
    """A frozen script and the signature that its author declared."""

    def __init__(self, data: Data) -> None:
        torch.set_num_threads(1)
        metadata = read_metadata(read_archive(data))
        self.signature = read_signature(metadata)
        self.output: str | None = declared_output(metadata)
        self.axes: Mapping[str, Sequence[str | None]] = {}
        self.features = self.signature.features if self.signature.is_matrix else 0
        self.dtype: np.dtype[Any] = ARRAYS[self.signature.inputs[0].datatype]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, about TorchScript as a whole
            script = torch.jit.load(io.BytesIO(data), map_location="cpu").eval()
            self._script = torch.jit.freeze(script, optimize_numerics=False)

    def run(self, rows: NDArray[Any]) -> list[Any]:
        """All outputs, from the one input."""
        return self._call([rows])

    def run_named(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """All outputs, from inputs by name."""
        return self._call([inputs[tensor.name] for tensor in self.signature.inputs])

    def _call(self, arrays: list[NDArray[Any]]) -> list[Any]:
        tensors = [torch.from_numpy(array if array.flags.writeable else array.copy()) for array in arrays]
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            given = self._script(*tensors)
        outputs = list(given) if isinstance(given, tuple | list) else [given]
        if len(outputs) != len(self.signature.outputs):
            raise ValueError(f"the script gave {len(outputs)} outputs; {len(self.signature.outputs)} are declared")
        return [output.numpy() for output in outputs]


def load_torchscript(data: Data) -> TorchScriptModel:
    """Load a verified TorchScript file."""
    return TorchScriptModel(data)
