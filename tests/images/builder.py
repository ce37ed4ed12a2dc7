"""Building and running images with what the machine has: docker, podman, or buildah, which needs no daemon.

An engine counts only if it can run a process in a container here; why it cannot is the reason that a test is skipped
for. Images are built from PERCH_TEST_BASE if that is set (such as `python:3.13-slim`), else from a minimal Debian that
is made once, without a registry, and kept in `.perch/base-image.tar`. Inside the build pip is configured as outside.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE_TAR = ROOT / ".perch" / "base-image.tar"
BASE = "localhost/perch-test-base"


class Missing(Exception):
    """The machine cannot build or run images; the message says why."""


def run(*command: str, environ: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed. Raises `Missing` with the end of what it said."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **(environ or {})})
    if done.returncode:
        raise Missing(f"{' '.join(command[:3])} …: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


@dataclass(frozen=True)
class Config:
    """What an image says of itself."""

    user: str
    environment: dict[str, str]
    entrypoint: list[str]
    command: list[str]
    labels: dict[str, str]
    healthcheck: list[str]
    stop_signal: str
    folder: str


def _config(found: Mapping[str, object]) -> Config:
    texts: list[str] = found.get("Env") or []  # type: ignore[assignment]  # as the image format has it
    check: dict[str, list[str]] = found.get("Healthcheck") or {}  # type: ignore[assignment]  # as above
    return Config(
        user=str(found.get("User") or ""),
        environment=dict(text.split("=", 1) for text in texts),
        entrypoint=list(found.get("Entrypoint") or []),  # type: ignore[call-overload]  # as above
        command=list(found.get("Cmd") or []),  # type: ignore[call-overload]  # as above
        labels=dict(found.get("Labels") or {}),  # type: ignore[call-overload]  # as above
        healthcheck=list(check.get("Test") or []),
        stop_signal=str(found.get("StopSignal") or ""),
        folder=str(found.get("WorkingDir") or "/"),
    )


@dataclass
class Container:
    """A container that runs its image's own command; all that it prints comes out of `process`."""

    process: subprocess.Popen[bytes]
    stop: Sequence[str] | None = None

    def terminate(self) -> int:
        """Send what STOPSIGNAL names to the container's first process and return its exit code."""
        if self.stop is not None:
            run(*self.stop)
        else:
            # buildah is no init: the container's first process is the first of its descendants that is not its own.
            below = _descendants(self.process.pid)
            inside = [pid for pid in below if "python" in str(Path(f"/proc/{pid}/exe").readlink())]
            os.kill(min(inside, key=_started), signal.SIGTERM)
        return self.process.wait(300)


class Engine:
    """docker or podman, which have the same commands."""

    def __init__(self, name: str) -> None:
        self.name = name
        run(name, "info")

    def base(self) -> str:
        """Return the image to build from."""
        if given := os.environ.get("PERCH_TEST_BASE"):
            return given
        run(self.name, "import", str(base_tar()), BASE)
        return BASE

    def build(self, dockerfile: str, tag: str, arguments: Mapping[str, str], pip: Path) -> None:
        """Build an image of the project."""
        # docker's own build takes no volumes: pip's configuration goes in as a secret would, through the network only.
        more = [] if self.name == "docker" else _volumes(pip)
        pairs = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        form = [] if self.name == "docker" else ["--format=docker"]
        run(self.name, "build", "--network=host", *form, *more, *pairs, "-f", dockerfile, "-t", tag, str(ROOT))

    def config(self, tag: str) -> Config:
        """Read what an image says of itself."""
        return _config(json.loads(run(self.name, "image", "inspect", tag))[0]["Config"])

    def start(self, tag: str, environ: Mapping[str, str], volumes: Mapping[Path, str]) -> Container:
        """Run the image's own command."""
        name = f"perch-test-{os.getpid()}-{time.monotonic_ns()}"
        command = [self.name, "run", "--rm", "--init=false", "--name", name, "--network=host"]
        command += [f"--env={key}={value}" for key, value in environ.items()]
        command += [f"--volume={path}:{place}:ro" for path, place in volumes.items()]
        process = subprocess.Popen([*command, tag], stdout=subprocess.PIPE)
        return Container(process, stop=(self.name, "kill", "--signal=TERM", name))

    def run_in(self, tag: str, command: Sequence[str], environ: Mapping[str, str]) -> str:
        """Run another command in the image and return what it printed."""
        pairs = [f"--env={key}={value}" for key, value in environ.items()]
        return run(self.name, "run", "--rm", "--network=host", *pairs, f"--entrypoint={command[0]}", tag, *command[1:])


