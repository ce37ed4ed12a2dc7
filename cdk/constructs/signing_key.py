"""A key to sign models with that never leaves KMS: who may sign is then a question of permissions (`kms:Sign`).

`perch sign --kms alias/<name>-signing` signs with it, `perch keys fetch` writes its public half into a file, and that
file, named under [signing] in perch.toml, is what registration trusts: checking a signature needs no call of KMS. The
key is retained when its stack is deleted, as signatures outlive stacks.
"""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_kms as kms
from constructs import Construct


class SigningKey(Construct):
    """An ECDSA key on P-256. The account's own policies say who may use it."""

    key: kms.Key
    alias: str

    def __init__(self, scope: Construct, id_: str, *, name: str) -> None:
        super().__init__(scope, id_)
        self.alias = f"alias/{name}-signing"
        self.key = kms.Key(
            self,
            "Key",
            description="Signs model versions",
            key_spec=kms.KeySpec.ECC_NIST_P256,
            key_usage=kms.KeyUsage.SIGN_VERIFY,
            removal_policy=RemovalPolicy.RETAIN,
        )
        self.key.add_alias(self.alias)
