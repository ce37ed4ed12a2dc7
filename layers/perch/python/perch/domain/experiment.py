"""Experiments: several models behind one endpoint, each user always with the same one.

    user id ──► sha256(salt ":" user id) ──► a point, 0 … 9,999 ──► the segment that it lies in ──► a variant

All variants live in one revision, so that the choice is a look at a table in memory: no call, no state, the same
answer in every process. The first variant is the champion, which serves the endpoint anyway; the others challenge it.
What a predictor has to know of all this, the `Split`, travels in the revision's environment (`PERCH_EXPERIMENT`).

How segments move is in `ramp`, what rewards show in `significance`, what may happen to an experiment in
`experiment_moves`.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from perch.domain.codec import dump, load
from perch.domain.errors import Invalid
from perch.domain.pointer import Pointer

PARTS = 10_000
"""Shares are whole parts of this many, so that they are exact: one part is 0.01 %."""

MAX_VARIANTS = 5
MAX_TEXT = 2_600
"""Bytes of PERCH_EXPERIMENT when an experiment begins: Lambda allows 4 KB for all variables, and segments multiply."""

LONGEST = timedelta(days=365)
"""How long rewards of an experiment count; so long is remembered who was counted."""

_VARIANT = re.compile(r"[a-z][a-z0-9-]{0,19}")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The points from the end of the segment before up to `upper` (exclusive) belong to a variant."""

    upper: int
    variant: str


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One arm: a registered model version (`number` is its registration number), and why it was braked, if it was."""

    name: str
    pointer: Pointer
    number: int = 0
    braked: str = ""


@dataclass(frozen=True, kw_only=True)
class Split:
    """What a predictor has to know: who gets what. `challengers` are pointers by name; the champion's is its own."""

    id: str
    salt: str
    champion: str
    segments: tuple[Segment, ...]
    challengers: dict[str, Pointer]

    @property
    def names(self) -> tuple[str, ...]:
        """All variants, the champion first."""
        return (self.champion, *self.challengers)

    @cached_property
    def _uppers(self) -> list[int]:
        return [segment.upper for segment in self.segments]

    def variant_of(self, user: str) -> str:
        """Return the variant of a user id (or of whatever else tells requests apart)."""
        return self.segments[bisect_right(self._uppers, point(self.salt, user))].variant

    def share(self, variant: str) -> float:
        """Return the share of users that a variant has, 0 to 1."""
        return parts_of(self.segments, variant) / PARTS

    def to_json(self) -> str:
        """Return canonical JSON; equal splits give equal text. Segments are pairs, since the environment is small."""
        document = {
            "id": self.id,
            "salt": self.salt,
            "champion": self.champion,
            "challengers": [[name, dump(pointer)] for name, pointer in self.challengers.items()],
            "segments": [[segment.upper, self.names.index(segment.variant)] for segment in self.segments],
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Split:
        """Read what `to_json` wrote.

        Raises:
            Invalid: it is something else, or its segments do not cover all users with variants that there are.
        """
        try:
            told = json.loads(text)
            challengers = {str(name): load(Pointer, pointer) for name, pointer in told["challengers"]}
            names = [str(told["champion"]), *challengers]
            segments = tuple(Segment(upper=int(upper), variant=names[index]) for upper, index in told["segments"])
            split = Split(
                id=str(told["id"]),
                salt=str(told["salt"]),
                champion=names[0],
                segments=segments,
                challengers=challengers,
            )
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise Invalid(f"this is not the split of an experiment: {error}") from error
        check_segments(split.segments, split.names)
        return split


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An A/B/n test of an endpoint. The first of `variants` is the champion.

    `segments` are as they shall be; what is served is in the revision. `reward` names, for people, what is rewarded.
    `alpha` bounds the probability that any claim about any challenger is false. A `bandit` moves the shares by itself,
    at most every `bandit_every_s`, and leaves each arm that was not braked at least `floor`. `moved_at` is when the
    shares were last changed; `proposed` is the text of the revision that was last asked for.
    """

    id: str
    endpoint: str
    salt: str
    variants: tuple[Variant, ...]
    segments: tuple[Segment, ...]
    started_at: datetime
    moved_at: datetime
    actor: str
    reward: str = "reward"
    alpha: float = 0.05
    bandit: bool = False
    floor: float = 0.05
    bandit_every_s: int = 3_600
    proposed: str = ""

    @property
    def champion(self) -> Variant:
        """The arm that serves the endpoint anyway."""
        return self.variants[0]

    @property
    def challengers(self) -> tuple[Variant, ...]:
        """The other arms."""
        return self.variants[1:]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all arms, the champion's first."""
        return tuple(v.name for v in self.variants)

    def share(self, variant: str) -> float:
        """Return the share of users that a variant shall have, 0 to 1."""
        return parts_of(self.segments, variant) / PARTS

    @property
    def split(self) -> Split:
        """What its revision carries."""
        return Split(
            id=self.id,
            salt=self.salt,
            champion=self.champion.name,
            segments=self.segments,
            challengers={v.name: v.pointer for v in self.challengers},
        )


def point(salt: str, user: str) -> int:
    """Return where a user lies, 0 to 9,999: the first eight bytes of a hash as a fraction of 2^64, in whole parts."""
    digest = hashlib.sha256(f"{salt}:{user}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") * PARTS >> 64


def parts_of(segments: Sequence[Segment], variant: str) -> int:
    """Return how many of all parts a variant has."""
    total, lower = 0, 0
    for segment in segments:
        total += segment.upper - lower if segment.variant == variant else 0
        lower = segment.upper
    return total


def check_segments(segments: Sequence[Segment], names: Sequence[str]) -> None:
    """See that segments ascend to the end and belong to variants that there are. Raises Invalid."""
    uppers = [segment.upper for segment in segments]
    if not uppers or uppers != sorted(set(uppers)) or uppers[0] <= 0 or uppers[-1] != PARTS:
        raise Invalid(f"segments end at {uppers}; they must ascend to {PARTS}")
    if strangers := {segment.variant for segment in segments} - set(names):
        raise Invalid(f"segments of {', '.join(sorted(strangers))}, but the variants are {', '.join(names)}")


def to_parts(share: float) -> int:
    """Return a share (0 to 1) as whole parts. Raises Invalid if it is none."""
    parts = round(share * PARTS)
    if not 0 <= share <= 1 or abs(parts - share * PARTS) > 1e-6:
        raise Invalid(f"{share:.6%} is not a share; give one from 0 to 100 %, in steps of 0.01 %")
    return parts


def check_variants(names: Sequence[str]) -> None:
    """See that names may name the variants of an experiment. Raises Invalid."""
    for name in names:
        if not _VARIANT.fullmatch(name):
            raise Invalid(
                f"{name[:60]!r} cannot name a variant; use 1 to 20 lower-case letters, digits and hyphens, beginning "
                "with a letter"
            )
    if len(set(names)) != len(names):
        raise Invalid(f"two variants have one name: {', '.join(names)}")
    if not 2 <= len(names) <= MAX_VARIANTS:
        raise Invalid(f"an experiment has 2 to {MAX_VARIANTS} variants, the champion included; these are {len(names)}")
