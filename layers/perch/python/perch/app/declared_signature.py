"""What a manifest declares of a model's inputs: their ranges, and the signature where the file cannot say it itself.

    "signature": {"inputs": [{"name": "features", "datatype": "FP64", "shape": [-1, 4]}], "outputs": […]}
    "ranges":    {"features": ["age", …], "inputs": {"age": {"min": 0}}}        as `perch.artifacts.ranges` has them

The signature is only taken of formats that need it (`Format.declared`), ranges of all. They are the author's word, as
every signature is; the probes of a candidate are made from them, and show whether they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perch.artifacts import ArtifactRefused, Inspected, Signature
from perch.artifacts.ranges import add_ranges
from perch.artifacts.served import check_served
from perch.domain.errors import Invalid
from perch.domain.formats import FORMATS
from perch.domain.names import MANIFEST

RANGES = "ranges"
_EXAMPLE = '{"inputs": [{"name": "features", "datatype": "FP64", "shape": [-1, 4]}], "outputs": […]}'
_WAY_OUT = "write -1 for a size that may vary"


def as_declared(inspected: Inspected, manifest: Mapping[str, Any]) -> Inspected:
    """Return what was found, with what its manifest declares of it.

    Raises:
        Invalid: a signature is missing, or not like the example above.
        ArtifactRefused: nobody could ask a model of such a signature, or the ranges do not fit it.
    """
    found = with_signature(inspected, manifest)
    if RANGES not in manifest:
        return found
    try:
        return replace(found, signature=add_ranges(found.signature, manifest[RANGES]))
    except ArtifactRefused as refused:
        raise ArtifactRefused(f"{MANIFEST}: {refused.reason}") from refused


def with_signature(inspected: Inspected, manifest: Mapping[str, Any]) -> Inspected:
    """Return what was found, with the manifest's signature if the format has none of its own.

    Raises:
        Invalid: there is none, or it is not like the example above.
        ArtifactRefused: nobody could ask a model of such a signature.
    """
    if not FORMATS[inspected.format].declared:
        return inspected
    declared = manifest.get("signature")
    if declared is None:
        raise Invalid(
            f"a {inspected.format} file does not say what the model takes and gives; declare it in {MANIFEST}: "
            f'"signature": {_EXAMPLE}'
        )
    return replace(inspected, signature=read_signature(declared))


def read_signature(declared: Any) -> Signature:
    """Read a declared signature. Raises `Invalid` or `ArtifactRefused`."""
    try:
        signature = Signature.from_json(declared)
        given = (*declared["inputs"], *declared["outputs"])
        whole = all(type(size) is int and -1 <= size < 2**31 and size for tensor in given for size in tensor["shape"])
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise Invalid(f'{MANIFEST}: "signature" looks like {_EXAMPLE}') from error
    if not whole:
        raise Invalid(f"{MANIFEST}: a shape of the signature has a size that is neither -1 nor a number from 1 on")
    try:
        check_served(signature, _WAY_OUT)
    except ArtifactRefused as refused:
        raise ArtifactRefused(f"{MANIFEST}: {refused.reason}") from refused
    return signature
