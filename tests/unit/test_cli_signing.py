"""`perch sign`, `perch verify` and `perch keys`, with keys on this machine and in KMS."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws
from typer.testing import CliRunner, Result

from perch.aws.kms import MAX_MESSAGE, KmsKey
from perch.cli.app import app
from perch.domain.errors import Invalid, NotFound
from perch.signing import PrivateKey, Statement, sign_statement, verify_bundle


def perch(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with a model and a pair of keys."""
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    folder = tmp_path / "digits"
    (folder / "data").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "perch.json").write_text('{"artifact": "model.onnx"}')
    (folder / "data" / "labels.txt").write_text("0 1 2")
    (folder / ".git" / "HEAD").write_text("ref")
    assert perch("keys", "new", "keys/team").exit_code == 0
    return folder


# -- keys ---------------------------------------------------------------------------------------------------------


def test_only_the_owner_can_read_a_new_private_key():
    """From the moment at which the file is there."""
    assert stat.S_IMODE(Path("keys/team.key").stat().st_mode) == 0o600
    assert "PUBLIC KEY" in Path("keys/team.pem").read_text()
    assert PrivateKey.load("team", Path("keys/team.key").read_bytes()).public.pem == Path("keys/team.pem").read_text()


@pytest.mark.parametrize("left", ["team.key", "team.pem"])
def test_no_key_is_ever_replaced(left):
    """Not even one half of a pair."""
    before = {file.name: file.read_bytes() for file in Path("keys").iterdir()}
    (gone,) = before.keys() - {left}
    Path("keys", gone).unlink()
    result = perch("keys", "new", "keys/team")

    assert result.exit_code == 1
    assert "is not replaced" in result.stderr
    assert {file.name: file.read_bytes() for file in Path("keys").iterdir()} == {left: before[left]}


# -- sign and verify ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["digits", "digits/", "digits/model.onnx"])
def test_what_is_signed_verifies_and_says_by_whom(model):
    """A folder and a file, however its path is written."""
    signed = perch("sign", model, "--key", "keys/team.key")
    verified = perch("verify", model, "--key", "keys/team.pem", "--json")

    assert signed.exit_code == 0, signed.output
    assert Path("digits/model.sig").is_file()
    assert json.loads(verified.stdout)["key"] == "team"


def test_a_folder_is_signed_whole_without_gits_files_and_the_signature(place):
    """Signing again does not sign the old signature."""
    for _ in range(2):
        assert perch("sign", "digits", "--key", "keys/team.key").exit_code == 0
    files = json.loads(perch("verify", "digits", "--key", "keys/team.pem", "--json").stdout)["files"]

    assert sorted(files) == ["data/labels.txt", "model.onnx", "perch.json"]


def test_the_signature_may_lie_elsewhere(place):
    """In the folder under another name, or outside."""
    for where in ("digits/mine.sig", "out.sig"):
        assert perch("sign", "digits", "--key", "keys/team.key", "--signature", where).exit_code == 0
        assert perch("verify", "digits", "--key", "keys/team.pem", "--signature", where).exit_code == 0, where
        Path(where).unlink()


def tamper(place: Path, how: str) -> None:
    model = place / "model.onnx"
    if how == "changed":
        model.write_bytes(b"weightS")
    elif how == "renamed":
        model.rename(place / "other.onnx")
    elif how == "extra":
        (place / "data" / "more.bin").write_bytes(b"")
    elif how == "missing":
        (place / "data" / "labels.txt").unlink()
    elif how == "linked":
        (place / "link.onnx").symlink_to(model)
    elif how == "cut":
        bundle = place / "model.sig"
        bundle.write_bytes(bundle.read_bytes()[:-20])
    elif how == "large":
        (place / "model.sig").write_bytes(b" " * 2_000_000)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("changed", "other bytes than were signed: model.onnx"),
        ("renamed", "missing: model.onnx; not signed: other.onnx"),
        ("extra", "not signed: data/more.bin"),
        ("missing", "missing: data/labels.txt"),
        ("linked", "link.onnx is a symbolic link"),
        ("cut", "cannot be read as JSON"),
        ("large", "the limit is 1,000,000"),
    ],
)
def test_what_was_changed_does_not_verify_and_the_reason_names_it(place, how, why):
    """Bytes, names, more or fewer files, the signature itself."""
    perch("sign", "digits", "--key", "keys/team.key")
    tamper(place, how)
    result = perch("verify", "digits", "--key", "keys/team.pem")

    assert result.exit_code == 1
    assert why in result.stderr


def test_a_renamed_file_does_not_verify(place):
    """Of a single file, the name was signed too."""
    perch("sign", "digits/model.onnx", "--key", "keys/team.key")
    (place / "model.onnx").rename(place / "model.pkl")

    assert "this one is named 'model.pkl'" in perch("verify", "digits/model.pkl", "--key", "keys/team.pem").stderr


