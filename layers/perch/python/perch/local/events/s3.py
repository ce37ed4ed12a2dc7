"""S3's EventBridge notifications, as documented, for buckets that have EventBridge turned on.

moto tells one function of every change of an object. That function is replaced by one that builds the documented event
(key as it is, not URL-encoded; `version-id` only in versioned buckets; a `sequencer` that grows) and hands it to the
bus. Deletions are watched at the backend, because moto says nothing of delete markers and deleted versions; and the ACL
and tags that an object is made with are part of its making, though moto announces them as changes of their own.

Left out: replication and lifecycle events that moto never causes; the requester is always the account itself.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from moto.s3 import notifications
from moto.s3.models import S3Backend
from moto.s3.responses import S3Response

from perch.local.patches import Patches

_REASONS = {
    "ObjectCreated:Put": "PutObject",
    "ObjectCreated:Post": "POST Object",
    "ObjectCreated:Copy": "CopyObject",
    "ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
}
_SEQUENCER = itertools.count(0x0060_0000_0000_0001)


def s3_event(
    detail_type: str,
    *,
    bucket: str,
    obj: dict[str, Any],
    more: dict[str, Any],
    account: str,
    region: str,
    at: datetime,
) -> dict[str, Any]:
    """Build the event of one change of one object."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": detail_type,
        "source": "aws.s3",
        "account": account,
        "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": region,
        "resources": [f"arn:aws:s3:::{bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket},
            "object": obj | {"sequencer": f"{next(_SEQUENCER):016X}"},
            "request-id": uuid.uuid4().hex[:16].upper(),
            "requester": account,
            "source-ip-address": "127.0.0.1",
        }
        | more,
    }


class S3Notifications:
    """Watches moto's S3 and hands events to `publish` while it is installed."""

    def __init__(self, publish: Callable[[dict[str, Any]], object], now: Callable[[], datetime]) -> None:
        self._publish = publish
        self._now = now
        self._patches = Patches()
        self._only = threading.local()  # `prefix`: the only kind of event that counts while this thread's request runs

    def install(self) -> None:
        """Take over from moto."""
        self._patches.set(notifications, "_send_event_bridge_message", self._changed)
        self._patches.wrap(S3Backend, "delete_object", self._watch_delete)
        for owner, name, prefix in (
            (S3Response, "put_object", "ObjectCreated:Put"),
            (S3Response, "copy_object", "ObjectCreated:Copy"),
            (S3Backend, "complete_multipart_upload", "ObjectCreated:CompleteMultipartUpload"),
        ):
            self._patches.wrap(owner, name, partial(self._watch_create, prefix))

    def uninstall(self) -> None:
        """Give moto its own functions back."""
        self._patches.undo()

    def _changed(self, account_id: str, bucket: Any, event_name: str, key: Any) -> None:
        name = str(getattr(event_name, "value", event_name)).removeprefix("s3:")
        if not name.startswith(getattr(self._only, "prefix", "")):
            return
        obj: dict[str, Any] = {"key": key.name}
        if name.startswith("ObjectCreated"):
            obj |= {"size": key.size, "etag": key.etag.strip('"')}
        if bucket.is_versioned:
            obj["version-id"] = key.version_id
        more = {"reason": _REASONS[name]} if name in _REASONS else {}
        self._emit(notifications._detail_type(event_name), account_id, bucket, obj, more)  # noqa: SLF001 - moto's table

    def _watch_create(self, prefix: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """While an object is made, its making is all there is to tell."""

        def create(*args: Any, **kwargs: Any) -> Any:
            self._only.prefix = prefix
            try:
                return original(*args, **kwargs)
            finally:
                self._only.prefix = ""

        return create

    def _watch_delete(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def delete_object(
            backend: Any, bucket_name: str, key_name: str, version_id: str | None = None, bypass: bool = False
        ) -> Any:
            bucket = backend.get_bucket(bucket_name)
            existed = key_name in bucket.keys
            self._only.prefix = "nothing: the event is made below"
            try:
                done, meta = original(backend, bucket_name, key_name, version_id=version_id, bypass=bypass)
            finally:
                self._only.prefix = ""
            configuration = bucket.notification_configuration
            if existed and done and configuration is not None and configuration.event_bridge is not None:
                marker = version_id is None and meta.get("delete-marker") == "true"
                obj = {"key": key_name}
                if meta.get("version-id"):
                    obj["version-id"] = str(meta["version-id"])
                more = {
                    "reason": "DeleteObject",
                    "deletion-type": "Delete Marker Created" if marker else "Permanently Deleted",
                }
                self._emit("Object Deleted", backend.account_id, bucket, obj, more)
            return done, meta

        return delete_object

    def _emit(self, detail_type: str, account: str, bucket: Any, obj: dict[str, Any], more: dict[str, Any]) -> None:
        event = s3_event(
            detail_type,
            bucket=bucket.name,
            obj=obj,
            more=more,
            account=account,
            region=bucket.region_name,
            at=self._now(),
        )
        self._publish(event)
