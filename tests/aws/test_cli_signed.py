"""`perch push --sign` and `perch models --rejected` on strict AWS; each file registers before the next one comes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perch.app.register import Upload, register
from perch.cli.app import app
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
    return CliRunner().invoke(app, list(words))


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
    found = json.loads(perch("models", "digits", "--rejected", "--json").stdout)

    assert [one["key"] for one in found] == ["models/digits/v1/model.onnx", "models/digits/v1/model.sig"]
    assert all("model.sig: the signature cannot be read as JSON" in one["reason"] for one in found)
    assert "outside.onnx" in page.stdout
    assert "tagged perch=quarantined" in page.stderr


def test_refused_uploads_have_pages_the_newest_first(d):
    """However many there are; of one model, if it is named."""
    trust(d, "team", required=False)
    for number in range(5):
        for name in ("digits", "iris"):
            key = f"models/{name}/v{number}/model.onnx"
            answer = d.clients.s3.put_object(Bucket=BUCKET, Key=key, Body=b"nothing that parses")
            d.now += timedelta(seconds=1)
            register(d.world, Upload(key=key, version_id=answer["VersionId"], at=d.now, by="ada"))

    def page(*words):
        result = perch("models", "--rejected", "--limit", "4", "--json", *words)
        return [one["key"].split("/")[1] + one["key"].split("/")[2] for one in json.loads(result.stdout)], result.stderr

    assert page() == (["irisv4", "digitsv4", "irisv3", "digitsv3"], "1 to 4 of 10; --page 2 shows those before\n")
    assert page("--page", "3") == (["irisv0", "digitsv0"], "")
    assert page("digits")[0] == ["digitsv4", "digitsv3", "digitsv2", "digitsv1"]
    assert page("digits", "--page", "2")[0] == ["digitsv0"]
    assert "there is no page 9: 10 were refused" in perch("models", "--rejected", "--page", "9").stderr


@pytest.mark.usefixtures("outcomes")
def test_who_signed_is_listed_with_the_versions(d):
    """In the table and as JSON."""
    push("model.onnx", "--sign", "keys/team.key")

    assert json.loads(perch("models", "digits", "--json").stdout)[0]["signed_by"] == "team"
    assert "team" in perch("models", "digits").stdout


@pytest.mark.usefixtures("outcomes")
def test_ranges_go_up_in_the_manifest_and_are_signed_with_it(d):
    """A file of its own says them; what does not fit the model is refused here."""
    Path("ranges.json").write_text('{"features": ["a", "b", "c", "d"], "inputs": {"b": {"min": 0}}}')
    Path("wrong.json").write_text('{"inputs": {"9": {"min": 0}}}')
    wrong = push("model.onnx", "--sign", "keys/team.key", "--ranges", "wrong.json")
    result = push("model.onnx", "--sign", "keys/team.key", "--ranges", "ranges.json")

    assert wrong.exit_code == 1
    assert "model.onnx is not uploaded: perch.json: perch.ranges names '9'" in wrong.stderr
    assert result.exit_code == 0, result.output
    assert known(d).signature["ranges"]["inputs"] == {"b": {"min": 0}}
    assert (known(d).pointer.signed_by, known(d).pointer.manifest is None) == ("team", False)


# -- again --------------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """Somebody pulled the plug."""


def interrupted(d, after, *words):
    """Push, and be interrupted when so many objects are there."""
    left = [after]

    def stop(**_):
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted

    d.clients.s3.meta.events.register_first("before-call.s3.PutObject", stop, unique_id="stop")
    result = push(*words)
    d.clients.s3.meta.events.unregister("before-call.s3.PutObject", unique_id="stop")
    assert result.exit_code != 0
    assert known(d) is None


def trust(d, *names, required=True):
    """Trust these keys from now on."""
    keys = {name: Path(f"keys/{name}.pem").read_text() for name in names}
    settings = replace(d.world.settings, signing=SigningPolicy(required=required, keys=keys))
    d.world = replace(d.world, settings=settings)
    Context.settings, Context.world = settings, d.world


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("then", ["the same", "other metadata", "another key", "unsigned"])
def test_a_push_that_was_interrupted_is_said_again(d, outcomes, after, then):
    """The version is made of the second attempt's files alone, whatever the first one left."""
    perch("keys", "new", "keys/next")
    trust(d, "team", "next", required=then != "unsigned")
    words = ("model.onnx", "--sign", "keys/team.key", "--metric", "accuracy=0.9")
    interrupted(d, after, *words)
    again = {
        "the same": words,
        "other metadata": (*words[:-1], "accuracy=0.8"),
        "another key": ("model.onnx", "--sign", "keys/next.key", "--metric", "accuracy=0.9"),
        "unsigned": ("model.onnx", "--metric", "accuracy=0.9"),
    }[then]
    result = push(*again)

    assert result.exit_code == 0, result.output
    assert "took away models/digits/v1/model.sig, which an earlier attempt left" in result.stderr
    assert outcomes[-1] == "perch.json registered"
    assert not [one for one in outcomes if one.endswith("rejected")]
    signed_by = {"another key": "next", "unsigned": ""}.get(then, "team")
    accuracy = 0.8 if then == "other metadata" else 0.9
    assert (known(d).pointer.signed_by, known(d).metadata) == (signed_by, {"accuracy": accuracy})


