"""Signatures of models: what holds, what is refused, and in which words."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from perch.signing import WHOLE, PrivateKey, PublicKey, SignatureRefused, Statement, sign_statement, verify_bundle
from perch.signing.bundle import MAX_BUNDLE, signed_bytes
from perch.signing.errors import BadKey

TEAM, OTHER = PrivateKey.new("team"), PrivateKey.new("other")
FILES = {"model.onnx": hashlib.sha256(b"weights").hexdigest(), "perch.json": hashlib.sha256(b"{}").hexdigest()}
FOLDER = Statement(model="digits", files=FILES)
ONE = Statement(model="model.onnx", files={WHOLE: FILES["model.onnx"]})
DIGEST = hashlib.sha256(b"other").hexdigest()


def bundle_of(statement: dict | None = None, **changes) -> bytes:
    """A bundle that team really signed, of any statement; `changes` are made to its outside afterwards."""
    payload = FOLDER.to_json() if statement is None else json.dumps(statement).encode()
    return resigned(payload, **changes)


def resigned(payload: bytes, **changes) -> bytes:
    document = json.loads(sign_statement(FOLDER, TEAM))
    envelope = document["dsseEnvelope"]
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"] = [{"sig": base64.b64encode(TEAM.sign(signed_bytes(payload))).decode()}]
    envelope |= changes.pop("envelope", {})
    return json.dumps(document | changes).encode()


def statement(**changes) -> dict:
    return json.loads(FOLDER.to_json()) | changes


def refused(bundle: bytes, *keys: PublicKey) -> str:
    with pytest.raises(SignatureRefused) as caught:
        verify_bundle(bundle, keys or (TEAM.public,))
    return str(caught.value)


# -- what holds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [FOLDER, ONE])
def test_a_bundle_says_what_was_signed_and_by_whom(said):
    """Of a folder and of a single file."""
    found = verify_bundle(sign_statement(said, TEAM), [OTHER.public, TEAM.public])

    assert found.statement == said
    assert found.key.name == "team"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_the_three_curves_of_model_signing_are_known(curve):
    """Each with the hash that belongs to it."""
    pem = ec.generate_private_key(curve).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = PrivateKey.load("big", pem)

    assert verify_bundle(sign_statement(FOLDER, key), [key.public]).key == key.public


def test_while_keys_are_rotated_both_are_trusted():
    """The old one's signatures go on holding until it is taken away."""
    old, new = sign_statement(FOLDER, TEAM), sign_statement(FOLDER, OTHER)

    assert [verify_bundle(b, [OTHER.public, TEAM.public]).key.name for b in (old, new)] == ["team", "other"]
    assert "not trusted; trusted: other" in refused(old, OTHER.public)


def test_a_bundle_without_a_hint_is_tried_with_every_key():
    """Bundles of model signing before 1.1 have none."""
    bundle = bundle_of(verificationMaterial={"publicKey": {}, "tlogEntries": []})

    assert verify_bundle(bundle, [OTHER.public, TEAM.public]).key.name == "team"


# -- what does not ------------------------------------------------------------------------------------------------


def test_the_name_of_a_key_proves_nothing():
    """Another key that calls itself team is another key."""
    impostor = PrivateKey.new("team")

    assert "not trusted" in refused(sign_statement(FOLDER, impostor))


def test_the_hint_proves_nothing():
    """Whoever writes the trusted key's hint into a bundle still cannot sign with it."""
    document = json.loads(sign_statement(FOLDER, OTHER))
    document["verificationMaterial"]["publicKey"]["hint"] = TEAM.public.hint

    assert "does not hold with key team" in refused(json.dumps(document).encode())


def test_a_signature_of_other_bytes_is_none_of_these():
    """The payload cannot be exchanged under a signature."""
    bundle = json.loads(sign_statement(FOLDER, TEAM))
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(ONE.to_json()).decode()

    assert "does not hold with key team" in refused(json.dumps(bundle).encode())


