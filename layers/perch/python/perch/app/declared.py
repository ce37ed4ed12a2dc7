"""What a manifest declares of a model: ranges of its inputs, the signature where the file cannot say it itself, probes.

    "signature": {"inputs": [{"name": "features", "datatype": "FP64", "shape": [-1, 4]}], "outputs": […]}
    "ranges":    {"features": ["age", …], "inputs": {"age": {"min": 0}}}        as `perch.artifacts.ranges` has them

The signature is only taken of formats that need it (`Format.declared`), ranges of all. They are the author's word, as
every signature is; the probes of a candidate are made from them unless the manifest has its own, and show whether
they hold. Whoever uploads is told of the same faults before (`perch push`, `perch inspect`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from perch.app.probe import unfit
from perch.artifacts import ArtifactRefused, Inspected, Signature
from perch.artifacts.ranges import add_ranges
from perch.artifacts.served import check_served
from perch.domain.codec import load
from perch.domain.errors import Invalid
from perch.domain.formats import FORMATS
from perch.domain.model import Probe
from perch.domain.names import MANIFEST

RANGES = "ranges"
_MAX_PROBES = 20
_EXAMPLE = '{"inputs": [{"name": "features", "datatype": "FP64", "shape": [-1, 4]}], "outputs": […]}'
_WAY_OUT = "write -1 for a size that may vary"


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What was found in an artifact, completed by its manifest, and what else that says."""

    inspected: Inspected
    metadata: dict[str, Any]
    probes: tuple[Probe, ...]


def as_declared(inspected: Inspected, manifest: Mapping[str, Any]) -> Declared:
    """Return what was found, with what its manifest declares of it.

    Raises:
        Invalid: a signature is missing, or not like the example above; metadata or probes are not what they should be.
        ArtifactRefused: nobody could ask a model of such a signature, or the ranges do not fit it.
    """
    found = with_signature(inspected, manifest)
    if RANGES in manifest:
        try:
            found = replace(found, signature=add_ranges(found.signature, manifest[RANGES]))
        except ArtifactRefused as refused:
            raise ArtifactRefused(f"{MANIFEST}: {refused.reason}") from refused
    metadata = manifest.get("metadata", {})
    if not isinstance(metadata, dict):
        raise Invalid(f"{MANIFEST}: metadata must be an object")
    return Declared(inspected=found, metadata=metadata, probes=_probes(manifest, found))


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


def _probes(manifest: Mapping[str, Any], inspected: Inspected) -> tuple[Probe, ...]:
    """Return the golden requests; none if there are none (then `probe.golden` makes some). Raises Invalid."""
    declared = manifest.get("probes", [])
    if not isinstance(declared, list) or len(declared) > _MAX_PROBES:
        raise Invalid(f"{MANIFEST}: probes must be a list of at most {_MAX_PROBES} golden requests")
    try:
        probes = tuple(load(Probe, p) for p in declared)
    except (TypeError, AttributeError, ValueError) as error:
        raise Invalid(f'{MANIFEST}: a probe looks like {{"features": [[…]], "expect": {{…}}}}: {error}') from error
    for number, probe in enumerate(probes):
        if reason := unfit(probe, inspected.signature):
            raise Invalid(f"{MANIFEST}: probe {number} {reason}")
    return probes
