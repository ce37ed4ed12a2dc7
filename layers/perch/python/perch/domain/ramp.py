"""Ramps: move the shares of an experiment, and as few users as that takes.

    champion  ░░░░░░░░░░░░░░░░░░░░░░░░░       A 10 %, B 10 %
              ░░░░░░░AAA░░░░░░░░BBB░░░░
    A to 30 % ░░░░AAAAAAAA░░░░░░BBB░░░░       only users of the champion move, and only to A

A challenger grows at the champion's expense alone, so as long as shares only grow, a user who met a challenger stays
with it. It shrinks in favour of the champion. When some grow while others shrink, users who leave one challenger come
back to the champion, and go to another only if the champion has nothing else to give.

A challenger grows at its own edge where it can, so that segments stay few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perch.domain.errors import Invalid
from perch.domain.experiment import PARTS, Segment, parts_of

_Run = tuple[int, int, str]  # from, to (exclusive), whose


def whole(champion: str) -> tuple[Segment, ...]:
    """Return the segments with which everything begins: all users are the champion's."""
    return (Segment(upper=PARTS, variant=champion),)


def ramp(segments: Sequence[Segment], champion: str, shares: Mapping[str, int]) -> tuple[Segment, ...]:
    """Give challengers other shares.

    Args:
        segments: as they are.
        champion: name of the variant that gives and takes.
        shares: parts by challenger; those not named keep what they have.

    Returns:
        Segments in which each challenger named has exactly its share, and the champion the rest.

    Raises:
        Invalid: a share is negative, the champion is named, or all together is more than there is.
    """
    if champion in shares or any(parts < 0 for parts in shares.values()):
        raise Invalid("name challengers with shares from 0 %; the champion has what they leave")
    after = {name: parts_of(segments, name) for name in {s.variant for s in segments} - {champion}} | dict(shares)
    if sum(after.values()) > PARTS:
        raise Invalid(f"the challengers would have {sum(after.values()) / PARTS:.2%} of the users together")
    runs = _runs(segments)
    # What the champion has to give goes first, before what comes back to it, so that few change challengers.
    for name, parts in shares.items():
        wanted = parts - parts_of(segments, name)
        runs = _grow(runs, champion, name, min(max(wanted, 0), _held(runs, champion)))
    for name, parts in shares.items():
        runs = _shrink(runs, champion, name, max(_held(runs, name) - parts, 0))
    for name, parts in shares.items():
        runs = _grow(runs, champion, name, parts - _held(runs, name))
    return tuple(Segment(upper=end, variant=owner) for _, end, owner in runs)


def _runs(segments: Sequence[Segment]) -> list[_Run]:
    lowers = [0, *(segment.upper for segment in segments)]
    return [(lower, segment.upper, segment.variant) for lower, segment in zip(lowers, segments, strict=False)]


def _held(runs: Sequence[_Run], owner: str) -> int:
    return sum(end - begin for begin, end, whose in runs if whose == owner)


def _grow(runs: list[_Run], champion: str, name: str, parts: int) -> list[_Run]:
    """Take parts from the champion: beside the challenger's own if possible, else amid the largest gap."""
    while parts > 0:
        gaps = [run for run in runs if run[2] == champion]
        ends, begins = {end for _, end, whose in runs if whose == name}, {b for b, _, whose in runs if whose == name}
        beside = [gap for gap in gaps if gap[0] in ends or gap[1] in begins]
        begin, end, _ = max(beside or gaps, key=lambda gap: gap[1] - gap[0])
        taken = min(parts, end - begin)
        lower = begin if begin in ends else end - taken if end in begins else begin + (end - begin - taken) // 2
        runs = _given(runs, lower, lower + taken, name)
        parts -= taken
    return runs


def _shrink(runs: list[_Run], champion: str, name: str, parts: int) -> list[_Run]:
    """Give parts back to the champion: the smallest pieces first, each from an edge that touches the champion's."""
    while parts > 0:
        begin, end, _ = min((run for run in runs if run[2] == name), key=lambda run: run[1] - run[0])
        given = min(parts, end - begin)
        below = any(whose == champion and upper == begin for _, upper, whose in runs)
        above = any(whose == champion and lower == end for lower, _, whose in runs)
        lower = begin if below and not above else end - given
        runs = _given(runs, lower, lower + given, champion)
        parts -= given
    return runs


def _given(runs: Sequence[_Run], begin: int, end: int, to: str) -> list[_Run]:
    """Return runs in which the points from `begin` to `end` belong to somebody else, neighbours of one owner joined."""
    cut: list[_Run] = []
    for lower, upper, owner in runs:
        inside = max(lower, begin), min(upper, end)
        pieces = [(lower, min(upper, begin), owner), (*inside, to), (max(lower, end), upper, owner)]
        cut.extend(piece for piece in pieces if piece[0] < piece[1])
    joined: list[_Run] = []
    for run in cut:
        if joined and joined[-1][2] == run[2]:
            joined[-1] = (joined[-1][0], run[1], run[2])
        else:
            joined.append(run)
    return joined