def test_the_type_of_the_payload_is_signed_with_it():
    """A payload signed as something else is not taken for a statement, and the other way round."""
    payload = FOLDER.to_json()
    other = b"DSSEv1 16 application/json %d %s" % (len(payload), payload)
    bundle = json.loads(resigned(payload))
    bundle["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(TEAM.sign(other)).decode()}]

    assert "does not hold" in refused(json.dumps(bundle).encode())
    assert "payload is of type 'application/json'" in refused(bundle_of(envelope={"payloadType": "application/json"}))


@pytest.mark.parametrize(
    ("bundle", "why"),
    [
        (b"", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"a": 1, "a": 2}', "a key is there twice"),
        (b'{"mediaType": NaN}', "NaN is not JSON"),
        (b"[" + b"9" * 100_000 + b"]", "cannot be read as JSON"),
        (b"[]", "not a signature bundle"),
        (b"{}", "not a signature bundle"),
        (b"null", "not a signature bundle"),
        (b" " * (MAX_BUNDLE + 1), "1,000,001 bytes; the limit is 1,000,000"),
        (bundle_of(mediaType="application/vnd.dev.sigstore.bundle.v0.1+json"), "known is"),
        (bundle_of(mediaType=["application/vnd.dev.sigstore.bundle.v0.3+json"]), "known is"),
        (bundle_of(verificationMaterial={"certificate": {"rawBytes": ""}}), "not made with a key"),
        (bundle_of(verificationMaterial=[]), "not made with a key"),
        (bundle_of(verificationMaterial={"publicKey": {"hint": ["x"]}}), "not trusted"),
        (bundle_of(envelope={"signatures": []}), "not a signature bundle"),
        (bundle_of(envelope={"signatures": [{"sig": "AA=="}, {"sig": "AA=="}]}), "not a signature bundle"),
        (bundle_of(envelope={"signatures": [{"sig": ""}]}), "does not hold"),
        (bundle_of(envelope={"signatures": [{"sig": "not base64"}]}), "not base64"),
        (bundle_of(envelope={"signatures": [{"sig": 7}]}), "base64 text"),
        (bundle_of(envelope={"payload": "====" * 3}), "not base64"),
    ],
)
def test_what_is_not_a_bundle_is_refused_in_words(bundle, why):
    """Whatever it is, the reason is a sentence."""
    assert why in refused(bundle)


def test_no_key_trusts_nothing():
    """A signature that cannot be checked is none."""
    with pytest.raises(SignatureRefused, match="no trusted key"):
        verify_bundle(sign_statement(FOLDER, TEAM), [])


def predicate(**changes) -> dict:
    return statement()["predicate"] | changes


def hashed(**changes) -> dict:
    return predicate(serialization=predicate()["serialization"] | changes)


def resources(*names: str) -> dict:
    """A consistent statement that names these files."""
    listed = [{"name": name, "algorithm": "sha256", "digest": DIGEST} for name in names]
    root = hashlib.sha256(bytes.fromhex(DIGEST) * len(listed)).hexdigest()
    subject = [{"name": "digits", "digest": {"sha256": root}}]
    return statement(subject=subject, predicate=predicate(resources=listed))


@pytest.mark.parametrize(
    ("signed", "why"),
    [
        (statement(_type="https://in-toto.io/Statement/v0.1"), "_type"),
        (statement(predicateType="https://model_signing/Digests/v0.1"), "predicateType"),
        (statement(predicateType="https://slsa.dev/provenance/v1"), "predicateType"),
        (statement(subject=[]), "not one of model signing"),
        (statement(subject=[{"name": "digits", "digest": {"sha256": "0" * 64}}]), "contradicts itself"),
        (statement(predicate=hashed(method="shards")), "whole files with SHA-256"),
        (statement(predicate=hashed(hash_type="blake3")), "whole files with SHA-256"),
        (statement(predicate=hashed(ignore_paths=["."])), "leaves out all files"),
        (statement(predicate=hashed(ignore_paths=["../x"])), "no path inside a folder"),
        (statement(predicate=hashed(ignore_paths="model.onnx")), "not one of model signing"),
        (resources(), "names no files"),
        (resources(".", "model.onnx"), "a file and a folder"),
        (resources("a", "a"), "twice"),
        (resources("../model.onnx"), "no path inside a folder"),
        (resources("a/../../b"), "no path inside a folder"),
        (resources("/etc/passwd"), "no path inside a folder"),
        (resources("a\\b"), "no path inside a folder"),
        (resources("./a"), "no path inside a folder"),
        (resources("a//b"), "no path inside a folder"),
        (resources("a\x00b"), "no path inside a folder"),
        (resources(""), "no path inside a folder"),
        (statement(predicate=predicate(resources=[{"name": "a", "algorithm": "md5", "digest": DIGEST}])), "no SHA-256"),
        (
            statement(predicate=predicate(resources=[{"name": "a", "algorithm": "sha256", "digest": "AB"}])),
            "no SHA-256",
        ),
        (statement(predicate=predicate(resources=[{"name": 3, "algorithm": "sha256", "digest": DIGEST}])), "text was"),
        (statement(predicate=[]), "not one of model signing"),
        ([], "not one of model signing"),
    ],
)
def test_a_statement_is_checked_although_a_trusted_key_signed_it(signed, why):
    """Names stay inside the folder, none comes twice, and it does not contradict itself."""
    assert why in refused(bundle_of(signed))


def test_no_bundle_holds_with_any_one_bit_changed():
    """Either it is refused in words, or what it says is the same (a field that nobody reads, and white space)."""
    bundle = sign_statement(FOLDER, TEAM)
    unread = 0
    for at in range(len(bundle)):
        for bit in range(8):
            changed = bytes([*bundle[:at], bundle[at] ^ 1 << bit, *bundle[at + 1 :]])
            try:
                found = verify_bundle(changed, [TEAM.public])
            except SignatureRefused:
                continue
            unread += 1
            assert (found.statement, found.key) == (FOLDER, TEAM.public)

    assert unread < 8 * len("tlogEntries keyid") + 30


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_a_signature(junk):
    """Nothing but a sentence comes of them, also where they are the DER of a signature."""
    assert refused(junk)
    assert not TEAM.public.holds(junk, b"message")


# -- what is compared ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (FILES | {"model.onnx": DIGEST}, "other bytes than were signed: model.onnx"),
        (
            {"renamed.onnx": FILES["model.onnx"], "perch.json": FILES["perch.json"]},
            "missing: model.onnx; not signed: r",
        ),
        (FILES | {"extra.bin": DIGEST}, "not signed: extra.bin"),
        ({"model.onnx": FILES["model.onnx"]}, "missing: perch.json"),
        ({WHOLE: FILES["model.onnx"]}, "of a folder"),
    ],
)
def test_a_folder_has_to_be_what_was_signed(found, why):
    """With every file and nothing else."""
    FOLDER.check(FILES, name="anything")
    with pytest.raises(SignatureRefused, match=why):
        FOLDER.check(found, name="digits")