class Buildah(Engine):
    """buildah, which builds with chroot where there are no namespaces, and runs commands in a working container."""

    ENVIRON = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}  # noqa: RUF012 - it does not change

    def __init__(self) -> None:
        self.name = "buildah"
        self._containers: dict[str, str] = {}
        self._do("info")

    def _do(self, *arguments: str) -> str:
        return run("buildah", *arguments, environ=self.ENVIRON)

    def base(self) -> str:
        if given := os.environ.get("PERCH_TEST_BASE"):
            return given
        container = self._do("from", "scratch").strip()
        self._do("add", "--quiet", container, str(base_tar()), "/")
        self._do("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        self._do("run", container, "--", "python3", "--version")
        self._do("commit", "--quiet", "--rm", container, BASE)
        return BASE

    def build(self, dockerfile: str, tag: str, arguments: Mapping[str, str], pip: Path) -> None:
        pairs = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        ignore = f"--ignorefile={dockerfile}.dockerignore"
        options = ["--format=docker", "--network=host", ignore, *_volumes(pip), *pairs]
        self._do("build", *options, "-f", dockerfile, "-t", tag, str(ROOT))

    def config(self, tag: str) -> Config:
        return _config(json.loads(self._do("inspect", "--type=image", tag))["Docker"]["config"])

    def start(self, tag: str, environ: Mapping[str, str], volumes: Mapping[Path, str]) -> Container:
        config = self.config(tag)
        options = [f"--env={key}={value}" for key, value in environ.items()]
        options += [f"--volume={path}:{place}:ro" for path, place in volumes.items()]
        command = [*config.entrypoint, *config.command]
        process = subprocess.Popen(
            ["buildah", "run", *options, self._container(tag), "--", *command],
            env={**os.environ, **self.ENVIRON},
            stdout=subprocess.PIPE,
        )
        return Container(process)

    def run_in(self, tag: str, command: Sequence[str], environ: Mapping[str, str]) -> str:
        options = [f"--env={key}={value}" for key, value in environ.items()]
        return self._do("run", *options, self._container(tag), "--", *command)

    def _container(self, tag: str) -> str:
        if tag not in self._containers:
            self._containers[tag] = self._do("from", "--pull=never", tag).strip()
        return self._containers[tag]

    def close(self) -> None:
        """Remove working containers."""
        for container in self._containers.values():
            self._do("rm", container)


def find_engine() -> Engine:
    """Return the first engine that works here. Raises `Missing`, with the reason for each."""
    reasons = []
    for make, name in ((Engine, "docker"), (Engine, "podman"), (lambda _: Buildah(), "buildah")):
        if shutil.which(name) is None:
            reasons.append(f"{name} is not installed")
            continue
        try:
            engine = make(name)
            image = engine.base()
            engine.run_in(image, ["python3", "--version"], {})
        except Missing as error:
            reasons.append(str(error))
        else:
            return engine
    raise Missing("; ".join(reasons))


def base_tar() -> Path:
    """Make a minimal Debian with Python and pip, once. Raises `Missing`."""
    if not BASE_TAR.exists():
        BASE_TAR.parent.mkdir(exist_ok=True)
        unfinished = BASE_TAR.with_suffix(".unfinished")
        packages = "--include=python3,python3-pip,ca-certificates"
        if shutil.which("mmdebstrap") is None:
            raise Missing(
                "there is no mmdebstrap to make a base image with; set PERCH_TEST_BASE to one that can be had"
            )
        run("mmdebstrap", "--format=tar", "--variant=minbase", packages, "bookworm", str(unfinished))
        unfinished.rename(BASE_TAR)
    return BASE_TAR


def pip_configuration(folder: Path) -> Path:
    """Write this machine's pip configuration into one file and return it."""
    lines = ["[global]"]
    for line in run("python3", "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        if (scope := key.partition(".")[0]) in ("global", "install", ":env:"):
            name = key.removeprefix(f"{scope}.")
            lines.append(f"{name} = {' '.join(str(ast.literal_eval(value)).split())}")
    path = folder / "pip.conf"
    path.write_text("\n".join(dict.fromkeys(lines)) + "\n")
    return path


def _volumes(pip: Path) -> list[str]:
    """The configuration of pip, and the folders and files of this machine that it names."""
    named = {Path(match) for match in re.findall(r"(?<![\w:/])/[^\s/][^\s]*|(?<=file://)/[^\s]+", pip.read_text())}
    options = [f"--volume={pip}:/etc/pip.conf:ro"]
    for path in sorted(named):
        if path.exists():
            place = path.parent if path.is_dir() and path.name == "simple" else path
            options.append(f"--volume={place}:{place}:ro")
    return options


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _started(pid: int) -> int:
    """When a process began, in ticks since the machine did."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
