"""Keys: ECDSA on the NIST curves, as PEM.

    P-256 with SHA-256 (what `perch keys new` makes and KMS calls ECC_NIST_P256), P-384 with SHA-384, P-521 with SHA-512

A key is known by its hint, the SHA-256 of its public PEM, which is what a bundle carries; a name is what people gave
it. An ECDSA signature can be altered into a second valid one for the same bytes. That is of no use here: nothing is
looked up or told apart by a signature's bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from .errors import BadKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

MAX_PEM = 20_000  # characters


class Signer(Protocol):
    """Whoever can sign: a private key on this machine, or one that never leaves KMS."""

    @property
    def public(self) -> PublicKey:
        """The key that the signatures are checked with."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, DER encoded."""


@dataclass(frozen=True)
class PublicKey:
    """A public key by the name that its owner gave it. `pem` is its canonical PEM; make one with `load`."""

    name: str
    pem: str

    @staticmethod
    def load(name: str, pem: str) -> PublicKey:
        """Read a public key. Raises BadKey, in words, for anything else."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - 60 ms, only where keys are

        if "PRIVATE KEY" in pem:
            raise BadKey(f"{name} is a private key; name the public one, which goes with it")
        try:
            key = serialization.load_pem_public_key(pem[:MAX_PEM].encode())
        except Exception as error:  # unreadable, or of an algorithm that the library does not have
            raise BadKey(f"{name} is not a public key in PEM: {_line(error)}") from error
        return _public(name, key)

    @staticmethod
    def from_der(name: str, der: bytes) -> PublicKey:
        """Read a public key as KMS hands it out. Raises BadKey."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above

        try:
            key = serialization.load_der_public_key(der)
        except Exception as error:
            raise BadKey(f"{name} is not a public key: {_line(error)}") from error
        return _public(name, key)

    @property
    def hint(self) -> str:
        """What a bundle says of its key: the SHA-256 of the PEM, in hexadecimal."""
        return hashlib.sha256(self.pem.encode()).hexdigest()

    def holds(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature is this key's, of exactly these bytes."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as above

        try:
            self._key.verify(signature, message, ec.ECDSA(_hash_of(self._key.curve)))
        except InvalidSignature:
            return False
        return True

    @cached_property
    def _key(self) -> ec.EllipticCurvePublicKey:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above

        return serialization.load_pem_public_key(self.pem.encode())  # type: ignore[return-value]  # `_public` saw to it


@dataclass(frozen=True)
class PrivateKey:
    """A private key on this machine."""

    public: PublicKey
    _key: ec.EllipticCurvePrivateKey

    @staticmethod
    def new(name: str) -> PrivateKey:
        """Make a key on P-256."""
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as above

        return _private(name, ec.generate_private_key(ec.SECP256R1()))

    @staticmethod
    def load(name: str, pem: bytes, password: str | None = None) -> PrivateKey:
        """Read a private key, decrypting it with `password` if there is one. Raises BadKey, in words."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above

        try:
            key = serialization.load_pem_private_key(pem, password.encode() if password else None)
        except TypeError as error:  # how the library says that a password is missing, or one too many
            raise BadKey(f"{name}: {_line(error)}") from error
        except Exception as error:
            raise BadKey(f"{name} is not a private key in PEM: {_line(error)}") from error
        return _private(name, key)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, DER encoded."""
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as above

        return self._key.sign(message, ec.ECDSA(_hash_of(self._key.curve)))

    def to_pem(self) -> bytes:
        """Return the key as PEM (PKCS 8), not encrypted."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above

        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def _public(name: str, key: object) -> PublicKey:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as above

    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise BadKey(f"{name} is not an ECDSA key; `perch keys new` makes one, KMS calls it ECC_NIST_P256")
    _hash_of(key.curve, name)
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(name, pem.decode())


def _private(name: str, key: object) -> PrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as above

    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadKey(f"{name} is not an ECDSA key; `perch keys new` makes one")
    return PrivateKey(_public(name, key.public_key()), key)


def _hash_of(curve: ec.EllipticCurve, name: str = "the key") -> hashes.HashAlgorithm:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - as above

    known = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
    if curve.name not in known:
        raise BadKey(f"{name} is on the curve {curve.name}; model signing knows P-256, P-384 and P-521")
    return known[curve.name]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
