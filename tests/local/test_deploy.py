"""Deploying an assembly: assets, order, completeness, and reasons when it fails (assemblies are written by hand)."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from io import BytesIO

import boto3
import pytest
from moto import mock_aws

from perch.local import strict
from perch.local.deploy.archive import zip_folder
from perch.local.deploy.assembly import AssemblyError, read_assembly
from perch.local.deploy.deployment import DeploymentFailed, DeploymentIncomplete, deploy
from perch.local.deploy.synthesis import SynthesisFailed, synthesize

BUCKET = "cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}"
ROLE = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Statement": []}}}
PARAMETERS = {
    "BootstrapVersion": {
        "Type": "AWS::SSM::Parameter::Value<String>",
        "Default": "/cdk-bootstrap/hnb659fds/version",
    }
}


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Makes clients of a strict moto whose image store lies in the test's folder."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    strict.install(strict.StrictSettings(cache=tmp_path / "code", image_store=tmp_path / "images"))
    with mock_aws():
        yield lambda service: boto3.client(service, "us-east-1")
    strict.uninstall()


@pytest.fixture
def out(tmp_path):
    """An assembly: `app` imports from `base`, has a zip function and an image function; `app` is listed first."""
    folder = tmp_path / "cdk.out"
    code = folder / "asset.code"
    code.mkdir(parents=True)
    (code / "handler.py").write_text("def handler(event, context): return 'zip'\n")
    image = folder / "asset.image"
    (image / "functions").mkdir(parents=True)
    (image / "functions" / "handler.py").write_text("def handler(event, context): return 'image'\n")
    (image / "Dockerfile").write_text(
        "FROM public.ecr.aws/lambda/python:3.13\nARG WHO=nobody\nENV WHO=$WHO\nRUN pip install torch\n"
        'COPY functions/handler.py ./\nCMD ["handler.handler"]\n'
    )
    write(
        folder,
        "base",
        {"Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "q"}}},
        outputs={
            "Exported": {"Value": {"Fn::GetAtt": ["Queue", "Arn"]}, "Export": {"Name": "base:queue"}},
        },
    )
    function = {
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "DeadLetterConfig": {"TargetArn": {"Fn::ImportValue": "base:queue"}},
    }
    uri = {"Fn::Sub": "${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}/images-${AWS::Region}:tag"}
    write(
        folder,
        "app",
        {
            "Role": ROLE,
            "Zip": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    **function,
                    "FunctionName": "zip",
                    "Runtime": "python3.13",
                    "Handler": "handler.handler",
                    "Code": {"S3Bucket": {"Fn::Sub": BUCKET}, "S3Key": "code.zip"},
                },
            },
            "Image": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    **function,
                    "FunctionName": "image",
                    "PackageType": "Image",
                    "Code": {"ImageUri": uri},
                },
            },
            "CDKMetadata": {"Type": "AWS::CDK::Metadata", "Properties": {"Analytics": "none"}},
        },
        assets={
            "files": {
                "code": {
                    "source": {"path": "asset.code", "packaging": "zip"},
                    "destinations": {"here": {"bucketName": BUCKET, "objectKey": "code.zip"}},
                }
            },
            "dockerImages": {
                "image": {
                    "source": {"directory": "asset.image", "dockerBuildArgs": {"WHO": "me"}},
                    "destinations": {"here": {"repositoryName": "images-${AWS::Region}", "imageTag": "tag"}},
                }
            },
        },
    )
    manifest = {
        "version": "55.0.0",
        "artifacts": {
            **artifact("app", needs=["base", "app.assets"]),
            **artifact("base", needs=["base.assets"]),
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write(folder, name, resources, outputs=None, assets=None):
    template = {"Parameters": PARAMETERS, "Resources": resources, "Outputs": outputs or {}}
    (folder / f"{name}.template.json").write_text(json.dumps(template))
    (folder / f"{name}.assets.json").write_text(json.dumps({"version": "55.0.0", **(assets or {})}))


def artifact(name, needs):
    return {
        f"{name}.assets": {"type": "cdk:asset-manifest", "properties": {"file": f"{name}.assets.json"}},
        name: {
            "type": "aws:cloudformation:stack",
            "dependencies": needs,
            "properties": {"templateFile": f"{name}.template.json", "tags": {"who": "test"}},
        },
    }


def test_an_assembly_is_deployed_in_the_order_of_its_dependencies(client, out, tmp_path):
    """Assets are where the template expects them, both functions have their code, and outputs come back."""
    said = []
    deployed = deploy(read_assembly(out), client, image_store=tmp_path / "images", on_progress=said.append)
    functions = strict.MotoFunctions()
    image, zipped = functions.resolve("image").function, functions.resolve("zip").function

    assert [line for line in said if line.startswith("deploying")] == ["deploying base", "deploying app"]
    assert deployed.output("base", "Exported").endswith(":q")
    assert "'image'" in (image.code / "handler.py").read_text()
    assert (image.handler, dict(image.environment)) == ("handler.handler", {"WHO": "me"})
    assert "'zip'" in (zipped.code / "handler.py").read_text()
    assert functions.async_settings("zip").dead_letter_arn == deployed.output("base", "Exported")
    image_configuration = client("lambda").get_function(FunctionName="image")
    assert image_configuration["Configuration"]["PackageType"] == "Image"
    assert image_configuration["Code"]["RepositoryType"] == "ECR"


def test_deploying_again_changes_nothing(client, out, tmp_path):
    """No asset is published twice, and functions keep their revision."""
    deploy(read_assembly(out), client, image_store=tmp_path / "images")
    before = client("lambda").get_function_configuration(FunctionName="zip")["RevisionId"]
    said = []
    deploy(read_assembly(out), client, image_store=tmp_path / "images", on_progress=said.append)

    assert said == ["deploying base", "deploying app"]
    assert client("lambda").get_function_configuration(FunctionName="zip")["RevisionId"] == before


def test_an_image_that_was_never_pushed_fails_the_stack(client, out, tmp_path):
    """As on AWS; the message names stack, resource and image."""
    manifest = json.loads((out / "app.assets.json").read_text())
    (out / "app.assets.json").write_text(json.dumps({**manifest, "dockerImages": {}}))

    with pytest.raises(
        DeploymentFailed, match=r"Stack app is ROLLBACK_COMPLETE: Image .*Source image .*does not exist"
    ):
        deploy(read_assembly(out), client, image_store=tmp_path / "images")


def test_a_stack_that_failed_can_be_deployed_again_when_it_is_mended(client, out, tmp_path):
    """What was rolled back is deleted and made anew."""
    path = out / "app.template.json"
    good = path.read_text()
    broken = json.loads(good)
    broken["Resources"]["Odd"] = {"Type": "AWS::Odd::Thing"}
    path.write_text(json.dumps(broken))
    with pytest.raises(DeploymentFailed, match=r"does not support resources of type AWS::Odd::Thing"):
        deploy(read_assembly(out), client, image_store=tmp_path / "images")

    path.write_text(good)
    deploy(read_assembly(out), client, image_store=tmp_path / "images")
    assert strict.MotoFunctions().resolve("zip").function.name == "zip"


def test_a_resource_that_is_not_there_is_named(client, out, tmp_path, monkeypatch):
    """Every logical id is compared, whatever the stack says of itself; notes of the CDK do not count."""
    from perch.local.strict.walk import Walk

    converge = Walk._converge

    def lose_one(self, logical_id):
        if logical_id != "Image":
            converge(self, logical_id)

    monkeypatch.setattr(Walk, "_converge", lose_one)
    with pytest.raises(DeploymentIncomplete) as info:
        deploy(read_assembly(out), client, image_store=tmp_path / "images")
    assert info.value.missing == ("app/Image (AWS::Lambda::Function)",)


def test_a_folder_without_an_assembly_is_refused_in_words(tmp_path):
    """The message says what to do."""
    with pytest.raises(AssemblyError, match="synthesize the app first"):
        read_assembly(tmp_path)


def test_the_same_files_give_the_same_zip(tmp_path):
    """Whatever their times, order of creation, or owner."""
    archives = []
    for name, order in (("one", "ab"), ("two", "ba")):
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        for letter in order:
            (folder / "sub" / letter).write_text(letter)
        archives.append(zip_folder(folder))
    (tmp_path / "one" / "sub" / "a").chmod(0o755)

    assert archives[0] == archives[1]
    assert zipfile.ZipFile(BytesIO(archives[0])).namelist() == ["sub/a", "sub/b"]
    assert zip_folder(tmp_path / "one") != archives[0]


def test_an_app_that_fails_to_synthesize_says_why(tmp_path):
    """Its own last words, without a traceback of ours; an app that makes nothing is an error too."""
    with pytest.raises(SynthesisFailed, match=r"no app\.py"):
        synthesize(tmp_path, tmp_path / "out")
    (tmp_path / "app.py").write_text("import sys\nsys.exit('perch.toml: name: too long')")
    with pytest.raises(SynthesisFailed, match=r"perch\.toml: name: too long"):
        synthesize(tmp_path, tmp_path / "out")
    (tmp_path / "app.py").write_text("")
    with pytest.raises(SynthesisFailed, match=r"does it call app\.synth"):
        synthesize(tmp_path, tmp_path / "out")


def test_a_synthesized_app_can_be_read(tmp_path):
    """`synthesize` gives what `read_assembly` takes, with the app in a process of its own."""
    app = "import json, os, pathlib; pathlib.Path(os.environ['CDK_OUTDIR'], 'manifest.json').write_text('{}')"
    (tmp_path / "app.py").write_text(app)
    assembly = read_assembly(synthesize(tmp_path, tmp_path / "out"))

    assert (assembly.stacks, assembly.files, assembly.images) == ((), (), ())


def test_the_stand_in_runs_as_a_program(tmp_path):
    """It is what CDK_DOCKER starts."""
    done = subprocess.run(
        [sys.executable, "-m", "perch.local.deploy.docker", "run", "x"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "stand-in, not a container engine" in done.stderr
