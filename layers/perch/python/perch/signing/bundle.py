"""The bundle: a statement, signed, in a file (`model.sig`).

    Sigstore bundle v0.3 (JSON): the hint of the public key, and a DSSE envelope: payload type, payload, signature

What is signed is the envelope's type *and* payload (DSSE's PAE), so neither can be taken for something else. Nothing of
the payload is parsed before the signature was found to be a trusted key's; the hint only chooses among the trusted keys
and proves nothing. Left out: certificates, transparency logs and timestamps, which key-based signatures do not have.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import SignatureRefused
from .keys import PublicKey, Signer
from .statement import Statement, read_json

MAX_BUNDLE = 1_000_000  # bytes: some 4,000 files
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A statement that a trusted key signed."""

    key: PublicKey
    statement: Statement


def sign_statement(statement: Statement, signer: Signer) -> bytes:
    """Return the bundle of a statement. Raises SignatureRefused if it would be too large to be read again."""
    payload = statement.to_json()
    document = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": signer.public.hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signer.sign(signed_bytes(payload))).decode(), "keyid": ""}],
        },
    }
    bundle = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    _check_size(len(bundle))
    return bundle


def verify_bundle(bundle: bytes, keys: Sequence[PublicKey]) -> Verified:
    """Find the trusted key that signed a bundle, and return what it says.

    Args:
        bundle: the content of `model.sig`.
        keys: those that are trusted.

    Raises:
        SignatureRefused: it is not a bundle, or not of one of these keys; the message says which.
    """
    _check_size(len(bundle))
    if not keys:
        raise SignatureRefused("there is a signature and no trusted key to check it with")
    hint, payload, signature = _read(bundle)
    # Bundles of model_signing before 1.1 have no hint: any trusted key may be it.
    candidates = [key for key in keys if hint in ("", key.hint)]
    if not candidates:
        raise SignatureRefused(
            f"it is signed by key {hint[:12]}…, which is not trusted; trusted: "
            + ", ".join(f"{key.name} ({key.hint[:12]}…)" for key in keys)
        )
    message = signed_bytes(payload)
    for key in candidates:
        if key.holds(signature, message):
            return Verified(key=key, statement=Statement.parse(payload))
    raise SignatureRefused(
        f"the signature does not hold with key {' or '.join(key.name for key in candidates)}: "
        "the bundle was changed, or another key made it"
    )


def signed_bytes(payload: bytes) -> bytes:
    """Return what is signed of a payload: DSSE's pre-authentication encoding, which binds its type to it."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def _read(bundle: bytes) -> tuple[str, bytes, bytes]:
    """Take a bundle apart: hint, payload, signature."""
    document = read_json(bundle, "the signature")
    try:
        if (media := document["mediaType"]) != _MEDIA_TYPE:
            raise SignatureRefused(f"it is a bundle of type {str(media)[:100]!r}; known is {_MEDIA_TYPE!r}")
        material, envelope = document["verificationMaterial"], document["dsseEnvelope"]
        if (kind := envelope["payloadType"]) != _PAYLOAD_TYPE:
            raise SignatureRefused(f"its payload is of type {str(kind)[:100]!r}; known is {_PAYLOAD_TYPE!r}")
        if "publicKey" not in material:
            raise SignatureRefused("it was not made with a key; sign with `perch sign` or `model_signing sign key`")
        [signature] = envelope["signatures"]
        return str(material["publicKey"].get("hint") or ""), _base64(envelope["payload"]), _base64(signature["sig"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SignatureRefused(f"it is not a signature bundle of model signing: {error!r}"[:300]) from error


def _base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError("base64 text was expected")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error


def _check_size(size: int) -> None:
    if size > MAX_BUNDLE:
        raise SignatureRefused(f"the signature has {size:,} bytes; the limit is {MAX_BUNDLE:,}")
