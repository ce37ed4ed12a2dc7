"""Serve a model file without a store: PERCH_MODEL names it.

| variable | default | meaning |
|---|---|---|
| PERCH_MODEL | | path of the file |
| PERCH_MODEL_NAME | the file's name without its ending | the model's name, and its endpoint's |
| PERCH_MODEL_VERSION | 1 | what answers call its version |
| PERCH_MODEL_SHA256 | | if set, what the file must hash to |
| PERCH_RUNTIME | the first that can | what runs the file, if it can |

There was no registration, so what registration does is done here: the file is inspected, and refused if anything in it
could run code. Then it goes the way of every artifact, with a pointer and the hash of exactly the bytes inspected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perch.artifacts import ArtifactRefused, inspect
from perch.domain.formats import format_of
from perch.domain.model import Pointer
from perch.predictor.errors import ModelUnavailable
from perch.predictor.loading import Fetch
from perch.predictor.verify import Hashed


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A file as the predictor takes it: variables that point at it, what reads it, and what can run it."""

    environ: Mapping[str, str]
    fetch: Fetch
    runtime: str


def read_local(environ: Mapping[str, str]) -> LocalModel | None:
    """Return the model that PERCH_MODEL names, None when it names none.

    Raises:
        ModelUnavailable: the file cannot be read, is no model that is served, could run code, or is another one than
            PERCH_MODEL_SHA256 says.
    """
    if not (text := environ.get("PERCH_MODEL")):
        return None
    path = Path(text)
    try:
        data = path.read_bytes()
        inspected = inspect(path.name, data)
    except OSError as error:
        raise ModelUnavailable(f"PERCH_MODEL is {text}, which cannot be read: {error.strerror or error}") from error
    except ArtifactRefused as error:
        raise ModelUnavailable(f"PERCH_MODEL is {text}, which is not served: {error}") from error
    if inspected.code:
        raise ModelUnavailable(f"PERCH_MODEL is {text}, which could run code, and nobody signed it: {inspected.code}")
    sha256 = hashlib.sha256(data).hexdigest()
    wanted = environ.get("PERCH_MODEL_SHA256", "").lower()
    if wanted and wanted != sha256:
        raise ModelUnavailable(f"PERCH_MODEL is {text} with SHA-256 {sha256}; PERCH_MODEL_SHA256 is {wanted}")
    fmt = format_of(path.name)
    chosen = environ.get("PERCH_RUNTIME", "")
    name = environ.get("PERCH_MODEL_NAME") or path.name.partition(".")[0]
    pointer = Pointer(
        model=name,
        version=environ.get("PERCH_MODEL_VERSION") or "1",
        key=path.name,
        version_id="local",
        sha256=sha256,
        size=len(data),
        format=fmt.name if fmt else "",
    )
    return LocalModel(
        environ={"PERCH_ENDPOINT": name, **environ, "PERCH_STORE": "local", "PERCH_POINTER": pointer.to_json()},
        fetch=lambda _bucket, _pointer: Hashed(data=data, sha256=sha256),
        runtime=chosen if chosen in inspected.runtimes else inspected.runtimes[0],
    )
