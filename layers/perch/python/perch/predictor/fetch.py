"""Fetch the artifact from the store: the only AWS call of the predictor, made once, at init.

Exactly the S3 version that was registered is read, and never more than its registered size. A store that answers "no"
(no such version, access denied) is a fact about this revision: `ModelUnavailable`. A store that does not answer is not:
`ArtifactUnreachable` is raised, the init fails, and Lambda tries again in a fresh environment instead of keeping one
that would answer 503 for hours.
"""

from __future__ import annotations

import os

from perch.domain.model import Pointer

from .errors import ArtifactUnreachable, ModelUnavailable


def fetch_artifact(bucket: str, pointer: Pointer) -> bytes:
    """Read the bytes that a pointer names.

    Raises:
        ModelUnavailable: S3 refused, or the object is not of the registered size.
        ArtifactUnreachable: S3 could not be asked, after retries.
    """
    import boto3  # noqa: PLC0415 - 170 ms that only a revision with a model has to spend, and none of it per request
    from botocore.config import Config  # noqa: PLC0415 - as above
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

    # An endpoint of one's own (the local cloud) has no host name per bucket.
    config = Config(
        connect_timeout=2,
        read_timeout=5,
        retries={"mode": "standard", "max_attempts": 3},
        s3={"addressing_style": "path" if os.environ.get("AWS_ENDPOINT_URL") else "auto"},
    )
    where = f"s3://{bucket}/{pointer.key} (version {pointer.version_id})"
    try:
        found = boto3.client("s3", config=config).get_object(
            Bucket=bucket, Key=pointer.key, VersionId=pointer.version_id
        )
        if found["ContentLength"] != pointer.size:
            raise ModelUnavailable(
                f"{where} has {found['ContentLength']} bytes; {pointer.size} were registered, so it was not read"
            )
        return found["Body"].read(pointer.size + 1)
    except ClientError as error:
        if 400 <= error.response["ResponseMetadata"]["HTTPStatusCode"] < 429:
            raise ModelUnavailable(f"{where} cannot be read: {error.response['Error'].get('Code')}") from error
        raise ArtifactUnreachable(f"{where} could not be fetched: {error}") from error
    except (BotoCoreError, OSError) as error:
        raise ArtifactUnreachable(f"{where} could not be fetched: {error}") from error
