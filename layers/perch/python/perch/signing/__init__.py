"""Signatures of models: who made these bytes, in the format of the OpenSSF's model signing.

    files       ─► Statement (every file by name and SHA-256) ─► signed, as a DSSE envelope ─► bundle, `model.sig`
    bundle      ─► the key that signed it is trusted ─► the envelope holds ─► Statement ─► the files are those it names

Pure: bytes and keys come in, no AWS and no clock. The bundle is what `model_signing sign key` (1.1) writes and what
`model_signing verify key` reads.

    keys        ECDSA keys as PEM: make, load, sign, verify (the only place that imports `cryptography`)
    statement   what is signed: the in-toto statement with the files, and how to compare it with files
    bundle      the Sigstore bundle around it: sign one, verify one
    folder      the files of a model on a disk
    errors      what a signature is refused for
"""

from .bundle import Verified, sign_statement, verify_bundle
from .errors import SignatureRefused
from .keys import PrivateKey, PublicKey
from .statement import WHOLE, Statement

__all__ = [
    "WHOLE",
    "PrivateKey",
    "PublicKey",
    "SignatureRefused",
    "Statement",
    "Verified",
    "sign_statement",
    "verify_bundle",
]
