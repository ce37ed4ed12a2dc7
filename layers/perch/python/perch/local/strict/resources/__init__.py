"""CloudFormation resource types that moto lacks, or whose properties it drops: one small file a type.

To add a type, write its class beside these and name it here.
"""

from __future__ import annotations

from moto.cloudformation import parsing

from perch.local.strict.resources.alarm import Alarm
from perch.local.strict.resources.api import Api
from perch.local.strict.resources.api_integration import Integration
from perch.local.strict.resources.api_route import Route
from perch.local.strict.resources.api_stage import Stage
from perch.local.strict.resources.base import Resource
from perch.local.strict.resources.bucket import Bucket
from perch.local.strict.resources.bucket_policy import BucketPolicy
from perch.local.strict.resources.cdk_metadata import CdkMetadata
from perch.local.strict.resources.kms_key import KmsKey
from perch.local.strict.resources.lambda_alias import Alias
from perch.local.strict.resources.lambda_event_invoke_config import EventInvokeConfig
from perch.local.strict.resources.lambda_function import Function
from perch.local.strict.resources.lambda_layer_version import LayerVersion
from perch.local.strict.resources.lambda_permission import Permission
from perch.local.strict.resources.lambda_version import Version
from perch.local.strict.resources.log_group import LogGroup
from perch.local.strict.resources.queue import Queue
from perch.local.strict.resources.queue_policy import QueuePolicy
from perch.local.strict.resources.rule import Rule
from perch.local.strict.resources.subscription import Subscription
from perch.local.strict.resources.table import Table
from perch.local.strict.resources.topic import Topic
from perch.local.strict.resources.topic_policy import TopicPolicy

_TYPES: tuple[type[Resource], ...] = (
    Alarm, Alias, Api, Bucket, BucketPolicy, CdkMetadata, EventInvokeConfig, Function, Integration, KmsKey,
    LayerVersion, LogGroup, Permission, Queue, QueuePolicy, Route, Rule, Stage, Subscription, Table, Topic,
    TopicPolicy, Version,
)  # fmt: skip

RESOURCES: dict[str, type[Resource]] = {resource.TYPE: resource for resource in _TYPES}
"""Type name to class."""


def supported(resource_type: str) -> bool:
    """Say whether the local cloud can make resources of a type (its own classes or moto's)."""
    return resource_type in RESOURCES or resource_type in parsing.get_model_map()
