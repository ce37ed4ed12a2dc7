"""What the pages name is there: links and anchors, files, modules, targets of make, and commands with their options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from perch.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]
PLACES = [ROOT, ROOT / "layers" / "perch" / "python", ROOT / "layers" / "perch" / "python" / "perch", ROOT / "docs"]
ROOMS = {"app", "artifacts", "aws", "benchmarks", "cdk", "cli", "docs", "domain", "examples", "export", "functions"}
ROOMS |= {"http", "layers", "local", "perch", "predictor", "signing", "tests"}

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_WORD = re.compile(r"`([^`\n]+)`")


def named(page: Path) -> str:
    """A page's name below the project's folder."""
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """What a link to a heading of a page may end with."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def words(page: Path) -> Iterator[str]:
    """What stands between backticks in a page's text."""
    yield from _WORD.findall(_FENCE.sub("", page.read_text("utf-8")))


def code_lines(page: Path) -> Iterator[str]:
    """Lines of code: fenced, indented, or between backticks; continued lines are joined, comments cut off."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if fenced or line.startswith("    "):
            yield re.split(r"\s#\s|\s{2,}→", line)[0].strip().removeprefix("$ ")
        else:
            yield from _WORD.findall(line)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading that it has."""
    lost = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    """Below the project's folder, the package's, or that of a room."""
    paths = [word for word in words(page) if re.fullmatch(r"[\w.\-/]+/[\w.\-]*\.?\w*", word)]
    paths = [word for word in paths if word.split("/")[0] in ROOMS and not word.startswith("perch/digits")]  # alarms
    missing = [path for path in paths if not any((place / path).exists() for place in PLACES)]
    missing = [path for path in missing if not any((place / f"{path}.py").exists() for place in PLACES)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_module_that_a_page_runs_or_imports_is_there(page: Path) -> None:
    """`python -m …`, and what is imported of Perch."""
    text = "\n".join(code_lines(page))
    modules = re.findall(r"python -m ((?:benchmarks|cdk|perch|tests)[\w.]*)", text)
    imported = re.findall(r"^from (perch[\w.]*) import ([\w, ]+)", text, re.MULTILINE)
    assert [module for module in [*modules, *(module for module, _ in imported)] if find_spec(module) is None] == []
    for module, names in imported:
        found: Any = __import__(module, fromlist=["*"])
        assert [name for name in names.split(", ") if not hasattr(found, name)] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_target_of_make_is_there(page: Path) -> None:
    """In the Makefile."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {line.split()[1] for line in code_lines(page) if re.match(r"make [\w-]+", line)}
    assert asked <= targets


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_of_perch_has_its_options(page: Path) -> None:
    """Each is a command, with options that it knows and no more arguments than it takes."""
    wrong = []
    for line in code_lines(page):
        if not re.match(r"perch( |$)", line) or line == "perch OPTIONS COMMAND":
            continue
        if found := trouble(line):
            wrong.append(f"{line}: {found}")
    assert wrong == []


def trouble(line: str) -> str:
    """What is wrong with a command line; nothing if it could be run."""
    try:
        rest = shlex.split(line)[1:]
    except ValueError:  # a quotation that ends in another line
        rest = line.split()[1:]
    command: Any = typer.main.get_command(app)
    while True:
        try:
            _, rest, _ = command.make_parser(command.context_class(command)).parse_args(rest)
        except Exception as error:  # noqa: BLE001 - typer does not say where its parser's errors are from
            return "" if "requires an argument" in str(error) else str(error)  # a mention of an option, no command
        if not hasattr(command, "commands"):
            return f"too many arguments: {rest}" if rest else ""
        if not rest:
            return ""
        if rest[0] not in command.commands:
            return f"no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]


@pytest.mark.parametrize(
    ("line", "words_"),
    [
        ("perch push model.onnx --model digits --version v1", ""),
        ("perch --local push model.onnx --modell digits", "No such option"),
        ("perch rollouts begin digits", "no command begin"),
        ("perch status digits more", "too many arguments"),
        ("perch rollback digits --reason …", ""),
    ],
)
def test_a_command_that_would_not_run_is_noticed(line: str, words_: str) -> None:
    """Or else the claim above could not fail."""
    assert trouble(line).startswith(words_)
    assert bool(trouble(line)) == bool(words_)
