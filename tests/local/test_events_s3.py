"""S3 tells EventBridge of objects that come and go, as documented."""

from __future__ import annotations

import pytest

from tests.local.machines import ACCOUNT, REGION, client, function_arn, world

CREATED = {"source": ["aws.s3"], "detail-type": ["Object Created"]}


@pytest.fixture
def it(monkeypatch):
    with world(monkeypatch) as started:
        started.rule("s3", function_arn("on-object"), pattern={"source": ["aws.s3"]})
        yield started


def bucket(name="store", *, versioned=True, notify=True):
    s3 = client("s3")
    s3.create_bucket(Bucket=name)
    if versioned:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    if notify:
        s3.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
    return s3


def taken(it):
    it.wait_idle()
    events = [call.event for call in it.invoker.calls]
    it.invoker.calls.clear()
    return events


def test_putting_an_object_sends_the_documented_event(it):
    """One event, the key as it is, the version that was made."""
    s3 = bucket()
    answer = s3.put_object(Bucket="store", Key="models/d i/ü.onnx", Body=b"hello", ACL="private", Tagging="a=b")
    [event] = taken(it)
    detail = event["detail"]
    assert {name: event[name] for name in ("version", "detail-type", "source", "account", "time", "region")} == {
        "version": "0",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": ACCOUNT,
        "time": "2026-01-01T00:00:00Z",
        "region": REGION,
    }
    assert event["resources"] == ["arn:aws:s3:::store"]
    assert detail["bucket"] == {"name": "store"}
    assert detail["object"].pop("sequencer")
    assert detail["object"] == {
        "key": "models/d i/ü.onnx",
        "size": 5,
        "etag": answer["ETag"].strip('"'),
        "version-id": answer["VersionId"],
    }
    assert detail["reason"] == "PutObject"
    assert {"version", "request-id", "requester", "source-ip-address"} <= detail.keys()


def test_copies_and_multipart_uploads_are_creations_with_their_reason(it):
    """CopyObject and CompleteMultipartUpload."""
    s3 = bucket(versioned=False)
    s3.put_object(Bucket="store", Key="a", Body=b"1")
    s3.copy_object(Bucket="store", Key="b", CopySource={"Bucket": "store", "Key": "a"})
    upload = s3.create_multipart_upload(Bucket="store", Key="c")["UploadId"]
    part = s3.upload_part(Bucket="store", Key="c", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket="store", Key="c", UploadId=upload, MultipartUpload=parts)
    events = taken(it)
    assert [(event["detail"]["object"]["key"], event["detail"]["reason"]) for event in events] == [
        ("a", "PutObject"),
        ("b", "CopyObject"),
        ("c", "CompleteMultipartUpload"),
    ]
    assert all("version-id" not in event["detail"]["object"] for event in events)


def test_sequencers_grow(it):
    """So that a reader can tell which of two events of a key is the later."""
    s3 = bucket()
    for body in (b"1", b"2", b"3"):
        s3.put_object(Bucket="store", Key="k", Body=body)
    sequencers = [event["detail"]["object"]["sequencer"] for event in taken(it)]
    assert sequencers == sorted(set(sequencers))


def test_deletions_say_whether_a_marker_was_made(it):
    """A versioned delete makes a marker; deleting a version, or from an unversioned bucket, is for good."""
    s3 = bucket()
    version = s3.put_object(Bucket="store", Key="k", Body=b"1")["VersionId"]
    marker = s3.delete_object(Bucket="store", Key="k")["VersionId"]
    s3.delete_object(Bucket="store", Key="k", VersionId=version)
    bucket("plain", versioned=False)
    s3.put_object(Bucket="plain", Key="k", Body=b"1")
    s3.delete_objects(Bucket="plain", Delete={"Objects": [{"Key": "k"}]})
    s3.delete_object(Bucket="plain", Key="never-there")
    deleted = [event["detail"] for event in taken(it) if event["detail-type"] == "Object Deleted"]
    assert [(one["deletion-type"], one["object"].get("version-id"), one["reason"]) for one in deleted] == [
        ("Delete Marker Created", marker, "DeleteObject"),
        ("Permanently Deleted", version, "DeleteObject"),
        ("Permanently Deleted", None, "DeleteObject"),
    ]


def test_changed_tags_and_acls_are_events_of_their_own(it):
    """But only when they are changed by their own requests."""
    s3 = bucket()
    s3.put_object(Bucket="store", Key="k", Body=b"1")
    s3.put_object_tagging(Bucket="store", Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    s3.put_object_acl(Bucket="store", Key="k", ACL="private")
    assert [event["detail-type"] for event in taken(it)] == [
        "Object Created",
        "Object Tags Added",
        "Object ACL Updated",
    ]


def test_a_bucket_without_eventbridge_is_silent(it):
    """As AWS's buckets are until it is turned on."""
    s3 = bucket(notify=False)
    s3.put_object(Bucket="store", Key="k", Body=b"1")
    s3.delete_object(Bucket="store", Key="k")
    assert taken(it) == []
