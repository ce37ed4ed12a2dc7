"""Inspect a TorchScript archive in plain Python. It cannot be proved harmless, and says so in `Inspected.code`.

    zip archive (strict) ─► only known members ─► pickles: only torch's names (never unpickled)
                        ├─► code/*.py: operators by name; those that touch files or the machine are refused
                        └─► extra/perch.signature, which is the only place that tells what the model takes

TorchScript is a programming language: with loops, strings, and whatever operators the runtime has. Its code is run in
torch's own interpreter and not in Python, so a pickle inside cannot import a module; but a script can do what its
operators can, and a list of all that torch may have compiled in cannot be kept. So such a file is only served where
its endpoint opted in and a trusted key has signed it, and even then not with an operator that reads or writes files
(`aten::from_file`, `aten::save`) or that torch has not brought itself.

A signature is not part of the format: `perch.export.torch_programs.export_torchscript` puts it in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from .data import Data
from .errors import ArtifactRefused
from .inspected import Inspected
from .outputs import declared_output
from .ranges import read_ranges
from .served import check_served
from .signature import Signature
from .torch_pickle import STORAGES, opcodes
from .zip_archive import Archive, read_archive

SIGNATURE_KEY = "perch.signature"
MAX_CODE = 16 * 1024 * 1024
MAX_TEXT = 1024 * 1024
MAX_PICKLED = 2_000_000

CODE = (
    "TorchScript is a program with every operator that torch has; nothing proves that it only computes. "
    "Export with torch.export (.pt2) or to ONNX to do without trust"
)

_MEMBERS = re.compile(
    r"(data|constants|traced_inputs)(\.pkl|/\d+)|code/[\w./-]+\.py(\.debug_pkl)?|version|byteorder|\.data/(version|serialization_id)"
    r"|\.format_version|\.storage_alignment|extra/[\w.-]+"
)
_REFUSED_NAMES = re.compile(r"from_file|save|load|system|popen|exec|open|socket|print|rpc\w*|c10d\w*|dist_\w+")
_OPERATOR = re.compile(r"(?<![\w.])(?:torch|ops)\.([A-Za-z_]\w*)(?:\.([A-Za-z_]\w*))?")
_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
_IMPORT = re.compile(r"^\s*(?:import|from)\s", re.MULTILINE)
_STRING = re.compile(r"\"(?:[^\"\\\n]|\\.)*+\"|'(?:[^'\\\n]|\\.)*+'")
_LIBRARIES = {"aten", "prim", "prims"}
_PICKLED = re.compile(r"__torch__[\w.]*|torch\.jit\._pickle [\w]+")


def inspect_torchscript(data: Data) -> Inspected:
    """Read what a TorchScript archive is. Raises `ArtifactRefused`."""
    archive = read_archive(data)
    folder = _folder(archive)
    metadata = read_metadata(archive)
    archive.check()
    operators: set[str] = set()
    for name in archive.members:
        inner = name.removeprefix(folder)
        if inner.endswith(("pkl", "debug_pkl")):
            _check_pickle(archive.read(name, MAX_CODE), inner)
        elif inner.endswith(".py"):
            operators |= set(_operators(_text(archive, name, MAX_CODE), inner))
    signature = read_signature(metadata)
    return Inspected(
        format="torchscript",
        runtimes=("torch",),
        signature=signature,
        details={"operators": sorted(operators), "output": declared_output(metadata)},
        code=CODE,
    )


def read_metadata(archive: Archive) -> dict[str, str]:
    """The author's own texts, by key."""
    folder = _folder(archive) + "extra/"
    return {
        name.removeprefix(folder): _text(archive, name, MAX_TEXT) for name in archive.members if name.startswith(folder)
    }


def read_signature(metadata: Mapping[str, str]) -> Signature:
    """The signature that the author declared, and the ranges. Raises `ArtifactRefused` if there is none."""
    text = metadata.get(SIGNATURE_KEY)
    if text is None:
        raise ArtifactRefused(
            f"the archive has no extra/{SIGNATURE_KEY}, so nothing says what the model takes; export with "
            "perch.export.torch_programs.export_torchscript"
        )
    try:
        signature = replace(Signature.from_json(json.loads(text)), ranges=None)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ArtifactRefused(f"extra/{SIGNATURE_KEY} is no signature: {str(error)[:120]}") from error
    if any(tensor.shape is None or len(tensor.shape) > 16 for tensor in (*signature.inputs, *signature.outputs)):
        raise ArtifactRefused(f"extra/{SIGNATURE_KEY} has a tensor without a shape")
    check_served(signature, "declare -1 for it")
    return replace(signature, ranges=read_ranges(metadata, signature))


def _folder(archive: Archive) -> str:
    """The one folder that all members are in, sure that each is one that torch.jit.save writes."""
    folder = next(iter(archive.members), "").split("/")[0] + "/"
    for name in archive.members:
        if not name.startswith(folder) or not _MEMBERS.fullmatch(name.removeprefix(folder)):
            raise ArtifactRefused(f"the archive's member {name!r} is not one that torch.jit.save writes")
    for needed in ("data.pkl", "constants.pkl"):
        if folder + needed not in archive.members:
            raise ArtifactRefused(f"the archive has no {needed}: it is not what torch.jit.save writes")
    return folder


def _text(archive: Archive, name: str, limit: int) -> str:
    try:
        return archive.read(name, limit).decode()
    except UnicodeDecodeError as error:
        raise ArtifactRefused(f"{name} is not UTF-8") from error


def _check_pickle(data: bytes, where: str) -> None:
    """Every name in a pickle is one of torch's own, or a class that the archive's code defines."""
    for name, argument in opcodes(data, where, most=MAX_PICKLED):
        if name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "PERSID"):
            raise ArtifactRefused(f"{where} holds the pickle instruction {name}, which torch.jit.save does not write")
        if name != "GLOBAL":
            continue
        module, _, word = argument.partition(" ")
        known = (
            argument in ("torch._utils _rebuild_tensor_v2", "collections OrderedDict")
            or (module == "torch" and word in STORAGES)
            or _PICKLED.fullmatch(module if module.startswith("__torch__") else argument)
        )
        if not known:
            raise ArtifactRefused(
                f"{where} is a pickle that would import {argument[:120]!r}; torch writes no such name"
            )


def _operators(code: str, where: str) -> Iterator[str]:
    """Names of the operators that a script calls. Raises `ArtifactRefused` for one that no model needs."""
    code = _STRING.sub('""', code)
    if _IMPORT.search(code):
        raise ArtifactRefused(f"{where} imports something, which TorchScript does not")
    for match in _OPERATOR.finditer(code):
        first, second = match.groups()
        name = second if match[0].startswith("ops.") and second else first
        if match[0].startswith("ops.") and first not in _LIBRARIES:
            raise ArtifactRefused(
                f"{where} calls {match[0][:80]!r}, an operator of a library that torch does not bring"
            )
        if first == "classes" or _REFUSED_NAMES.fullmatch(name):
            raise ArtifactRefused(f"{where} calls {match[0][:80]!r}, which reaches outside of the model")
        yield name
    for match in _CALL.finditer(code):
        if _REFUSED_NAMES.fullmatch(match[1]):
            raise ArtifactRefused(f"{where} calls {match[1]!r}, which reaches outside of the model")
