"""What `perch push` uploads: an artifact, what is said of it, and who signed it; refused here if it would be there.

FILE              the artifact; metrics, dataset, probes, ranges and a signature become `perch.json` and `model.sig`
FOLDER            the artifact that its `perch.json` names, or the only one; these files go up as they are. Of an MLflow
                  folder the model's own file, with a `perch.json` made of what its `MLmodel` says
--sign, --kms     the signature covers the artifact and the manifest, which says what model and version they are
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from perch.cli.show import say
from perch.domain import strict_json
from perch.domain.codec import load
from perch.domain.errors import Invalid, Refused
from perch.domain.model import Probe
from perch.domain.names import MANIFEST, ROOT, SIGNATURE, check_name

if TYPE_CHECKING:
    from perch.artifacts import Inspected
    from perch.signing.keys import Signer


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What is to be uploaded; `manifest` is None for a lone artifact, `signature` for one that nobody signed."""

    file: str
    model: str
    version: str
    data: bytes
    manifest: bytes | None = None
    signature: bytes | None = None

    @property
    def folder(self) -> str:
        """The prefix of the keys."""
        return f"{ROOT}/{self.model}/{self.version}/"

    @property
    def key(self) -> str:
        """The artifact's key."""
        return self.folder + self.file

    @property
    def sha256(self) -> str:
        """The artifact's hash."""
        return hashlib.sha256(self.data).hexdigest()


def read_upload(
    path: Path,
    *,
    model: str,
    version: str,
    metadata: Mapping[str, Any],
    probes: Path | None,
    signer: Signer | None,
    ranges: Path | None = None,
) -> Upload:
    """Read a file or a folder, and refuse here what registration would refuse.

    Raises:
        Invalid: it is not something that can be uploaded as a version.
        Refused: it would not be registered.
    """
    check_name("model", model)
    check_name("version", version)
    if path.is_dir():
        if metadata or probes or ranges:
            raise Invalid(f"{path} is a folder; what is to be said of it stands in its {MANIFEST}")
        return _of_folder(path, model, version, signer)
    if not path.is_file():
        raise Invalid(f"{path} is not there; name the artifact's file, or its folder")
    if path.name in (MANIFEST, SIGNATURE):
        raise Invalid(f"{path.name} goes with an artifact; name the artifact's file, or the folder")
    data = _read(path)
    inspected = _inspect(path.name, data)
    document: dict[str, Any] = {"model": model, "version": version} if signer else {}
    if metadata:
        document["metadata"] = metadata
    if probes:
        document["probes"] = _probes(probes, inspected)
    if ranges:
        document["ranges"] = _json(ranges)
    _check_declared(path.name, inspected, document)
    manifest = json.dumps({"artifact": path.name, **document}, indent=1).encode() if document else None
    signature = _signed(model, path.name, data, manifest, signer) if signer else None
    return Upload(file=path.name, model=model, version=version, data=data, manifest=manifest, signature=signature)


def _read(file: Path) -> bytes:
    from perch.cli.inspection import too_large

    if larger := too_large(file):
        raise Refused(f"{file.name} is not uploaded: {larger}")
    return file.read_bytes()


def _of_folder(folder: Path, model: str, version: str, signer: Signer | None) -> Upload:
    from perch.artifacts.mlflow_folder import MLMODEL, read_mlmodel

    files = {file.name: file for file in sorted(folder.iterdir()) if not file.name.startswith(".")}
    manifest = files.pop(MANIFEST).read_bytes() if MANIFEST in files else None
    if manifest is None and MLMODEL in files:
        manifest = json.dumps(read_mlmodel(files[MLMODEL].read_bytes()).manifest, indent=1).encode()
    signature = files.pop(SIGNATURE).read_bytes() if SIGNATURE in files else None
    name = _artifact_of(folder, manifest, list(files))
    data = _read(files[name])
    _check_declared(name, _inspect(name, data), strict_json.read(manifest) if manifest else {})
    if signer:
        signature = _signed(model, name, data, manifest, signer)
    if others := sorted(files.keys() - {name}):
        say(f"only {name}, {MANIFEST} and {SIGNATURE} are uploaded, not {', '.join(others[:5])}")
    return Upload(file=name, model=model, version=version, data=data, manifest=manifest, signature=signature)


def _artifact_of(folder: Path, manifest: bytes | None, files: list[str]) -> str:
    """Return the name of the artifact of a folder. Raises Invalid if that is not clear."""
    if manifest is not None:
        try:
            name = strict_json.read(manifest)["artifact"]
        except (ValueError, TypeError, KeyError) as error:
            raise Invalid(f"{folder / MANIFEST} does not name an artifact: {error!r}") from error
        if name not in files or not (folder / name).is_file():
            raise Invalid(f"{folder / MANIFEST} names {name!r}, which is not in the folder")
        return str(name)
    if len(files) != 1 or not (folder / files[0]).is_file():
        raise Invalid(f"{folder} holds {len(files)} files and no {MANIFEST} that names the artifact")
    return files[0]


def _signed(model: str, name: str, data: bytes, manifest: bytes | None, signer: Signer) -> bytes:
    """Sign an artifact and its manifest as the folder that they are in the store."""
    from perch.signing import Statement, sign_statement
    from perch.signing.statement import GIT_PATHS

    files = {name: hashlib.sha256(data).hexdigest()}
    if manifest is not None:
        files[MANIFEST] = hashlib.sha256(manifest).hexdigest()
    return sign_statement(Statement(model=model, files=files, ignored=(*GIT_PATHS, SIGNATURE)), signer)


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


def _check_declared(name: str, inspected: Inspected | None, document: Mapping[str, Any]) -> None:
    """See that what a manifest declares of the inputs fits them. Raises Refused, or Invalid."""
    from perch.app.declared import as_declared
    from perch.artifacts import ArtifactRefused

    if inspected is None:
        return
    try:
        as_declared(inspected, document)
    except ArtifactRefused as refused:
        raise Refused(f"{name} is not uploaded: {refused}") from refused


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{file} is not JSON: {error}") from error


def _probes(file: Path, inspected: Inspected | None) -> list[Any]:
    from perch.app.probe import unfit

    document = _json(file)
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


def metadata_of(metrics: list[str] | None, dataset: str | None, meta: list[str] | None) -> dict[str, Any]:
    """Put what the user says of the version into one flat object. Raises a usage error (exit code 2)."""
    pairs: list[tuple[str, Any]] = [("dataset", dataset)] if dataset else []
    for text in metrics or []:
        name, value = _pair("--metric", text)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):  # JSON has no word for it, and a comparison no answer
            raise typer.BadParameter(f"{text!r}: a metric is NAME=NUMBER", param_hint="--metric")
        pairs.append((name, number))
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
