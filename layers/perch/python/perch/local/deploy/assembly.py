"""Reading a cloud assembly: what `cdk synth` leaves in `cdk.out`, as plain values.

An assembly lists stacks with their templates and what they depend on, and, beside each, the files and container images
that the template expects in the bootstrap bucket and repository. Left out: nested assemblies (stages), lookups of
context, and assets that are built by a command.
"""

from __future__ import annotations

import graphlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class AssemblyError(ValueError):
    """The folder does not hold an assembly that can be deployed; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class FileAsset:
    """One file, or one folder to be zipped, and where the template expects it."""

    id: str
    path: Path
    zipped: bool
    bucket: str
    key: str


@dataclass(frozen=True, kw_only=True)
class ImageAsset:
    """One container image to be built, and the repository and tag that the template expects."""

    id: str
    folder: Path
    dockerfile: str
    arguments: dict[str, str]
    target: str | None
    repository: str
    tag: str


@dataclass(frozen=True, kw_only=True)
class StackArtifact:
    """One stack: its name, its template, and what it needs first."""

    id: str
    name: str
    template_path: Path
    template: dict[str, Any]
    parameters: dict[str, str]
    tags: dict[str, str]
    needs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """Stacks in the order in which they can be deployed, and all their assets, each once."""

    path: Path
    stacks: tuple[StackArtifact, ...]
    files: tuple[FileAsset, ...]
    images: tuple[ImageAsset, ...]


def read_assembly(path: Path, *, account: str = "123456789012", region: str = "us-east-1") -> Assembly:
    """Read `cdk.out` for one account and region; raises AssemblyError."""
    manifest_path = path / "manifest.json"
    if not manifest_path.is_file():
        raise AssemblyError(f"{path} holds no manifest.json: synthesize the app first (`cdk synth`).")
    artifacts: dict[str, Any] = json.loads(manifest_path.read_text()).get("artifacts", {})
    places = {
        "${AWS::AccountId}": account,
        "${AWS::Region}": region,
        "${AWS::Partition}": "aws",
        "${AWS::URLSuffix}": "amazonaws.com",
    }
    stacks = {}
    files: dict[str, FileAsset] = {}
    images: dict[str, ImageAsset] = {}
    for id_, artifact in artifacts.items():
        match artifact["type"]:
            case "aws:cloudformation:stack":
                stacks[id_] = _stack(path, id_, artifact)
            case "cdk:asset-manifest":
                manifest = json.loads((path / artifact["properties"]["file"]).read_text())
                _read_assets(path, manifest, places, files, images)
            case "cdk:cloud-assembly":
                raise AssemblyError(
                    f"{path} holds a nested assembly ({id_}), which is not supported: deploy its folder."
                )
            case _:
                pass
    order = graphlib.TopologicalSorter(
        {id_: [need for need in stack.needs if need in stacks] for id_, stack in stacks.items()}
    ).static_order()
    return Assembly(
        path=path,
        stacks=tuple(stacks[id_] for id_ in order),
        files=tuple(files.values()),
        images=tuple(images.values()),
    )


def _stack(path: Path, id_: str, artifact: dict[str, Any]) -> StackArtifact:
    properties = artifact["properties"]
    template_path = path / properties["templateFile"]
    return StackArtifact(
        id=id_,
        name=properties.get("stackName", id_),
        template_path=template_path,
        template=json.loads(template_path.read_text()),
        parameters=dict(properties.get("parameters", {})),
        tags=dict(properties.get("tags", {})),
        needs=tuple(artifact.get("dependencies", ())),
    )


def _read_assets(
    path: Path,
    manifest: dict[str, Any],
    places: dict[str, str],
    files: dict[str, FileAsset],
    images: dict[str, ImageAsset],
) -> None:
    def place(text: str) -> str:
        for name, value in places.items():
            text = text.replace(name, value)
        return text

    for id_, asset in manifest.get("files", {}).items():
        source = asset["source"]
        if "path" not in source:
            raise AssemblyError(
                f"The asset {asset.get('displayName', id_)} is made by a command, which is not supported."
            )
        for destination in asset["destinations"].values():
            files[id_] = FileAsset(
                id=id_,
                path=path / source["path"],
                zipped=source.get("packaging") == "zip",
                bucket=place(destination["bucketName"]),
                key=place(destination["objectKey"]),
            )
    for id_, asset in manifest.get("dockerImages", {}).items():
        source = asset["source"]
        if "directory" not in source:
            raise AssemblyError(
                f"The image {asset.get('displayName', id_)} is made by a command, which is not supported."
            )
        for destination in asset["destinations"].values():
            images[id_] = ImageAsset(
                id=id_,
                folder=path / source["directory"],
                dockerfile=source.get("dockerFile", "Dockerfile"),
                arguments=dict(source.get("dockerBuildArgs", {})),
                target=source.get("dockerBuildTarget"),
                repository=place(destination["repositoryName"]),
                tag=place(destination["imageTag"]),
            )
