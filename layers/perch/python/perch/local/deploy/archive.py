"""Zipping a folder so that the same files always give the same bytes."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

EPOCH = (1980, 1, 1, 0, 0, 0)


def zip_folder(folder: Path) -> bytes:
    """Return a zip of all files of a folder, in order of name, with no trace of when or by whom.

    Files are stored as they are: nobody sends them anywhere, and compressing a layer of shared libraries takes seconds.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH)
            executable = path.stat().st_mode & stat.S_IXUSR
            entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()
