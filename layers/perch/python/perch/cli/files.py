"""Files that a command leaves behind: whole, or not at all.

A disk that is full would otherwise leave an empty key or half a model behind, in the place of a good one.
"""

from __future__ import annotations

import os
from pathlib import Path

from perch.domain.errors import Invalid


def write(file: Path, data: bytes, *, mode: int = 0o666, anew: bool = False) -> None:
    """Write a file whole or not at all.

    Args:
        file: where; a link is followed, and what is no ordinary file (a terminal, a pipe) is written as it is.
        data: all of it.
        mode: permissions from the start, less the umask.
        anew: never replace a file.

    Raises:
        Invalid: `anew`, and it is there already.
        OSError: it cannot be written; the error names the file.
    """
    if file.exists() and not file.is_file():
        file.write_bytes(data)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = file if anew else file.resolve()
    part = whole if anew else whole.with_name(f".{whole.name}.{os.getpid()}")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise Invalid(f"{part} is there already and is not replaced; choose another name") from error
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(data)
        if not anew:
            part.replace(whole)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise
