"""The init phase: from the environment to a model that is ready, or to the reason why there is none.

    PERCH_POINTER → wanted → engine imported → fetch → verify → load → ranges beside it → one row of zeros → Served

Nothing parses a byte before `verify` has compared all of them. Whatever a loader raises becomes the sentence that this
revision answers with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from perch.artifacts.data import Data
from perch.artifacts.signature import Signature
from perch.domain.pointer import Pointer

from .answer import Reading, learn_reading
from .errors import ModelUnavailable, UnusableAnswer
from .interface import Interface, interface_of
from .runtimes import Model, loader_of
from .verify import Hashed, verify
from .wanted import wanted

Fetch = Callable[[str, Pointer], Data | Hashed]
"""Reads, from a bucket, the bytes that a pointer names, and may have hashed them on the way."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
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
    bucket, pointer = wanted(runtime, environ)
    try:
        load = loader_of(pointer.format, runtime)  # an engine, imported while the bytes may be on their way
    except Exception as error:
        raise _failed(f"what loads {pointer.format} cannot be imported", error) from error
    beside = pointer.manifest_pointer
    manifest = None if beside is None else verify(fetch(bucket, beside), beside)
    data = verify(fetch(bucket, pointer), pointer)
    try:
        model = load(data)
        if manifest is not None:
            model.signature = _added(model.signature, pointer, manifest)
        interface, reading = _learn(model)
    except Exception as error:
        raise _failed(f"{pointer.model} {pointer.version} was verified but does not load", error) from error
    return Served(pointer=pointer, model=model, interface=interface, reading=reading)


def _added(signature: Signature, pointer: Pointer, manifest: Data) -> Signature:
    from .beside import with_manifest  # noqa: PLC0415 - most artifacts say all that there is to say

    return with_manifest(signature, pointer, manifest)


def _failed(what: str, error: Exception) -> ModelUnavailable:
    return ModelUnavailable(f"{what}: {type(error).__name__}: {first_line(error)}")


def _learn(model: Model) -> tuple[Interface, Reading | None]:
    """Warm a model with one row of zeros, and learn from the answer.

    Rows of zeros are no harm to a model of rows, and it has to answer them. One of several inputs may well refuse what
    they mean together (an index, a length); its probes say whether it works.
    """
    declared = interface_of(model.signature, model.axes)
    if declared.matrix is not None:
        outputs = model.run_named(declared.zeros())
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
