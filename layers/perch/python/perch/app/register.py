"""Register an upload: from an S3 event to an immutable model version, or to a refusal that says why.

    Object Created ─► inside the layout? ─► complete? ─► within the size? ─► signature ─► inspected ─► may it run code?
                                                                          stored once ─► announced ◄─┘
    no, at any of them: recorded with its reason, quarantined in S3 with all other files of the version, announced

A lone artifact registers as it is. A folder with more files registers when its manifest `perch.json` and the artifact
that it names are both there, whichever came last; so a version is never half there. With plain S3 the artifact of a
folder is for a moment alone: put the manifest first, or the artifact with the S3 metadata `perch: part` (as
`perch push` does). A signature (`model.sig`) is checked if it is there, so it comes before the artifact or the manifest
that completes the version, unless the version needs one: then it waits (`complete`, `trust`).

The event may come twice, late or out of order: the bytes of a lone artifact are those that the event's version id
names, the first registration of a name stays, the same again is no news, and what was refused stays refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from perch.app.apart import DiedApart, apart
from perch.app.complete import Complete, Manifest, Waits, complete
from perch.app.declared import RANGES, as_declared
from perch.app.trust import check_bound, check_code, signer_of
from perch.app.world import World
from perch.artifacts import Inspected, inspect
from perch.aws.store import Stored
from perch.domain.change import REASON_LIMIT
from perch.domain.codec import dump
from perch.domain.errors import Conflict, Invalid, NotFound, PerchError, Refused
from perch.domain.model import ModelVersion, Rejection
from perch.domain.names import MANIFEST, SIGNATURE, UploadKey, parse_key
from perch.domain.pointer import Beside, Pointer
from perch.domain.printable import printable

Inspect = Callable[[str, bytes], Inspected]

INSPECT_S = 120
"""Seconds that an inspection may take; register_model has five minutes for all that it does."""
_ATTEMPTS = 8


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


def inspect_apart(name: str, data: bytes) -> Inspected:
    """Inspect an artifact in a process that may die of it. Raises as `inspect`, and `DiedApart`."""
    return apart(lambda: inspect(name, data), limit_s=INSPECT_S)


def register(world: World, upload: Upload, *, look_into: Inspect = inspect) -> Registered:
    """Register one upload; running it again with the same upload changes nothing.

    Args:
        world: settings and services.
        upload: what the S3 event says.
        look_into: inspects an artifact by its name and bytes; `inspect_apart` where bytes may come from anybody.
    """
    parts: UploadKey | None = None
    files: Complete | None = None
    stored = Stored(key=upload.key, version_id=upload.version_id or "null", size=0, metadata={})
    try:
        parts = parse_key(upload.key)
        known = world.registry.version(parts.model, parts.version)
        if known and _made_of(known, stored):
            return _same_again(world, upload, known)
        if refused := world.registry.rejection(stored.key, stored.version_id):
            return _refused_before(world, stored, refused)
        stored = world.store.look(upload.key, upload.version_id)
        files = complete(world, parts, stored, known=known is not None)
        return _store(world, upload, known, _read(world, upload, parts, files, look_into))
    except Waits as waits:
        return Registered(status="waiting", reason=str(waits))
    except (Invalid, Refused, NotFound, ValueError, TypeError, RecursionError, OverflowError) as error:
        # Beside a version that is registered, only what came now can be at fault.
        others = files.all if files and not known else ()
        return _rejected(world, upload, stored, parts, _reason(error), others)


def _reason(error: Exception) -> str:
    if isinstance(error, NotFound):
        return f"{error}; it was deleted before it could be registered"
    if isinstance(error, (Invalid, Refused)):
        return str(error)
    # Whatever it is, it will be the same next time: a refusal that is kept beats an event that is lost.
    return f"it cannot be read: {type(error).__name__}: {error}"


# -- what an upload is --------------------------------------------------------------------------------------------


def _read(world: World, upload: Upload, parts: UploadKey, files: Complete, look_into: Inspect) -> ModelVersion:
    """Return the version that the files make; raises what `register` puts into words."""
    _check_size(world, parts.model, files.artifact)
    check_bound(files.manifest, parts)
    data = world.store.read(files.artifact)
    sha256 = hashlib.sha256(data).hexdigest()
    signer, hint = signer_of(world, files, sha256)
    manifest = files.manifest.document if files.manifest else {}
    name = files.artifact.key.rsplit("/", 1)[1]
    try:
        inspected = _inspected(look_into, name, data)
        check_code(world.settings, parts.model, inspected, signer)
    except (Invalid, Refused) as refused:
        if len(files.all) == 1:
            raise
        raise Invalid(f"{name}: {refused}") from refused  # the reason stands beside each file of the folder
    declared = as_declared(inspected, manifest)
    return ModelVersion(
        pointer=Pointer(
            model=parts.model,
            version=parts.version,
            key=files.artifact.key,
            version_id=files.artifact.version_id,
            sha256=sha256,
            size=len(data),
            format=declared.inspected.format,
            signed_by=signer,
            harmless=not declared.inspected.code,
            manifest=_pinned(files.manifest) if files.manifest and RANGES in manifest else None,
        ),
        number=0,
        runtimes=declared.inspected.runtimes,
        registered_at=upload.at,
        created_by=upload.by,
        signature=declared.inspected.signature.to_json(),
        metadata=declared.metadata,
        probes=declared.probes,
        key_hint=hint,
    )


def _pinned(manifest: Manifest) -> Beside:
    """Say which manifest it is: the predictor reads the ranges out of the very bytes that were looked at here."""
    sha256 = hashlib.sha256(manifest.data).hexdigest()
    return Beside(version_id=manifest.stored.version_id, sha256=sha256, size=len(manifest.data))


def _inspected(look_into: Inspect, name: str, data: bytes) -> Inspected:
    """Inspect bytes that anybody may have made: whatever an inspector stumbles over is a reason, and no lost event."""
    try:
        return look_into(name, data)
    except PerchError:
        raise
    except DiedApart as died:
        raise Invalid(f"it cannot be inspected: {died}") from died
    except Exception as error:
        raise Invalid(f"it cannot be read: {type(error).__name__}: {str(error)[:200]}") from error


def _check_size(world: World, model: str, artifact: Stored) -> None:
    if larger := world.settings.too_large(model, artifact.size):
        raise Invalid(f"{artifact.key} {larger}")


# -- what becomes of it -------------------------------------------------------------------------------------------


def _store(world: World, upload: Upload, known: ModelVersion | None, version: ModelVersion) -> Registered:
    for _ in range(_ATTEMPTS):
        if known is not None:
            return _known(world, upload, known, version)
        numbered = replace(version, number=world.registry.last_number(version.model) + 1)
        try:
            if world.registry.register(numbered):
                return _announced(world, numbered, status="registered")
        except Conflict:
            continue  # another version of the model took the number
        known = world.registry.version(version.model, version.version)
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
    pinned, signed_by = known.pointer, version.pointer.signed_by
    same_key = version.key_hint == known.key_hint if known.key_hint else signed_by == pinned.signed_by
    if signed_by and pinned.signed_by and not same_key:
        reason = (
            f"{version.model} {version.version} was registered with the signature of {pinned.signed_by}, and a version "
            f"never changes; that of {signed_by} is not taken"
        )
        return _rejected(world, upload, stored, parts, reason)
    said = (version.metadata, version.probes) not in ((known.metadata, known.probes), ({}, ()))
    ranged = version.pointer.manifest is not None and version.signature != known.signature
    late = "manifest" if said or ranged else ""
    if signed_by and not pinned.signed_by:
        late = "signature"
    if late:
        reason = (
            f"{version.model} {version.version} was registered before this {late} could be seen, and a version never "
            "changes; upload the folder under a new version name with "
            f"{SIGNATURE if late == 'signature' else MANIFEST} first, or use `perch push`"
        )
        return _rejected(world, upload, stored, parts, reason)
    return _same_again(world, upload, known)


def _same_again(world: World, upload: Upload, known: ModelVersion) -> Registered:
    if known.registered_at == upload.at:
        # The same event again, perhaps because the first run died before it could announce.
        return _announced(world, known, status="repeated")
    return Registered(status="repeated", reason="the same bytes are registered under this name", version=known)


def _made_of(version: ModelVersion, stored: Stored) -> bool:
    """Whether a version is this very object, or has it as the manifest that its predictor reads."""
    pointers = (version.pointer, version.pointer.manifest_pointer)
    return any((one.key, one.version_id) == (stored.key, stored.version_id) for one in pointers if one)


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


def _rejected(
    world: World,
    upload: Upload,
    stored: Stored,
    parts: UploadKey | None,
    reason: str,
    others: tuple[Stored, ...] = (),
) -> Registered:
    """Keep the refusal of all files that were to be one version, then announce it; the event's own comes last.

    So whoever dies in between leaves an event that is not refused yet, and does all of it again.
    """
    for other in (*(one for one in others if one is not stored), stored):
        rejection = _quarantine(world, upload, other, parts, reason, event=stored.event)
    return _announced_refusal(world, rejection)


def _refused_before(world: World, stored: Stored, refused: Rejection) -> Registered:
    """The file is refused already: by this event, which may have died before it could mark or announce, or another."""
    if refused.event in (stored.event, ""):
        world.store.quarantine(stored)
        return _announced_refusal(world, refused)
    return Registered(status="rejected", reason=refused.reason)


def _announced_refusal(world: World, rejection: Rejection) -> Registered:
    detail = dump(rejection) | {"endpoint": None, "severity": "warning"}
    world.bus.announce([("ModelVersionRejected", detail)])
    return Registered(status="rejected", reason=rejection.reason)


def _quarantine(
    world: World, upload: Upload, stored: Stored, parts: UploadKey | None, reason: str, *, event: str
) -> Rejection:
    """Keep a refusal, and mark the object so that no predictor can read it; never one that a version is made of."""
    rejection = Rejection(
        key=stored.key,
        version_id=stored.version_id,
        reason=printable(reason)[:REASON_LIMIT],
        at=upload.at,
        model=parts.model if parts else None,
        version=parts.version if parts else None,
        event=event,
    )
    known = world.registry.version(parts.model, parts.version) if parts else None
    if known is None or not _made_of(known, stored):
        world.registry.reject(rejection)
        world.store.quarantine(stored)
    return rejection
