"""`snapstart = true`: zip and image functions alike have Lambda make snapshots of their published versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.conftest import Synthesized, declared

SETTINGS = """
[endpoints.zipped]
runtime = "onnx"
snapstart = true
[endpoints.image]
runtime = "torch"
memory_mb = 2048
snapstart = true
[endpoints.without]
runtime = "onnx"
"""


@pytest.fixture(scope="module")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """Endpoints with it and without."""
    return declared(tmp_path_factory.mktemp("snapstart"), SETTINGS)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [("zipped", {"ApplyOn": "PublishedVersions"}), ("image", {"ApplyOn": "PublishedVersions"}), ("without", None)],
)
def test_an_endpoint_has_snapstart_if_it_says_so(synthesized: Synthesized, endpoint: str, expected: object) -> None:
    """Whatever its predictor is packed in."""
    function = synthesized.function(f"perch-{endpoint}")
    assert function.get("SnapStart") == expected
    # What Lambda excludes beside it is never there.
    assert not {"FileSystemConfigs", "EphemeralStorage"} & function.keys()


def test_the_driver_tells_versions_with_snapstart_from_those_without() -> None:
    """Switching it on is a change of what runs, so it is rolled out like one."""
    from perch.aws.functions import _configuration

    said = {"Version": "1", "RevisionId": "r", "CodeSha256": "c"}
    plain, snapped = _configuration(said), _configuration(said | {"SnapStart": {"ApplyOn": "PublishedVersions"}})
    assert plain.fingerprint != snapped.fingerprint
    assert plain.fingerprint == _configuration(said | {"SnapStart": {"ApplyOn": "None"}}).fingerprint


def test_a_version_whose_snapshot_is_being_made_is_waited_for() -> None:
    """Publishing returns while it is Pending; a snapshot that could not be made is a reason."""
    from perch.aws.functions import _configuration

    said = {"Version": "1", "RevisionId": "r", "CodeSha256": "c"}
    assert not _configuration(said | {"State": "Pending", "StateReasonCode": "Creating"}).ready
    failed = _configuration(said | {"State": "Failed", "StateReason": "The init phase raised an error"})
    assert (failed.ready, failed.failure) == (False, "The init phase raised an error")


def test_an_image_allows_snapshots() -> None:
    """Lambda asks images that are not built on its own for a label."""
    for dockerfile in Path("functions").glob("*/Dockerfile"):
        assert 'com.amazonaws.lambda.feature.snapstart="Allow"' in dockerfile.read_text(), dockerfile
