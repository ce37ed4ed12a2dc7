"""When an upload is complete: which files of its folder make the version, and what it waits for otherwise.

    manifest there   the artifact is the file that `perch.json` names
    `MLmodel` there  an MLflow folder: the artifact is the file of its flavour (`perch.artifacts.mlflow_folder`)
    none there       the artifact is the only file, unless it carries the S3 metadata `perch: part` (then it waits)
    `model.sig`      is looked for beside them; by itself it waits for what it signs

Every file's event asks the same question, so the files may come in any order and their events in any other. What was
refused stays refused: a file whose S3 version has a refusal in the registry makes no version, whatever comes beside it.
A manifest that cannot be used is refused by its own event, and the other files wait for the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perch.app.world import World
from perch.artifacts import ArtifactRefused
from perch.artifacts.mlflow_folder import BESIDE, MLMODEL, read_mlmodel
from perch.aws.store import Stored
from perch.domain import strict_json
from perch.domain.errors import Invalid, PerchError
from perch.domain.names import MANIFEST, SIGNATURE, UploadKey, is_name

PART = "part"
MAX_MANIFEST = 100_000  # bytes; with all of it, a version must fit into an item of the registry


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`perch.json`, or the `MLmodel` that takes its place: its bytes, and what they say."""

    stored: Stored
    data: bytes
    document: Mapping[str, Any]
    name: str = MANIFEST

    @property
    def artifact(self) -> str:
        """The name of the file that it makes a version of."""
        return str(self.document["artifact"])


@dataclass(frozen=True, kw_only=True)
class Complete:
    """The files of a version."""

    artifact: Stored
    manifest: Manifest | None
    signature: Stored | None

    @property
    def all(self) -> tuple[Stored, ...]:
        """Each of them."""
        beside = (self.manifest.stored if self.manifest else None, self.signature)
        return (self.artifact, *(stored for stored in beside if stored))


class Waits(PerchError):
    """An upload is not complete; the message says what it waits for."""


def complete(world: World, parts: UploadKey, stored: Stored, *, known: bool = False) -> Complete:
    """Return the files that make a version together with `stored`; `known` if there is a version of the name already.

    Raises:
        Waits: they are not all there.
        Invalid: `stored` is a manifest that cannot be used.
        NotFound: a file was deleted meanwhile.
    """
    names = {parts.file, *world.store.files(parts.folder)}

    def look(file: str) -> Stored:
        return stored if file == parts.file else _unrefused(world, world.store.look(parts.folder + file), stored)

    manifest = None
    described_by = MANIFEST if MANIFEST in names else MLMODEL
    try:
        if MANIFEST in names:
            manifest = _manifest(world, look(MANIFEST))
        elif parts.file in BESIDE:
            raise Waits(f"waits for {parts.folder}{MLMODEL}, which it goes with")
        elif MLMODEL in names:
            manifest = _mlmodel(world, look(MLMODEL))
    except (Invalid, ArtifactRefused) as bad:
        if parts.file == described_by:
            raise
        raise Waits(f"waits for another {described_by}, as this one cannot be used: {bad}") from bad
    artifact = look(_named(manifest, parts, names) if manifest else _only(world, parts, names, known=known))
    if manifest is None and artifact.metadata.get("perch") == PART:
        raise Waits(f"waits for {parts.folder}{MANIFEST}: {artifact.key} was uploaded as part of a folder")
    return Complete(artifact=artifact, manifest=manifest, signature=look(SIGNATURE) if SIGNATURE in names else None)


def _unrefused(world: World, stored: Stored, asked: Stored) -> Stored:
    """Return a file that was not refused, unless by this very event, which has died since. Raises Waits for others."""
    refused = world.registry.rejection(stored.key, stored.version_id)
    if refused and refused.event != asked.event:
        raise Waits(f"waits for {stored.key}, which was refused ({refused.reason}); upload it again")
    return stored


def _named(manifest: Manifest, parts: UploadKey, names: set[str]) -> str:
    """Return the artifact that a manifest names. Raises Waits if it is not there, or if this file is another one."""
    if manifest.artifact not in names:
        raise Waits(f"waits for {parts.folder}{manifest.artifact}, which {manifest.name} names")
    if parts.file not in (manifest.artifact, manifest.name, SIGNATURE):
        raise Waits(f"{manifest.name} names {manifest.artifact} as the artifact; this file only goes with it")
    return manifest.artifact


def _only(world: World, parts: UploadKey, names: set[str], *, known: bool) -> str:
    """Return the one artifact of a folder without a manifest. Raises Waits if there is none, or more than one."""
    others = names - {parts.file, SIGNATURE}
    if not parts.is_signature and (known or not others):
        return parts.file
    others -= _refused(world, parts.folder, others)
    if parts.is_signature and len(others) == 1:
        return others.pop()
    if parts.is_signature and not others:
        raise Waits(f"waits for the file that {SIGNATURE} signs")
    if others:
        raise Waits(f"waits for {parts.folder}{MANIFEST}: the folder also holds {', '.join(sorted(others)[:5])}")
    return parts.file


def _refused(world: World, folder: str, names: set[str]) -> set[str]:
    """Return those files of a folder whose newest S3 version was refused."""
    refused = {(r.key, r.version_id) for r in world.registry.rejections(prefix=folder)}
    once = {name for name in names if any(key == folder + name for key, _ in refused)}
    return {name for name in once if (folder + name, world.store.look(folder + name).version_id) in refused}


def _mlmodel(world: World, stored: Stored) -> Manifest:
    if stored.size > MAX_MANIFEST:
        raise Invalid(f"{MLMODEL} has {stored.size:,} bytes, the limit is {MAX_MANIFEST:,}")
    data = world.store.read(stored)
    return Manifest(stored=stored, data=data, document=read_mlmodel(data).manifest, name=MLMODEL)


def _manifest(world: World, stored: Stored) -> Manifest:
    if stored.size > MAX_MANIFEST:
        raise Invalid(f"{MANIFEST} has {stored.size:,} bytes, the limit is {MAX_MANIFEST:,}; keep probes to a few rows")
    data = world.store.read(stored)
    try:
        document = strict_json.read(data)
    except ValueError as error:
        raise Invalid(f"{MANIFEST} is not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("artifact"), str):
        raise Invalid(f'{MANIFEST} must be an object that names the artifact, such as {{"artifact": "model.onnx"}}')
    if not is_name(document["artifact"]) or document["artifact"] in (MANIFEST, SIGNATURE):
        raise Invalid(f"{MANIFEST} names the artifact {document['artifact']!r}; it must be a file of the same folder")
    return Manifest(stored=stored, data=data, document=document)
