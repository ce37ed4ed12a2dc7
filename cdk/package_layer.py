"""The package `perch` as a layer, in two cuts, compiled if Lambda's Python is here (`cdk/bytecode.py`).

Predictors get the package without its control side, so that a change of control code is not a new revision of every
endpoint, with a rollout each. A cut is kept in `.perch/package/<name>-<hash>/`, where the hash covers its modules, and
appears by one rename; cuts that nobody took for a week go.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from cdk.bytecode import MAGIC, compile_all, find_compiler
from cdk.layers import MOUNTED, PYTHON, made_whole

PACKAGE = "perch"
PREDICTOR_PACKAGE = "perch-predictor"

# Of the package, what no function runs; and, for predictors, what no prediction needs.
NOT_DEPLOYED = ("local", "cli", "export")
CONTROL_SIDE = ("app", "aws", "signing")

_KEPT_S = 7 * 24 * 3600


def cut(name: str, *, root: Path) -> Path:
    """Return the folder of a cut, made now unless the same one is at hand.

    Args:
        name: `perch` or `perch-predictor`.
        root: the project's folder.
    """
    source = root / "layers" / PACKAGE
    modules = sorted(_modules(source / "python" / "perch", name))
    compiler = find_compiler(PYTHON)
    digest = hashlib.sha256(repr(MAGIC[PYTHON] if compiler else None).encode())
    for module in modules:
        digest.update(f"\0{module.relative_to(source)}\0{module.stat().st_size}\0".encode() + module.read_bytes())
    target = root / ".perch" / "package" / f"{name}-{digest.hexdigest()[:16]}"
    if not target.is_dir():
        with made_whole(target) as layer:
            _make(layer, source, modules, compiler)
    target.touch()
    _sweep(target)
    return target


def _modules(package: Path, name: str) -> Iterator[Path]:
    """The files of a cut."""
    left_out = {*NOT_DEPLOYED, *(CONTROL_SIDE if name == PREDICTOR_PACKAGE else ())}
    for path in package.rglob("*"):
        room = path.relative_to(package).parts[0]
        # Bytecode of this machine's Python, which may be in the making.
        if room not in left_out and path.parent.name != "__pycache__" and path.is_file():
            yield path


def _make(layer: Path, source: Path, modules: list[Path], compiler: str | None) -> None:
    for module in modules:
        copy = layer / module.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, copy)
    if compiler:
        compile_all(layer / "python", mounted=f"{MOUNTED}/python", compiler=compiler)


def _sweep(target: Path) -> None:
    """Remove what was cut of code that has changed long ago."""
    for old in target.parent.iterdir():
        if old != target and time.time() - old.stat().st_mtime > _KEPT_S:
            shutil.rmtree(old, ignore_errors=True)
