"""The table of hostile files in docs/security.md, made from the files themselves: `python -m tests.hostile.table`.

It says what each file is, what it would do, and what `perch inspect` and registration say of it. What stands outside of
the two markers is written by people. `test_hostile.py` sends the same files through the same inspector in a process
that may die, and holds the page to this.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.hostile.cage import Outcome

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"
BEGIN = "<!-- hostile: made by `python -m tests.hostile.table`; a change between these marks is lost -->\n"
END = "<!-- /hostile -->\n"
TRAP = Path("/tmp/perch-trap")
_LONGEST = 200


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the Markdown table of what became of all hostile files."""
    rows = [f"| {_cell(one.title)} | {_cell(one.expected['threat'])} | {_cell(_said(one))} |" for one in outcomes]
    heading = ["| file | what it would do | what becomes of it |", "|---|---|---|"]
    return "\n".join([f"{len(rows)} files.", "", *heading, *rows, ""])


def rewritten(page: str, outcomes: Sequence[Outcome]) -> str:
    """Return a page with its table made anew. Raises ValueError if it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page has no lines {BEGIN!r} and {END!r}")
    return f"{before}{begin}\n{table(outcomes)}\n{end}{after}"


def opened(what: str, argument: str) -> list[Outcome]:
    """Open all files of one kind in a process of its own, and return what became of them (`tests.hostile.cage`)."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.hostile.cage", what, argument],
        cwd=ROOT,
        # One thread each: a library that has started threads before the fork would wait for them for ever.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]


def _said(one: Outcome) -> str:
    reason = one.reason.replace(str(TRAP), "…") or "nothing in the file itself is harmful"
    return f"{one.verdict}: {reason if len(reason) <= _LONGEST else reason[: _LONGEST - 1] + '…'}"


def _cell(text: str) -> str:
    return "".join(_printable(text)).replace("|", "\\|").replace("<", "&lt;").strip()


def _printable(text: str) -> Iterator[str]:
    for character in text:
        yield character if character.isprintable() else " "


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8"), opened("hostile", str(TRAP))), "utf-8")
