"""A stand-in for a container engine, for `CDK_DOCKER`: enough of `docker` for `cdk deploy` to publish image assets.

    python -m perch.local.deploy.docker build --tag x --file Dockerfile .

It copies the files that a Dockerfile copies into the local image store and runs nothing: what RUN lines would install
comes from this machine's own environment. It is not a container engine, and says so on every build; where podman,
buildah or docker exist, name those in CDK_DOCKER instead.

`PERCH_IMAGE_STORE` names the store (default `.perch/images` in the current folder).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from perch.local.deploy.dockerfile import DockerfileError, follow
from perch.local.deploy.images import Image, ImageStore

NOTICE = "perch: this is a stand-in, not a container engine; files are copied and nothing is run."


def build_image(store: ImageStore, context: Path, dockerfile: Path, arguments: Mapping[str, str]) -> Image:
    """Build an image into the store; raises DockerfileError."""
    with tempfile.TemporaryDirectory(prefix="perch-image-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        build = follow(dockerfile, context, root, dict(arguments))
        return store.add(root, build.description())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one `docker` command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    store = ImageStore(Path(os.environ.get("PERCH_IMAGE_STORE", ".perch/images")))
    command, rest = (given[0], given[1:]) if given else ("", [])
    known = {"build": _build, "inspect": _inspect, "tag": _tag, "push": _push, "login": _login, "logout": _login}
    if command in {"version", "--version"}:
        return _say(f"perch container stand-in\n{NOTICE}")
    if command not in known:
        return _fail(f"{NOTICE}\nIt knows {', '.join(known)}, not {command or 'nothing'!r}.")
    return known[command](store, rest)


def _say(message: str) -> int:
    print(message)
    return 0


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _login(store: ImageStore, rest: list[str]) -> int:
    del store
    if "--password-stdin" in rest:
        sys.stdin.read()
    return _say("Login Succeeded")


def _build(store: ImageStore, rest: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="build", allow_abbrev=False)
    parser.add_argument("context", type=Path)
    parser.add_argument("-t", "--tag", action="append", default=[])
    parser.add_argument("-f", "--file", type=Path)
    parser.add_argument("--build-arg", action="append", default=[])
    # Accepted, because they change nothing for files that are only copied.
    for name in (
        "--platform", "--network", "--progress", "--provenance", "--sbom", "--output", "--target", "--cache-from",
        "--cache-to", "--label", "--iidfile",
    ):  # fmt: skip
        parser.add_argument(name, action="append")
    for name in ("--load", "--no-cache", "--quiet", "-q", "--pull"):
        parser.add_argument(name, action="store_true")
    asked = parser.parse_args(rest)
    file = asked.file or Path("Dockerfile")
    dockerfile = file if file.is_absolute() else asked.context / file
    if not dockerfile.is_file() and file.is_file():
        dockerfile = file
    build_arguments = dict(pair.partition("=")[::2] for pair in asked.build_arg)
    print(NOTICE, file=sys.stderr)
    try:
        image = build_image(store, asked.context, dockerfile, build_arguments)
    except DockerfileError as error:
        return _fail(str(error))
    for line in image.not_run:
        print(f"perch: not run: {line[:120]}", file=sys.stderr)
    for tag in asked.tag:
        store.tag(tag, image.digest)
    return _say(image.digest)


def _inspect(store: ImageStore, rest: list[str]) -> int:
    names = [word for word in rest if not word.startswith("-")]
    if names and all(store.find(name) for name in names):
        return 0
    return _fail(f"Error: No such object: {' '.join(names)}")


def _tag(store: ImageStore, rest: list[str]) -> int:
    if len(rest) != 2:
        return _fail("tag needs a source and a target.")
    image = store.find(rest[0])
    if image is None:
        return _fail(f"Error: No such image: {rest[0]}")
    store.tag(rest[1], image.digest)
    return 0


def _push(store: ImageStore, rest: list[str]) -> int:
    names = [word for word in rest if not word.startswith("-")]
    image = store.find(names[0]) if len(names) == 1 else None
    if image is None:
        return _fail(f"An image does not exist locally with the tag: {' '.join(names)}")
    return _say(f"{NOTICE}\n{names[0]}: digest: {image.digest}")


if __name__ == "__main__":
    raise SystemExit(main())
