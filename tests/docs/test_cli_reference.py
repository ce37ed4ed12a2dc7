"""docs/cli.md tells of every command as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from perch.cli.reference import commands, reference, rewritten

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def test_the_page_is_what_the_commands_say_of_themselves() -> None:
    """After a change of a command: `python -m perch.cli.reference docs/cli.md`."""
    page = PAGE.read_text("utf-8")

    assert page == rewritten(page)


@pytest.mark.parametrize("command", commands())
def test_every_command_has_its_heading_and_says_what_it_does(command: str) -> None:
    """A heading, then a sentence that ends as one."""
    sections = reference().split("## `")
    (section,) = [s for s in sections if s.startswith((f"{command}`", f"{command} "))]
    sentence = section.split("\n")[2]

    assert sentence.endswith(".")
    assert sentence[0].isupper()


def test_every_option_and_argument_is_explained() -> None:
    """No row of a table has an empty meaning, or none at all."""
    rows = [line for line in reference().splitlines() if line.startswith("| `")]

    assert len(rows) > 40
    assert not [row for row in rows if row.split(" | ")[1].strip(" |") in ("", "None")]


def test_a_page_without_the_marker_is_left_alone() -> None:
    """Better no reference than one over somebody's text."""
    with pytest.raises(ValueError, match="no line"):
        rewritten("# Something else\n")