def test_another_key_is_told_apart_also_under_the_same_name(place):
    """Keys are known by what they are."""
    perch("keys", "new", "impostor/team")
    perch("sign", "digits", "--key", "impostor/team.key")
    result = perch("verify", "digits", "--key", "keys/team.pem")

    assert result.exit_code == 1
    assert "not trusted; trusted: team" in result.stderr


def test_what_the_signer_left_out_is_told(place):
    """`model_signing sign --ignore-paths` leaves files unsigned; whoever verifies should know."""
    key = PrivateKey.load("team", Path("keys/team.key").read_bytes())
    statement = Statement.parse(
        verify_bundle(signed("digits"), [key.public]).statement.to_json().replace(b'".git"', b'".git","data"')
    )
    files = {name: digest for name, digest in statement.files.items() if not name.startswith("data/")}
    said = Statement(model="digits", files=files, ignored=statement.ignored)
    Path("digits/model.sig").write_bytes(sign_statement(said, key))
    result = perch("verify", "digits", "--key", "keys/team.pem")

    assert result.exit_code == 0
    assert "not signed, as the signer left it out: data" in result.stdout


def signed(model: str) -> bytes:
    perch("sign", model, "--key", "keys/team.key")
    return Path(model, "model.sig").read_bytes()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("sign", "digits"), "name one of them"),
        (("sign", "digits", "--key", "k", "--kms", "k"), "name one of them"),
        (("sign", "digits", "--key", "none.key"), "there is no key none.key"),
        (("sign", "digits", "--key", "keys/team.pem"), "team is not a private key"),
        (("sign", "nowhere", "--key", "keys/team.key"), "nowhere is not there"),
        (("verify", "digits", "--key", "keys/team.pem"), "there is no signature digits/model.sig"),
        (("verify", "digits", "--key", "keys/team.key"), "team is a private key"),
        (("verify", "digits"), "name the trusted key with --key"),
        (("keys", "new", "keys/a key"), "not a permitted name"),
    ],
)
def test_mistakes_are_told_in_words(words, why):
    """No traceback, and nothing is written."""
    result = perch(*words)

    assert result.exit_code in (1, 2)
    assert why in " ".join(result.stderr.replace("│", " ").split())
    assert not Path("digits/model.sig").exists()


# -- KMS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def kms():
    """A KMS with a signing key behind an alias, and others that are of no use."""
    with mock_aws():
        client = boto3.client("kms", region_name="us-east-1")
        key = client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
        client.create_alias(AliasName="alias/perch-signing", TargetKeyId=key)
        yield client


def test_a_key_in_kms_signs_and_its_public_half_verifies(kms):
    """`perch keys fetch` writes the half that perch.toml names; verifying asks KMS nothing."""
    assert perch("keys", "fetch", "keys/cloud", "--kms", "alias/perch-signing").exit_code == 0
    result = perch("sign", "digits", "--kms", "alias/perch-signing")
    verified = perch("verify", "digits", "--key", "keys/cloud.pem", "--json")

    assert result.exit_code == 0, result.output
    assert json.loads(verified.stdout)["key"] == "cloud"
    assert not Path("keys/cloud.key").exists()


def test_kms_gets_the_digest_of_a_message_that_is_too_long_for_it(kms):
    """The same signature comes of both; the local KMS knows no digests, so what is asked is looked at here."""
    private = PrivateKey.new("cloud")
    for size, kind in ((MAX_MESSAGE, "RAW"), (MAX_MESSAGE + 1, "DIGEST")):
        key, message = KmsKey(kms, "alias/perch-signing"), b"m" * size
        key.__dict__["public"] = private.public
        asked: dict = {}
        signature = private.sign(message)
        with Stubber(kms) as stub:
            stub.add_response("sign", {"Signature": signature})
            kms.meta.events.register_first(
                "provide-client-params.kms.Sign", lambda params, asked=asked, **_: asked.update(params)
            )
            assert key.sign(message) == signature

        assert (asked["MessageType"], len(asked["Message"])) == (kind, size if kind == "RAW" else 32)


def test_what_kms_answers_is_checked_before_it_is_used(kms):
    """A wrong digest, or another key behind the alias by now, would only be found at registration."""
    key = KmsKey(kms, "alias/perch-signing")
    key.__dict__["public"] = PrivateKey.new("another").public

    with pytest.raises(Invalid, match="does not confirm"):
        key.sign(b"message")


def test_only_a_key_that_models_are_signed_with_is_taken(kms):
    """Another use, another curve, or none at all: each has its sentence."""
    rsa = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    koblitz = kms.create_key(KeySpec="ECC_SECG_P256K1", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    sealing = kms.create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["KeyId"]
    for key in (rsa, koblitz, sealing):
        with pytest.raises(Invalid, match=r"P-256|P256"):
            _ = KmsKey(kms, key).public
    with pytest.raises(NotFound, match="an alias is written alias/NAME"):
        _ = KmsKey(kms, "alias/none").public
