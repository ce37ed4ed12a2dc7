"""State dicts on torch: the layers and the views of a safetensors model, found by another reader."""

from __future__ import annotations

from perch.artifacts.data import Data
from perch.artifacts.state_dict_file import read_state_dict

from .torch import TorchModel


def load_state_dict(data: Data) -> TorchModel:
    """Load a verified state dict; its pickle is read (`perch.artifacts.torch_pickle`) and not unpickled."""
    return TorchModel(data, read_state_dict(data))
