"""Register an upload: from an S3 event to an immutable model version, or to a refusal that says why.

    Object Created ─► inside the layout? ─► complete? ─► within the size? ─► inspected ─► stored once ─► announced
                          └──────────────────── no: recorded with its reason, announced, kept in S3

A lone artifact registers as it is. A folder with more files registers when its manifest `perch.json` and the artifact
that it names are both there, whichever came last; so a version is never half there. With plain S3 the artifact of a
folder is for a moment alone: put the manifest first, or the artifact with the S3 metadata `perch: part` (as
`perch push` does). The event may come twice, late or out of order: the bytes of a lone artifact are those that the
event's version id names, the first registration of a name stays, and the same again is no news.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from perch.app.probe import unfit
from perch.app.world import World
from perch.artifacts import ArtifactRefused, Inspected, inspect
from perch.aws.store import Stored
from perch.domain.codec import dump, load
from perch.domain.errors import Conflict, Invalid, NotFound
from perch.domain.model import ModelVersion, Pointer, Probe, Rejection
from perch.domain.moves import REASON_LIMIT
from perch.domain.names import MANIFEST, UploadKey, parse_key

PART = "part"
_ATTEMPTS = 8
_MAX_MANIFEST = 100_000  # bytes; with all of it, a version must fit into an item of the registry
_MAX_PROBES = 20
_DEFAULT_MAX_MB = 200


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What became of an upload: `status` is registered, repeated, waiting or rejected, and `reason` says more."""

    status: str
    reason: str
    version: ModelVersion | None = None


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What the S3 event says: one object version, and who put it there when."""

    key: str
    version_id: str | None
    at: datetime
    by: str


def register(world: World, upload: Upload) -> Registered:
    """Register one upload; running it again with the same upload changes nothing."""
    parts: UploadKey | None = None
    stored = Stored(key=upload.key, version_id=upload.version_id or "null", size=0, metadata={})
    try:
        parts = parse_key(upload.key)
        stored = world.store.look(upload.key, upload.version_id)
        source = _complete(world, parts, stored)
        if isinstance(source, str):
            return Registered(status="waiting", reason=source)
        artifact, manifest = source
        _check_size(world, parts.model, artifact)
        data = world.store.read(artifact)
        inspected = inspect(artifact.key.rsplit("/", 1)[1], data)
        return _store(world, upload, _version(parts, artifact, data, inspected, manifest, upload))
    except NotFound as gone:
        return _rejected(world, upload, stored, parts, f"{gone}; it was deleted before it could be registered")
    except (Invalid, ArtifactRefused) as refused:
        return _rejected(world, upload, stored, parts, str(refused))
    except (ValueError, TypeError, RecursionError, OverflowError) as broken:
        # Whatever it is, it will be the same next time: a refusal that is kept beats an event that is lost.
        return _rejected(world, upload, stored, parts, f"it cannot be read: {type(broken).__name__}: {broken}")


# -- what an upload is --------------------------------------------------------------------------------------------


def _complete(world: World, parts: UploadKey, stored: Stored) -> tuple[Stored, Mapping[str, Any]] | str:
    """Return the artifact and the manifest of a complete upload, or say what it waits for."""
    others = {f for f in world.store.files(parts.folder) if f != parts.file}
    if parts.is_manifest:
        manifest = _manifest(world, stored)
        if manifest["artifact"] in others:
            return world.store.look(parts.folder + manifest["artifact"]), manifest
        return f"waits for {parts.folder}{manifest['artifact']}, which {MANIFEST} names"
    if MANIFEST in others:
        manifest = _manifest(world, world.store.look(parts.folder + MANIFEST))
        if manifest["artifact"] == parts.file:
            return stored, manifest
        return f"{MANIFEST} names {manifest['artifact']} as the artifact; this file only goes with it"
    return _waits_for_manifest(world, parts, stored, others) or (stored, {})


def _waits_for_manifest(world: World, parts: UploadKey, stored: Stored, others: set[str]) -> str | None:
    """Say why a file without a manifest beside it is not yet a version; None if it is one by itself."""
    if stored.metadata.get("perch") == PART:
        return f"waits for {parts.folder}{MANIFEST}: the file was uploaded as part of a folder"
    if others and world.registry.version(parts.model, parts.version) is None:
        refused = {r.key.removeprefix(parts.folder) for r in world.registry.rejections(prefix=parts.folder)}
        if waited_with := sorted(others - refused):
            return f"waits for {parts.folder}{MANIFEST}: the folder also holds {', '.join(waited_with[:5])}"
    return None


def _manifest(world: World, stored: Stored) -> Mapping[str, Any]:
    if stored.size > _MAX_MANIFEST:
        raise Invalid(
            f"{MANIFEST} has {stored.size:,} bytes, the limit is {_MAX_MANIFEST:,}; keep probes to a few rows"
        )
    try:
        manifest = json.loads(world.store.read(stored))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{MANIFEST} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("artifact"), str):
        raise Invalid(f'{MANIFEST} must be an object that names the artifact, such as {{"artifact": "model.onnx"}}')
    if "/" in manifest["artifact"] or manifest["artifact"] == MANIFEST:
        raise Invalid(f"{MANIFEST} names the artifact {manifest['artifact']!r}; it must be a file of the same folder")
    return manifest


def _check_size(world: World, model: str, artifact: Stored) -> None:
    limit = max((p.max_artifact_mb for p in world.settings.serving(model)), default=_DEFAULT_MAX_MB)
    if artifact.size > limit * 1_000_000:
        raise Invalid(
            f"{artifact.key} has {artifact.size / 1e6:,.1f} MB, the limit is {limit} MB; "
            "raise max_artifact_mb of the endpoint in perch.toml if the function has the memory for it"
        )


def _version(
    parts: UploadKey, artifact: Stored, data: bytes, inspected: Inspected, manifest: Mapping[str, Any], upload: Upload
) -> ModelVersion:
    metadata = manifest.get("metadata", {})
    if not isinstance(metadata, dict):
        raise Invalid(f"{MANIFEST}: metadata must be an object")
    return ModelVersion(
        pointer=Pointer(
            model=parts.model,
            version=parts.version,
            key=artifact.key,
            version_id=artifact.version_id,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            format=inspected.format,
        ),
        number=0,
        runtimes=inspected.runtimes,
        registered_at=upload.at,
        created_by=upload.by,
        signature=inspected.signature.to_json(),
        metadata=metadata,
        probes=_probes(manifest, inspected),
    )


def _probes(manifest: Mapping[str, Any], inspected: Inspected) -> tuple[Probe, ...]:
    """Return the manifest's golden requests; none if it has none (then `probe.golden` makes some)."""
    declared = manifest.get("probes", [])
    if not isinstance(declared, list) or len(declared) > _MAX_PROBES:
        raise Invalid(f"{MANIFEST}: probes must be a list of at most {_MAX_PROBES} golden requests")
    try:
        probes = tuple(load(Probe, p) for p in declared)
    except (TypeError, AttributeError, ValueError) as error:
        raise Invalid(f'{MANIFEST}: a probe looks like {{"features": [[…]], "expect": {{…}}}}: {error}') from error
    for number, probe in enumerate(probes):
        if reason := unfit(probe, inspected.signature):
            raise Invalid(f"{MANIFEST}: probe {number} {reason}")
    return probes


