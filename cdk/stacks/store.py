"""The store stack: what must outlive everything else, the models and the registry."""

from __future__ import annotations

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk.constructs.model_store import ModelStore
from cdk.constructs.registry_table import RegistryTable
from cdk.constructs.signing_key import SigningKey
from cdk.settings import Settings


class StoreStack(Stack):
    """A bucket and a table, and a key to sign with if the settings ask for one; all are retained."""

    bucket: s3.Bucket
    table: dynamodb.Table

    def __init__(self, scope: Construct, id_: str, *, settings: Settings) -> None:
        super().__init__(scope, id_, description="Perch: the model store and the registry")
        self.bucket = ModelStore(self, "ModelStore").bucket
        self.table = RegistryTable(self, "RegistryTable").table

        if settings.signing.kms_key:
            signing = SigningKey(self, "SigningKey", name=settings.name)
            output = CfnOutput(self, "SigningKey_", value=signing.alias, description="perch sign --kms this")
            output.override_logical_id("SigningKey")
        CfnOutput(self, "StoreBucket", value=self.bucket.bucket_name, description="Upload models here")
        CfnOutput(self, "RegistryTable_", value=self.table.table_name).override_logical_id("RegistryTable")
