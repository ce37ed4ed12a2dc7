"""Whether an upload may be trusted: who signed it, and whether it needs somebody to have.

    a signature is there   it has to be of a trusted key and of these very bytes, or the upload is refused
    none is there          fine, unless signatures are required: then the upload waits for it
    it can run code        refused, unless every endpoint that serves the model opted in to the format (`allow`);
                           then it needs a signature, required or not (law 2)

The signature is checked before the bytes are parsed. It says who made the bytes and not what they are for: a manifest
that names its `model` and `version` (as `perch push --sign` writes it) binds them to that name.
"""

from __future__ import annotations

import hashlib

from perch.app.complete import Complete, Manifest, Waits
from perch.app.world import World
from perch.artifacts import Inspected
from perch.artifacts.mlflow_folder import MLMODEL
from perch.domain.errors import Invalid
from perch.domain.formats import FORMATS
from perch.domain.names import MANIFEST, SIGNATURE, UploadKey
from perch.domain.policy import Settings
from perch.signing import WHOLE, PublicKey, SignatureRefused, Statement, verify_bundle
from perch.signing.bundle import MAX_BUNDLE


def signer_of(world: World, found: Complete, sha256: str) -> tuple[str, str]:
    """Return name and hint of the trusted key that signed an upload; empty if nobody did and nobody has to.

    Args:
        world: where the signature is read, and whose keys are trusted.
        found: the files of the upload.
        sha256: of the artifact's bytes, as they were read.

    Raises:
        SignatureRefused: the signature is wrong, or nobody's who is trusted.
        Waits: for the signature, or for a manifest that it covers.
    """
    settings = world.settings
    if found.signature is None:
        if settings.signing.required:
            raise Waits(f"waits for {SIGNATURE}: this deployment takes signed models only; `perch sign` makes one")
        return "", ""
    if found.signature.size > MAX_BUNDLE:
        raise SignatureRefused(f"{SIGNATURE} has {found.signature.size:,} bytes; the limit is {MAX_BUNDLE:,}")
    if not settings.signing.keys:
        raise SignatureRefused(
            f"{SIGNATURE} cannot be checked, as no key is trusted; name public keys under [signing] in perch.toml, "
            "or upload without a signature"
        )
    keys = [PublicKey.load(name, pem) for name, pem in settings.signing.keys.items()]
    try:
        verified = verify_bundle(world.store.read(found.signature), keys)
        _check_covered(verified.statement, found, sha256)
    except SignatureRefused as refused:
        raise SignatureRefused(f"{SIGNATURE}: {refused}") from refused
    return verified.key.name, verified.key.hint


def check_code(settings: Settings, model: str, inspected: Inspected, signer: str) -> None:
    """Let an artifact pass that cannot run code, or that everybody concerned stands up for.

    Raises:
        Invalid: an endpoint did not opt in.
        Waits: they did, and it is not signed.
    """
    if not inspected.code:
        return
    name, serving = inspected.format, settings.serving(model)
    if not FORMATS[name].code:
        raise Invalid(f"{inspected.code}; the table of formats says that {name} never does, so it is refused")
    if not serving or (against := [p.name for p in serving if name not in p.allow]):
        who = f"endpoint {', '.join(against)} does" if serving else f"no endpoint serves {model!r}, so none does"
        raise Invalid(
            f"{inspected.code}; such a file is only taken where it is asked for and signed, and {who} not ask for it: "
            f'export to a format that holds no code, or write allow = ["{name}"] under the endpoint in perch.toml, '
            "deploy, and upload it signed by a trusted key, under a new version name"
        )
    if not signer:
        raise Waits(f"waits for {SIGNATURE}, signed by a trusted key: {inspected.code}")


def check_bound(manifest: Manifest | None, parts: UploadKey) -> None:
    """See that a manifest which says what it is for was uploaded for that. Raises Invalid."""
    for what, here in (("model", parts.model), ("version", parts.version)):
        if manifest and (said := manifest.document.get(what, here)) != here:
            raise Invalid(f"{MANIFEST} is of {what} {str(said)[:80]!r}, and was uploaded as {what} {here!r}")


def _check_covered(statement: Statement, found: Complete, sha256: str) -> None:
    """See that all that is used of an upload was signed."""
    artifact = found.artifact.key.rsplit("/", 1)[1]
    if WHOLE in statement.files and found.manifest is None:
        statement.check({WHOLE: sha256}, name=artifact)
        return
    used = {artifact: sha256}
    if found.manifest:
        used[found.manifest.name] = hashlib.sha256(found.manifest.data).hexdigest()
    elif signed := [name for name in (MANIFEST, MLMODEL) if name in statement.files]:
        raise Waits(f"waits for {signed[0]}, which was signed with {artifact}")
    statement.check(used, name="the folder", partly=True)
