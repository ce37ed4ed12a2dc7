"""Reading a Dockerfile as far as a folder of copied files needs it.

    instruction ─► its stage (FROM opens one) ─► files below the stage's folder, and settings; the last one is the image

FROM (an image, or an earlier stage), ARG (also before the first FROM), ENV, WORKDIR, COPY (from the context or from a
stage) and ADD of local files, ENTRYPOINT, CMD, USER, HEALTHCHECK, STOPSIGNAL and LABEL are followed; RUN lines are
noted, not run, as is a COPY of what only they would have made. The rest is passed over. The `.dockerignore` of the
context is honoured. Left out: heredocs, remote ADD, and shell expansion beyond `$NAME`, `${NAME}`, `${NAME:-default}`
and `${NAME:+other}`.
"""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re
import shlex
import shutil
import tempfile
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

LAMBDA_TASK_ROOT = "/var/task"
_FROM_STAGE = re.compile(r"--from=(\S+)")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")


class DockerfileError(ValueError):
    """The Dockerfile cannot be read; the message names file, line and what is wrong."""


@dataclass(kw_only=True)
class Build:
    """What following a Dockerfile gave, beside the files in `root`."""

    root: Path
    command: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    user: str = ""
    healthcheck: str = ""
    stop_signal: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    base: str = ""
    not_run: list[str] = field(default_factory=list)

    def description(self) -> dict[str, Any]:
        """Return what the image store keeps beside the files."""
        more = {
            "entrypoint": self.entrypoint,
            "user": self.user,
            "healthcheck": self.healthcheck,
            "stop_signal": self.stop_signal,
        }
        return {
            **{name: value for name, value in more.items() if value},
            "base": self.base,
            "command": self.command,
            "environment": self.environment,
            "labels": self.labels,
            "not_run": self.not_run,
        }


def instructions(text: str) -> list[tuple[int, str, str]]:
    """Split a Dockerfile into (line number, instruction in capitals, rest); comments and continuations are resolved."""
    found: list[tuple[int, str, str]] = []
    gathered: list[str] = []
    first = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip().startswith("#") or (not line.strip() and not gathered):
            continue
        if not gathered:
            first = number
        if line.rstrip().endswith("\\"):
            gathered.append(line.rstrip()[:-1])
            continue
        gathered.append(line)
        word, _, rest = " ".join(gathered).strip().partition(" ")
        found.append((first, word.upper(), rest.strip()))
        gathered = []
    return found


def follow(dockerfile: Path, context: Path, root: Path, arguments: dict[str, str]) -> Build:
    """Do what a Dockerfile says with the files of `context`, below `root`; raises DockerfileError."""
    if not dockerfile.is_file():
        raise DockerfileError(f"There is no Dockerfile at {dockerfile}.")
    found = instructions(dockerfile.read_text())
    with tempfile.TemporaryDirectory(prefix="perch-stages-") as folder:
        reader = _Reader(dockerfile, context, Path(folder), arguments)
        for number, word, rest in found:
            reader.read(number, word, rest)
        build = reader.build
        shutil.copytree(build.root, root, dirs_exist_ok=True)
        build.root = root
        return build


class _Reader:
    """Goes through a Dockerfile, one instruction after the other; `build` is the stage that it is in."""

    def __init__(self, dockerfile: Path, context: Path, folder: Path, arguments: dict[str, str]) -> None:
        self._dockerfile = dockerfile
        self._context = context
        self._folder = folder
        self._arguments = arguments
        self._ignored = read_ignore(context, dockerfile)
        self._stages: dict[str, Build] = {}
        self._count = 0
        self._defaults: dict[str, str] = {}  # of ARG before the first FROM
        self._variables = self._defaults
        self._workdir = LAMBDA_TASK_ROOT
        self.build = self._new_stage()

    def read(self, number: int, word: str, rest: str) -> None:
        """Follow one instruction; raises DockerfileError with its line."""
        follow_one = {
            "FROM": self._from,
            "ARG": self._arg,
            "ENV": self._env,
            "LABEL": self._label,
            "WORKDIR": self._go_to,
            "RUN": self._run,
            "CMD": self._cmd,
            "ENTRYPOINT": self._entrypoint,
            "USER": self._user,
            "HEALTHCHECK": self._healthcheck,
            "STOPSIGNAL": self._stop_signal,
            "COPY": self._copy,
            "ADD": self._copy,
        }.get(word)
        if follow_one is None:
            return
        try:
            follow_one(rest)
        except DockerfileError as error:
            raise DockerfileError(f"{self._dockerfile}, line {number}: {error}") from None

    def _new_stage(self) -> Build:
        root = self._folder / str(self._count)
        root.mkdir()
        return Build(root=root, environment={"LAMBDA_TASK_ROOT": LAMBDA_TASK_ROOT})

    def _text(self, part: str) -> str:
        return expand(part, {**self._variables, **self.build.environment})

    def _from(self, rest: str) -> None:
        words = [word for word in rest.split() if not word.startswith("--")]
        if not words:
            raise DockerfileError("FROM needs an image.")
        base = expand(words[0], self._defaults)
        not_run = self.build.not_run if self._count else []
        self._count += 1
        self.build, self._workdir, self._variables = self._new_stage(), LAMBDA_TASK_ROOT, {}
        self.build.base = base
        if (earlier := self._stages.get(base)) is not None:
            root = self.build.root
            self.build = replace(deepcopy(earlier), root=root, not_run=[])
            shutil.copytree(earlier.root, root, dirs_exist_ok=True)
        self.build.not_run = not_run  # of all stages: what it says is what the image lacks
        self._stages[str(self._count - 1)] = self.build
        if len(words) == 3 and words[1].upper() == "AS":
            self._stages[words[2]] = self.build

    def _arg(self, rest: str) -> None:
        name, given, default = rest.partition("=")
        value = self._text(default.strip("\"'")) if given else self._defaults.get(name, "")
        self._variables[name] = self._arguments.get(name, value)

    def _env(self, rest: str) -> None:
        self.build.environment |= self._pairs(rest)

    def _label(self, rest: str) -> None:
        self.build.labels |= self._pairs(rest)

    def _go_to(self, rest: str) -> None:
        self._workdir = posixpath.join(self._workdir, self._text(rest))

    def _run(self, rest: str) -> None:
        self.build.not_run.append(rest)

    def _cmd(self, rest: str) -> None:
        self.build.command = _words(rest)

    def _entrypoint(self, rest: str) -> None:
        self.build.entrypoint = _words(rest)

    def _user(self, rest: str) -> None:
        self.build.user = self._text(rest)

    def _healthcheck(self, rest: str) -> None:
        self.build.healthcheck = "" if rest.upper() == "NONE" else rest

    def _stop_signal(self, rest: str) -> None:
        self.build.stop_signal = self._text(rest)

    def _copy(self, rest: str) -> None:
        if (asked := _FROM_STAGE.search(rest)) is not None:
            stage = self._stages.get(asked[1])
            root = stage.root if stage else self._folder / "another image"
            try:
                _copy(root, self.build.root, self._workdir, self._text(rest), [])
            except DockerfileError:  # only RUN lines, or another image, would have it
                self.build.not_run.append(f"COPY {rest}")
            return
        _copy(self._context, self.build.root, self._workdir, self._text(rest), self._ignored)

    def _pairs(self, rest: str) -> dict[str, str]:
        words = shlex.split(rest)
        if words and "=" not in words[0]:  # the old form: ENV NAME value
            return {words[0]: self._text(" ".join(words[1:]))}
        return {name: self._text(value) for name, _, value in (word.partition("=") for word in words)}


