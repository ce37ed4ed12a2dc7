"""Publishing assets: files go zipped into the bootstrap bucket, images into the local image store.

Also makes what a bootstrapped account has, as far as a deployment looks at it: the bucket, and the parameter with the
bootstrap's version.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from perch.aws.trouble import code_of
from perch.local.deploy.archive import zip_folder
from perch.local.deploy.assembly import Assembly, ImageAsset
from perch.local.deploy.docker import build_image
from perch.local.deploy.images import ImageStore

BOOTSTRAP_VERSION = "30"
BOOTSTRAP_PARAMETER = "/cdk-bootstrap/hnb659fds/version"


def publish_assets(
    assembly: Assembly,
    *,
    s3: Any,
    ssm: Any,
    image_store: Path,
    account: str,
    region: str,
    on_progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Publish what is not there yet; raises DockerfileError for an image that cannot be built."""
    _put_bootstrap_version(ssm)
    for bucket in sorted({asset.bucket for asset in assembly.files}):
        _ensure_bucket(s3, bucket, region)
    for file in assembly.files:
        if _exists(s3, file.bucket, file.key):
            continue
        on_progress(f"publishing {file.path.name[:40]}")
        body = zip_folder(file.path) if file.zipped else file.path.read_bytes()
        s3.put_object(Bucket=file.bucket, Key=file.key, Body=body)
    store = ImageStore(image_store)
    for image in assembly.images:
        reference = reference_of(image, account=account, region=region)
        if store.find(reference) is None:
            on_progress(f"building image {image.dockerfile} (files only)")
            built = build_image(store, image.folder, image.folder / image.dockerfile, image.arguments)
            store.tag(reference, built.digest)


def reference_of(image: ImageAsset, *, account: str, region: str) -> str:
    """Return the reference by which a template names an image."""
    return f"{account}.dkr.ecr.{region}.amazonaws.com/{image.repository}:{image.tag}"


def _put_bootstrap_version(ssm: Any) -> None:
    try:
        ssm.get_parameter(Name=BOOTSTRAP_PARAMETER)
    except ClientError as error:
        if code_of(error) != "ParameterNotFound":
            raise
        ssm.put_parameter(Name=BOOTSTRAP_PARAMETER, Type="String", Value=BOOTSTRAP_VERSION)


def _ensure_bucket(s3: Any, bucket: str, region: str) -> None:
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError:
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=bucket, **place)


def _exists(s3: Any, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError:
        return False
    return True
