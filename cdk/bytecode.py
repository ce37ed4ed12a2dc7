"""Bytecode: compile what a layer holds for Lambda's Python, so that no cold start has to.

Lambda cannot write to `/opt`: what is not compiled here is compiled at every start that no snapshot is restored for,
which doubles the time until an ONNX predictor is ready (`benchmarks/bytecode.py`). Bytecode is of one Python's minor
version, so it takes that one to write it: the interpreter that runs this, `python3.13` on the PATH, or one that uv or
pyenv has installed. Where none is there, layers go without, and work as well.

It is written unchecked (PEP 552): Python takes it without a look at the source's date, which unpacking changes. The
files are named in it as Lambda will see them, so that the same source gives the same bytes in whatever folder it was
compiled.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# What all releases of a version of Python write in front of their bytecode.
MAGIC = {"3.13": "f30d0d0a"}

_ASK = "import importlib.util; print(importlib.util.MAGIC_NUMBER.hex())"


@functools.cache
def find_compiler(python: str) -> str | None:
    """Return the path of an interpreter that writes bytecode for a version of Python such as `3.13`, or None."""
    return next((path for path in _candidates(python) if _magic(path) == MAGIC[python]), None)


def compile_all(folder: Path, *, mounted: str, compiler: str) -> None:
    """Write bytecode beside all modules in a folder, as if the folder were `mounted`.

    A file that this Python cannot compile is left as it is: packages carry files for other versions than the one at
    hand, which nobody imports.
    """
    command = [compiler, "-I", "-m", "compileall", "-qq", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(folder), "-p", mounted, str(folder)]
    subprocess.run(command, check=False, capture_output=True)  # noqa: S603 - found above, on our own files


def _candidates(python: str) -> Iterator[str]:
    """Where an interpreter of a version may be; a shim on the PATH need not start one."""
    yield sys.executable
    if found := shutil.which(f"python{python}"):
        yield found
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for folder, name in ((data / "uv/python", f"cpython-{python}*"), (pyenv / "versions", f"{python}*")):
        yield from sorted(str(path) for path in folder.glob(f"{name}/bin/python{python}"))


def _magic(interpreter: str) -> str:
    """Return what an interpreter writes in front of bytecode; nothing if it does not run."""
    try:
        asked = subprocess.run([interpreter, "-I", "-c", _ASK], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603 - by its name only
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip()
