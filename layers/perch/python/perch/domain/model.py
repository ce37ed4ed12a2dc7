"""Models: an immutable version (found by its `Pointer`), its probes, and a refused upload."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perch.domain.pointer import Pointer

if TYPE_CHECKING:
    from perch.domain.policy import EndpointPolicy, SigningPolicy

__all__ = ["ModelVersion", "Pointer", "Probe", "Rejection"]


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
        """Refuse a request that asks nothing, or takes any answer. Raises ValueError."""
        if not self.features and not self.inputs:
            raise ValueError("a golden request has features, or inputs")
        if not 0 <= self.tolerance < math.inf:  # NaN neither
            raise ValueError(f"the tolerance is {self.tolerance}; it is a number from 0 on")


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One immutable set of artifact bytes with its metadata.

    Laws: once registered it never changes; the same bytes under the same name register once (law 1).
    `number` grows by one with each registration of the model; `runtimes` are the kinds of predictor that can run it;
    `key_hint` tells which key is meant by the name in `pointer.signed_by` (`SigningPolicy.hints`).
    """

    pointer: Pointer
    number: int
    runtimes: tuple[str, ...]
    registered_at: datetime
    created_by: str
    signature: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()
    key_hint: str = ""

    @property
    def model(self) -> str:
        """The model's name."""
        return self.pointer.model

    @property
    def version(self) -> str:
        """The version as the user named it."""
        return self.pointer.version

    def misfit(self, policy: EndpointPolicy, signing: SigningPolicy) -> str | None:
        """Say why an endpoint, by what is declared now, is given no new revision of it; None if it may be.

        Its runtime has to load it. A file that can run code needs the endpoint's opt-in and a signature that counts;
        where signatures are required, every file needs one.
        """
        what = f"{self.model} {self.version} is of format {self.pointer.format}"
        if policy.runtime not in self.runtimes:
            runtimes = " or ".join(self.runtimes)
            return f"{what}, for the {runtimes} runtime; endpoint {policy.name} runs {policy.runtime}"
        if self.pointer.can_run_code and self.pointer.format not in policy.allow:
            return (
                f"{what}, which can run code, and endpoint {policy.name} does not opt in; if it should, write "
                f'allow = ["{self.pointer.format}"] under [endpoints.{policy.name}] in perch.toml and deploy'
            )
        code = self.pointer.can_run_code
        if not code and not signing.required:
            return None
        against = signing.distrust(self.pointer.signed_by, self.key_hint)
        why = "which can run code" if code else "and this deployment takes signed models only"
        return against and f"{what}, {why}, and {against}"


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """An upload that was not registered, kept with its reason; `model` and `version` are None outside the layout.

    `event` is the object (key#S3 version) whose event led to the refusal, of this file and those that came with it.
    """

    key: str
    version_id: str
    reason: str
    at: datetime
    model: str | None = None
    version: str | None = None
    event: str = ""
