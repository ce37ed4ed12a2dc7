"""Variants: which of a revision's models answers a request, when an experiment runs on the endpoint.

    PERCH_POINTER     the champion          ┐
    PERCH_EXPERIMENT  the challengers, who  ┴─► at init: all models loaded ─► each request: one of them
                      gets what (`Split`)

    x-perch-variant: NAME   that one, for tests and probes (400 if there is none of that name)
    x-perch-user: ID        the user's own, always the same
    neither                 one by the request's id: another one at each request

All of them load or the revision serves none (503), so that a broken variant fails its probes instead of leaving its
users to the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from perch.domain.errors import Invalid
from perch.domain.pointer import Pointer

from .errors import ModelUnavailable, RequestRefused
from .loading import Fetch, Served, load_served

if TYPE_CHECKING:
    from perch.domain.experiment import Split

USER, VARIANT = "x-perch-user", "x-perch-variant"
MAX_USER = 256


class Variants(msgspec.Struct, frozen=True, kw_only=True):
    """The models of a revision by variant; without an experiment there is one, and no `split`."""

    served: Mapping[str, Served]
    split: Split | None = None

    @property
    def champion(self) -> Served:
        """The model that serves the endpoint, experiment or not: the first."""
        return next(iter(self.served.values()))

    def choose(
        self, event: Mapping[str, Any], request_id: str, version: str | None = None
    ) -> tuple[Served, Choice | None]:
        """Return the model that answers a request, and how it was chosen (None without an experiment).

        `version` is the model version that its path names: then a variant of that version answers.

        Raises:
            RequestRefused: 400, a variant is asked for that there is not, or the user id is too long.
        """
        if self.split is None:
            return self.champion, None
        headers = event.get("headers") or {}
        forced, user = headers.get(VARIANT), headers.get(USER)
        if forced:
            if forced not in self.served:
                names = ", ".join(self.served)
                raise RequestRefused(
                    400, f"there is no variant {forced[:40]!a}; experiment {self.split.id} has {names}"
                )
            name = forced
        elif user and len(user) > MAX_USER:
            raise RequestRefused(400, f"the user id in {USER} has {len(user)} characters; {MAX_USER} are taken")
        else:
            name = self.split.variant_of(user or request_id)
        if version is not None and self.served[name].pointer.version != version:
            name, forced = next(n for n, one in self.served.items() if one.pointer.version == version), version
        return self.served[name], Choice(name=name, experiment=self.split.id, sticky=bool(user) and not forced)

    def describe(self) -> dict[str, Any]:
        """Return what is told of the experiment, nothing when there is none."""
        if self.split is None:
            return {}
        variants = [
            {"name": name, "version": served.pointer.version, "share": self.split.share(name)}
            for name, served in self.served.items()
        ]
        return {"experiment": {"id": self.split.id, "variants": variants}}


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The variant that answers one request; `sticky` when the same user will get the same one again."""

    name: str
    experiment: str
    sticky: bool

    @property
    def dimension(self) -> str:
        """How its metrics name it."""
        return f"{self.experiment}/{self.name}"


def load_variants(runtime: str, environ: Mapping[str, str], fetch: Fetch) -> Variants:
    """Load every model that the environment names; a model of two variants is loaded once.

    Raises:
        ModelUnavailable: one of them cannot be served; the sentence says which.
        ArtifactUnreachable: the store did not answer.
    """
    champion = load_served(runtime, environ, fetch)
    text = environ.get("PERCH_EXPERIMENT")
    if not text:
        return Variants(served={"": champion})
    from perch.domain.experiment import Split  # noqa: PLC0415 - most revisions have none

    try:
        split = Split.from_json(text)
    except Invalid as error:
        raise ModelUnavailable(f"PERCH_EXPERIMENT: {error}") from error
    loaded: dict[Pointer, Served] = {champion.pointer: champion}
    served = {split.champion: champion}
    for name, pointer in split.challengers.items():
        if pointer not in loaded:
            try:
                loaded[pointer] = load_served(runtime, {**environ, "PERCH_POINTER": pointer.to_json()}, fetch)
            except ModelUnavailable as error:
                raise ModelUnavailable(f"variant {name} of experiment {split.id}: {error}") from error
        served[name] = loaded[pointer]
    return Variants(served=served, split=split)
