"""Models: an immutable version, the pointer that a revision carries to it, its probes, and a refused upload."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from perch.domain.codec import dump, load


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """Where the bytes of a model version are and what they must hash to: all that a predictor needs.

    It travels in the function's environment (`PERCH_POINTER`), so it is small. `size` is in bytes, `version_id` S3's.
    """

    model: str
    version: str
    key: str
    version_id: str
    sha256: str
    size: int
    format: str

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

    def misfit(self, endpoint: str, runtime: str) -> str | None:
        """Say why an endpoint's predictor cannot run it; None if it can."""
        if runtime in self.runtimes:
            return None
        return (
            f"{self.model} {self.version} is a {self.pointer.format} artifact for the {' or '.join(self.runtimes)} "
            f"runtime; endpoint {endpoint} runs {runtime}"
        )


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """An upload that was not registered, kept with its reason; `model` and `version` are None outside the layout."""

    key: str
    version_id: str
    reason: str
    at: datetime
    model: str | None = None
    version: str | None = None
