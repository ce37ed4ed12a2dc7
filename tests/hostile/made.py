"""What hostile files are made of: an object that runs something, arrays as NumPy writes them, zip archives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np


class Runs:
    """Unpickled, it calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


def objects(value: Any) -> Any:
    """An array of one object."""
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


def npy(array: Any) -> bytes:
    """An array as NumPy saves it, with a pickle inside if it holds objects."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def zipped(entries: Mapping[str, bytes], *, compress: bool = False) -> bytes:
    """A zip archive of these, the same for the same entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED, 1)
    return buffer.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    """What is in a zip archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
