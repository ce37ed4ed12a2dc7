"""The image store of the local cloud: what "pushed" means where there is no container engine.

An image is a folder with the files that its Dockerfile copies and a small description (command, environment). It is
named by the hash of both, never changes, and is reached by digest or through a reference (`repository:tag`).

    <store>/images/<digest>/image.json
    <store>/images/<digest>/root/var/task/…
    <store>/references/<quoted repository:tag>      a text file that holds a digest

Left out: layers, base images and everything that a RUN line would have made.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image of the store; `task_root` is its LAMBDA_TASK_ROOT, `not_run` the RUN lines that were only noted."""

    digest: str
    root: Path
    task_root: Path
    command: tuple[str, ...]
    environment: dict[str, str]
    not_run: tuple[str, ...] = ()


class ImageStore:
    """Images by digest, and references to them, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._images = folder / "images"
        self._references = folder / "references"

    def add(self, root: Path, description: dict[str, Any]) -> Image:
        """Take a folder tree as an image; the same bytes and description give the same image."""
        digest = _digest(root, description)
        home = self._images / digest.removeprefix("sha256:")
        if not home.is_dir():
            self._images.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix=".adding-", dir=self._images))
            try:
                shutil.copytree(root, unfinished / "root")
                (unfinished / "image.json").write_text(json.dumps(description, indent=2, sort_keys=True))
                unfinished.chmod(0o755)
                try:
                    unfinished.rename(home)
                except OSError:  # somebody was first; theirs is the same
                    if not home.is_dir():
                        raise
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return self._read(digest)

    def tag(self, reference: str, digest: str) -> None:
        """Let `reference` lead to an image; it may have led to another before."""
        self._references.mkdir(parents=True, exist_ok=True)
        target = self._references / quote(reference, safe="")
        with tempfile.NamedTemporaryFile("w", dir=self._references, delete=False) as unfinished:
            unfinished.write(digest)
        os.replace(unfinished.name, target)  # noqa: PTH105 - atomic on every platform

    def find(self, reference: str) -> Image | None:
        """Return the image of a digest, of `repository@digest` or of `repository:tag`; None when there is none."""
        digest = reference.rpartition("@")[2]
        if not digest.startswith("sha256:"):
            target = self._references / quote(reference, safe="")
            if not target.is_file():
                return None
            digest = target.read_text()
        return self._read(digest) if (self._images / digest.removeprefix("sha256:")).is_dir() else None

    def _read(self, digest: str) -> Image:
        home = self._images / digest.removeprefix("sha256:")
        description = json.loads((home / "image.json").read_text())
        environment = dict(description.get("environment", {}))
        task_root = home / "root" / environment.get("LAMBDA_TASK_ROOT", "/var/task").lstrip("/")
        task_root.mkdir(parents=True, exist_ok=True)
        return Image(
            digest=digest,
            root=home / "root",
            task_root=task_root,
            command=tuple(description.get("command", ())),
            environment=environment,
            not_run=tuple(description.get("not_run", ())),
        )


def _digest(root: Path, description: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for path in sorted(root.rglob("*")):
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"\0{path.relative_to(root).as_posix()}\0{content}".encode())
    return f"sha256:{digest.hexdigest()}"
