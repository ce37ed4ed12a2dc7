"""What Python does with the bytecode that layers carry."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdk import bytecode, package_layer
from cdk.bytecode import compile_all, find_compiler
from cdk.layers import PYTHON
from cdk.package_layer import PACKAGE, PREDICTOR_PACKAGE, cut
from tests.infra.conftest import ROOT

FAILING = "def fail():\n    raise ValueError('no')\n"


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A folder with a module, a module that is for another Python, and their bytecode."""
    folder = tmp_path / "layer"
    folder.mkdir()
    (folder / "ours.py").write_text(FAILING)
    (folder / "of_another_python.py").write_text("print 'hello'\n")
    compile_all(folder, mounted="/opt/python", compiler=sys.executable)
    return folder


def run(folder: Path, code: str) -> str:
    """Run code in a fresh interpreter that finds modules in a folder; what it wrote."""
    environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, check=False, capture_output=True, text=True).stderr


def test_bytecode_holds_whatever_date_unpacking_gives_the_source(compiled: Path) -> None:
    """Lambda unpacks with dates of its own; Python takes the bytecode without asking (and without compiling again)."""
    os.utime(compiled / "ours.py", (1, 1))
    told = run(compiled, "import sys; sys.argv; import ours; sys.stderr.write(ours.__cached__)")
    assert (compiled / "__pycache__" / Path(told).name).is_file()

    (compiled / "ours.py").write_text("raise SystemExit('compiled again')\n")
    assert "compiled again" not in run(compiled, "import ours")


def test_the_same_source_is_the_same_bytecode(compiled: Path, tmp_path: Path) -> None:
    """In whatever folder it was compiled; a traceback names the file where it was imported from."""
    again = tmp_path / "elsewhere" / "layer"
    again.mkdir(parents=True)
    (again / "ours.py").write_text(FAILING)
    compile_all(again, mounted="/opt/python", compiler=sys.executable)

    (first,), (second,) = compiled.rglob("*.pyc"), again.rglob("*.pyc")
    assert first.read_bytes() == second.read_bytes()
    assert f'File "{compiled}/ours.py", line 2, in fail' in run(compiled, "import ours; ours.fail()")


def test_what_cannot_be_compiled_stays_as_it_is(compiled: Path) -> None:
    """Packages carry modules for other versions of Python."""
    assert [f.name.partition(".")[0] for f in compiled.rglob("*.pyc")] == ["ours"]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine whose own Python is none that Lambda has, with a shim on the PATH that starts nothing."""
    monkeypatch.setattr(bytecode, "MAGIC", {PYTHON: "0bad"})
    for name in ("HOME", "PYENV_ROOT", "XDG_DATA_HOME", "PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    put_python(tmp_path / f"python{PYTHON}", "echo 'not installed' >&2; exit 127")
    find_compiler.cache_clear()
    yield tmp_path
    find_compiler.cache_clear()


def put_python(path: Path, script: str) -> None:
    """A file that starts as an interpreter does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_bytecode_is_written_by_no_other_python(elsewhere: Path) -> None:
    """Another version's would only be weight; a shim that starts nothing is no Python at all."""
    assert find_compiler(PYTHON) is None


@pytest.mark.parametrize("folder", [f"versions/{PYTHON}.4", f"uv/python/cpython-{PYTHON}.4-linux-x86_64-gnu"])
def test_a_python_that_pyenv_or_uv_has_installed_is_found(elsewhere: Path, folder: str) -> None:
    """It need not be the active one."""
    python = elsewhere / folder / "bin" / f"python{PYTHON}"
    put_python(python, "echo 0bad")
    assert find_compiler(PYTHON) == str(python)


def test_the_package_comes_in_two_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictors get no control side; both are compiled, and made once."""
    (tmp_path / "layers").symlink_to(ROOT / "layers")
    monkeypatch.setattr(package_layer, "find_compiler", lambda _: sys.executable)
    rooms = {}
    for name in (PACKAGE, PREDICTOR_PACKAGE):
        folder = cut(name, root=tmp_path)
        rooms[name] = {room.name for room in (folder / "python" / "perch").iterdir() if room.is_dir()}
        assert (folder / "python/perch/predictor/__pycache__" / f"handler.{sys.implementation.cache_tag}.pyc").is_file()
        assert cut(name, root=tmp_path) == folder

    assert rooms[PACKAGE] - rooms[PREDICTOR_PACKAGE] == {"app", "aws", "signing"}
    assert not rooms[PACKAGE] & {"local", "cli", "export"}


def test_bytecode_of_this_machine_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports the package writes some, under passing names, while others cut."""
    package = tmp_path / "layers/perch/python/perch"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(package_layer, "find_compiler", lambda _: None)
    before = cut(PACKAGE, root=tmp_path)
    (package / "__pycache__" / "__init__.cpython-311.pyc.140428021863680").touch()

    assert cut(PACKAGE, root=tmp_path) == before


def test_cuts_that_nobody_takes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change of the package makes new ones."""
    (tmp_path / "layers").symlink_to(ROOT / "layers")
    monkeypatch.setattr(package_layer, "find_compiler", lambda _: None)
    made = cut(PACKAGE, root=tmp_path)
    old, recent = made.with_name("perch-old"), made.with_name("perch-recent")
    for folder in (old, recent):
        folder.mkdir()
    os.utime(old, (1, 1))

    assert cut(PACKAGE, root=tmp_path) == made
    assert sorted(path.name for path in made.parent.iterdir()) == sorted([made.name, "perch-recent"])
