"""`perch push --sign` and `perch models --rejected` on strict AWS; each file registers before the next one comes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perch.app.register import Upload, register
from perch.cli import main
from perch.cli.context import Context
from perch.domain.policy import SigningPolicy
from tests.aws.deployment import BUCKET, deployment
from tests.aws.test_register import known, model

__all__ = ["deployment"]


@pytest.fixture
def d(deployment, monkeypatch, tmp_path):
    """Only what keys/team signed is taken; the command works here."""
    monkeypatch.chdir(tmp_path)
    assert perch("keys", "new", "keys/team").exit_code == 0
    Path("model.onnx").write_bytes(model())
    signing = SigningPolicy(required=True, keys={"team": Path("keys/team.pem").read_text()})
    deployment.world = replace(deployment.world, settings=replace(deployment.world.settings, signing=signing))
    monkeypatch.setattr(Context, "settings", deployment.world.settings)
    monkeypatch.setattr(Context, "world", deployment.world)
    monkeypatch.setattr(Context, "clients", deployment.clients)
    return deployment


def perch(*words):
    return CliRunner().invoke(main.app, list(words))


def push(*words):
    return perch("push", *words, "--model", "digits", "--version", "v1", "--no-wait")


@pytest.fixture
def outcomes(d):
    """What became of each file that goes up: its event is handled at once, before there is any other file."""
    outcomes: list[str] = []
    events, keys = d.clients.s3.meta.events, []

    def put(parsed, **_):
        upload = Upload(key=keys[-1], version_id=parsed["VersionId"], at=d.now, by="ada")
        outcomes.append(f"{keys[-1].rsplit('/', 1)[1]} {register(d.world, upload).status}")

    events.register("provide-client-params.s3.PutObject", lambda params, **_: keys.append(params["Key"]))
    events.register("after-call.s3.PutObject", put)
    return outcomes


def test_a_push_with_a_key_signs_the_artifact_and_what_is_said_of_it(d, outcomes):
    """The manifest also says what model and version it is, so that it is nobody else's."""
    result = push("model.onnx", "--sign", "keys/team.key", "--metric", "accuracy=0.9")
    manifest = json.loads(d.clients.s3.get_object(Bucket=BUCKET, Key="models/digits/v1/perch.json")["Body"].read())

    assert result.exit_code == 0, result.output
    assert outcomes == ["model.sig waiting", "model.onnx waiting", "perch.json registered"]
    assert (manifest["model"], manifest["version"], manifest["metadata"]) == ("digits", "v1", {"accuracy": 0.9})
    assert known(d).pointer.signed_by == "team"
    assert known(d).metadata == {"accuracy": 0.9}


def test_a_folder_with_its_signature_goes_up_as_it_is(d, outcomes):
    """Signed elsewhere, perhaps by somebody else, with `perch sign` or `model_signing`."""
    Path("folder").mkdir()
    Path("model.onnx").rename("folder/model.onnx")
    Path("folder/perch.json").write_text('{"artifact": "model.onnx", "metadata": {"accuracy": 0.8}}')
    assert perch("sign", "folder", "--key", "keys/team.key").exit_code == 0
    result = push("folder")

    assert result.exit_code == 0, result.output
    assert outcomes[-1] == "perch.json registered"
    assert (known(d).pointer.signed_by, known(d).metadata) == ("team", {"accuracy": 0.8})


@pytest.mark.parametrize("signed", ["folder", "folder/model.onnx"])
def test_a_lone_artifact_goes_up_after_its_signature(d, outcomes, signed):
    """Without a manifest it is a version as soon as it is there, also where no signature is required."""
    Path("folder").mkdir()
    Path("model.onnx").rename("folder/model.onnx")
    assert perch("sign", signed, "--key", "keys/team.key").exit_code == 0
    settings = replace(d.world.settings, signing=replace(d.world.settings.signing, required=False))
    d.world = replace(d.world, settings=settings)
    assert push("folder").exit_code == 0

    assert outcomes == ["model.sig waiting", "model.onnx registered"]
    assert known(d).pointer.signed_by == "team"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("model.onnx",), "takes signed models only"),
        (("model.onnx", "--sign", "none.key"), "there is no key none.key"),
        (("model.onnx", "--sign", "keys/team.key", "--kms", "alias/x"), "name one of them"),
        (("folder", "--metric", "accuracy=1"), "what is to be said of it stands in its perch.json"),
        (("folder",), "holds 2 files and no perch.json"),
        (("broken",), "perch.json does not name an artifact"),
        (("other",), "names 'gone.onnx', which is not in the folder"),
        (("folder/model.sig",), "goes with an artifact"),
    ],
)
def test_what_would_be_refused_there_is_refused_here(d, words, why):
    """Nothing is uploaded."""
    for folder, manifest in (("folder", None), ("broken", "{"), ("other", '{"artifact": "gone.onnx"}')):
        Path(folder).mkdir()
        Path(folder, "model.onnx").write_bytes(model())
        Path(folder, "perch.json" if manifest else "second.onnx").write_text(manifest or "")
    Path("folder/model.sig").write_text("")
    result = push(*words)

    assert result.exit_code in (1, 2)
    assert why in " ".join(result.stderr.replace("│", " ").split())
    assert "Versions" not in d.clients.s3.list_object_versions(Bucket=BUCKET)


def test_what_was_refused_is_listed_with_its_reason_and_the_way_out(d):
    """Of one model, or of all keys, as what lies outside the layout is of no model."""
    for key in ("models/digits/v1/model.onnx", "outside.onnx"):
        answer = d.clients.s3.put_object(Bucket=BUCKET, Key=key, Body=model())
        if key == "models/digits/v1/model.onnx":
            d.clients.s3.put_object(Bucket=BUCKET, Key="models/digits/v1/model.sig", Body=b"no signature")
        register(d.world, Upload(key=key, version_id=answer["VersionId"], at=d.now, by="ada"))
    page = perch("models", "--rejected")
    (one,) = json.loads(perch("models", "digits", "--rejected", "--json").stdout)

    assert one["key"] == "models/digits/v1/model.onnx"
    assert "model.sig: the signature cannot be read as JSON" in one["reason"]
    assert "outside.onnx" in page.stdout
    assert "tagged perch=quarantined" in page.stderr


@pytest.mark.usefixtures("outcomes")
def test_who_signed_is_listed_with_the_versions(d):
    """In the table and as JSON."""
    push("model.onnx", "--sign", "keys/team.key")

    assert json.loads(perch("models", "digits", "--json").stdout)[0]["signed_by"] == "team"
    assert "team" in perch("models", "digits").stdout
