"""The files of a model on a disk: each by its name in the model and its SHA-256.

The same files that `model_signing` takes: all of a folder, without Git's and without the signature; no symbolic links,
because they would let a signature cover files that are not in the folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from perch.domain.names import SIGNATURE

from .errors import SignatureRefused
from .statement import GIT_PATHS, WHOLE, Statement


def signature_of(path: Path) -> Path:
    """Return where the signature of a file or a folder lies: in the folder, or beside the file."""
    return (path if path.is_dir() else path.parent) / SIGNATURE


def digests(path: Path, *, ignored: tuple[str, ...] = GIT_PATHS) -> dict[str, str]:
    """Hash a file, or all files of a folder.

    Args:
        path: a file (its name is ".") or a folder.
        ignored: relative paths to leave out, with all below them.

    Raises:
        SignatureRefused: there is nothing to hash, or a symbolic link.
    """
    if path.is_file():
        return {WHOLE: _sha256(path)}
    skip = Statement(model="", files={}, ignored=ignored)
    found: dict[str, str] = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if skip.ignores(name):
            continue
        if file.is_symlink():
            raise SignatureRefused(f"{name} is a symbolic link; put the file itself into the folder")
        if file.is_file():
            found[name] = _sha256(file)
    if not found:
        raise SignatureRefused(f"{path} holds no files" if path.is_dir() else f"{path} is not there")
    return found


def inside(path: Path, file: Path) -> tuple[str, ...]:
    """Return the name that a file has in a folder, as the one path to leave out; nothing if it lies elsewhere."""
    if path.is_dir() and file.resolve().is_relative_to(path.resolve()):
        return (file.resolve().relative_to(path.resolve()).as_posix(),)
    return ()


def name_of(path: Path) -> str:
    """Return a model's name: that of its file or folder, however it was written."""
    return path.resolve().name


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
