"""What a file is and what Perch would do with it, as one value; the command beside this prints it.

    path ─► is it a file that could be served at all? ─► perch.artifacts.inspect ─► Finding
                                 perch.toml here ─► which endpoints would run it ─┘

The inspector reads the bytes and runs none of them; neither AWS nor a runtime is needed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from perch.artifacts import ArtifactRefused, Inspected, Signature, inspect
from perch.artifacts.mlflow_folder import MLMODEL, read_mlmodel
from perch.artifacts.outputs import MEANINGS
from perch.artifacts.signature import NUMBERS
from perch.domain import strict_json
from perch.domain.errors import Invalid
from perch.domain.formats import RUNTIMES
from perch.domain.memory import needed_mb
from perch.domain.names import MANIFEST
from perch.domain.policy import LARGEST_MB, EndpointPolicy

SIGNATURE_FILE = "model.sig"

SERVED, TRUST, REFUSED = "served", "needs trust", "refused"


@dataclass(frozen=True, kw_only=True)
class Place:
    """An endpoint of perch.toml here: whether it would serve the file, and why not."""

    endpoint: str
    model: str
    runtime: str
    serves: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """All that is found out.

    Attributes:
        verdict: `served`, `needs trust` (it can run code) or `refused`; `reason` says why it is not served.
        inspected: what the inspector read; None if refused.
        places: the endpoints of perch.toml here.
        signed: a remark on the signature file beside it.
    """

    file: str
    size: int
    sha256: str
    verdict: str
    reason: str = ""
    inspected: Inspected | None = None
    places: tuple[Place, ...] = ()
    signed: str = ""
    remarks: tuple[str, ...] = field(default=())

    @property
    def memory_mb(self) -> int:
        """What a function needs to hold it, beside what its answers take."""
        return math.ceil(needed_mb([(self.inspected.format if self.inspected else "", self.size / 1e6)]))

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, strings and numbers."""
        found = self.inspected
        told: dict[str, Any] = {
            "file": self.file,
            "size": self.size,
            "sha256": self.sha256,
            "verdict": self.verdict,
            "reason": self.reason,
            "signed": self.signed,
            "remarks": list(self.remarks),
        }
        if found is None:
            return told
        return told | {
            "format": found.format,
            "code": found.code,
            "runtimes": [
                {"name": name, "engine": RUNTIMES[name].engine, "package": package(name)} for name in found.runtimes
            ],
            "endpoints": [asdict(place) for place in self.places],
            "memory_mb": self.memory_mb,
            "signature": found.signature.to_json(),
            "output": meaning(found),
            "details": dict(found.details),
        }


def too_large(file: Path) -> str:
    """Return why a file is not even read, empty if an endpoint may take it."""
    size = file.stat().st_size
    if size <= LARGEST_MB * 1_000_000:
        return ""
    return (
        f"it has {size / 1e6:,.0f} MB; an endpoint takes {LARGEST_MB} MB at most (max_artifact_mb), so it was not "
        "read. Smaller numbers may help: `perch export --quantize`"
    )


def look(path: Path, endpoints: Iterable[EndpointPolicy] = ()) -> Finding:
    """Find out what a file is. Nothing in it is run; what cannot be served is a finding, too."""
    if path.is_dir():
        return _folder(path, endpoints)
    if not path.exists():
        return _refused(path, "there is no such file")
    if not path.is_file():
        return _refused(path, "it is no ordinary file")
    size = path.stat().st_size
    if larger := too_large(path):
        return _refused(path, larger, size)
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    signed = _signed(path)
    try:
        inspected = inspect(path.name, data)
    except ArtifactRefused as refused:
        return Finding(file=str(path), size=size, sha256=sha256, verdict=REFUSED, reason=refused.reason, signed=signed)
    finding = Finding(file=str(path), size=size, sha256=sha256, verdict=SERVED, inspected=inspected, signed=signed)
    reason = f"{inspected.code}; {_way(inspected.format)}" if inspected.code else ""
    return replace(
        finding,
        verdict=TRUST if inspected.code else SERVED,
        reason=reason,
        places=tuple(_place(endpoint, finding) for endpoint in endpoints),
    )


def package(runtime: str) -> str:
    """Say how a runtime is deployed."""
    return "zip" if RUNTIMES[runtime].layers else "image"


def meaning(found: Inspected) -> str:
    """Say what the numbers of an answer mean, by the rule of `perch.predictor.answer`."""
    declared = found.details.get("output")
    if declared:
        return f"{declared}: {MEANINGS[declared]} (declared)"
    return _by_shape(found.signature)


def _by_shape(signature: Signature) -> str:
    labels = [t for t in signature.outputs if t.datatype not in NUMBERS or t.datatype.startswith(("INT", "UINT"))]
    flat = next((t for t in labels if t.shape is not None and len(t.shape) <= 2 and t.datatype != "BOOL"), None)
    if flat is not None:
        others = len(signature.outputs) > 1
        return f"labels in {flat.name!r}" + (", scores beside them" if others else "")
    first = signature.outputs[0] if signature.outputs else None
    if first is None:
        return "not in the file; perch.json declares the signature"
    if not first.datatype.startswith("FP"):
        return "nothing that is read as a prediction; asked for by the names of its outputs"
    width = first.shape[1] if first.shape is not None and len(first.shape) == 2 else None
    if width == 1:
        return "one number a row: a value"
    if width is not None and width > 1:
        return (
            "one column a class: probabilities where rows sum to 1, else logits; declare perch.output if that is wrong"
        )
    return "not declared; the shape of its first answer decides"


