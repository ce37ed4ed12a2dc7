"""What is signed: an in-toto statement that names every file of a model with its SHA-256.

    subject     the model: its folder's or file's name, and the SHA-256 over all digests in their order
    predicate   of type https://model_signing/signature/v1.0: how the files were hashed, which paths were left out, and
                the resources, one a file; a model that is one file is the resource "."

`parse` takes nothing for granted, although a trusted key signed it: names stay inside the folder, none comes twice, and
the subject's digest is that of the resources. Left out: files hashed in shards or with BLAKE, and statements of
model_signing before 1.0.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from perch.domain import strict_json

from .errors import SignatureRefused

WHOLE = "."  # the name of the only resource of a model that is one file
GIT_PATHS = (".git", ".gitattributes", ".github", ".gitignore")
"""What model signing leaves out of a folder, beside the signature itself."""

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Statement:
    """The files of a model: `files` maps a name (relative, with slashes) to its SHA-256 in hexadecimal.

    `model` is the name of the folder or the file. `ignored` are relative paths that were left out, with all below them.
    """

    model: str
    files: Mapping[str, str]
    ignored: tuple[str, ...] = GIT_PATHS

    def to_json(self) -> bytes:
        """Return the bytes to sign; the same statement always gives the same."""
        names = sorted(self.files, key=lambda name: PurePosixPath(name).parts)
        document = {
            "_type": _STATEMENT,
            "subject": [{"name": self.model, "digest": {"sha256": _root(self.files[name] for name in names)}}],
            "predicateType": _PREDICATE,
            "predicate": {
                "serialization": {
                    "method": "files",
                    "hash_type": "sha256",
                    "allow_symlinks": False,
                    "ignore_paths": sorted(self.ignored),
                },
                "resources": [{"name": name, "algorithm": "sha256", "digest": self.files[name]} for name in names],
            },
        }
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()

    @staticmethod
    def parse(payload: bytes) -> Statement:
        """Read a statement. Raises SignatureRefused, in words."""
        document = read_json(payload, "the signed statement")
        try:
            return _parsed(document)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise SignatureRefused(f"the signed statement is not one of model signing: {error!r}") from error

    def check(self, found: Mapping[str, str], *, name: str, partly: bool = False) -> None:
        """Compare with the files that are there. Raises SignatureRefused, naming what differs.

        Args:
            found: their names and digests; each of them has to be signed, whatever the statement says was left out.
            name: of the model. One that is a single file has to have the name that was signed, as that says how it
                is read; a folder may be called what it likes.
            partly: files that were signed and are not there do not matter.
        """
        if (WHOLE in self.files) != (WHOLE in found):
            kind = "of a folder" if WHOLE in found else f"of the single file {self.model}"
            raise SignatureRefused(f"the signature is {kind}, and {name} is not; sign it as it is")
        if WHOLE in self.files and self.model != name:
            raise SignatureRefused(f"the signature is of a file named {self.model!r}; this one is named {name!r}")
        missing = set() if partly else self.files.keys() - found.keys()
        other = {file for file in self.files.keys() & found.keys() if self.files[file] != found[file]}
        differs = [
            f"{what}: {_some(names, name)}"
            for what, names in (
                ("missing", missing),
                ("not signed", found.keys() - self.files.keys()),
                ("other bytes than were signed", other),
            )
            if names
        ]
        if differs:
            raise SignatureRefused(f"the signature does not hold; {'; '.join(differs)}")

    def ignores(self, file: str) -> bool:
        """Whether a file was left out when the folder was signed."""
        path = PurePosixPath(file)
        return any(path.is_relative_to(left_out) for left_out in self.ignored)


def read_json(text: bytes, what: str) -> Any:
    """Read JSON that can be read in one way only. Raises SignatureRefused."""
    try:
        return strict_json.read(text)
    except ValueError as error:
        raise SignatureRefused(f"{what} cannot be read as JSON: {str(error)[:200]}") from error


def _parsed(document: Any) -> Statement:
    for key, wanted in (("_type", _STATEMENT), ("predicateType", _PREDICATE)):
        if document[key] != wanted:
            raise SignatureRefused(f"the signed statement has {key} {str(document[key])[:100]!r}; known is {wanted!r}")
    [subject] = _list(document["subject"], of=1)
    predicate = document["predicate"]
    how = predicate["serialization"]
    if (how["method"], how["hash_type"]) != ("files", "sha256"):
        raise SignatureRefused(
            f"the files were hashed as {str(how['method'])[:40]!r} with {str(how['hash_type'])[:40]!r}; "
            "Perch checks whole files with SHA-256, which is what model_signing does by default"
        )
    files: dict[str, str] = {}
    for resource in _list(predicate["resources"]):
        name, digest = resource["name"], resource["digest"]
        if resource["algorithm"] != "sha256" or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise SignatureRefused(f"the signed statement has no SHA-256 for {str(name)[:100]!r}")
        if _checked(name) in files:
            raise SignatureRefused(f"the signed statement names {name[:100]!r} twice")
        files[name] = digest
    if not files or (WHOLE in files and len(files) > 1):
        raise SignatureRefused("the signed statement names no files, or a file and a folder at once")
    if subject["digest"]["sha256"] != _root(files.values()):
        raise SignatureRefused("the signed statement contradicts itself: its subject is not the digest of its files")
    ignored = tuple(_checked(path) for path in _list(how.get("ignore_paths", [])))
    if WHOLE in ignored:
        raise SignatureRefused("the signed statement leaves out all files")
    return Statement(model=_text(subject["name"]), files=files, ignored=ignored)


def _list(value: Any, *, of: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (of is not None and len(value) != of):
        raise TypeError(f"a list{f' of {of}' if of else ''} was expected")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text was expected")
    return value


def _checked(name: Any) -> str:
    """Return a name if it stays inside the folder, written in the one way that names have."""
    text = _text(name)
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or str(path) != text or "\\" in text or not text.isprintable():
        raise SignatureRefused(f"the signed statement names {text[:100]!a}, which is no path inside a folder")
    return text


def _root(digests: Iterable[str]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()


def _some(names: Iterable[str], whole: str) -> str:
    listed = sorted(whole if name == WHOLE else name for name in names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(name[:100] for name in listed[:_LISTED]) + more
