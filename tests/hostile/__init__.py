"""Files that mean harm, and the promise that none of them gets anywhere.

Each module of this folder that has a function `hostile(trap)` gives some; `tests.hostile.table` collects them all, and
`test_hostile.py` sends every one through `perch.artifacts.inspect` in a process that may die. What they try and what
they are told is the table in docs/security.md.

    def hostile(trap: Path) -> Iterator[Hostile]:
        yield Hostile(
            title="a pickle that calls os.system",        # what it is: unique, stable, fit for a table
            file="model.pkl",                             # the name that it comes under
            data=…,                                       # made here, never read from disk
            threat="runs a command when it is unpickled", # what it would do where it is not stopped
            words="can run code",                         # what the reason says, among other things
        )

`trap` is a path that does not exist. A payload that runs would create it: `payload(trap)` is such a command.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REFUSED, TRUST, SERVED = "refused", "needs trust", "served"


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One file.

    Attributes:
        verdict: what `inspect` has to make of it: `refused`, `needs trust` (`Inspected.code` names what could run), or
            `served` (harmless to read, and stopped later: the threat says by what).
        words: part of the reason; empty for `served`.
    """

    title: str
    file: str
    data: bytes
    threat: str
    words: str
    verdict: str = REFUSED


def payload(trap: Path) -> str:
    """A shell command that leaves a trace."""
    return f"touch {trap}"