def test_what_was_refused_before_does_not_stand_in_the_way_of_the_next_attempt(d, outcomes):
    """The first attempt was of a key that was not trusted yet; all of its files are marked, and stay so."""
    perch("keys", "new", "keys/next")
    settings = d.world.settings
    trust(d, "team", "next")
    deployed, d.world = d.world, replace(d.world, settings=settings)  # the function does not know of the new key yet
    Context.world = d.world
    push("model.onnx", "--sign", "keys/next.key")
    assert outcomes[-1] == "perch.json rejected"
    d.world = Context.world = deployed
    result = push("model.onnx", "--sign", "keys/next.key")

    assert result.exit_code == 0, result.output
    assert outcomes[-1] == "perch.json registered"
    assert known(d).pointer.signed_by == "next"


@pytest.mark.usefixtures("outcomes")
def test_a_push_that_is_said_twice_changes_nothing_and_says_what_is_there(d):
    """Nothing goes up again; what was asked and is not so is told."""
    words = ("model.onnx", "--sign", "keys/team.key", "--metric", "accuracy=0.9")
    push(*words)
    before = known(d)
    objects = len(d.clients.s3.list_object_versions(Bucket=BUCKET)["Versions"])
    twice, other = push(*words), push(*words[:-1], "accuracy=0.8")

    assert (twice.exit_code, other.exit_code) == (0, 0)
    assert f"these bytes are registered under this name, signed by team ({before.key_hint[:12]}…)\n" in twice.stdout
    assert other.stdout.endswith("; metadata and probes stay as they were registered\n")
    assert known(d) == before
    assert len(d.clients.s3.list_object_versions(Bucket=BUCKET)["Versions"]) == objects


@pytest.mark.usefixtures("outcomes")
@pytest.mark.parametrize("first", ["signed", "unsigned"])
def test_a_signature_cannot_be_added_or_exchanged_by_pushing_again(d, first):
    """It fails and says whose signature the version has."""
    perch("keys", "new", "keys/next")
    trust(d, "team", "next", required=False)
    push("model.onnx", *(("--sign", "keys/team.key") if first == "signed" else ()))
    again = push("model.onnx", "--sign", "keys/next.key")

    assert again.exit_code == 1
    said = "signed by team (" if first == "signed" else "nobody signed them"
    assert said in again.stderr
    assert "a version never changes" in again.stderr


def test_a_key_that_is_not_trusted_signs_nothing_that_goes_up(d):
    """Registration would refuse it, and mark the files."""
    perch("keys", "new", "keys/next")
    result = push("model.onnx", "--sign", "keys/next.key")

    assert result.exit_code == 1
    assert "model.onnx is not uploaded: model.sig: it is signed by key" in result.stderr
    assert "not trusted; trusted: team" in result.stderr
    assert "Versions" not in d.clients.s3.list_object_versions(Bucket=BUCKET)
