"""`perch push`: check a model file here, upload it, wait until it is registered or refused, and say what happens next.

With a manifest (metrics, dataset, probes, a signature) the artifact goes up first, marked `perch: part`, and
`perch.json` last: the version registers when the manifest arrives, never half. Without one the artifact alone is the
version. A signature goes up before the file that completes it. What becomes of an upload is read from the registry,
where the registering function writes it.

Whoever was interrupted says it again. What an attempt left behind that could be taken for a part of the next one (a
manifest, a signature) is taken away first, so that the version is made of one attempt's files. What is registered stays
as it is, and push says how that differs from what was asked.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perch.cli.context import Context
from perch.cli.ledger import entries_of
from perch.cli.show import Json, emit, progress, say
from perch.cli.sign import signer_of
from perch.cli.upload import Upload, metadata_of, read_upload
from perch.domain.codec import load
from perch.domain.errors import Invalid, NotReady, Refused
from perch.domain.model import ModelVersion, Probe, Rejection
from perch.domain.names import MANIFEST, SIGNATURE
from perch.domain.rollout import Endpoint

if TYPE_CHECKING:
    from perch.app.world import World
    from perch.signing import PublicKey

_PART = {"perch": "part"}  # what app.register knows as PART
_BAR_ABOVE = 8_000_000  # bytes
_POLL_S = 0.5
_TAKE_UP_S = 15.0  # the driver is woken by the news of a registration


def push(
    ctx: typer.Context,
    path: Annotated[
        Path, typer.Argument(help="The artifact, or a folder that holds it, with its perch.json and model.sig.")
    ],
    model: Annotated[str, typer.Option(help="Name of the model.")],
    version: Annotated[str, typer.Option(help="Name of this version, such as v3; it can be used once.")],
    metric: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER, such as accuracy=0.97; repeatable.")] = None,
    dataset: Annotated[str | None, typer.Option(help="What it was trained and measured on.")] = None,
    meta: Annotated[list[str] | None, typer.Option(help="KEY=VALUE to keep with the version; repeatable.")] = None,
    probes: Annotated[
        Path | None, typer.Option(help='JSON list of golden requests: {"features": [[…]], "expect": {…}}.')
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option(help='JSON of what inputs may be: {"features": [names], "inputs": {"age": {"min": 0}}}.'),
    ] = None,
    sign: Annotated[Path | None, typer.Option(help="Sign it with this private key, as `perch sign` does.")] = None,
    kms: Annotated[str | None, typer.Option(help="Sign it with this key in KMS.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is registered or refused.")] = True,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for that.")] = 120,
    as_json: Json = False,
) -> None:
    """Upload a model version.

    It is checked here, uploaded, registered, and then rolled out as its endpoint declares.
    """
    place: Context = ctx.obj
    signer = signer_of(place, sign, kms) if sign or kms else None
    said = metadata_of(metric, dataset, meta)
    upload = read_upload(path, model=model, version=version, metadata=said, probes=probes, signer=signer, ranges=ranges)
    key = _key_of(place, upload)
    if place.settings.signing.required and upload.signature is None:
        raise Refused("this deployment takes signed models only: push with --sign or --kms, or a folder with model.sig")
    world = place.world
    told: dict[str, Any] = {"model": model, "version": version, "key": upload.key}
    told["uri"] = f"s3://{world.store.bucket}/{upload.key}"
    known = world.registry.version(model, version)
    if known:
        told |= {"status": "repeated", "number": known.number, "reason": _same(known, upload, key)}
    else:
        if larger := place.settings.too_large(model, len(upload.data)):
            raise Refused(f"{upload.file} is not uploaded: it {larger}")
        before = {p.name: world.registry.endpoint(p.name).seq for p in place.settings.serving(model)} if wait else {}
        sent = _send(place, upload)
        say(f"uploaded {told['uri']} ({len(upload.data) / 1000:,.1f} KB)")
        if not wait:
            told |= {
                "status": "uploaded",
                "number": None,
                "reason": "uploaded and not waited for; `perch models` shows it once it is registered",
            }
        else:
            told |= _wait(world, upload, key, sent, before=before, timeout=timeout)
    _tell(told, as_json=as_json)


def _key_of(place: Context, upload: Upload) -> PublicKey | None:
    """Return the trusted key that signed an upload, None if nobody did. Raises SignatureRefused, as registration."""
    if upload.signature is None:
        return None
    from perch.signing import PublicKey, SignatureRefused, verify_bundle

    trusted = [PublicKey.load(name, pem) for name, pem in place.settings.signing.keys.items()]
    try:
        return verify_bundle(upload.signature, trusted).key
    except SignatureRefused as refused:
        raise SignatureRefused(f"{upload.file} is not uploaded: {SIGNATURE}: {refused}") from refused


def _same(known: ModelVersion, upload: Upload, key: PublicKey | None) -> str:
    """Say how the registered version is what was pushed. Raises Refused if it has other bytes or not this signature."""
    which, signed_by = f"{upload.model} {upload.version} is registered", known.pointer.signed_by
    never = "a version never changes, so push under a new version name"
    if known.pointer.sha256 != upload.sha256:
        raise Refused(f"{which} with other bytes (sha256 {known.pointer.sha256[:12]}…); {never}")
    who = f"signed by {signed_by}" + (f" ({known.key_hint[:12]}…)" if known.key_hint else "")
    if key and not signed_by:
        raise Refused(f"{which} with these bytes, and nobody signed them; {never}")
    if key and known.key_hint not in (key.hint, ""):
        raise Refused(f"{which} with these bytes, {who} and not by {key.name} ({key.hint[:12]}…); {never}")
    said = json.loads(upload.manifest or b"{}")
    probes = tuple(load(Probe, one) for one in said.get("probes", ()))
    stays = (
        ""
        if (said.get("metadata", {}), probes) == (known.metadata, known.probes)
        else ("; metadata and probes stay as they were registered")
    )
    return "these bytes are registered under this name" + (f", {who}" if signed_by else "") + stays


# -- uploading ----------------------------------------------------------------------------------------------------


def _send(place: Context, upload: Upload) -> set[tuple[str, str]]:
    """Upload; return each object's (key, version id)."""
    store = place.world.store
    manifest = upload.manifest
    names = set(store.files(upload.folder))
    for left in sorted(names & {MANIFEST, SIGNATURE}):
        store.take_away(upload.folder + left)
        say(f"took away {upload.folder}{left}, which an earlier attempt left")
    if manifest is None and (others := names - {upload.file, MANIFEST, SIGNATURE}):
        # Left there by an earlier attempt; beside other files an artifact needs a manifest to be complete.
        if upload.signature is not None:
            raise Invalid(
                f"{upload.folder} holds {', '.join(sorted(others)[:5])} already, so the version needs a {MANIFEST}, "
                "which has to be signed with it; push under another version name"
            )
        manifest = json.dumps({"artifact": upload.file}).encode()
    sent = []
    if upload.signature is not None:
        sent.append(store.write(upload.folder + SIGNATURE, upload.signature))
    with _bar(upload) as moved:
        source = io.BytesIO(upload.data)  # the bytes that were checked, whatever the file holds by now
        extra = {"Metadata": _PART} if manifest else {}
        place.clients.s3.upload_fileobj(source, store.bucket, upload.key, ExtraArgs=extra, Callback=moved)
    sent.append(store.look(upload.key))
    if manifest is not None:
        sent.append(store.write(upload.folder + MANIFEST, manifest))
    return {(stored.key, stored.version_id) for stored in sent}


