"""Layers are built once for what they hold, appear whole, fit Lambda, and need no network once they are there.

Most of it is of layers without bytecode, as they are built where Lambda's Python is not at hand.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest

from cdk import layers
from cdk.layers import Layer, LayerError, build, check_size

ROOT = Path(__file__).resolve().parents[2]
PINS = "alpha==1.0  # a comment\n\n# another\nbeta==2.0.post1\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one layer, and an installer that writes packages without asking anybody."""
    (tmp_path / "layers" / "small").mkdir(parents=True)
    (tmp_path / "layers" / "small" / "requirements.txt").write_text(PINS)

    def install(pins: list[str], target: Path, architecture: str, name: str) -> None:
        for pin in pins:
            package = target / pin.split("==")[0]
            (package / "__pycache__").mkdir(parents=True)
            (package / "__pycache__" / "x.pyc").write_bytes(b"0" * 1_000)
            (package / "__init__.py").write_bytes(b"#" * 100)
            info = target / f"{package.name}-1.dist-info"
            info.mkdir()
            (info / "RECORD").write_text("all files")
            (info / "LICENSE").write_text("MIT")

    monkeypatch.setattr(layers, "_install", install)
    monkeypatch.setattr(layers, "find_compiler", lambda _: None)
    return tmp_path


def test_a_layer_is_the_folder_that_lambda_unpacks(project: Path) -> None:
    """Packages are under python/, without bytecode and file lists, with their licences; and it says what it is."""
    layer = build("small", root=project, architecture="arm64")
    files = {str(f.relative_to(layer.path)) for f in layer.path.rglob("*") if f.is_file()}

    assert files == {
        "layers/small.json",
        "python/alpha/__init__.py",
        "python/alpha-1.dist-info/LICENSE",
        "python/beta/__init__.py",
        "python/beta-1.dist-info/LICENSE",
    }
    about = json.loads((layer.path / "layers" / "small.json").read_text())
    assert about["architecture"] == "arm64"
    assert about["python"] == "3.13"
    assert about["requirements"] == ["alpha==1.0", "beta==2.0.post1"]
    assert layer.size == about["size"] == 206


def test_a_layer_is_compiled_where_lambdas_python_is_at_hand(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another layer than without, counts with its bytecode, and says so."""
    plain = build("small", root=project, architecture="arm64")
    monkeypatch.setattr(layers, "find_compiler", lambda _: sys.executable)
    compiled = build("small", root=project, architecture="arm64")

    assert {f.name for f in compiled.path.rglob("*.pyc")} == {f"__init__.{sys.implementation.cache_tag}.pyc"}
    assert compiled.path != plain.path
    assert compiled.size > plain.size
    assert [
        json.loads((made.path / "layers" / "small.json").read_text())["bytecode"] for made in (plain, compiled)
    ] == [
        False,
        True,
    ]


def test_a_layer_is_built_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nothing is installed, and nothing but the requirements decides."""
    first = build("small", root=project, architecture="arm64")
    monkeypatch.setattr(layers, "_install", lambda *_: pytest.fail("was built again"))
    (project / "layers" / "small" / "requirements.txt").write_text("beta==2.0.post1\nalpha==1.0\n")

    assert build("small", root=project, architecture="arm64") == first


def test_other_pins_or_another_platform_are_another_layer(project: Path) -> None:
    """The folder's name covers everything that decides its content."""
    one = build("small", root=project, architecture="arm64")
    two = build("small", root=project, architecture="x86_64")
    (project / "layers" / "small" / "requirements.txt").write_text("alpha==1.1\n")
    three = build("small", root=project, architecture="arm64")

    assert len({one.path, two.path, three.path}) == 3


def test_a_build_that_fails_leaves_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer is there whole or not at all."""

    def install(pins: list[str], target: Path, architecture: str, name: str) -> None:
        (target / "alpha").mkdir(parents=True)
        raise LayerError("the network went away")

    monkeypatch.setattr(layers, "_install", install)
    with pytest.raises(LayerError):
        build("small", root=project, architecture="arm64")

    assert list((project / ".perch" / "layers").iterdir()) == []


def test_two_builds_at_once_make_one_layer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is second finds the folder there, and takes it."""
    install, together = layers._install, threading.Barrier(2)

    def slow(pins: list[str], target: Path, architecture: str, name: str) -> None:
        together.wait(timeout=60)
        install(pins, target, architecture, name)

    monkeypatch.setattr(layers, "_install", slow)
    built: list[Layer] = []
    builders = [
        threading.Thread(target=lambda: built.append(build("small", root=project, architecture="arm64")))
        for _ in range(2)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(timeout=120)

    assert len(built) == 2
    assert built[0] == built[1]
    assert [p.name for p in (project / ".perch" / "layers").iterdir()] == [built[0].path.name]


@pytest.mark.parametrize("loose", ["alpha", "alpha>=1.0", "alpha==1.*", "alpha[extra]==1.0", "-r other.txt", "./alpha"])
def test_a_loose_requirement_is_refused(project: Path, loose: str) -> None:
    """Only exact pins give the same layer tomorrow."""
    (project / "layers" / "small" / "requirements.txt").write_text(loose + "\n")

    with pytest.raises(LayerError, match="exact pin"):
        build("small", root=project, architecture="arm64")


def test_offline_with_nothing_built_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pip cannot find the wheels; the message names the layer, the command, and the folder to copy."""
    (tmp_path / "layers" / "small").mkdir(parents=True)
    (tmp_path / "layers" / "small" / "requirements.txt").write_text("alpha-that-is-not-here==1.0\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(LayerError) as caught:
        build("small", root=tmp_path, architecture="arm64")

    assert "layer small could not be built" in str(caught.value)
    assert "python -m cdk.layers" in str(caught.value)
    assert ".perch/layers" in str(caught.value)
    assert list((tmp_path / ".perch" / "layers").iterdir()) == []


def test_a_function_over_the_limit_is_refused_with_its_largest_packages(tmp_path: Path) -> None:
    """Lambda would refuse it at deployment; the message comes at synth and says what is large."""
    big = Layer(name="big", path=tmp_path, size=249_000_000, packages=(("torchlike", 240_000_000), ("tiny", 9_000_000)))
    (tmp_path / "model.bin").write_bytes(b"0" * 1_000_001)

    assert check_size("f", [big]) == 249_000_000
    with pytest.raises(LayerError, match=r"f is 250\.0 MB unpacked.*torchlike 240\.0 MB, tiny 9\.0 MB"):
        check_size("f", [big], [tmp_path])


@pytest.mark.parametrize("names", [("powertools", "onnx"), ("powertools",), ("onnxruntime",)])
def test_the_projects_functions_stay_well_under_the_limit(names: tuple[str, ...]) -> None:
    """Every set of layers that a function takes leaves room for what is to come."""
    built = [build(name, root=ROOT, architecture="arm64") for name in names]

    assert check_size("function", built, [ROOT / "layers" / "perch"]) < 200_000_000


@pytest.mark.parametrize("name", layers.REQUIREMENTS)
def test_layers_hold_machine_code_for_lambda_only(name: str) -> None:
    """Every native library is for arm64 (ELF machine 183) and, where it is bound to a Python, for 3.13."""
    layer = build(name, root=ROOT, architecture="arm64")
    for library in layer.path.rglob("*.so*"):
        head = library.read_bytes()[:20]
        assert head[:4] == b"\x7fELF"
        assert int.from_bytes(head[18:20], "little") == 183, library
        assert ".cpython-" not in library.name or ".cpython-313-" in library.name, library
