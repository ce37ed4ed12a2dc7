"""The real CDK command-line tool bootstraps and deploys against the local cloud, image assets included."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import sys
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from perch.local import strict
from perch.local.deploy.cli import CdkFailed, cdk_cli_environment, run_cdk, stand_in_executable
from perch.local.deploy.synthesis import synthesize

ROOT = Path(__file__).resolve().parents[2]
APP = """
from aws_cdk import App, CfnOutput, Duration, Stack
from aws_cdk import aws_apigatewayv2 as api, aws_lambda as lambda_, aws_s3 as s3, aws_sns as sns
from aws_cdk.aws_apigatewayv2_integrations import HttpLambdaIntegration

app = App(analytics_reporting=False)
store = Stack(app, "cli-store")
bucket = s3.Bucket(store, "Store", versioned=True, enforce_ssl=True)
serving = Stack(app, "cli-serving")
layer = lambda_.LayerVersion(serving, "Shared", code=lambda_.Code.from_asset("layer"))
zipped = lambda_.Function(
    serving, "Zip", function_name="cli-zip", runtime=lambda_.Runtime.PYTHON_3_13, handler="handler.handler",
    code=lambda_.Code.from_asset("code"), layers=[layer], environment={"STORE": bucket.bucket_name},
)
image = lambda_.DockerImageFunction(
    serving, "Image", function_name="cli-image", code=lambda_.DockerImageCode.from_image_asset("image"),
)
live = lambda_.Alias(serving, "Live", alias_name="live", version=zipped.current_version)
http = api.HttpApi(serving, "Api")
http.add_routes(path="/predict", methods=[api.HttpMethod.POST], integration=HttpLambdaIntegration("To", live))
zipped.metric_errors(period=Duration.minutes(1)).create_alarm(serving, "Errors", threshold=1, evaluation_periods=1)
sns.Topic(serving, "Alerts")
CfnOutput(serving, "ApiUrl", value=http.api_endpoint)
app.synth()
"""


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """A strict moto server; gives its URL."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    settings = strict.StrictSettings(
        cache=tmp_path / "code", image_store=tmp_path / "perch" / "images", api_url="http://localhost:8080"
    )
    strict.install(settings)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield f"http://localhost:{port}"
    server.stop()
    strict.uninstall()


@pytest.fixture
def app(tmp_path):
    """A CDK app with a zip function and its layer, an image function, an alias, an HTTP API and an alarm."""
    folder = tmp_path / "app"
    for name in ("code", "image", "layer/python"):
        (folder / name).mkdir(parents=True)
    (folder / "app.py").write_text(APP)
    (folder / "cdk.json").write_text(json.dumps({"app": f"{sys.executable} app.py"}))
    (folder / "code" / "handler.py").write_text("def handler(event, context): return 1\n")
    (folder / "layer" / "python" / "shared.py").write_text("x = 1\n")
    (folder / "image" / "handler.py").write_text("def handler(event, context): return 2\n")
    (folder / "image" / "Dockerfile").write_text(
        'FROM public.ecr.aws/lambda/python:3.13\nRUN pip install torch\nCOPY handler.py ./\nCMD ["handler.handler"]\n'
    )
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    return folder


@pytest.mark.slow
def test_the_real_tool_bootstraps_and_deploys(cloud, app, tmp_path):
    """`cdk bootstrap`, `cdk deploy --all`, a change, and `cdk deploy --all` again; image assets by the stand-in."""
    store = tmp_path / "perch" / "images"
    environment = cdk_cli_environment(cloud, image_store=store)
    # Synthesized once for each deployment: the tool would run the app again for every command.
    deploy = ["deploy", "--all", "--require-approval", "never", "--app", str(synthesize(app, tmp_path / "out"))]
    run_cdk(["bootstrap", "aws://123456789012/us-east-1"], app_dir=app, environment=environment)
    said = run_cdk(deploy, app_dir=app, environment=environment)
    functions = strict.MotoFunctions()
    image, zipped = functions.resolve("cli-image").function, functions.resolve("cli-zip", "live").function
    stacks = boto3.client("cloudformation", "us-east-1", endpoint_url=cloud)

    assert "stand-in, not a container engine" in said
    assert (image.code / "handler.py").read_text().endswith("return 2\n")
    assert image.handler == "handler.handler"
    assert zipped.environment["STORE"].startswith("cli-store-store")
    assert [(path / "shared.py").is_file() for path in zipped.layers] == [True]
    assert [(route.method, route.path) for route in strict.MotoRoutes().routes()] == [("POST", "/predict")]
    for name in ("CDKToolkit", "cli-store", "cli-serving"):
        assert stacks.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    outputs = stacks.describe_stacks(StackName="cli-serving")["Stacks"][0]["Outputs"]
    assert "http://localhost:8080" in [output["OutputValue"] for output in outputs]

    (app / "code" / "handler.py").write_text("def handler(event, context): return 3\n")
    synthesize(app, tmp_path / "out")
    run_cdk(deploy, app_dir=app, environment=environment)
    moved = functions.resolve("cli-zip", "live").function
    assert (zipped.version, moved.version) == ("1", "2")
    assert (moved.code / "handler.py").read_text().endswith("return 3\n")


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
