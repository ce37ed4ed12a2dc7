"""A key in KMS that signs models: its private half never leaves the service, its public half is read once.

KMS takes messages of up to 4,096 bytes; of a longer one it gets the SHA-256 (`MessageType=DIGEST`), which for ECDSA is
the same signature. What KMS answers is checked with the public key before it is used.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from perch.aws.trouble import code_of
from perch.domain.errors import Invalid, NotFound
from perch.signing import PublicKey

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_kms.literals import SigningAlgorithmSpecType

MAX_MESSAGE = 4_096  # bytes
_ALGORITHM: SigningAlgorithmSpecType = "ECDSA_SHA_256"


class KmsKey:
    """One key, named by id, ARN or alias (`alias/perch-signing`)."""

    def __init__(self, client: KMSClient, key_id: str) -> None:
        self._client = client
        self.key_id = key_id

    @cached_property
    def public(self) -> PublicKey:
        """The public half. Raises NotFound, or Invalid when it is not a key that models are signed with."""
        try:
            found = self._client.get_public_key(KeyId=self.key_id)
        except ClientError as error:
            if code_of(error) == "NotFoundException":
                raise NotFound(f"there is no KMS key {self.key_id} here; an alias is written alias/NAME") from error
            if code_of(error) == "UnsupportedOperationException":
                raise Invalid(f"KMS key {self.key_id} has no public half; {_ADVICE}") from error
            raise
        name = self.key_id.rsplit("/", 1)[-1]
        known = found.get("SigningAlgorithms", [])
        if _ALGORITHM not in known:
            raise Invalid(f"KMS key {name} signs with {', '.join(known) or 'nothing'}; {_ADVICE}")
        return PublicKey.from_der(name, found["PublicKey"])

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, DER encoded. Raises Invalid if KMS gave one that does not hold."""
        short = len(message) <= MAX_MESSAGE
        signature = self._client.sign(
            KeyId=self.key_id,
            Message=message if short else hashlib.sha256(message).digest(),
            MessageType="RAW" if short else "DIGEST",
            SigningAlgorithm=_ALGORITHM,
        )["Signature"]
        if not self.public.holds(signature, message):
            raise Invalid(f"KMS key {self.key_id} gave a signature that its public half does not confirm")
        return signature


_ADVICE = "models are signed with an ECC_NIST_P256 key for SIGN_VERIFY"
