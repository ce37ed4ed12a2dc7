"""Names: the few rules that keep them usable as S3 keys, URL paths, metric dimensions and alarm names at once."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perch.domain.errors import Invalid

MANIFEST = "perch.json"
SIGNATURE = "model.sig"
STABLE_PROBES = "probes-stable"  # the one guard that says nothing of a candidate
ROOT = "models"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LAYOUT = f"{ROOT}/<model>/<version>/<file>"


@dataclass(frozen=True)
class UploadKey:
    """The parts of an S3 key inside the layout `models/<model>/<version>/<file>`."""

    model: str
    version: str
    file: str

    @property
    def folder(self) -> str:
        """The key's prefix, with its closing slash."""
        return f"{ROOT}/{self.model}/{self.version}/"

    @property
    def is_signature(self) -> bool:
        """Whether this is the signature of the folder."""
        return self.file == SIGNATURE


def parse_key(key: str) -> UploadKey:
    """Split an S3 key into model, version and file.

    Raises:
        Invalid: the key lies outside the layout, or a part of it is not a permitted name.
    """
    parts = key.split("/")
    if len(parts) != 4 or parts[0] != ROOT or not all(parts):
        raise Invalid(f"{key!r} is outside the layout; upload to {_LAYOUT}")
    for what, text in (("model", parts[1]), ("version", parts[2]), ("file", parts[3])):
        check_name(what, text)
    return UploadKey(parts[1], parts[2], parts[3])


def is_name(text: str) -> bool:
    """Whether `text` may name a model, a version or a file."""
    return _NAME.fullmatch(text) is not None


def check_name(what: str, text: str) -> str:
    """Return `text` if it may name a model, a version or a file. Raises Invalid otherwise."""
    if not is_name(text):
        raise Invalid(
            f"{what} {text[:80]!r} is not a permitted name; use 1 to 64 ASCII letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    return text


@dataclass(frozen=True)
class AlarmName:
    """The parts of `<name>/<endpoint>/<guard>[/<lambda version>]`; only a rollout's own alarms carry a version."""

    name: str
    endpoint: str
    guard: str
    version: str | None = None

    def __str__(self) -> str:
        """Join the parts; `parse_alarm(str(a)) == a`."""
        return "/".join(p for p in (self.name, self.endpoint, self.guard, self.version) if p)


def parse_alarm(text: str) -> AlarmName | None:
    """Split the name of an alarm; None if it is not one of an endpoint's."""
    parts = text.split("/")
    if len(parts) not in (3, 4) or not all(parts):
        return None
    return AlarmName(*parts)


def function_name(name: str, endpoint: str) -> str:
    """Return the name of the predictor function of an endpoint."""
    return f"{name}-{endpoint}"