def _place(endpoint: EndpointPolicy, finding: Finding) -> Place:
    inspected = finding.inspected
    assert inspected is not None  # noqa: S101 - refused files have no place
    why = ""
    if endpoint.runtime not in inspected.runtimes:
        why = f"its runtime is {endpoint.runtime}"
    elif finding.size > endpoint.max_artifact_mb * 1_000_000:
        why = f"its max_artifact_mb is {endpoint.max_artifact_mb}"
    elif finding.memory_mb > endpoint.memory_mb:
        why = f"its memory_mb is {endpoint.memory_mb}, and this takes about {finding.memory_mb}"
    elif inspected.code and inspected.format not in endpoint.allow:
        why = f'it does not allow {inspected.format}, which can run code (allow = ["{inspected.format}"])'
    elif inspected.code:
        why = "with the signature of a trusted key"
    serves = not why or bool(inspected.code and inspected.format in endpoint.allow)
    return Place(endpoint=endpoint.name, model=endpoint.model, runtime=endpoint.runtime, serves=serves, why=why)


def _way(format_name: str) -> str:
    return (
        f'it is only served by an endpoint with allow = ["{format_name}"] in perch.toml, and with the signature of a '
        "trusted key; `perch export --trust` makes a harmless file of it, if you know who made it"
    )


def _signed(path: Path) -> str:
    """Say whether a signature lies beside a file; whether it is right is for `perch verify`."""
    if (path.parent / SIGNATURE_FILE).is_file():
        return f"{SIGNATURE_FILE} lies beside it and was not checked: `perch verify {path.parent}` does"
    return f"no {SIGNATURE_FILE} lies beside it"


def _refused(path: Path, reason: str, size: int = 0) -> Finding:
    return Finding(file=str(path), size=size, sha256="", verdict=REFUSED, reason=reason)


def _folder(path: Path, endpoints: Iterable[EndpointPolicy]) -> Finding:
    """A folder is not a model, but often names one: in MLflow's `MLmodel`, or in `perch.json`."""
    files = {entry.name for entry in path.iterdir() if entry.is_file()}
    for name, read in ((MANIFEST, _manifest), (MLMODEL, _mlmodel)):
        if name not in files:
            continue
        try:
            artifact, document, facts = read((path / name).read_bytes())
        except (ArtifactRefused, ValueError) as refused:
            return _refused(path, f"{name}: {refused}")
        remarks = (f"{name} names {artifact} as the model", *(f"{key}: {value}" for key, value in facts.items()))
        if not (path / artifact).resolve().is_relative_to(path.resolve()):
            return _refused(path, f"{name} names {artifact!r}, which lies outside of the folder")
        found = replace(look(path / artifact, endpoints), remarks=remarks, signed=_signed(path / MANIFEST))
        return _declared(found, document)
    if not files:
        return _refused(path, "it is a folder without files")
    return _refused(path, f"it is a folder without {MANIFEST} or {MLMODEL}; {_named(_models(path))}")


def _declared(finding: Finding, manifest: Mapping[str, Any]) -> Finding:
    """Complete what was found by what the manifest says; what registration would not take of that is refused."""
    from perch.app.declared import as_declared

    if finding.inspected is None:
        return finding
    try:
        declared = as_declared(finding.inspected, manifest)
    except (ArtifactRefused, Invalid) as refused:
        return replace(finding, verdict=REFUSED, reason=str(refused), inspected=None, places=())
    return replace(finding, inspected=declared.inspected)


def _manifest(data: bytes) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    document = strict_json.read(data)
    if not isinstance(document, dict) or not isinstance(document.get("artifact"), str):
        raise ValueError("it names no artifact")  # noqa: TRY004 - of a file's content, as of JSON that is none
    return document["artifact"], document, {}


def _mlmodel(data: bytes) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    found = read_mlmodel(data)
    return found.artifact, found.manifest, found.metadata


def _models(path: Path) -> list[str]:
    from perch.domain.formats import format_of

    names = (entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file())
    return sorted(name for name in names if format_of(name) is not None)[:5]


def _named(models: list[str]) -> str:
    if not models:
        return "no file in it ends as one that is served"
    return f"name the file in it: {', '.join(models)}"


def flat(details: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Details as pairs of words, without those that are empty."""
    for key, value in details.items():
        if value in (None, "", [], {}):
            continue
        if isinstance(value, Mapping):
            yield key.replace("_", " "), ", ".join(f"{name} {number}" for name, number in value.items())
        elif isinstance(value, list | tuple):
            yield key.replace("_", " "), ", ".join(map(str, value))
        else:
            yield key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)
