"""The init phase: from the environment to a model that is ready, or to the reason why there is none.

    PERCH_POINTER → Pointer → fetch → verify → runtime.load → one row of zeros → Served

Nothing parses a byte before `verify` has compared all of them. Whatever a loader raises becomes the sentence that this
revision answers with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perch.artifacts.data import Data
from perch.domain.formats import formats_of
from perch.domain.model import Pointer

from .answer import Reading, learn_reading
from .errors import ModelUnavailable, UnusableAnswer
from .interface import Interface, interface_of
from .runtimes import Model, loader_of, zero_row
from .verify import Hashed, verify

Fetch = Callable[[str, Pointer], Data | Hashed]
"""Reads, from a bucket, the bytes that a pointer names, and may have hashed them on the way."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that is ready: which one, how to run it, what it takes and gives, and how to read predictions out of it.

    `reading` is None when its outputs hold no predictions; such a model is asked by the names of its outputs.
    """

    pointer: Pointer
    model: Model
    interface: Interface
    reading: Reading | None


def load_served(runtime: str, environ: Mapping[str, str], fetch: Fetch) -> Served:
    """Load the model that the environment points at.

    Raises:
        ModelUnavailable: there is none, it is not what was registered, or it does not load.
        ArtifactUnreachable: the store did not answer.
    """
    pointer = _pointer(environ)
    if pointer.mistrust:
        raise ModelUnavailable(pointer.mistrust)
    loadable = formats_of(runtime)
    if pointer.format not in loadable:
        raise ModelUnavailable(
            f"{pointer.model} {pointer.version} is a {pointer.format} artifact; "
            f"the {runtime} runtime loads {', '.join(loadable)}"
        )
    bucket = environ.get("PERCH_STORE")
    if not bucket:
        raise ModelUnavailable("PERCH_STORE is not set, so there is no store to fetch the model from")
    data = verify(fetch(bucket, pointer), pointer)
    try:
        model = loader_of(pointer.format, runtime)(data)
        interface, reading = _learn(model)
    except Exception as error:
        raise ModelUnavailable(
            f"{pointer.model} {pointer.version} was verified but does not load: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    return Served(pointer=pointer, model=model, interface=interface, reading=reading)


def _learn(model: Model) -> tuple[Interface, Reading | None]:
    """Warm a model with one row of zeros, and learn from the answer.

    Rows of zeros are no harm to a model of rows, and it has to answer them. One of several inputs may well refuse what
    they mean together (an index, a length); its probes say whether it works.
    """
    declared = interface_of(model.signature, model.axes)
    if declared.matrix is not None:
        outputs = model.run(zero_row(model))
        return declared.learn(outputs), learn_reading(outputs, model.output)
    try:
        outputs = model.run_named(declared.zeros())
    except Exception:  # noqa: BLE001 - see above
        return declared.as_declared(), None
    try:
        return declared.learn(outputs), learn_reading(outputs, model.output) if declared.batched else None
    except UnusableAnswer:
        return declared.learn(outputs), None


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, shortened: fit for a client, without paths of a stack trace."""
    text = str(error).strip() or "no message"
    return text.splitlines()[0][:300]


def _pointer(environ: Mapping[str, str]) -> Pointer:
    text = environ.get("PERCH_POINTER")
    if not text:
        raise ModelUnavailable("no model has been deployed to this endpoint yet; upload one to the model store")
    try:
        return Pointer.from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelUnavailable(f"PERCH_POINTER is not a pointer to a model: {error}") from error
