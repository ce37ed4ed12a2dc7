"""`AWS::S3::Bucket` with the properties that moto drops: versioning, public access, lifecycle, events, ownership.

Left out: replication, website, inventory, object lock, and notifications other than to EventBridge.
"""

from __future__ import annotations

from typing import Any

from moto.s3.models import FakeBucket, PublicAccessBlock, s3_backends
from moto.utilities.utils import get_partition

from perch.local.strict.resources.base import Request, Resource


class Bucket(Resource):
    """A bucket; Ref gives its name."""

    TYPE = "AWS::S3::Bucket"
    NAME = "BucketName"
    ATTRIBUTES = frozenset({"Arn", "DomainName", "DualStackDomainName", "RegionalDomainName", "WebsiteURL"})

    @classmethod
    def create(cls, request: Request) -> Any:
        """Create the bucket and write its settings."""
        for name in ("NotificationConfiguration",):
            others = set(request.get(name, {})) - {"EventBridgeConfiguration"}
            if others:
                raise ValueError(f"The local cloud sends bucket events to EventBridge only, not to {sorted(others)}.")
        bucket = FakeBucket.create_from_cloudformation_json(
            request.name, {"Properties": _for_moto(request.properties)}, request.account_id, request.region
        )
        _write(bucket, request.properties)
        return bucket

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Write the settings anew, in place."""
        given = {**_for_moto(request.properties), "BucketName": resource.name}
        FakeBucket.update_from_cloudformation_json(
            resource, resource.name, {"Properties": given}, request.account_id, request.region
        )
        _write(resource, request.properties)
        return resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        """Delete the bucket; as on AWS this fails while it holds objects."""
        del cloudformation_json
        s3_backends[account_id][get_partition(region_name)].delete_bucket(resource_name)


def _for_moto(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name in {"BucketEncryption", "Tags"}}


def _write(bucket: Any, properties: dict[str, Any]) -> None:
    versioning = properties.get("VersioningConfiguration", {}).get("Status")
    if versioning or bucket.versioning_status:  # versioning can be suspended, never taken away
        bucket.versioning_status = versioning or "Suspended"
    access = properties.get("PublicAccessBlockConfiguration")
    bucket.public_access_block = access and PublicAccessBlock(
        access.get("BlockPublicAcls"),
        access.get("IgnorePublicAcls"),
        access.get("BlockPublicPolicy"),
        access.get("RestrictPublicBuckets"),
    )
    ownership = properties.get("OwnershipControls")
    bucket.ownership_rule = ownership and {"OwnershipControls": {"Rule": ownership["Rules"][0]}}
    rules = properties.get("LifecycleConfiguration", {}).get("Rules", [])
    if rules:
        bucket.set_lifecycle([_lifecycle(rule) for rule in rules])
    else:
        bucket.delete_lifecycle()
    events = properties.get("NotificationConfiguration", {}).get("EventBridgeConfiguration")
    wanted = events is not None and str(events.get("EventBridgeEnabled", True)).lower() == "true"
    bucket.set_notification_configuration({"EventBridgeConfiguration": {}} if wanted else None)


def _lifecycle(rule: dict[str, Any]) -> dict[str, Any]:
    """Turn a rule of a template into one of the API, as moto reads it from XML."""
    answer: dict[str, Any] = {"ID": rule.get("Id"), "Status": rule.get("Status", "Enabled")}
    answer["Filter"] = {"Prefix": rule.get("Prefix", "")}
    expiration = {
        api: rule[name]
        for name, api in (
            ("ExpirationInDays", "Days"),
            ("ExpirationDate", "Date"),
            ("ExpiredObjectDeleteMarker", "ExpiredObjectDeleteMarker"),
        )
        if name in rule
    }
    if expiration:
        answer["Expiration"] = expiration
    if "Transitions" in rule:
        answer["Transition"] = [
            {"Days": t.get("TransitionInDays"), "Date": t.get("TransitionDate"), "StorageClass": t["StorageClass"]}
            for t in rule["Transitions"]
        ]
    days = rule.get("NoncurrentVersionExpirationInDays") or rule.get("NoncurrentVersionExpiration", {}).get(
        "NoncurrentDays"
    )
    if days is not None:
        answer["NoncurrentVersionExpiration"] = {"NoncurrentDays": days}
    if "NoncurrentVersionTransitions" in rule:
        answer["NoncurrentVersionTransition"] = [
            {"NoncurrentDays": t["TransitionInDays"], "StorageClass": t["StorageClass"]}
            for t in rule["NoncurrentVersionTransitions"]
        ]
    if "AbortIncompleteMultipartUpload" in rule:
        answer["AbortIncompleteMultipartUpload"] = {
            "DaysAfterInitiation": rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
        }
    return answer
