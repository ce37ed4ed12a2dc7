"""What the templates say of signatures: the keys that are trusted, a key in KMS if one is wanted, and the library."""

from __future__ import annotations

import json

import pytest

from cdk.package_layer import PACKAGE, PREDICTOR_PACKAGE, cut
from perch.signing import PrivateKey
from tests.infra.conftest import ROOT, Synthesized, declared

TEAM = PrivateKey.new("team")
SETTINGS = """
[signing]
keys = ["team.pem"]
kms_key = true

[endpoints.digits]
runtime = "onnx"
"""


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """A deployment that trusts a key and makes another."""
    folder = tmp_path_factory.mktemp("signed")
    (folder / "team.pem").write_text(TEAM.public.pem)
    return declared(folder, SETTINGS, nag=True)


def test_a_signing_key_is_made_only_where_it_is_wanted(synthesized: Synthesized, signed: Synthesized) -> None:
    """It costs a dollar a month. Signatures outlive the stack, so the key does too."""
    (key,) = signed.of_type("AWS::KMS::Key", "store").values()
    (alias,) = signed.properties("AWS::KMS::Alias", "store")

    assert synthesized.of_type("AWS::KMS::Key", "store") == {}
    assert (key["Properties"]["KeySpec"], key["Properties"]["KeyUsage"]) == ("ECC_NIST_P256", "SIGN_VERIFY")
    assert (key["DeletionPolicy"], key["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert alias["AliasName"] == "alias/perch-signing"
    assert signed.templates["store"]["Outputs"]["SigningKey"]["Value"] == "alias/perch-signing"
    assert [finding for finding in signed.findings if "Signing" in finding] == []


def test_no_function_may_sign(signed: Synthesized) -> None:
    """A function that could sign could vouch for what was uploaded to it."""
    assert "kms:" not in json.dumps([signed.properties("AWS::IAM::Policy"), signed.properties("AWS::IAM::Role")])


def test_trusted_keys_are_deployed_with_the_settings(signed: Synthesized) -> None:
    """So no call is needed to check a signature."""
    documents = [json.loads(path.read_text()) for path in signed.outdir.rglob("perch_settings/endpoints.json")]

    assert documents
    assert all(document["signing"]["keys"] == {"team": TEAM.public.pem} for document in documents)


def test_registration_brings_the_library_along_and_predictors_do_not() -> None:
    """What checks signatures is in the layer of `register_model`; the request path has no use for it."""
    taking = [
        path.parent.name for path in ROOT.glob("layers/*/requirements.txt") if "cryptography==" in path.read_text()
    ]

    assert taking == ["onnx"]
    assert (cut(PACKAGE, root=ROOT) / "python/perch/signing").exists()
    assert not (cut(PREDICTOR_PACKAGE, root=ROOT) / "python/perch/signing").exists()
