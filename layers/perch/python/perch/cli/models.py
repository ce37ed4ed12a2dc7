"""`perch models`: the registered versions of models, newest first."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from perch.cli.context import Context
from perch.cli.show import Json, emit, table, when
from perch.domain.model import ModelVersion


def models(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Name of a model [default: all that an endpoint serves].")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Versions a model, at most.")] = 20,
    as_json: Json = False,
) -> None:
    """List the registered versions of a model."""
    place: Context = ctx.obj
    names = (model,) if model else tuple(dict.fromkeys(p.model for p in place.settings.endpoints))
    found = [version for name in names for version in place.world.registry.versions(name, limit=limit)]
    if as_json:
        emit([_document(version) for version in found])
        return
    table(
        ("model", "version", "no.", "format", "KB", "sha256", "registered (UTC)", "metadata"),
        (_row(version) for version in found),
        empty=f"no version of {', '.join(names) or 'any model'} is registered; `perch push` uploads one",
    )


def _document(version: ModelVersion) -> dict[str, Any]:
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
        registered,
        metadata,
    )
