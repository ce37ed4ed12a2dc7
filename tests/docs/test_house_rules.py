"""The house rules that a machine can check."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = sorted(p for p in (ROOT / "tests").rglob("test_*.py"))


def tracked() -> list[Path]:
    """Every text file of the project."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing tells which files are the project's")
    return [ROOT / name for name in listed.stdout.split() if not name.endswith((".lock", ".png"))]


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_test_is_a_claim_with_its_sentence(path):
    """A test that cannot be said in a sentence tests too much or nothing."""
    tree = ast.parse(path.read_text())
    silent = [
        f"{path.name}:{node.lineno} {node.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]

    assert silent == []


def test_no_file_names_a_place_that_only_exists_elsewhere():
    """Registries are chosen by whoever installs; paths of one machine mean nothing on another."""
    parts = [("pypi", ".org"), ("pythonhosted", ".org"), ("registry.npmjs", ".org"), ("download.pytorch", ".org")]
    parts += [("/work", "/main"), ("/root", "/."), ("/opt", "/wheels")]
    unwanted = ["".join(p) for p in parts]
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in tracked()
        if path.is_file()
        for word in unwanted
        if word in path.read_text(errors="ignore")
    ]

    assert found == []


def test_refusals_of_aws_are_known_by_their_code():
    """Botocore makes `client.exceptions` when first asked: two threads get two sets, and `except` lets one by."""
    asked = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in tracked()
        if path.is_file() and path.suffix == ".py" and ".exceptions." in path.read_text()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "exceptions"
    ]

    assert asked == []


def test_torch_is_pinned_in_one_place():
    """Two pins drift apart."""
    pins = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if (path.is_file() and path.suffix in {".txt", ".toml", ".cfg"}) or path.name in {"Makefile", "Dockerfile"}
        for line in path.read_text(errors="ignore").splitlines()
        if line.strip().strip("\",'").startswith("torch==")
    ]

    assert pins == ["functions/predict_torch/requirements.txt"]


def test_the_images_of_all_runtimes_end_alike():
    """PyTorch needs packages of its own, and so a Dockerfile of its own; who runs in it, and how, is the same."""

    def last_stage(folder):
        text = (ROOT / "functions" / folder / "Dockerfile").read_text().rpartition("\nFROM ")[2]
        lines = [
            line for line in text.replace("${RUNTIME}", "torch").splitlines() if not line.startswith(("#", "ARG "))
        ]
        return [line for line in lines if "image.description" not in line]

    assert len(last_stage("container")) > 10
    assert last_stage("container") == last_stage("predict_torch")