def test_a_single_file_keeps_the_name_that_was_signed():
    """The name says how the bytes are read, and some bytes can be read in two ways."""
    ONE.check({WHOLE: FILES["model.onnx"]}, name="model.onnx")
    with pytest.raises(SignatureRefused, match=r"named 'model\.onnx'; this one is named 'model\.pkl'"):
        ONE.check({WHOLE: FILES["model.onnx"]}, name="model.pkl")


def test_what_the_signer_left_out_is_not_signed():
    """A file that is used has to be named, whatever the statement says was ignored."""
    said = Statement(model="digits", files={"perch.json": FILES["perch.json"]}, ignored=("model.onnx",))

    with pytest.raises(SignatureRefused, match=r"not signed: model\.onnx"):
        said.check(FILES, name="digits", partly=True)


# -- keys ---------------------------------------------------------------------------------------------------------


def pem_of(key) -> str:
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return public.decode()


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        ("", "not a public key in PEM"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key in PEM"),
        (TEAM.to_pem().decode(), "is a private key"),
        (pem_of(rsa.generate_private_key(65537, 2048)), "not an ECDSA key"),
        (pem_of(ed25519.Ed25519PrivateKey.generate()), "not an ECDSA key"),
        (pem_of(ec.generate_private_key(ec.SECP256K1())), "curve secp256k1"),
    ],
)
def test_only_public_ecdsa_keys_can_be_trusted(pem, why):
    """Everything else is refused in words, a private key above all."""
    with pytest.raises(BadKey, match=why):
        PublicKey.load("team", pem)


def test_a_key_is_known_by_its_hint_however_its_pem_was_written():
    """White space around and inside a PEM does not make another key of it."""
    messy = "a comment\n" + TEAM.public.pem.replace("\n", "\r\n") + "\n\n"

    assert PublicKey.load("team", messy) == TEAM.public


def test_a_private_key_may_be_encrypted():
    """With the right password it signs; without one, or with another, it says so."""
    key = serialization.load_pem_private_key(TEAM.to_pem(), None)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"open")
    )

    assert PrivateKey.load("team", pem, "open").public == TEAM.public
    for password in (None, "shut"):
        with pytest.raises(BadKey, match="team"):
            PrivateKey.load("team", pem, password)
