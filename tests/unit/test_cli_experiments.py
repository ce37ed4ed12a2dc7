"""`perch experiments` where nothing is deployed: how variants and shares are written."""

import pytest
from typer.testing import CliRunner

from perch.cli.app import app
from perch.cli.experiments import share_of, variants_of
from perch.domain.errors import Invalid


def test_variants_are_written_as_name_version_and_share():
    """The champion first, without a share: it has what the others leave."""
    versions, shares = variants_of(["champion=v2", "a=v3:10%", "b=2026.01-rc_1:0.25"])

    assert versions == {"champion": "v2", "a": "v3", "b": "2026.01-rc_1"}
    assert shares == {"a": 0.1, "b": 0.25}


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["champion=v2:90%", "a=v3:10%"], r"champion=v2 \(the champion has what the others leave\)"),
        (["champion=v2", "a=v3"], "challenger=v3:10%"),
        (["champion", "a=v3:10%"], "is not how variant 1 is written"),
        (["champion=v2", "a=v3:much"], "write 10% or 0.1"),
        (["champion=v2", "champion=v3:10%"], "two variants are called 'champion'"),
    ],
)
def test_variants_that_are_not_understood_are_refused_with_an_example(texts, why):
    """Before anything is asked of AWS."""
    with pytest.raises(Invalid, match=why):
        variants_of(texts)


@pytest.mark.parametrize(
    ("text", "share"), [("10%", 0.1), (" 12.5 % ", 0.125), ("0.07", 0.07), ("100%", 1.0), ("0", 0)]
)
def test_a_share_is_a_percentage_or_a_fraction(text, share):
    """Exactly as it was written."""
    assert share_of(text) == share


@pytest.mark.parametrize("text", ["", "10", "-1%", "101%", "ten", "1e-1"])
def test_what_is_no_share_is_refused(text):
    """10 could mean 10 % or ten times all, so it is neither."""
    with pytest.raises(Invalid):
        share_of(text)


@pytest.mark.parametrize(
    "arguments",
    [("start", "digits", "--variant", "c=v1"), ("end", "digits"), ("ramp", "digits", "--reason", "x"), ("show",)],
)
def test_a_change_without_its_reason_or_its_variants_is_not_understood(arguments):
    """Exit code 2, as of every command."""
    assert CliRunner().invoke(app, ["experiments", *arguments]).exit_code == 2
