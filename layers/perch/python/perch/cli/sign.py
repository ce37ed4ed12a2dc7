"""`perch sign`: write the signature of a model, a file or a folder, in the OpenSSF's format.

    files ─► their SHA-256 ─► statement ─► signed by a key on this machine or in KMS ─► model.sig

`model_signing verify key` reads it, as `perch verify` does, and registration checks it before it parses the model.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perch.cli.context import Context
from perch.cli.files import write
from perch.cli.show import Json, emit
from perch.domain.errors import Invalid, NotFound

if TYPE_CHECKING:
    from perch.signing.keys import Signer

PASSWORD = "PERCH_KEY_PASSWORD"  # noqa: S105 - the name of a variable
Key = Annotated[Path | None, typer.Option(help=f"Private key in PEM; {PASSWORD} decrypts it.")]
Kms = Annotated[str | None, typer.Option(help="Key in KMS instead: its id, ARN or alias (alias/perch-signing).")]
SignatureFile = Annotated[
    Path | None, typer.Option("--signature", help="Where the signature is [default: model.sig, in or beside PATH].")
]


def sign(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A model: its file, or the folder with all of its files.")],
    key: Key = None,
    kms: Kms = None,
    signature: SignatureFile = None,
    as_json: Json = False,
) -> None:
    """Sign a model, so that others can tell who made it.

    A folder is signed with all of its files, perch.json included, without Git's and without the signature.
    """
    from perch.signing import Statement, sign_statement
    from perch.signing.folder import digests, inside, name_of, signature_of
    from perch.signing.statement import GIT_PATHS

    signer = signer_of(ctx.obj, key, kms)
    target = signature or signature_of(path)
    ignored = (*GIT_PATHS, *inside(path, target))
    statement = Statement(model=name_of(path), files=digests(path, ignored=ignored), ignored=ignored)
    write(target, sign_statement(statement, signer), mode=0o644)
    if as_json:
        emit(
            {"signature": str(target), "key": signer.public.name, "hint": signer.public.hint, "files": statement.files}
        )
    else:
        files = f"{len(statement.files)} file{'s' if len(statement.files) > 1 else ''}"
        typer.echo(
            f"{target}: {files} of {statement.model}, signed by {signer.public.name} ({signer.public.hint[:12]}…)"
        )


def signer_of(place: Context, key: Path | None, kms: str | None) -> Signer:
    """Return whoever signs. Raises a usage error (exit code 2) unless exactly one is named."""
    if (key is None) == (kms is None):
        raise typer.BadParameter("name one of them", param_hint="--key, --kms")
    if kms is not None:
        from perch.aws.kms import KmsKey

        return KmsKey(place.clients.kms, kms)
    from perch.signing import PrivateKey

    assert key is not None  # noqa: S101 - one of them is not
    return PrivateKey.load(key.stem, read_key(key), os.environ.get(PASSWORD))


def read_key(file: Path) -> bytes:
    """Read a key file. Raises NotFound, or Invalid for what can only be something else."""
    if not file.is_file():
        raise NotFound(f"there is no key {file}; `perch keys new` makes one")
    data = file.read_bytes()
    if len(data) > 20_000:
        raise Invalid(f"{file} is no key: it has {len(data):,} bytes")
    return data
