"""No file does harm: each is opened in a process that is watched, limited and may die."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perch.artifacts import ArtifactRefused, inspect
from perch.domain.formats import FORMATS
from tests.hostile import REFUSED, SERVED, TRUST
from tests.hostile.cage import ROOM, Outcome
from tests.hostile.good import GOOD
from tests.hostile.table import PAGE, ROOT, TRAP, opened, rewritten

SEED = os.environ.get("PERCH_DAMAGE_SEED", "2026")
"""Another seed damages the files in other places."""


@pytest.fixture(scope="module")
def hostile() -> list[Outcome]:
    """What became of all hostile files."""
    TRAP.unlink(missing_ok=True)
    return opened("hostile", str(TRAP))


@pytest.fixture(scope="module")
def damaged() -> list[Outcome]:
    """What became of good files that were damaged."""
    return opened("damaged", SEED)


def test_every_file_gets_the_verdict_that_it_should(hostile: list[Outcome]) -> None:
    """Refused, in need of trust, or harmless to read: never an exception, a death or a hang."""
    assert not [(seen.title, seen.verdict, seen.reason) for seen in hostile if seen.verdict != seen.expected["verdict"]]
    assert {seen.verdict for seen in hostile} == {REFUSED, TRUST, SERVED}
    assert len(hostile) > 150


def test_every_reason_says_what_is_wrong(hostile: list[Outcome]) -> None:
    """In one sentence of one line, with the words that the case is about."""
    assert not [(seen.title, seen.reason) for seen in hostile if seen.expected["words"] not in seen.reason]
    assert not [seen.title for seen in hostile if seen.verdict != SERVED and not 20 < len(seen.reason) < 1000]
    assert not [(seen.title, seen.reason) for seen in hostile if "\n" in seen.reason]


def test_nothing_is_executed(hostile: list[Outcome]) -> None:
    """No payload leaves its trace; Python sees no command, no connection, no class for a pickle, no foreign file."""
    assert not TRAP.exists()
    assert not [(seen.title, seen.did) for seen in hostile if seen.did]


def test_the_trap_works(tmp_path: Path) -> None:
    """Were a pickle loaded, it would be seen: both the trace and what Python tells of it."""
    code = (
        "import sys, pickle\n"
        "from tests.hostile import cage\n"
        "from tests.hostile.pickles import hostile\n"
        "from pathlib import Path\n"
        "one = next(hostile(Path(sys.argv[1])))\n"
        "sys.addaudithook(cage._watch)\n"
        "work = lambda seen: pickle.loads(one.data)\n"
        "[seen] = cage.caged([(cage.Outcome(title='x', size=0), work)], room=lambda _: cage.ROOM)\n"
        "print(seen.did)"
    )
    sprung = tmp_path / "meant"
    done = subprocess.run(
        [sys.executable, "-c", code, str(sprung)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert sprung.exists()
    assert "os.system" in done.stdout
    assert "pickle.find_class" in done.stdout


def test_memory_stays_bounded_by_the_file(hostile: list[Outcome]) -> None:
    """Whatever it declares, reading it takes a few times its size and 64 MB."""
    assert not [(seen.title, seen.size, seen.grown) for seen in hostile if seen.grown > 4 * seen.size + ROOM]


def test_titles_are_told_apart(hostile: list[Outcome]) -> None:
    """The table goes by them."""
    titles = [seen.title for seen in hostile]
    assert len(titles) == len(set(titles))


def test_damaged_files_never_break_the_inspector(damaged: list[Outcome]) -> None:
    """Of a cut or flipped file it says a sentence or lets it pass; it neither raises nor dies."""
    assert not [(seen.title, seen.reason) for seen in damaged if seen.verdict not in (REFUSED, TRUST, SERVED)]
    assert not [(seen.title, seen.did) for seen in damaged if seen.did]
    assert len(damaged) > 80 * len(GOOD)


def test_damaged_files_that_pass_load_or_raise(damaged: list[Outcome]) -> None:
    """A flipped weight is a weight; no file that passes takes the process with it."""
    assert not [(seen.title, seen.loaded) for seen in damaged if seen.loaded.startswith(("SIG", "exit"))]


def test_the_undamaged_files_run(damaged: list[Outcome]) -> None:
    """Or nothing would be shown about what damage does to them."""
    whole = [seen for seen in damaged if seen.title.endswith("as it is")]
    assert len(whole) == len(GOOD)
    assert not [(seen.title, seen.reason) for seen in whole if seen.verdict == REFUSED]
    assert not [(seen.title, seen.loaded) for seen in whole if seen.verdict == SERVED and seen.loaded != "ran"]


def test_files_that_are_cut_short_are_refused(damaged: list[Outcome]) -> None:
    """All but a few, which lack no more than what nobody reads."""
    cut = [seen for seen in damaged if " cut to " in seen.title]
    assert len([seen for seen in cut if seen.verdict == REFUSED]) > 0.9 * len(cut)


def test_every_format_has_a_good_file_to_be_damaged() -> None:
    """A new row of the table of formats asks for one here."""
    assert {kind.split(" ")[0] for kind in GOOD} == set(FORMATS)


def test_the_page_is_what_the_files_are_told(hostile: list[Outcome]) -> None:
    """After a change: `python -m tests.hostile.table`."""
    page = PAGE.read_text("utf-8")
    assert page == rewritten(page, hostile)
    assert str(TRAP) not in page


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "model.pt2", "model.pkl", "model"])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100])
def test_bytes_of_nothing_are_refused(name: str, size: int) -> None:
    """Zeros and ones of every small size."""
    for byte in (b"\0", b"\xff"):
        with pytest.raises(ArtifactRefused):
            inspect(name, byte * size)
