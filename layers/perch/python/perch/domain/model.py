"""Models: an immutable version, the pointer that a revision carries to it, its probes, and a refused upload."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perch.domain.codec import dump, load
from perch.domain.formats import FORMATS

if TYPE_CHECKING:  # a predictor reads pointers and no policies: twelve milliseconds of its cold start
    from perch.domain.policy import EndpointPolicy


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """Where the bytes of a model version are and what they must hash to: all that a predictor needs.

    It travels in the function's environment (`PERCH_POINTER`), so it is small. `size` is in bytes, `version_id` S3's.
    `signed_by` is the name of the trusted key that signed the bytes, `harmless` that an inspection proved that nothing
    in them can run code. A pointer that says neither (as those of an older release) is trusted with neither.
    """

    model: str
    version: str
    key: str
    version_id: str
    sha256: str
    size: int
    format: str
    signed_by: str = ""
    harmless: bool = False

    @property
    def can_run_code(self) -> bool:
        """Whether the bytes may hold code: their format can, and nothing proved that these do not."""
        return not self.harmless and (self.format not in FORMATS or FORMATS[self.format].code)

    @property
    def mistrust(self) -> str | None:
        """Say why these bytes must not be loaded, whatever their hash (law 2); None if they may."""
        if self.signed_by or not self.can_run_code:
            return None
        return (
            f"{self.model} {self.version} is a {self.format} artifact, which can run code, and no trusted key signed "
            "it, so it is not loaded"
        )

    def to_json(self) -> str:
        """Return canonical JSON; equal pointers give equal text."""
        return json.dumps(dump(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Pointer:
        """Read what `to_json` wrote. Raises ValueError or TypeError for anything else."""
        return load(Pointer, json.loads(text))


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A golden request. `expect` holds the answer's fields that must agree; without it any well-formed answer passes.

    `features` are rows (n rows of m numbers); numbers in `expect` agree within `tolerance` (absolute). A model that
    takes no rows of features has `inputs` instead, as the Open Inference Protocol writes them (name, datatype, shape,
    data as JSON); its `expect` holds the data of outputs by name.
    """

    features: tuple[tuple[float, ...], ...] = ()
    expect: Mapping[str, Any] | None = None
    tolerance: float = 1e-3
    inputs: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Refuse a request that asks nothing. Raises ValueError."""
        if not self.features and not self.inputs:
            raise ValueError("a golden request has features, or inputs")


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One immutable set of artifact bytes with its metadata.

    Laws: once registered it never changes; the same bytes under the same name register once (law 1).
    `number` grows by one with each registration of the model; `runtimes` are the kinds of predictor that can run it.
    """

    pointer: Pointer
    number: int
    runtimes: tuple[str, ...]
    registered_at: datetime
    created_by: str
    signature: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()

    @property
    def model(self) -> str:
        """The model's name."""
        return self.pointer.model

    @property
    def version(self) -> str:
        """The version as the user named it."""
        return self.pointer.version

    def misfit(self, policy: EndpointPolicy) -> str | None:
        """Say why an endpoint's predictor cannot or must not run it; None if it may."""
        what = f"{self.model} {self.version} is a {self.pointer.format} artifact"
        if policy.runtime not in self.runtimes:
            runtimes = " or ".join(self.runtimes)
            return f"{what} for the {runtimes} runtime; endpoint {policy.name} runs {policy.runtime}"
        if self.pointer.can_run_code and self.pointer.format not in policy.allow:
            return (
                f"{what}, which can run code, and endpoint {policy.name} does not opt in; if it should, write "
                f'allow = ["{self.pointer.format}"] under [endpoints.{policy.name}] in perch.toml and deploy'
            )
        return self.pointer.mistrust


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """An upload that was not registered, kept with its reason; `model` and `version` are None outside the layout."""

    key: str
    version_id: str
    reason: str
    at: datetime
    model: str | None = None
    version: str | None = None
