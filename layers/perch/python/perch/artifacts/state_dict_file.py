"""Inspect a state dict that torch.save wrote (*.pt, *.pth): tensors in an archive, and the layers that they belong to.

    torch.save({"perch.architecture": "[…]", "perch.output": "logits", "state_dict": module.state_dict()}, "model.pt")

The texts are what a safetensors file has in its header, and mean the same. The archive's pickle is read by
`torch_pickle`, which knows texts and tensors and has no way to run anything; then the tensors are compared with the
members that hold their numbers, and with the layers. So a pickle is read here, and none is ever unpickled.

A `*.pt` that torch.jit.save wrote is TorchScript, and goes to its own inspector. Whole modules, optimizers, and files
from before torch 1.6 (a bare pickle) are refused in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .data import Data
from .errors import ArtifactRefused
from .inspected import Inspected
from .safetensors_file import ARCHITECTURE_KEY, Header, inspect_header
from .stored_tensor import StoredTensor, stored_tensor
from .torch_pickle import PickledTensor, read_pickle
from .torchscript_file import inspect_torchscript
from .zip_archive import Archive, read_archive

MAX_PICKLE = 16 * 1024 * 1024

WAY_OUT = (
    'save {"perch.architecture": …, "state_dict": …} with perch.export.torch_export.export_state_dict, '
    "or export with torch.export (.pt2) or to ONNX"
)
_MEMBERS = re.compile(
    r"data\.pkl|data/\d+|version|byteorder|\.data/(version|serialization_id)|\.format_version|\.storage_alignment"
)


def inspect_torch_zip(data: Data) -> Inspected:
    """Read what a `*.pt` is: TorchScript or a state dict. Raises `ArtifactRefused`."""
    if bytes(data[:2]) != b"PK":
        raise ArtifactRefused(
            f"this is no zip archive but a bare pickle or less, as before torch 1.6, which can run code; {WAY_OUT}"
        )
    archive = read_archive(data)
    if any(name.endswith("/constants.pkl") for name in archive.members):
        return inspect_torchscript(data)
    header = read_state_dict(data, archive)
    archive.check()
    return inspect_header(header, "state_dict")


def read_state_dict(data: Data, archive: Archive | None = None) -> Header:
    """Read the tensors and the texts of a state dict. Raises `ArtifactRefused`."""
    archive = archive or read_archive(data)
    folder = next(iter(archive.members), "").split("/")[0] + "/"
    for name in archive.members:
        if not name.startswith(folder) or not _MEMBERS.fullmatch(name.removeprefix(folder)):
            raise ArtifactRefused(f"the archive's member {name!r} is not one that torch.save writes; {WAY_OUT}")
    if folder + "data.pkl" not in archive.members:
        raise ArtifactRefused(f"the archive holds no state dict; {WAY_OUT}")
    order = folder + "byteorder"
    if order in archive.members and archive.read(order, 16) != b"little":
        raise ArtifactRefused("the archive's numbers are big-endian; save it on a little-endian machine")
    document = read_pickle(archive.read(folder + "data.pkl", MAX_PICKLE), "data.pkl")
    metadata, state = _parts(document)
    tensors = {name: _tensor(name, value, archive, folder) for name, value in state.items()}
    used = {f"{folder}data/{value.key}" for value in state.values()}
    for name in archive.members:
        if name.startswith(folder + "data/") and name not in used:
            raise ArtifactRefused(f"the archive's member {name!r} belongs to no tensor")
    return Header(stored=tensors, metadata=metadata)


def _parts(document: Any) -> tuple[dict[str, str], dict[str, PickledTensor]]:
    """The texts and the tensors."""
    if not isinstance(document, dict):
        raise ArtifactRefused(f"the file holds no dict of texts and tensors; {WAY_OUT}")
    metadata = {key: value for key, value in document.items() if key != "state_dict"}
    if ARCHITECTURE_KEY not in metadata or not _is_text(metadata):
        raise ArtifactRefused(f"nothing in the file says which layers the tensors belong to; {WAY_OUT}")
    state = document.get("state_dict")
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, PickledTensor) for name, value in state.items()
    ):
        raise ArtifactRefused(f'"state_dict" in the file is not a dict of tensors; {WAY_OUT}')
    return metadata, state


def _is_text(metadata: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) and isinstance(value, str) for key, value in metadata.items())


def _tensor(name: str, value: PickledTensor, archive: Archive, folder: str) -> StoredTensor:
    if not isinstance(value.key, str) or not re.fullmatch(r"\d{1,9}", value.key):
        raise ArtifactRefused(f"tensor {name[:80]!r} is in a member with no number")
    member = archive.members.get(f"{folder}data/{value.key}")
    if member is None or member.compressed:
        raise ArtifactRefused(
            f"the numbers of tensor {name[:80]!r} are not in the archive as torch.save puts them there"
        )
    return stored_tensor(
        name,
        dtype=value.dtype,
        shape=value.shape,
        strides=value.strides,
        offset=value.offset,
        start=member.start,
        length=member.size,
    )
