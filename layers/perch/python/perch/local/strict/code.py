"""Where the code of functions and layers lies on disk: unpacked once for each hash, never changed afterwards.

A layer that holds shared libraries (`*.so`) was built for Lambda's platform and cannot be loaded here; it is left off
the path and the environment of this machine supplies its packages, at the versions that the project pins.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path

_layers: dict[str, Path | None] = {}


def unpack(archive: bytes, root: Path) -> Path:
    """Unpack a zip below `root` under its hash, and return the folder; an earlier copy is used again.

    Raises ValueError for bytes that are no zip, or that reach outside their folder.
    """
    digest = hashlib.sha256(archive).hexdigest()
    folder = root / digest
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=root))
    try:
        if archive:
            _extract(archive, unfinished)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(folder)
        except OSError:  # another thread or process was first; its copy is the same
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _extract(archive: bytes, folder: Path) -> None:
    try:
        source = zipfile.ZipFile(io.BytesIO(archive))
    except zipfile.BadZipFile as error:
        raise ValueError(f"The function's code is no zip archive: {error}") from error
    with source:
        for entry in source.infolist():
            path = (folder / entry.filename).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise ValueError(f"The zip entry {entry.filename!r} reaches outside its folder.")
            source.extract(entry, folder)
            mode = stat.S_IMODE(entry.external_attr >> 16)
            if mode and not entry.is_dir():
                os.chmod(path, mode | 0o444)  # noqa: PTH101 - Lambda sets at least read for everybody too


def layer_path(archive: bytes, sha256: str, root: Path) -> Path | None:
    """Return the folder of a layer that goes on `sys.path` (its `python`), or None when it cannot be loaded here."""
    key = f"{root}:{sha256}"
    if key not in _layers:
        with zipfile.ZipFile(io.BytesIO(archive)) as source:
            loadable = not any(_is_shared_library(name) for name in source.namelist())
        folder = unpack(archive, root) / "python" if loadable else None
        _layers[key] = folder if folder is not None and folder.is_dir() else None
    return _layers[key]


def _is_shared_library(name: str) -> bool:
    base = name.rsplit("/", 1)[-1]
    return base.endswith(".so") or ".so." in base
