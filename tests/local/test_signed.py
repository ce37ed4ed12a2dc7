"""Signed models on a whole local cloud: the deployed template, the real handlers, and a key in KMS that it made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from perch.aws.kms import KmsKey
from perch.aws.store import QUARANTINE
from perch.domain.model import Pointer
from perch.signing import WHOLE, PrivateKey, Statement, sign_statement
from perch.signing.folder import digests
from tests.local.tiny_models import onnx_model
from tests.local.whole import Trial, synthesize_trial, trial

SETTINGS = """
name = "perch"

[api]
auth = "none"

[signing]
required = true
keys = ["keys/team.pem"]
kms_key = true

[endpoints.alpha]
runtime = "onnx"
max_artifact_mb = 1
[endpoints.alpha.rollout]
strategy = "direct"
"""
TEAM = PrivateKey.new("team")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """A deployment that takes signed models only."""
    folder = tmp_path_factory.mktemp("signed")
    (folder / "keys").mkdir()
    (folder / "keys" / "team.pem").write_text(TEAM.public.pem)
    with trial(synthesize_trial(folder, text=SETTINGS), folder / "cloud") as cloud:
        yield cloud


def signature(path: Path, key: PrivateKey = TEAM) -> bytes:
    return sign_statement(Statement(model=path.name, files=digests(path)), key)


def saved(folder: Path, data: bytes) -> Path:
    (folder / "model.onnx").write_bytes(data)
    return folder / "model.onnx"


@pytest.mark.slow
def test_a_signed_model_goes_into_service_and_its_pointer_says_who_signed(cloud: Trial, tmp_path: Path) -> None:
    """Two plain puts: the artifact waits for its signature, then it is verified, registered and served."""
    data = onnx_model(1)
    cloud.put("models/alpha/v1/model.onnx", data)
    cloud.put("models/alpha/v1/model.sig", signature(saved(tmp_path, data)))
    cloud.wait(lambda: bool(cloud.stable("alpha")), "alpha serves v1")
    version = cloud.world.registry.version("alpha", "v1")
    live = cloud.world.functions.alias("perch-alpha").routing.version
    client = cloud.cloud.client("lambda")
    variables = client.get_function_configuration(FunctionName="perch-alpha", Qualifier=live)["Environment"][
        "Variables"
    ]

    assert version is not None
    assert version.pointer.signed_by == "team"
    assert Pointer.from_json(variables["PERCH_POINTER"]) == version.pointer


@pytest.mark.slow
def test_a_model_that_a_stranger_signed_is_quarantined(cloud: Trial, tmp_path: Path) -> None:
    """It is kept with its reason, and marked in the store."""
    data, key = onnx_model(2), "models/alpha/v2/model.onnx"
    cloud.put("models/alpha/v2/model.sig", signature(saved(tmp_path, data), PrivateKey.new("stranger")))
    cloud.put(key, data)
    cloud.wait(lambda: bool(cloud.world.registry.rejections(prefix=key)), "v2 is refused")
    (refused,) = cloud.world.registry.rejections(prefix=key)

    def tags() -> list[dict[str, str]]:
        bucket = cloud.world.store.bucket
        found = cloud.cloud.client("s3").get_object_tagging(Bucket=bucket, Key=key, VersionId=refused.version_id)
        return list(found["TagSet"])

    cloud.wait(lambda: tags() == [QUARANTINE], "v2 is marked")
    assert "not trusted; trusted: team" in refused.reason
    assert cloud.world.registry.version("alpha", "v2") is None


@pytest.mark.slow
def test_the_key_that_the_template_makes_signs_models(cloud: Trial) -> None:
    """Its alias is an output of the store's stack; P-256, as its public half shows."""
    key = KmsKey(cloud.cloud.client("kms"), "alias/perch-signing")
    bundle = sign_statement(Statement(model="m", files={WHOLE: "0" * 64}), key)

    assert json.loads(bundle)["verificationMaterial"]["publicKey"]["hint"] == key.public.hint
