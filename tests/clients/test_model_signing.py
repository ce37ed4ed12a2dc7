"""`model_signing`, the OpenSSF's own command, reads what Perch signs, and the other way round. `make test-clients`.

It runs in an environment of its own; `PERCH_COMMAND` is the `perch` of this project.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("model_signing", reason="in an environment of its own: make test-clients")

PERCH = os.environ.get("PERCH_COMMAND", "perch")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


def perch_signs(model: str, signature: str) -> None:
    done = run(PERCH, "sign", model, "--key", "team.key", "--signature", signature)
    assert done.returncode == 0, done.stderr


def they_sign(model: str, signature: str, *options: str) -> None:
    done = run("model_signing", "sign", "key", model, "--private_key", "team.key", "--signature", signature, *options)
    assert done.returncode == 0, done.stdout + done.stderr


def perch_verifies(model: str, signature: str, key: str = "team.pem") -> bool:
    return run(PERCH, "verify", model, "--key", key, "--signature", signature).returncode == 0


def they_verify(model: str, signature: str, key: str = "team.pem") -> bool:
    done = run("model_signing", "verify", "key", model, "--public_key", key, "--signature", signature)
    return done.returncode == 0


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder of a model, with Git's files, and two pairs of keys."""
    monkeypatch.chdir(tmp_path)
    for name in ("team", "other"):
        assert run(PERCH, "keys", "new", name).returncode == 0
    folder = tmp_path / "digits"
    for file, text in (
        ("model.onnx", "weights"),
        ("perch.json", '{"artifact": "model.onnx"}'),
        ("data/Zürich.txt", "0 1 2"),
        ("data.txt", "sorts before a slash"),
        (".git/HEAD", "ref"),
        (".gitignore", "*.tmp"),
    ):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    return folder


@pytest.mark.parametrize("sign", [perch_signs, they_sign])
@pytest.mark.parametrize("model", ["digits", "digits/model.onnx"])
@pytest.mark.parametrize("signature", ["digits/model.sig", "elsewhere.sig"])
def test_each_verifies_what_either_signed(sign, model, signature):
    """A folder and a single file, with the signature inside and outside; never with another key."""
    sign(model, signature)

    assert (perch_verifies(model, signature), they_verify(model, signature)) == (True, True)
    assert (perch_verifies(model, signature, "other.pem"), they_verify(model, signature, "other.pem")) == (False, False)


def test_each_respects_what_the_other_left_out(place):
    """`--ignore-paths` is part of what is signed."""
    they_sign("digits", "digits/model.sig", "--ignore-paths", "digits/data")
    (place / "data" / "more.txt").write_text("nobody signed this")

    assert (perch_verifies("digits", "digits/model.sig"), they_verify("digits", "digits/model.sig")) == (True, True)


def change(folder: Path, how: str) -> None:
    model = folder / "model.onnx"
    if how == "changed":
        model.write_text("weightS")
    elif how == "renamed":
        model.rename(folder / "other.onnx")
    elif how == "extra":
        (folder / "extra.bin").write_text("")
    elif how == "missing":
        (folder / "data.txt").unlink()
    elif how == "bundle":
        bundle = folder / "model.sig"
        text = bundle.read_text()
        at = text.index('"payload":"') + 50
        bundle.write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])


@pytest.mark.parametrize("sign", [perch_signs, they_sign])
@pytest.mark.parametrize("how", ["changed", "renamed", "extra", "missing", "bundle"])
def test_both_refuse_what_was_tampered_with(place, sign, how):
    """Neither is more generous than the other."""
    sign("digits", "digits/model.sig")
    change(place, how)

    assert (perch_verifies("digits", "digits/model.sig"), they_verify("digits", "digits/model.sig")) == (False, False)
