"""What a revision is to load, and from where: read from the environment, before anything is fetched or imported for it.

Whatever can be known to be wrong without the bytes is said here: no model yet, one that this runtime does not load,
one that could run code and that nobody trusted signed (law 2).
"""

from __future__ import annotations

from collections.abc import Mapping

from perch.domain.formats import formats_of
from perch.domain.pointer import Pointer

from .errors import ModelUnavailable


def wanted(runtime: str, environ: Mapping[str, str]) -> tuple[str, Pointer]:
    """Return the bucket and the pointer of the model that the environment names.

    Raises:
        ModelUnavailable: there is none, or it must not be loaded here.
    """
    pointer = _pointer(environ)
    if pointer.mistrust:
        raise ModelUnavailable(pointer.mistrust)
    loadable = formats_of(runtime)
    if pointer.format not in loadable:
        raise ModelUnavailable(
            f"{pointer.model} {pointer.version} is of format {pointer.format}; "
            f"the {runtime} runtime loads {', '.join(loadable)}"
        )
    bucket = environ.get("PERCH_STORE")
    if not bucket:
        raise ModelUnavailable("PERCH_STORE is not set, so there is no store to fetch the model from")
    return bucket, pointer


def _pointer(environ: Mapping[str, str]) -> Pointer:
    text = environ.get("PERCH_POINTER")
    if not text:
        raise ModelUnavailable("no model has been deployed to this endpoint yet; upload one to the model store")
    try:
        return Pointer.from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelUnavailable(f"PERCH_POINTER is not a pointer to a model: {error}") from error
