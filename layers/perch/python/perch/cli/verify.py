"""`perch verify`: whether a model is what a trusted key signed, with every file and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perch.cli.show import Json, emit, tell
from perch.cli.sign import SignatureFile, read_key
from perch.domain.errors import Invalid, NotFound

if TYPE_CHECKING:
    from perch.signing import PublicKey


def verify(
    path: Annotated[Path, typer.Argument(help="A model: its file, or the folder with all of its files.")],
    key: Annotated[
        list[Path] | None, typer.Option(help="Trusted public key in PEM; repeatable [default: those of perch.toml].")
    ] = None,
    signature: SignatureFile = None,
    as_json: Json = False,
) -> None:
    """Check the signature of a model, and say whose it is.

    It fails if a file was changed, renamed, added or taken away, or if another key signed.
    """
    from perch.signing import verify_bundle
    from perch.signing.folder import digests, inside, signature_of
    from perch.signing.statement import GIT_PATHS

    keys = _named(key) if key else _declared()
    source = signature or signature_of(path)
    if not source.is_file():
        raise NotFound(f"there is no signature {source}; `perch sign` writes one")
    verified = verify_bundle(_read(source), keys)
    statement = verified.statement
    beside = inside(path, source)
    statement.check(digests(path, ignored=(*statement.ignored, *beside)), name=path.resolve().name)
    left_out = sorted(p for p in set(statement.ignored) - {*GIT_PATHS, *beside} if (path / p).exists())
    if as_json:
        found = {"key": verified.key.name, "hint": verified.key.hint, "files": statement.files}
        emit({"path": str(path), "signature": str(source), **found, "left_out": left_out})
        return
    files = f"{len(statement.files)} file{'s' if len(statement.files) > 1 else ''}"
    tell(f"{path}: {files}, as signed by {verified.key.name} ({verified.key.hint[:12]}…)")
    if left_out:
        tell(f"not signed, as the signer left it out: {', '.join(left_out)}")


def _read(source: Path) -> bytes:
    from perch.signing.bundle import MAX_BUNDLE

    with source.open("rb") as bundle:
        return bundle.read(MAX_BUNDLE + 1)  # one byte too many is refused in words


def _named(files: list[Path]) -> list[PublicKey]:
    from perch.signing import PublicKey

    return [PublicKey.load(file.stem, read_key(file).decode("utf-8", "replace")) for file in files]


def _declared() -> list[PublicKey]:
    from perch.cli.context import SETTINGS
    from perch.cli.declared import read_settings
    from perch.signing import PublicKey

    if not SETTINGS.is_file():
        raise Invalid(f"name the trusted key with --key, or go where a {SETTINGS} names keys under [signing]")
    trusted = read_settings(SETTINGS).signing.keys
    if not trusted:
        raise Invalid(f"{SETTINGS} names no keys under [signing]; name the trusted key with --key")
    return [PublicKey.load(name, pem) for name, pem in trusted.items()]