def _words(rest: str) -> list[str]:
    words: list[str] = json.loads(rest) if rest.startswith("[") else shlex.split(rest)
    return words


def expand(text: str, variables: dict[str, str]) -> str:
    """Put variables into a text; an unknown one is empty, as in a Dockerfile."""

    def value(match: re.Match[str]) -> str:
        found = variables.get(match.group(1) or match.group(2), "")
        if match.group(3) == "-":
            return found or match.group(4)
        if match.group(3) == "+":
            return match.group(4) if found else ""
        return found

    return _VARIABLE.sub(value, text)


def _copy(context: Path, root: Path, workdir: str, rest: str, ignored: list[str]) -> None:
    words = json.loads(rest) if rest.startswith("[") else shlex.split(rest)
    words = [word for word in words if not word.startswith("--")]
    if len(words) < 2:
        raise DockerfileError("COPY needs at least a source and a destination.")
    *sources, destination = words
    # Joining drops a last "./", which says that the destination is a folder.
    into = destination.endswith(("/", "/.")) or destination in {".", ".."} or len(sources) > 1
    target = root / posixpath.normpath(posixpath.join(workdir, destination)).lstrip("/")
    for source in sources:
        found = _matches(context, source)
        if not found:
            raise DockerfileError(f"{source} is not in the build context {context}.")
        for path in found:
            if path.is_dir():
                _copy_folder(context, path, target, ignored)
            elif not is_ignored(path.relative_to(context).as_posix(), ignored):
                place = target / path.name if into or target.is_dir() else target
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
                shutil.copymode(path, place)


def _matches(context: Path, source: str) -> list[Path]:
    relative = posixpath.normpath(source.lstrip("/"))
    if relative.startswith(".."):
        raise DockerfileError(f"{source} lies outside the build context.")
    if relative == ".":
        return [context]
    return sorted(context.glob(relative))


def _copy_folder(context: Path, folder: Path, target: Path, ignored: list[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not is_ignored(path.relative_to(context).as_posix(), ignored):
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            shutil.copymode(path, place)


# --- .dockerignore ---------------------------------------------------------------------------------------------------


def read_ignore(context: Path, dockerfile: Path) -> list[str]:
    """Return the patterns that leave files out of the context; a Dockerfile's own list comes before the context's."""
    for path in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), context / ".dockerignore"):
        if path.is_file():
            lines = [line.strip() for line in path.read_text().splitlines()]
            return [line for line in lines if line and not line.startswith("#")]
    return []


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Say whether a path (relative, with `/`) is left out; the last pattern that fits decides, `!` lets it in."""
    ignored = False
    for pattern in patterns:
        wanted = pattern.startswith("!")
        if _fits(path, pattern.lstrip("!").strip("/")):
            ignored = not wanted
    return ignored


def _fits(path: str, pattern: str) -> bool:
    parts, wanted = path.split("/"), posixpath.normpath(pattern).split("/")
    # A pattern that fits a folder takes all that is in it.
    return any(_fit(parts[:length], wanted) for length in range(1, len(parts) + 1))


def _fit(parts: list[str], wanted: list[str]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_fit(parts[skip:], wanted[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and _fit(parts[1:], wanted[1:])
