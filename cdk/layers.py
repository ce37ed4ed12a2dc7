"""Layers: the packages that functions need, as folders that Lambda can unpack at `/opt`, built without Docker.

Each `layers/<name>/requirements.txt` is a complete list of exact pins, so pip resolves nothing: it fetches wheels made
for Lambda's platform and Python, whatever machine this is; if that Python is here, they are compiled as well
(`cdk/bytecode.py`). A build is kept in `.perch/layers/<name>-<platform>-<hash>/`, where the hash covers all that
decides its content; the folder appears by one rename, so it is there whole or not at all, and two builds at once do no
harm. With the folder in place nothing is fetched, so synth works offline.

Besides `python/`, a layer carries `layers/<name>.json`, which tells what it was built for: whoever runs the functions
elsewhere than on that platform (the local cloud) knows by it to bring the packages itself.

`python -m cdk.layers` builds all of them and says how large they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cdk.bytecode import MAGIC, compile_all, find_compiler
from perch.domain.formats import RUNTIMES

PYTHON = "3.13"
MOUNTED = "/opt"  # where Lambda unpacks layers
LIMIT_MB = 250  # Lambda's limit for a zip function with all its layers, unpacked
REQUIREMENTS = (
    "powertools",
    *sorted({layer for runtime in RUNTIMES.values() for layer in runtime.layers}),
    "onnx",
    "redis",
)

# Lambda's python3.13 is Amazon Linux 2023 with glibc 2.34: it runs wheels built for that version or an older one.
_GLIBC = ("2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")
_MACHINE = {"arm64": "aarch64", "x86_64": "x86_64"}
HERE = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"  # to run a layer on this machine

# Never imported by a running function. `dist-info` stays (without its list of files): packages look up their own
# version in it, and it holds their licences. Of numpy's tests only the tests go: `numpy.testing` imports its helpers.
# `numpy.f2py` stays, though nobody compiles Fortran there: scipy takes everything that numpy names.
_TRIM = ("**/__pycache__", "*.dist-info/RECORD", "*.dist-info/sboms", "bin", "**/*.pyi", "**/*.pyx", "**/*.pxd")
_TRIM_OF = {
    "numpy": (
        "numpy/**/tests/test_*.py",
        "numpy/**/tests/data",
        "numpy/**/tests/examples",
        "numpy/_core/include",
        "numpy/_core/lib",
    ),
    "onnx": ("onnx/backend/test/data", "onnx/test", "onnx/reference/**/tests"),
    "onnxruntime": (
        "onnxruntime/transformers",
        "onnxruntime/tools",
        "onnxruntime/quantization",
        "onnxruntime/datasets",
    ),
    "scipy": ("scipy/**/tests/test_*.py", "scipy/**/tests/data"),
    "sklearn": ("sklearn/**/tests/test_*.py", "sklearn/datasets/tests/data", "sklearn/datasets/data"),
}
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_]+")


class LayerError(Exception):
    """A layer cannot be built or is too large; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A built layer. `path` is the folder to hand to Lambda; `size` is in bytes, unpacked."""

    name: str
    path: Path
    size: int
    packages: tuple[tuple[str, int], ...]


def build(name: str, *, root: Path, architecture: str) -> Layer:
    """Return a layer, built now unless the same one is at hand.

    Args:
        name: a folder of `layers/` with a `requirements.txt`.
        root: the project's folder, which also holds the builds, under `.perch/layers`.
        architecture: `arm64` or `x86_64`.

    Raises:
        LayerError: a requirement is not an exact pin, or pip could not fetch the wheels.
    """
    source = root / "layers" / name / "requirements.txt"
    pins = _pins(source)
    built_for = f"{_MACHINE[architecture]}-cp{PYTHON.replace('.', '')}"
    compiler = find_compiler(PYTHON)
    recipe = json.dumps([built_for, _GLIBC, pins, _TRIM, _TRIM_OF, MAGIC[PYTHON] if compiler else None])
    digest = digest_of(recipe)
    target = root / ".perch" / "layers" / f"{name}-{built_for}-{digest}"
    if not target.is_dir():
        _build_into(target, name, pins, architecture, source, compiler)
    about = json.loads((target / "layers" / f"{name}.json").read_text())
    packages = tuple((package, size) for package, size in about["packages"])
    return Layer(name=name, path=target, size=about["size"], packages=packages)


def check_size(function: str, layers: Iterable[Layer], folders: Iterable[Path] = ()) -> int:
    """Return the unpacked size in bytes of a function with its layers and its own folders.

    Raises:
        LayerError: Lambda would refuse it; the message lists the largest packages.
    """
    layers = list(layers)
    total = sum(layer.size for layer in layers) + sum(folder_size(folder) for folder in folders)
    if total > LIMIT_MB * 1_000_000:
        packages = sorted({pair for layer in layers for pair in layer.packages}, key=lambda pair: -pair[1])[:8]
        listed = ", ".join(f"{package} {megabytes(size)}" for package, size in packages)
        raise LayerError(
            f"{function} is {megabytes(total)} unpacked with its layers, but Lambda allows {LIMIT_MB} MB. Its largest "
            f"packages: {listed}. Take something out of layers/*/requirements.txt, or make it a container image."
        )
    return total


def digest_of(text: str) -> str:
    """Return a short name for a text, the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_whole(path: Path, text: str) -> None:
    """Write a file so that no reader ever sees half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


@contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """Hand out a folder to fill, which becomes `target` by one rename, or nothing if filling it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as made:
        folder = Path(made) / "layer"
        yield folder
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # else another build was faster, and made the same
                raise


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def megabytes(size: int) -> str:
    """Write a size as people read it."""
    return f"{size / 1_000_000:.1f} MB"