@contextmanager
def _bar(upload: Upload) -> Iterator[Callable[[int], None] | None]:
    """Show how far a large upload is, on a terminal."""
    size = len(upload.data)
    if size < _BAR_ABOVE or not os.isatty(2):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"uploading {upload.file}", total=size)
        yield lambda count: bar.update(task, advance=count)


# -- waiting ------------------------------------------------------------------------------------------------------


def _wait(
    world: World,
    upload: Upload,
    key: PublicKey | None,
    sent: set[tuple[str, str]],
    *,
    before: dict[str, int],
    timeout: float,
) -> dict[str, Any]:
    """Wait for the registering function, then for the rollout driver; return what they did.

    `before` has the endpoints that serve the model, each with the length of its ledger before the upload.
    """
    until = time.monotonic() + timeout
    with progress("waiting for registration"):
        while (found := _outcome(world, upload, sent)) is None:
            if time.monotonic() > until:
                raise NotReady(
                    f"{upload.model} {upload.version} is uploaded, and not registered after {timeout:g} s; "
                    "`perch logs register-model` may show why, `perch models` whether it is by now"
                )
            time.sleep(_POLL_S)
    if isinstance(found, Rejection):
        return {"status": "rejected", "number": None, "reason": f"refused: {found.reason}"}
    _same(found, upload, key)  # somebody else was first
    with progress("waiting for the rollout driver"):
        rollouts = [_taken_up(world, name, seq, found) for name, seq in before.items()]
    nobody = "" if before else f"; no endpoint serves model {upload.model!r}, so no rollout starts"
    return {
        "status": "registered",
        "number": found.number,
        "reason": f"registered as number {found.number}{nobody}",
        "rollouts": rollouts,
    }


def _outcome(world: World, upload: Upload, sent: set[tuple[str, str]]) -> ModelVersion | Rejection | None:
    if version := world.registry.version(upload.model, upload.version):
        return version
    refused = world.registry.rejections(prefix=upload.folder)
    return next((r for r in refused if (r.key, r.version_id) in sent), None)


def _taken_up(world: World, endpoint: str, before: int, version: ModelVersion) -> dict[str, Any]:
    """Wait for a moment until the driver has considered the version; return the last that it did about it."""
    until = time.monotonic() + _TAKE_UP_S
    while _waits(world.registry.endpoint(endpoint), version) and time.monotonic() < until:
        time.sleep(_POLL_S)
    about = [e for e in entries_of(world.registry, endpoint, after=before) if e.version == version.version]
    if not about:
        later = "the rollout driver takes it up at its next tick"
        return {"endpoint": endpoint, "kind": None, "rollout": None, "reason": later}
    # Of several (queued, started, published, …) the last says where it is now.
    last = about[-1]
    return {"endpoint": endpoint, "kind": last.kind, "rollout": last.rollout, "reason": last.reason}


def _waits(state: Endpoint, version: ModelVersion) -> bool:
    return state.considered < version.number or (
        state.rollout is None and any(c.number == version.number for c in state.queue)
    )


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(told)
    else:
        typer.echo(f"{told['model']} {told['version']}: {told['reason']}")
        for rollout in told.get("rollouts", []):
            kind = f"{rollout['kind']}: " if rollout["kind"] else ""
            typer.echo(f"  {rollout['endpoint']}: {kind}{rollout['reason']}")
    if told["status"] == "rejected":
        raise typer.Exit(1)
