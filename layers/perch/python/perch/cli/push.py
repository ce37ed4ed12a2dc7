"""`perch push`: check a model file here, upload it, wait until it is registered or refused, and say what happens next.

With a manifest (metrics, dataset, probes) the artifact goes up first, marked `perch: part`, and `perch.json` after it:
the version registers when the manifest arrives, never half. Without one the artifact alone is the version. What becomes
of an upload is read from the registry, where the registering function writes it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perch.cli.context import Context
from perch.cli.ledger import entries_of
from perch.cli.show import Json, emit, progress, say
from perch.domain.codec import load
from perch.domain.errors import Invalid, NotReady, Refused
from perch.domain.model import ModelVersion, Probe, Rejection
from perch.domain.names import MANIFEST, ROOT, check_name
from perch.domain.rollout import Endpoint

if TYPE_CHECKING:
    from perch.app.world import World
    from perch.artifacts import Inspected

_PART = {"perch": "part"}  # what app.register knows as PART
_BAR_ABOVE = 8_000_000  # bytes
_POLL_S = 0.5
_TAKE_UP_S = 15.0  # the driver is woken by the news of a registration


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What is to be uploaded; `manifest` is None for a lone artifact."""

    file: Path
    model: str
    version: str
    data: bytes
    manifest: dict[str, Any] | None

    @property
    def folder(self) -> str:
        """The prefix of the keys."""
        return f"{ROOT}/{self.model}/{self.version}/"

    @property
    def key(self) -> str:
        """The artifact's key."""
        return self.folder + self.file.name

    @property
    def sha256(self) -> str:
        """The artifact's hash."""
        return hashlib.sha256(self.data).hexdigest()


def push(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="The artifact: *.onnx, or *.safetensors for torch.")],
    model: Annotated[str, typer.Option(help="Name of the model.")],
    version: Annotated[str, typer.Option(help="Name of this version, such as v3; it can be used once.")],
    metric: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER, such as accuracy=0.97; repeatable.")] = None,
    dataset: Annotated[str | None, typer.Option(help="What it was trained and measured on.")] = None,
    meta: Annotated[list[str] | None, typer.Option(help="KEY=VALUE to keep with the version; repeatable.")] = None,
    probes: Annotated[
        Path | None, typer.Option(help='JSON list of golden requests: {"features": [[…]], "expect": {…}}.')
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is registered or refused.")] = True,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for that.")] = 120,
    as_json: Json = False,
) -> None:
    """Upload a model version.

    It is checked here, uploaded, registered, and then rolled out as its endpoint declares.
    """
    place: Context = ctx.obj
    upload = _read(file, model, version, _metadata(metric, dataset, meta), probes)
    world = place.world
    told: dict[str, Any] = {"model": model, "version": version, "key": upload.key}
    told["uri"] = f"s3://{world.store.bucket}/{upload.key}"
    known = world.registry.version(model, version)
    if known:
        _same(known, upload)
        told |= {"status": "repeated", "number": known.number, "reason": "these bytes are registered under this name"}
    else:
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
            told |= _wait(world, upload, sent, before=before, timeout=timeout)
    _tell(told, as_json=as_json)


# -- what is checked here -----------------------------------------------------------------------------------------


def _read(file: Path, model: str, version: str, metadata: dict[str, Any], probes: Path | None) -> Upload:
    """Read the file and refuse here what registration would refuse."""
    check_name("model", model)
    check_name("version", version)
    if not file.is_file():
        raise Invalid(f"{file} is {'a folder' if file.is_dir() else 'not there'}; name the artifact's file")
    if file.name == MANIFEST:
        raise Invalid(f"{MANIFEST} is the manifest, which push writes itself; name the artifact's file")
    data = file.read_bytes()
    inspected = _inspect(file.name, data)
    manifest: dict[str, Any] = {"metadata": metadata} if metadata else {}
    if probes:
        manifest["probes"] = _probes(probes, inspected)
    if manifest:
        manifest = {"artifact": file.name, **manifest}
    return Upload(file=file, model=model, version=version, data=data, manifest=manifest or None)