def _pins(source: Path) -> list[str]:
    lines = [line.split("#")[0].strip() for line in source.read_text(encoding="utf-8").splitlines()]
    pins = sorted(line for line in lines if line)
    loose = [pin for pin in pins if not _PIN.fullmatch(pin)]
    if loose:
        raise LayerError(f"{source}: {', '.join(loose)}: write an exact pin, as name==1.2.3, for every package")
    return pins


def _build_into(
    target: Path, name: str, pins: list[str], architecture: str, source: Path, compiler: str | None
) -> None:
    with made_whole(target) as layer:
        python = layer / "python"
        with _progress(f"building layer {name} for {architecture} ({', '.join(pins)})"):
            _install(pins, python, architecture, name)
        _trim(python)
        if compiler:
            with _progress(f"compiling layer {name}"):
                compile_all(python, mounted=f"{MOUNTED}/python", compiler=compiler)
        packages = sorted(((p.name, _size(p)) for p in python.iterdir() if ".dist-info" not in p.name), key=_largest)
        size = folder_size(python)
        about = {
            "name": name,
            "architecture": architecture,
            "python": PYTHON,
            "bytecode": compiler is not None,
            "requirements": pins,
            "size": size,
            "packages": packages,
        }
        (layer / "layers").mkdir()
        (layer / "layers" / f"{name}.json").write_text(json.dumps(about, indent=2) + "\n")
    without = "" if compiler else f", without bytecode, as no Python {PYTHON} was found here"
    print(f"layer {name}: {megabytes(size)} unpacked, from {source}{without}", file=sys.stderr)  # noqa: T201 - progress


def _install(pins: list[str], target: Path, architecture: str, name: str) -> None:
    tags = [f"manylinux_{glibc}_{_MACHINE[architecture]}" for glibc in _GLIBC]
    tags.append(f"manylinux2014_{_MACHINE[architecture]}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += [
        "--no-deps",
        "--only-binary=:all:",
        "--implementation",
        "cp",
        "--python-version",
        PYTHON,
        "--no-compile",
    ]
    command += [word for tag in tags for word in ("--platform", tag)]
    command += ["--target", str(target), *pins]
    # One try: a machine without network should hear so at once.
    environment = {**os.environ, "PIP_RETRIES": os.environ.get("PIP_RETRIES", "1")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 - ours
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()[-3:]
        raise LayerError(
            f"layer {name} could not be built: {' '.join(errors)}\n"
            "If this machine is offline, run `python -m cdk.layers` once while it has a network, or copy .perch/layers "
            "from a machine where that was done; after that no network is needed."
        )


def _trim(python: Path) -> None:
    packages = [pattern for name, patterns in _TRIM_OF.items() if (python / name).is_dir() for pattern in patterns]
    for pattern in (*_TRIM, *packages):
        for path in list(python.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return folder_size(path) if path.is_dir() else path.stat().st_size


def _largest(package: tuple[str, int]) -> tuple[int, str]:
    return -package[1], package[0]


@contextmanager
def _progress(what: str) -> Iterator[None]:
    """Say what is going on if it takes more than two seconds."""
    timer = threading.Timer(2, print, args=(f"{what} …",), kwargs={"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def main() -> int:
    """Build every layer and print its size and its largest packages."""
    parser = argparse.ArgumentParser(prog="python -m cdk.layers", description="Build the layers that functions need.")
    parser.add_argument("--architecture", choices=sorted(_MACHINE), default="arm64")
    chosen = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    for name in REQUIREMENTS:
        try:
            layer = build(name, root=root, architecture=chosen.architecture)
        except LayerError as error:
            print(error, file=sys.stderr)  # noqa: T201 - a command's answer
            return 1
        listed = ", ".join(f"{package} {megabytes(size)}" for package, size in layer.packages[:4])
        print(f"{layer.name:12} {megabytes(layer.size):>9}  {listed}")  # noqa: T201 - a command's answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
