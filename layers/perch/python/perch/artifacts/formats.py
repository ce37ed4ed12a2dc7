"""Inspect a file: which format of the table it is, and what is said about everything else.

    name → its row of `perch.domain.formats` → do the bytes agree with the name? → its inspector → `Inspected`

The rule is an allow-list. Formats that can run code when they are loaded (pickles, and torch, joblib and Keras files,
which hold them) are recognised only in order to say so; nothing here ever unpickles.
"""

from __future__ import annotations

from dataclasses import replace

from perch.domain.formats import FORMATS, format_of, named

from .errors import ArtifactRefused
from .inspected import Inspected

_SERVED = "served are " + ", ".join(
    f"{' and '.join(f'*{suffix}' for suffix in fmt.suffixes)} ({' or '.join(fmt.loaders)} runtime)"
    for fmt in FORMATS.values()
)

_TORCH = (
    "a torch pickle can run code when it is loaded; export with torch.export (.pt2), to safetensors with "
    "perch.export.torch_export.export_safetensors, or to ONNX"
)
_PICKLE = "a pickle can run code when it is loaded; export to ONNX (scikit-learn: skl2onnx.to_onnx)"

REFUSED_SUFFIXES = {
    ".ckpt": _TORCH,
    ".bin": _TORCH,
    ".sav": _PICKLE,
    ".npy": "a NumPy file can hold a pickle; export the model to ONNX or safetensors",
    ".npz": "a NumPy file can hold a pickle; export the model to ONNX or safetensors",
    ".keras": "a Keras file can hold code (Lambda layers); export to ONNX with tf2onnx",
    ".h5": "a Keras file can hold code (Lambda layers); export to ONNX with tf2onnx",
    ".zip": "an archive is not a model; upload the model file itself, or a folder with a perch.json",
}
"""Why a file that ends so is not served; each sentence says the way out."""


def inspect(name: str, data: bytes) -> Inspected:
    """Find out what an artifact is, without running anything in it.

    Args:
        name: file name or key; only its ending counts.
        data: the whole file.

    Raises:
        ArtifactRefused: it is not an artifact that can be served; the reason is a sentence for its author.
    """
    if not data:
        raise ArtifactRefused("the file is empty")
    fmt = format_of(name)
    kind = sniff(data)
    if fmt is None:
        suffix = next((suffix for suffix in REFUSED_SUFFIXES if name.lower().endswith(suffix)), None)
        if suffix is not None and kind != _DAMAGED and kind not in _MISNAMED:
            raise ArtifactRefused(REFUSED_SUFFIXES[suffix])
        if kind is not None:
            raise ArtifactRefused(f"the name ends in no known way and the bytes are {kind}; {_advice(kind)}")
        raise ArtifactRefused(f"the format is not known; {_SERVED}")
    if kind is not None and kind not in _OWN_KINDS[fmt.name]:
        raise ArtifactRefused(f"the name says {fmt.name} and the bytes are {kind}; {_advice(kind)}")
    found: Inspected = named(fmt.inspector)(data)
    # The same layers may come in a format that fewer runtimes load.
    return replace(found, runtimes=tuple(name for name in found.runtimes if name in FORMATS[found.format].loaders))


_DAMAGED, _TORCH_ZIP, _SCRIPT = "a damaged zip archive", "a torch pickle in a zip archive", "a TorchScript archive"

_OWN_KINDS = {
    "onnx": ("an ONNX model",),
    "safetensors": ("a safetensors file",),
    "pt2": ("a torch.export program", _DAMAGED, "a zip archive"),
    "state_dict": (_TORCH_ZIP, _SCRIPT, _DAMAGED, "a zip archive", "a pickle"),
    "torchscript": (_SCRIPT, _DAMAGED, "a zip archive"),
    "xgboost": ("an XGBoost model",),
    "lightgbm": ("a LightGBM model",),
    "skops": ("a skops file", _DAMAGED, "a zip archive"),
    "joblib": ("a pickle",),
}
"""What the bytes of a format may look like; its inspector says what is wrong with a damaged or an unusual archive."""

_MISNAMED = {kinds[0] for name, kinds in _OWN_KINDS.items() if not FORMATS[name].code} - {_TORCH_ZIP}
"""What may only need another name to be served; of torch's pickles few do."""


def sniff(data: bytes) -> str | None:
    """Tell a well-known kind of file by its first bytes; None when they are not telling.

    A guess for the sake of a helpful sentence, never a reason to accept.
    """
    length = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and length <= len(data) - 8:
        return "a safetensors file"
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle"
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(data)
    if data[:1] == b"\x08" and data[1:2] < b"\x40" and data[2:3] in _MODEL_FIELDS:
        return "an ONNX model"
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    return "a pickle" if _old_pickle(data) else None


_MODEL_FIELDS = {bytes([number << 3 | 2]) for number in (2, 3, 4, 6, 7, 8, 14)} | {b"\x28"}
"""What may follow the IR version in an ONNX file: keys of the protobuf fields of a model."""

_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 (Keras) file"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"GGUF", "a GGUF file"),
    (b'{"learner"', "an XGBoost model"),
    (b"{L\0\0\0\0\0\0\0\x07learner", "an XGBoost model"),
    (b"tree\nversion=", "a LightGBM model"),
    (b"<", "HTML or XML (an error page saved under the model's name?)"),
)


def _zip_kind(data: bytes) -> str:
    import io  # noqa: PLC0415 - the predictor imports this package and never needs archives
    import zipfile  # noqa: PLC0415 - as above

    from .zip_archive import MAX_MEMBERS  # noqa: PLC0415 - as above

    if data.count(b"PK\x01\x02") > MAX_MEMBERS:
        return "a zip archive"  # which nobody reads; a list of millions of names would take gigabytes
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError):
        return _DAMAGED
    return next(
        (kind for ending, kind in _MEMBERS if any(f"/{name}".endswith(ending) for name in names)), "a zip archive"
    )


_MEMBERS = (
    ("/schema.json", "a skops file"),
    ("/archive_format", "a torch.export program"),
    ("/constants.pkl", _SCRIPT),
    ("data.pkl", _TORCH_ZIP),
    (".npy", "a NumPy archive"),
)
"""Kinds of archives by the name of a member, the telling ones first."""


def _old_pickle(data: bytes) -> bool:
    """Protocols 0 and 1 have no magic number; they end with a stop and begin with one of a few opcodes."""
    return data.endswith(b".") and data[:1] in (b"(", b"c", b"]", b"}", b"I", b"V", b"S") and b"\n" in data[:200]


def _advice(kind: str) -> str:
    if kind == _DAMAGED:
        return "it is cut short: upload it again"
    if kind == _TORCH_ZIP:
        return _TORCH
    if kind == "a pickle":
        return _PICKLE
    if any(kind in kinds for kinds in _OWN_KINDS.values()):
        return f"rename it: {_SERVED}"
    return _SERVED