def _inspect(name: str, data: bytes) -> Inspected | None:
    """Look into the file, if the packages for it are here; registration does in any case."""
    from perch.artifacts import ArtifactRefused, inspect

    try:
        return inspect(name, data)
    except ImportError as missing:
        say(f"not checked here, because {missing.name} is not installed; registration checks it")
        return None
    except ArtifactRefused as refused:
        raise Refused(f"{name} is not uploaded: {refused}") from refused


def _probes(file: Path, inspected: Inspected | None) -> list[Any]:
    from perch.app.probe import unfit

    try:
        document = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise Invalid(f"{file} is not JSON: {error}") from error
    probes = document.get("probes") if isinstance(document, dict) else document
    if not isinstance(probes, list) or not probes:
        raise Invalid(f'{file} must hold a list of golden requests: [{{"features": [[…]], "expect": {{…}}}}, …]')
    for number, probe in enumerate(probes):
        try:
            loaded = load(Probe, probe)
        except (TypeError, AttributeError, ValueError, KeyError) as error:
            raise Invalid(f'{file}: probe {number} must look like {{"features": [[…]], "expect": {{…}}}}') from error
        if inspected and (reason := unfit(loaded, inspected.signature)):
            raise Invalid(f"{file}: probe {number} {reason}")
    return probes


def _metadata(metrics: list[str] | None, dataset: str | None, meta: list[str] | None) -> dict[str, Any]:
    """Put what the user says of the version into one flat object. Raises a usage error (exit code 2)."""
    pairs: list[tuple[str, Any]] = [("dataset", dataset)] if dataset else []
    for text in metrics or []:
        name, value = _pair("--metric", text)
        try:
            pairs.append((name, float(value)))
        except ValueError:
            raise typer.BadParameter(f"{text!r}: a metric is NAME=NUMBER", param_hint="--metric") from None
    pairs += [_pair("--meta", text) for text in meta or []]
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise typer.BadParameter(f"{', '.join(twice)} is given twice", param_hint="--metric, --dataset, --meta")
    return dict(pairs)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return name, value


def _same(known: ModelVersion, upload: Upload) -> None:
    if known.pointer.sha256 != upload.sha256:
        raise Refused(
            f"{upload.model} {upload.version} is registered with other bytes (sha256 {known.pointer.sha256[:12]}…); "
            "a version never changes, so push under a new version name"
        )


# -- uploading ----------------------------------------------------------------------------------------------------


def _send(place: Context, upload: Upload) -> set[tuple[str, str]]:
    """Upload; return each object's (key, version id)."""
    store = place.world.store
    manifest = upload.manifest
    if manifest is None and set(store.files(upload.folder)) - {upload.file.name}:
        # Left there by an earlier attempt; beside other files an artifact needs a manifest to be complete.
        manifest = {"artifact": upload.file.name}
    extra = {"Metadata": _PART} if manifest else {}
    with _bar(upload) as moved:
        source = io.BytesIO(upload.data)  # the bytes that were checked, whatever the file holds by now
        place.clients.s3.upload_fileobj(source, store.bucket, upload.key, ExtraArgs=extra, Callback=moved)
    sent = {(upload.key, store.look(upload.key).version_id)}
    if manifest:
        stored = store.write(upload.folder + MANIFEST, json.dumps(manifest, indent=1).encode())
        sent.add((stored.key, stored.version_id))
    return sent


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
        task = bar.add_task(f"uploading {upload.file.name}", total=size)
        yield lambda count: bar.update(task, advance=count)


# -- waiting ------------------------------------------------------------------------------------------------------


def _wait(
    world: World, upload: Upload, sent: set[tuple[str, str]], *, before: dict[str, int], timeout: float
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
    _same(found, upload)  # somebody else was first
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
    refused = world.registry.rejections(prefix=upload.folder, limit=1000)
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
