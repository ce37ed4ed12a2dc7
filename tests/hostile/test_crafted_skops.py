"""No skops file written by hand takes a process with it: what the inspector lets through computes or raises."""

from __future__ import annotations

import pytest

from tests.hostile import REFUSED, SERVED
from tests.hostile.cage import Outcome
from tests.hostile.table import opened
from tests.hostile.test_hostile import SEED


@pytest.fixture(scope="module")
def crafted() -> list[Outcome]:
    """What became of good files with one array or one node changed; PERCH_CRAFTED says how many of each."""
    return opened("crafted", SEED)


def test_a_crafted_file_is_refused_in_words_or_served(crafted: list[Outcome]) -> None:
    """It neither raises nor dies, and is read in a moment."""
    assert not [(seen.title, seen.reason) for seen in crafted if seen.verdict not in (REFUSED, SERVED)]
    assert not [(seen.title, seen.reason) for seen in crafted if seen.verdict == REFUSED and len(seen.reason) < 20]
    assert {seen.verdict for seen in crafted} == {REFUSED, SERVED}
    assert len(crafted) > 300


def test_what_is_served_of_them_never_kills(crafted: list[Outcome]) -> None:
    """Compiled code was given nothing that leads out of its arrays, and nothing that never ends."""
    assert not [(seen.title, seen.loaded) for seen in crafted if seen.loaded.startswith(("SIG", "exit"))]


def test_the_uncrafted_files_run(crafted: list[Outcome]) -> None:
    """Or nothing would be shown about what a change does to them."""
    whole = [seen for seen in crafted if seen.title.endswith("as it is")]
    assert len(whole) > 40
    assert not [(seen.title, seen.reason, seen.loaded) for seen in whole if seen.loaded != "ran"]
