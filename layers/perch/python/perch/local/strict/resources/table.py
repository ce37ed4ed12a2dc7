"""`AWS::DynamoDB::Table` with the properties that moto drops (recovery, time to live) and updates in place."""

from __future__ import annotations

from typing import Any

from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.table import Table as MotoTable

from perch.local.strict.resources.base import Request, Resource


class Table(Resource):
    """A table; Ref gives its name. A change of the key schema replaces it."""

    TYPE = "AWS::DynamoDB::Table"
    NAME = "TableName"
    ATTRIBUTES = frozenset({"Arn", "StreamArn"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the table and write its settings."""
        table = MotoTable.create_from_cloudformation_json(
            request.name, {"Properties": request.properties}, request.account_id, request.region
        )
        _write(table, request)
        return table

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Write the settings anew; the items stay."""
        changed = request.changed()
        if "KeySchema" in changed:
            raise ValueError("A change of KeySchema replaces a table and loses its items: give it another name.")
        billing = request.get("BillingMode", "PROVISIONED")
        dynamodb_backends[request.account_id][request.region].update_table(
            name=resource.name,
            attr_definitions=request.get("AttributeDefinitions", []),
            global_index=[],
            throughput=request.get("ProvisionedThroughput", {}),
            billing_mode=billing,
            stream_spec=changed.get("StreamSpecification") or {},
            deletion_protection_enabled=bool(request.get("DeletionProtectionEnabled", False)),
            warm_throughput=None,
        )
        _write(resource, request)
        return resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        """Delete the table."""
        MotoTable.delete_from_cloudformation_json(resource_name, cloudformation_json, account_id, region_name)


def _write(table: Any, request: Request) -> None:
    backend = dynamodb_backends[request.account_id][request.region]
    recovery = request.get("PointInTimeRecoverySpecification", {})
    backend.update_continuous_backups(
        table.name,
        {"PointInTimeRecoveryEnabled": str(recovery.get("PointInTimeRecoveryEnabled", False)).lower() == "true"},
    )
    expiry = request.get("TimeToLiveSpecification")
    if expiry:
        enabled = str(expiry.get("Enabled", True)).lower() == "true"
        backend.update_time_to_live(table.name, {"Enabled": enabled, "AttributeName": expiry.get("AttributeName", "")})
    elif table.ttl.get("TimeToLiveStatus") == "ENABLED":
        table.ttl["TimeToLiveStatus"] = "DISABLED"
