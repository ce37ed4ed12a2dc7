"""`perch models`: the registered versions of models, newest first, or the uploads that were refused."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from perch.cli.context import Context
from perch.cli.show import Json, emit, line, say, table, when
from perch.domain.codec import dump
from perch.domain.model import ModelVersion
from perch.domain.names import ROOT


def models(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Name of a model [default: all that an endpoint serves].")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Versions a model, or refused uploads, at most.")] = 20,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="List the uploads that were refused and quarantined, and why.")
    ] = False,
    page: Annotated[int, typer.Option(min=1, help="With --rejected: which page; 1 has the newest.")] = 1,
    as_json: Json = False,
) -> None:
    """List the registered versions of a model, or what was refused."""
    place: Context = ctx.obj
    if rejected:
        _refused(place, model, limit, page, as_json=as_json)
        return
    names = (model,) if model else tuple(dict.fromkeys(p.model for p in place.settings.endpoints))
    found = [version for name in names for version in place.world.registry.versions(name, limit=limit)]
    if as_json:
        emit([_document(place, version) for version in found])
        return
    table(
        ("model", "version", "no.", "format", "KB", "sha256", "signed by", "registered (UTC)", "metadata"),
        (_row(version) for version in found),
        empty=f"no version of {', '.join(names) or 'any model'} is registered; `perch push` uploads one",
    )
    for version in found:
        for endpoint, against in _misfits(place, version).items():
            line(f"{version.model} {version.version} is not put into service on {endpoint}: {against}", "yellow")


def _refused(place: Context, model: str | None, limit: int, page: int, *, as_json: bool) -> None:
    """List a page of what was refused, newest first.

    It is of all keys when no model is named, as uploads outside the layout belong to none.
    """
    prefix = f"{ROOT}/{model}/" if model else ""
    every = sorted(place.world.registry.rejections(prefix=prefix), key=lambda one: (one.at, one.event), reverse=True)
    begin = (page - 1) * limit
    found = every[begin : begin + limit]
    if begin + limit < len(every):
        say(f"{begin + 1} to {begin + limit} of {len(every):,}; --page {page + 1} shows those before")
    if as_json:
        emit(dump(found))
        return
    table(
        ("key", "S3 version", "refused (UTC)", "reason"),
        ((one.key, one.version_id, when(one.at), one.reason) for one in found),
        empty=f"there is no page {page}: {len(every):,} were refused" if every else "nothing was refused",
    )
    if found:
        say(
            "the bytes are kept in the store, tagged perch=quarantined, which no predictor may read; what was refused "
            "stays refused: mend it and upload it again, best under a new version name"
        )


def _misfits(place: Context, version: ModelVersion) -> dict[str, str]:
    """Say of each endpoint of the model that would not be given this version, by what is declared now, why."""
    settings = place.settings
    asked = {policy.name: version.misfit(policy, settings.signing) for policy in settings.serving(version.model)}
    return {name: against for name, against in asked.items() if against}


def _document(place: Context, version: ModelVersion) -> dict[str, Any]:
    pointer = version.pointer
    return {
        "model": version.model,
        "version": version.version,
        "number": version.number,
        "runtimes": list(version.runtimes),
        "format": pointer.format,
        "size": pointer.size,
        "sha256": pointer.sha256,
        "key": pointer.key,
        "version_id": pointer.version_id,
        "registered_at": version.registered_at,
        "created_by": version.created_by,
        "signature": version.signature,
        "metadata": version.metadata,
        "probes": len(version.probes),
        "signed_by": pointer.signed_by,
        "key_hint": version.key_hint,
        "misfits": _misfits(place, version),
    }


def _row(version: ModelVersion) -> tuple[object, ...]:
    pointer = version.pointer
    metadata = ", ".join(f"{k}={v}" for k, v in version.metadata.items())
    size = f"{pointer.size / 1000:,.1f}"
    registered = when(version.registered_at)
    return (
        version.model,
        version.version,
        version.number,
        pointer.format,
        size,
        pointer.sha256[:12],
        pointer.signed_by,
        registered,
        metadata,
    )
