"""The model store: uploads in S3, read by exact version, and marked by a tag when they were refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from perch.aws.trouble import code_of
from perch.domain.errors import NotFound
from perch.domain.names import is_name

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import TagTypeDef


QUARANTINE: TagTypeDef = {"Key": "perch", "Value": "quarantined"}
_MAX_TAGS = 10  # of an object, by S3
_GONE = ("404", "NoSuchKey", "NoSuchVersion", "MethodNotAllowed")  # the last one of a delete marker


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What S3 says of one object version; `metadata` is the user's own (lower-case keys)."""

    key: str
    version_id: str
    size: int
    metadata: Mapping[str, str]

    @property
    def event(self) -> str:
        """What tells the event of this object from all others."""
        return f"{self.key}#{self.version_id}"


class Store:
    """The bucket, in our words."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    def look(self, key: str, version_id: str | None = None) -> Stored:
        """Return size and metadata without reading the bytes. Raises NotFound."""
        exact: Any = {"VersionId": version_id} if version_id else {}
        try:
            answer = self._client.head_object(Bucket=self.bucket, Key=key, **exact)
        except ClientError as error:
            if code_of(error) in _GONE:
                raise NotFound(f"s3://{self.bucket}/{key} (version {version_id or 'latest'}) does not exist") from error
            raise
        return Stored(
            key=key,
            version_id=answer.get("VersionId", "null"),
            size=answer["ContentLength"],
            metadata=answer.get("Metadata", {}),
        )

    def read(self, stored: Stored) -> bytes:
        """Return the bytes of exactly that version."""
        exact: Any = {"VersionId": stored.version_id} if stored.version_id != "null" else {}
        return self._client.get_object(Bucket=self.bucket, Key=stored.key, **exact)["Body"].read()

    def quarantine(self, stored: Stored) -> None:
        """Tag exactly that version `perch=quarantined`, beside the tags it has: predictors may not read it any more.

        The next version of the same key has no such tag. An object that is gone needs none.
        """
        where: Any = {"Bucket": self.bucket, "Key": stored.key}
        where |= {"VersionId": stored.version_id} if stored.version_id != "null" else {}
        try:
            tags = self._client.get_object_tagging(**where)["TagSet"]
            others = [tag for tag in tags if tag["Key"] != QUARANTINE["Key"]][: _MAX_TAGS - 1]
            self._client.put_object_tagging(**where, Tagging={"TagSet": [*others, QUARANTINE]})
        except ClientError as error:
            if code_of(error) not in _GONE:
                raise

    def files(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, without what no upload may be named (`perch.domain.names`).

        That is refused by itself, so it belongs to nothing: the marker that a console makes of a folder, `.DS_Store`,
        folders in the folder.
        """
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder)
        names = [o["Key"].removeprefix(folder) for page in pages for o in page.get("Contents", [])]
        return [name for name in names if is_name(name)]

    def take_away(self, key: str) -> None:
        """Hide a file from its folder; the bucket keeps every version of it."""
        self._client.delete_object(Bucket=self.bucket, Key=key)

    def write(self, key: str, data: bytes, *, metadata: Mapping[str, str] | None = None) -> Stored:
        """Put an object; return what was stored."""
        answer = self._client.put_object(Bucket=self.bucket, Key=key, Body=data, Metadata=dict(metadata or {}))
        return Stored(
            key=key, version_id=answer.get("VersionId", "null"), size=len(data), metadata=dict(metadata or {})
        )
