"""`perch keys`: make a pair of keys on this machine, or fetch the public half of one in KMS.

A pair is two files: NAME.key, the private one, which only its owner can read and which belongs into no repository, and
NAME.pem, the public one, which perch.toml names under [signing].
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perch.cli.context import Context
from perch.cli.files import write
from perch.cli.show import Json, emit
from perch.domain.errors import Invalid
from perch.domain.names import check_name

app = typer.Typer(no_args_is_help=True, help="Keys that models are signed with.")

Name = Annotated[Path, typer.Argument(metavar="NAME", help="Where, without ending: keys/team. Files are not replaced.")]


@app.command()
def new(name: Name, as_json: Json = False) -> None:
    """Make a pair of ECDSA keys (P-256) on this machine."""
    from perch.signing import PrivateKey

    private, public = _files(name)
    key = PrivateKey.new(name.name)
    if public.exists():  # or half a pair would be left behind
        raise Invalid(f"{public} is there already and is not replaced; choose another name")
    write(private, key.to_pem(), mode=0o600, anew=True)
    try:
        write(public, key.public.pem.encode(), mode=0o644, anew=True)
    except BaseException:
        private.unlink()
        raise
    _tell(public, key.public.hint, {"private": str(private)}, as_json=as_json)


@app.command()
def fetch(
    ctx: typer.Context,
    name: Name,
    kms: Annotated[str, typer.Option(help="The key in KMS: its id, ARN or alias (alias/perch-signing).")],
    as_json: Json = False,
) -> None:
    """Write the public half of a key in KMS into a file."""
    from perch.aws.kms import KmsKey

    place: Context = ctx.obj
    _, public = _files(name)
    key = KmsKey(place.clients.kms, kms).public
    write(public, key.pem.encode(), mode=0o644, anew=True)
    _tell(public, key.hint, {"kms": kms}, as_json=as_json)


def _files(name: Path) -> tuple[Path, Path]:
    """Return the files of a pair. The public one's name, without ending, is what the key is called."""
    stem = name.with_suffix("") if name.suffix in (".pem", ".key") else name
    check_name("key", stem.name)
    return stem.with_name(f"{stem.name}.key"), stem.with_name(f"{stem.name}.pem")


def _tell(public: Path, hint: str, more: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        emit({"public": str(public), "hint": hint, **more})
        return
    if "private" in more:
        typer.echo(f"{more['private']}: the private key; keep it, and keep it to yourself")
    typer.echo(f'{public}: the public key ({hint[:12]}…); to trust it, write keys = ["{public}"] under [signing]')
