"""The pointer that a revision carries to its model: all that a predictor needs to know of a model version.

It is apart from what else is known of models (`perch.domain.model`), because a predictor reads it before anything else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from perch.domain.codec import dump, load
from perch.domain.formats import FORMATS
from perch.domain.names import MANIFEST


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Which S3 version of another file of the same folder: what it hashes to, and its size in bytes."""

    version_id: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """Where the bytes of a model version are and what they must hash to: all that a predictor needs.

    It travels in the function's environment (`PERCH_POINTER`), so it is small. `size` is in bytes, `version_id` S3's.
    `signed_by` is the name of the trusted key that signed the bytes, `harmless` that an inspection proved that nothing
    in them can run code. A pointer that says neither (as those of an older release) is trusted with neither.
    `manifest` is the version's `perch.json`, if there is something in it that the predictor has to know.
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
    manifest: Beside | None = None

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
            f"{self.model} {self.version} is of format {self.format}, which can run code, and no trusted key signed "
            "it, so it is not loaded"
        )

    @property
    def manifest_pointer(self) -> Pointer | None:
        """The manifest as something that can be fetched and verified like an artifact; None if it is not needed."""
        if self.manifest is None:
            return None
        folder = self.key.rpartition("/")[0]
        pinned = self.manifest
        return Pointer(
            model=self.model, version=self.version, key=f"{folder}/{MANIFEST}", version_id=pinned.version_id,
            sha256=pinned.sha256, size=pinned.size, format="manifest",
        )  # fmt: skip

    def to_json(self) -> str:
        """Return canonical JSON; equal pointers give equal text."""
        said = {name: value for name, value in dump(self).items() if value is not None}
        return json.dumps(said, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Pointer:
        """Read what `to_json` wrote. Raises ValueError or TypeError for anything else."""
        return load(Pointer, json.loads(text))
