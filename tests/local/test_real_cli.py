"""The real CDK command-line tool bootstraps and deploys this project on the local cloud, image assets included."""

from __future__ import annotations

from pathlib import Path

import pytest

from perch.domain.rollout import Routing
from perch.local.cloud import CloudOptions, LocalCloud
from perch.local.deploy.assembly import read_assembly
from perch.local.deploy.cli import CdkFailed, cdk_cli_environment, run_cdk, stand_in_executable
from perch.local.deploy.deployment import check_complete
from perch.local.fixtures import PATIENCE
from tests.local.whole import SETTINGS, STACKS, Trial, changed_assembly

ROOT = Path(__file__).resolve().parents[2]
BOTH = ("alpha", "beta")


def stacks(cloud: LocalCloud) -> dict[str, str]:
    """Status of each stack by its name."""
    found = cloud.client("cloudformation").describe_stacks()["Stacks"]
    return {stack["StackName"]: stack["StackStatus"] for stack in found}


@pytest.mark.slow
def test_the_real_tool_bootstraps_and_deploys_this_project_and_the_loop_runs(tmp_path):
    """The same four stacks, whole; an upload goes live; the tool's next deployment makes its code a candidate."""
    settings, out = tmp_path / "perch.toml", tmp_path / "cdk.out"
    settings.write_text(SETTINGS)
    with LocalCloud.running(CloudOptions(state=tmp_path / "state", patience=PATIENCE)) as cloud:
        environment = {
            **cdk_cli_environment(cloud.api_url, image_store=cloud.image_store),
            "PERCH_SETTINGS": str(settings),
        }
        deploy = ["deploy", "--all", "--require-approval", "never"]
        run_cdk(["bootstrap", "aws://123456789012/us-east-1"], app_dir=ROOT, environment=environment)
        said = run_cdk([*deploy, "--output", str(out)], app_dir=ROOT, environment=environment)
        check_complete(read_assembly(out), cloud.client("cloudformation"))

        assert "stand-in, not a container engine" in said
        assert stacks(cloud) == dict.fromkeys(("CDKToolkit", *STACKS), "CREATE_COMPLETE")
        whole = Trial.on(cloud, out)
        assert whole.outputs["ApiUrl"].rstrip("/") == cloud.gateway_url
        for endpoint in BOTH:
            whole.upload(endpoint, 1)
        for endpoint in BOTH:
            whole.wait(lambda: bool(whole.stable(endpoint)), endpoint)  # noqa: B023 - called in this turn
        assert [whole.predict(endpoint).body["predictions"] for endpoint in BOTH] == [[1], [1]]

        before = whole.alias("alpha")
        changed = changed_assembly(out, tmp_path / "changed", "another line")
        run_cdk([*deploy, "--app", str(changed)], app_dir=ROOT, environment=environment)
        assert stacks(cloud)["perch-serving"] == "UPDATE_COMPLETE"
        assert whole.alias("alpha") == before
        whole.wait(lambda: whole.phase("alpha") == "shifting", "alpha")
        assert whole.alias("alpha") == Routing(version=before.version, other=str(int(before.version) + 1), weight=0.2)
        assert whole.state("alpha").rollout.candidate.cause == "code"


def test_without_the_tool_the_message_says_how_to_get_it(tmp_path):
    """Nothing is fetched behind the user's back."""
    with pytest.raises(CdkFailed, match="npm ci"):
        run_cdk(["--version"], app_dir=tmp_path, environment={})


def test_the_environment_leads_everything_to_the_local_cloud(tmp_path):
    """The endpoint, no real credentials, no telemetry, and the stand-in as container engine."""
    environment = cdk_cli_environment("http://localhost:5000", image_store=tmp_path / "images")

    assert environment["AWS_ENDPOINT_URL"] == "http://localhost:5000"
    assert environment["PERCH_IMAGE_STORE"] == str(tmp_path / "images")
    assert Path(environment["CDK_DOCKER"]) == stand_in_executable(tmp_path)
    assert environment["AWS_EC2_METADATA_DISABLED"] == "true"
