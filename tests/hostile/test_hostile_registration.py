"""Hostile uploads end as a refusal in the registry, with the reason that the inspector gave, and as no version."""

from __future__ import annotations

from pathlib import Path

import pytest

from perch.app.register import Upload, register
from tests.aws.deployment import BUCKET, Deployment, deployment
from tests.hostile import SERVED, Hostile, onnx_files, pickles, safetensors_files, tabular_files

__all__ = ["deployment"]

TRAP = Path("/tmp/perch-trap-registration")


def few() -> list[Hostile]:
    """Some of every kind, and all that could run code."""
    found = []
    for module in (onnx_files, pickles, safetensors_files, tabular_files):
        refused = [one for one in module.hostile(TRAP) if one.verdict != SERVED and len(one.data) < 500_000]
        found += refused[:: max(1, len(refused) // 3)]
    return found


@pytest.mark.parametrize("one", few(), ids=lambda one: one.title)
def test_a_hostile_upload_is_recorded_with_its_reason_and_registers_nothing(
    deployment: Deployment, one: Hostile
) -> None:
    """Kept in S3, told in words, and never a version; registering it again says the same."""
    key = f"models/digits/v1/{one.file}"
    answer = deployment.clients.s3.put_object(Bucket=BUCKET, Key=key, Body=one.data)
    upload = Upload(key=key, version_id=answer["VersionId"], at=deployment.now, by="mallory")
    outcomes = [register(deployment.world, upload) for _ in range(2)]
    assert [outcome.status for outcome in outcomes] == ["rejected", "rejected"]
    assert deployment.world.registry.version("digits", "v1") is None
    [kept] = deployment.world.registry.rejections(prefix="models/digits/")
    assert kept.reason == outcomes[0].reason
    assert one.words in kept.reason or "perch.json" in kept.reason  # a pickle first has to declare its signature
    assert not TRAP.exists()
