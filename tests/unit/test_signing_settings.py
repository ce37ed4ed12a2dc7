"""What perch.toml says of signatures: keys are read when it is, and every mistake has its sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdk.settings import Settings, SettingsError, load
from perch.domain.formats import FORMATS
from perch.domain.policy import load_settings
from perch.signing import PrivateKey
from tests.aws.spells import SPELL

KEY = PrivateKey.new("team")
ENDPOINT = '[endpoints.digits]\nruntime = "onnx"\n'


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read settings beside a folder of keys."""
    monkeypatch.setitem(FORMATS, "spell", SPELL)
    (tmp_path / "keys" / "old").mkdir(parents=True)
    (tmp_path / "keys" / "team.pem").write_text(KEY.public.pem)
    (tmp_path / "keys" / "next.pem").write_text(PrivateKey.new("next").public.pem)
    (tmp_path / "keys" / "old" / "team.pem").write_text(PrivateKey.new("old").public.pem)
    (tmp_path / "keys" / "twin.pem").write_text("a comment\n" + KEY.public.pem)
    (tmp_path / "keys" / "team.key").write_bytes(KEY.to_pem())
    (tmp_path / "keys" / "broken.pem").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    (tmp_path / "keys" / "large.pem").write_text("x" * 30_000)
    (tmp_path / "keys" / "binary.pem").write_bytes(b"\xff\xfe")

    def read(text: str) -> Settings:
        (tmp_path / "perch.toml").write_text(text)
        return load(tmp_path / "perch.toml")

    return read


def problems(read, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(text)
    return "\n".join(caught.value.problems)


def test_keys_are_deployed_with_the_settings(read):
    """Each is named by its file; a function reads them back from the canonical document."""
    found = read(f'[signing]\nrequired = true\nkeys = ["keys/team.pem", "keys/next.pem"]\n{ENDPOINT}')
    deployed = load_settings(found.as_endpoints_json())

    assert deployed.signing.required
    assert list(deployed.signing.keys) == ["team", "next"]
    assert deployed.signing.keys["team"] == KEY.public.pem


def test_without_the_section_no_key_is_trusted_and_none_required(read):
    """The default of a deployment, also of one from before there were signatures."""
    found = load_settings(read(ENDPOINT).as_endpoints_json())
    older = load_settings(json.dumps({"name": "perch", "endpoints": []}))

    assert found.signing == older.signing
    assert (found.signing.required, found.signing.keys, found.endpoints[0].allow) == (False, {}, ())


def test_an_endpoint_opts_in_to_a_format_by_name(read):
    """It travels with the endpoint's policy."""
    found = read(f'[signing]\nkeys = ["keys/team.pem"]\n{ENDPOINT}allow = ["spell"]\n')

    assert load_settings(found.as_endpoints_json()).endpoints[0].allow == ("spell",)


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ("required = true", "signing.required: name the keys"),
        ('required = "yes"', "write true or false"),
        ('keys = "keys/team.pem"', "not a list of files"),
        ("keys = [3]", "not a list of files"),
        ('keys = ["keys/none.pem"]', "keys/none.pem cannot be read: No such file"),
        ('keys = ["keys"]', "keys cannot be read"),
        ('keys = ["keys/binary.pem"]', "cannot be read"),
        ('keys = ["keys/large.pem"]', "more than 20,000 bytes"),
        ('keys = ["keys/broken.pem"]', "broken is not a public key in PEM"),
        ('keys = ["keys/team.key"]', "team is a private key; name the public one"),
        ('keys = ["keys/team.pem", "keys/old/team.pem"]', "two keys are named 'team'"),
        ('keys = ["keys/team.pem", "keys/twin.pem"]', "keys/twin.pem is a key that is named already"),
        ("trusted = true", "not a known key"),
    ],
)
def test_each_mistake_in_the_section_has_its_sentence(read, section, why):
    """A bad PEM is named when the settings are read, not when somebody uploads."""
    assert why in problems(read, f"[signing]\n{section}\n{ENDPOINT}")


@pytest.mark.parametrize(
    ("trusted", "allow", "why"),
    [
        ('keys = ["keys/team.pem"]', '["spel"]', "'spel' is not one of"),
        ('keys = ["keys/team.pem"]', '["onnx"]', "'onnx' is not one of"),
        ('keys = ["keys/team.pem"]', '"spell"', "not a list of formats"),
        ('keys = ["keys/team.pem"]', "[1]", "1 is not one of"),
        ("", '["spell"]', "only taken with a signature of a trusted key"),
    ],
)
def test_what_an_endpoint_allows_is_checked_by_name(read, trusted, allow, why):
    """A format that is unknown, or can run no code, is not opted in to by mistake."""
    assert why in problems(read, f"[signing]\n{trusted}\n{ENDPOINT}allow = {allow}\n")


def test_a_format_that_the_runtime_does_not_load_cannot_be_allowed(read):
    """It would never be served."""
    endpoint = '[endpoints.digits]\nruntime = "torch"\nmemory_mb = 2048\nallow = ["spell"]\n'

    assert "the torch runtime does not load spell" in problems(read, f'[signing]\nkeys = ["keys/team.pem"]\n{endpoint}')


def test_the_settings_of_the_project_read_where_it_stands():
    """Paths of keys are relative to the settings file, wherever the command runs."""
    assert load(Path(__file__).resolve().parents[2] / "perch.toml").signing.keys == {}