# -- what becomes of it -------------------------------------------------------------------------------------------


def _store(world: World, upload: Upload, version: ModelVersion) -> Registered:
    for _ in range(_ATTEMPTS):
        known = world.registry.version(version.model, version.version)
        if known is not None:
            return _known(world, upload, known, version)
        numbered = replace(version, number=world.registry.last_number(version.model) + 1)
        try:
            stored = world.registry.register(numbered)
        except Conflict:
            continue  # another version of the model took the number
        if stored:
            return _announced(world, numbered, status="registered")
    raise Conflict(f"{version.model} {version.version} could not be numbered in {_ATTEMPTS} attempts; retry the event")


def _known(world: World, upload: Upload, known: ModelVersion, version: ModelVersion) -> Registered:
    """The name is taken: by the same (no news), or by something else (refused; the first stays)."""
    parts = UploadKey(version.model, version.version, "")
    stored = Stored(key=upload.key, version_id=upload.version_id or "null", size=0, metadata={})
    if known.pointer.sha256 != version.pointer.sha256:
        reason = (
            f"{version.model} {version.version} is registered with other bytes (sha256 {known.pointer.sha256[:12]}…); "
            "a version never changes, so upload under a new version name"
        )
        return _rejected(world, upload, stored, parts, reason)
    if (version.metadata, version.probes) not in ((known.metadata, known.probes), ({}, ())):
        reason = (
            f"{version.model} {version.version} was registered before this manifest could be seen, and a version never "
            f"changes; upload the folder under a new version name with {MANIFEST} first, or use `perch push`"
        )
        return _rejected(world, upload, stored, parts, reason)
    if known.registered_at == upload.at:
        # The same event again, perhaps because the first run died before it could announce.
        return _announced(world, known, status="repeated")
    return Registered(status="repeated", reason="the same bytes are registered under this name", version=known)


def _announced(world: World, version: ModelVersion, *, status: str) -> Registered:
    endpoints = [p.name for p in world.settings.serving(version.model)]
    reason = (
        f"registered as number {version.number}; served by {', '.join(endpoints)}"
        if endpoints
        else f"registered as number {version.number}; no endpoint in perch.toml serves model {version.model!r}, "
        "so no rollout starts"
    )
    detail = {
        "endpoint": endpoints[0] if endpoints else None,
        "model": version.model,
        "version": version.version,
        "number": version.number,
        "reason": reason,
        "severity": "info",
        "at": dump(version.registered_at),
    }
    world.bus.announce([("ModelVersionRegistered", detail)])
    return Registered(status=status, reason=reason, version=version)


def _rejected(world: World, upload: Upload, stored: Stored, parts: UploadKey | None, reason: str) -> Registered:
    """Keep the refusal, then announce it; again if it was kept before, as the first run may have died between."""
    rejection = Rejection(
        key=stored.key,
        version_id=stored.version_id,
        reason=reason[:REASON_LIMIT],
        at=upload.at,
        model=parts.model if parts else None,
        version=parts.version if parts else None,
    )
    world.registry.reject(rejection)
    detail = dump(rejection) | {"endpoint": None, "severity": "warning"}
    world.bus.announce([("ModelVersionRejected", detail)])
    return Registered(status="rejected", reason=reason)
