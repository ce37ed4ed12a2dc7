"""The settings of signatures: whose count, whether all uploads need one, and which formats need one in any case.

    [signing]              required, keys (PEM files of public keys, beside the settings file), kms_key
    [endpoints.<name>]     allow (formats that can run code, which the endpoint opts in to)

The keys are read here and travel in the settings layer, so that verifying takes no call: what is trusted is what was
deployed. A key is known by its file's name without the ending.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cdk.reading import Reader, WrongValueError, flag, one_of
from perch.domain.errors import Invalid
from perch.domain.formats import formats_of, may_hold_code
from perch.domain.names import check_name
from perch.signing.keys import MAX_PEM, PublicKey


@dataclass(frozen=True, kw_only=True)
class Signing:
    """`keys` maps names to public PEM; `kms_key` makes a signing key in KMS with the store."""

    required: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    kms_key: bool = False

    def as_document(self) -> dict[str, object]:
        """Return what the functions read of it."""
        return {"required": self.required, "keys": dict(self.keys)}


def signing(reader: Reader, folder: Path) -> Signing:
    """Read the section [signing]; its paths are relative to `folder`, where the settings file is."""
    found = Signing(
        required=reader.value("required", flag, Signing.required),
        keys=reader.value("keys", _keys(folder), {}),
        kms_key=reader.value("kms_key", flag, Signing.kms_key),
    )
    if found.required and not reader.table.get("keys"):
        reader.complain("required", 'name the keys whose signatures count, as keys = ["keys/team.pem"]')
    reader.close()
    return found


def allow(runtime: str, signing: Signing) -> Callable[[object], tuple[str, ...]]:
    """Make the check of an endpoint's `allow`."""

    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise WrongValueError(f"{value!r} is not a list of formats")
        known = may_hold_code()
        if value and not known:
            raise WrongValueError("no format is served that can run code, so there is nothing to allow")
        chosen = tuple(one_of(*known)(item) for item in value)
        if foreign := [name for name in chosen if name not in formats_of(runtime)]:
            raise WrongValueError(
                f"the {runtime} runtime does not load {', '.join(foreign)}; it loads {', '.join(formats_of(runtime))}"
            )
        if chosen and not signing.keys:
            raise WrongValueError(
                "a format that can run code is only taken with a signature of a trusted key; name one as keys under "
                "[signing] (`perch keys new` makes one)"
            )
        return chosen

    return check


def _keys(folder: Path) -> Callable[[object], Mapping[str, str]]:
    def check(value: object) -> Mapping[str, str]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise WrongValueError(f'{value!r} is not a list of files; write it as ["keys/team.pem"]')
        found: dict[str, str] = {}
        for item in value:
            key = _read(folder / item, item)
            if key.name in found:
                raise WrongValueError(f"two keys are named {key.name!r}; a key is known by its file's name")
            if key.pem in found.values():
                raise WrongValueError(f"{item} is a key that is named already")
            found[key.name] = key.pem
        return found

    return check


def _read(file: Path, item: str) -> PublicKey:
    try:
        name = check_name("key", file.stem)
        if file.stat().st_size > MAX_PEM:
            raise WrongValueError(f"{item} is no PEM file: it has more than {MAX_PEM:,} bytes")
        return PublicKey.load(name, file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WrongValueError(f"{item} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except Invalid as error:
        raise WrongValueError(f"{item}: {error}") from error
