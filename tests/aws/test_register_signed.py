"""Registration of signed uploads: whose word counts, what needs it, in any order, and what is quarantined."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from perch.app.register import Upload, register
from perch.app.start import start
from perch.domain.errors import NotReady, Refused
from perch.domain.formats import FORMATS
from perch.domain.policy import SigningPolicy
from perch.signing import WHOLE, PrivateKey, Statement, sign_statement
from tests.aws import spells
from tests.aws.deployment import BUCKET, deployment
from tests.aws.test_register import known, manifest_of, model, put

__all__ = ["deployment", "put"]

TEAM, NEXT, STRANGER = PrivateKey.new("team"), PrivateKey.new("next"), PrivateKey.new("stranger")
DATA = model()
SPELL = b"abracadabra"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def signature(key: PrivateKey = TEAM, *, model: str = "digits", **files: bytes) -> bytes:
    """Sign a folder; `model_onnx=b"…"` is the file model.onnx."""
    named = {name.replace("_", "."): sha(data) for name, data in files.items()}
    return sign_statement(Statement(model=model, files=named), key)


def alone(key: PrivateKey = TEAM, data: bytes = DATA, name: str = "model.onnx") -> bytes:
    """Sign a single file, as `model_signing sign key FILE` does."""
    return sign_statement(Statement(model=name, files={WHOLE: sha(data)}), key)


@pytest.fixture(autouse=True)
def _spells(monkeypatch):
    """A format that can run code is served."""
    monkeypatch.setitem(FORMATS, "spell", spells.SPELL)
    spells.READ.clear()


@pytest.fixture
def trust(deployment):
    """Say whose signatures count from now on; team's to begin with."""

    def trust(*keys: PrivateKey, required: bool = False, allow: tuple[str, ...] = ()) -> None:
        signing = SigningPolicy(required=required, keys={key.public.name: key.public.pem for key in keys})
        endpoints = tuple(replace(policy, allow=allow) for policy in deployment.world.settings.endpoints)
        settings = replace(deployment.world.settings, signing=signing, endpoints=endpoints)
        deployment.world = replace(deployment.world, settings=settings)
        deployment.policy = settings.endpoints[0]

    trust(TEAM)
    return trust


@pytest.fixture
def go(deployment, trust):
    """Register an upload."""
    return lambda upload: register(deployment.world, upload)


def tags(deployment, upload: Upload) -> dict[str, str]:
    """The tags of the object that an event is about."""
    found = deployment.clients.s3.get_object_tagging(Bucket=BUCKET, Key=upload.key, VersionId=upload.version_id)
    return {tag["Key"]: tag["Value"] for tag in found["TagSet"]}


def quarantined(deployment, upload: Upload) -> bool:
    return tags(deployment, upload).get("perch") == "quarantined"


# -- who signed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [alone(), signature(model_onnx=DATA)])
def test_the_key_that_signed_is_pinned_in_the_registry(deployment, put, go, made):
    """A signature of the file, or of a folder that holds it; it travels in the pointer."""
    assert go(put("models/digits/v1/model.sig", made)).status == "waiting"
    assert go(put("models/digits/v1/model.onnx", DATA)).status == "registered"

    pointer = known(deployment).pointer
    assert (pointer.signed_by, pointer.harmless) == ("team", True)
    assert '"signed_by":"team"' in pointer.to_json()


def test_an_unsigned_upload_registers_where_none_is_required(deployment, put, go):
    """Nobody stands up for it, and nothing in it can run code."""
    go(put("models/digits/v1/model.onnx", DATA))

    assert known(deployment).pointer.signed_by == ""


def test_while_keys_are_rotated_both_are_trusted(deployment, put, go, trust):
    """What the old key signed registers until the key is taken away; what is registered stays."""
    trust(TEAM, NEXT)
    for version, key in (("v1", TEAM), ("v2", NEXT)):
        go(put(f"models/digits/{version}/model.sig", alone(key)))
        assert go(put(f"models/digits/{version}/model.onnx", DATA)).status == "registered"
    trust(NEXT)
    go(put("models/digits/v3/model.sig", alone(TEAM)))

    assert [known(deployment, v).pointer.signed_by for v in ("v1", "v2")] == ["team", "next"]
    assert "not trusted; trusted: next" in go(put("models/digits/v3/model.onnx", DATA)).reason


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (alone(STRANGER), "not trusted"),
        (alone(PrivateKey.new("team")), "not trusted"),
        (alone(data=b"other bytes"), "other bytes than were signed: model.onnx"),
        (alone(name="model.spell"), "a file named 'model.spell'"),
        (signature(other_onnx=DATA), "not signed: model.onnx"),
        (signature(model_onnx=b"other bytes"), "other bytes than were signed"),
        (b"not a bundle", "cannot be read as JSON"),
        (b"[" * 900_000, "cannot be read as JSON"),
        (b" " * 1_000_001, "the limit is 1,000,000"),
        (alone()[:-40], "cannot be read as JSON"),
    ],
)
@pytest.mark.parametrize("first", ["model.sig", "model.onnx"])
def test_a_signature_that_does_not_hold_is_refused_whatever_came_first(
    deployment, put, go, trust, monkeypatch, made, why, first
):
    """The bytes are not even parsed, and both files are quarantined."""
    monkeypatch.setattr("perch.app.register.inspect", lambda *_: pytest.fail("parsed before the signature held"))
    trust(TEAM, required=True)
    uploads = {
        file: put(f"models/digits/v1/{file}", data) for file, data in (("model.sig", made), ("model.onnx", DATA))
    }
    outcome = go(uploads[first])

    assert outcome.status == "rejected"
    assert why in outcome.reason
    assert known(deployment) is None
    assert quarantined(deployment, uploads["model.onnx"])
    assert quarantined(deployment, uploads[first])


def test_a_signature_over_the_limit_is_not_even_read(deployment, put, go, monkeypatch):
    """50 MB of brackets would have to be held and parsed."""
    sized = deployment.world.store.look
    go(put("models/digits/v1/model.sig", alone()))
    monkeypatch.setattr(
        deployment.world.store,
        "look",
        lambda *a: replace(sized(*a), size=50_000_000) if a[0].endswith(".sig") else sized(*a),
    )

    assert "50,000,000 bytes; the limit is 1,000,000" in go(put("models/digits/v1/model.onnx", DATA)).reason


def test_a_signature_where_no_key_is_trusted_is_refused(deployment, put, go, trust):
    """It would look as if it had been checked."""
    trust()
    go(put("models/digits/v1/model.sig", alone()))

    assert "no key is trusted; name public keys under [signing]" in go(put("models/digits/v1/model.onnx", DATA)).reason


# -- in any order -------------------------------------------------------------------------------------------------


def folder_of(**fields) -> dict[str, bytes]:
    manifest = manifest_of(**fields)
    return {
        "model.onnx": DATA,
        "model.sig": signature(model_onnx=DATA, perch_json=manifest),
        "perch.json": manifest,
    }


@pytest.mark.parametrize("order", list(itertools.permutations(["model.onnx", "perch.json", "model.sig"])))
def test_a_folder_that_has_to_be_signed_registers_in_any_order(deployment, put, go, trust, order):
    """Each file comes and is looked at before the next one comes; events that come again change nothing."""
    trust(TEAM, required=True)
    folder, uploads = folder_of(), []
    outcomes = []
    for file in order:
        uploads.append(put(f"models/digits/v1/{file}", folder[file]))
        outcomes.append(go(uploads[-1]).status)
    again = [go(upload).status for upload in (*reversed(uploads), *uploads)]

    assert outcomes[-1] == "registered"
    assert set(outcomes[:-1]) == {"waiting"}
    assert set(again) == {"repeated"}
    assert (known(deployment).pointer.signed_by, known(deployment).metadata) == ("team", {"accuracy": 0.9})
    assert not any(quarantined(deployment, upload) for upload in uploads)


@pytest.mark.parametrize("order", list(itertools.permutations(["model.onnx", "perch.json", "model.sig"])))
def test_events_that_are_all_late_make_the_same_version(deployment, put, go, order):
    """All files are there before the first event is handled, also where no signature is required."""
    folder = folder_of()
    uploads = {file: put(f"models/digits/v1/{file}", data) for file, data in folder.items()}

    assert [go(uploads[file]).status for file in order] == ["registered", "repeated", "repeated"]
    assert known(deployment).pointer.signed_by == "team"


@pytest.mark.parametrize("order", [("model.onnx", "model.sig"), ("model.sig", "model.onnx")])
def test_a_lone_artifact_that_has_to_be_signed_waits_for_its_signature(deployment, put, go, trust, order):
    """`aws s3 cp` of two files, without any manifest."""
    trust(TEAM, required=True)
    files = {"model.onnx": DATA, "model.sig": alone()}
    first = go(put(f"models/digits/v1/{order[0]}", files[order[0]]))

    assert first.status == "waiting"
    assert go(put(f"models/digits/v1/{order[1]}", files[order[1]])).status == "registered"


def test_a_signature_that_comes_too_late_is_refused_in_words(deployment, put, go):
    """The version exists without it and never changes; nobody is left to think that it is a signed one."""
    artifact = put("models/digits/v1/model.onnx", DATA)
    go(artifact)
    outcome = go(put("models/digits/v1/model.sig", alone()))

    assert outcome.status == "rejected"
    assert "before this signature could be seen" in outcome.reason
    assert known(deployment).pointer.signed_by == ""
    assert not quarantined(deployment, artifact)


def test_a_manifest_that_was_signed_cannot_be_left_away(deployment, put, go):
    """Its probes and metadata are part of what somebody stood up for."""
    folder = folder_of()
    go(put("models/digits/v1/model.sig", folder["model.sig"]))
    outcome = go(put("models/digits/v1/model.onnx", DATA))

    assert outcome.status == "waiting"
    assert "waits for perch.json, which was signed with model.onnx" in outcome.reason
    assert go(put("models/digits/v1/perch.json", folder["perch.json"])).status == "registered"


@pytest.mark.parametrize("made", [alone(), signature(model_onnx=DATA)])
def test_a_manifest_that_nobody_signed_cannot_be_slipped_in(deployment, put, go, made):
    """It would say which file is the artifact, and what its probes expect."""
    go(put("models/digits/v1/model.sig", made))
    go(put("models/digits/v1/perch.json", manifest_of()))
    outcome = go(put("models/digits/v1/model.onnx", DATA))

    assert outcome.status == "rejected"
    assert "perch.json" in outcome.reason or "sign it as it is" in outcome.reason
    assert known(deployment) is None


def test_a_signed_manifest_binds_the_bytes_to_their_name(deployment, put, go):
    """An old version, signed as it is, is not taken under the name of a new one."""
    folder = folder_of(model="digits", version="v1")
    for file, data in folder.items():
        go(put(f"models/digits/v1/{file}", data, **({"perch": "part"} if file == "model.onnx" else {})))
        outcome = go(put(f"models/digits/v9/{file}", data, **({"perch": "part"} if file == "model.onnx" else {})))
        assert outcome.status != "registered"

    assert known(deployment).pointer.signed_by == "team"
    assert known(deployment, "v9") is None
    assert "perch.json is of version 'v1', and was uploaded as version 'v9'" in outcome.reason


# -- what can run code --------------------------------------------------------------------------------------------


def test_law_2_a_file_that_can_run_code_is_refused_unless_asked_for(deployment, put, go):
    """A trusted signature alone does not do; the reason says what would."""
    go(put("models/digits/v1/model.sig", alone(data=SPELL, name="model.spell")))
    upload = put("models/digits/v1/model.spell", SPELL)
    outcome = go(upload)

    assert outcome.status == "rejected"
    assert "it casts spells when it is read" in outcome.reason
    assert 'allow = ["spell"]' in outcome.reason
    assert quarantined(deployment, upload)


def test_law_2_asking_for_it_does_not_do_without_a_signature(deployment, put, go, trust):
    """It waits for one, for ever if need be."""
    trust(TEAM, allow=("spell",))
    upload = put("models/digits/v1/model.spell", SPELL)

    assert go(upload).status == "waiting"
    assert "waits for model.sig, signed by a trusted key: it casts spells" in go(upload).reason
    assert known(deployment) is None


@pytest.mark.parametrize("order", [("model.spell", "model.sig"), ("model.sig", "model.spell")])
def test_law_2_asked_for_by_name_and_signed_it_is_taken(deployment, put, go, trust, order):
    """Both files in either order; the pointer says whose word it was."""
    trust(TEAM, allow=("spell",))
    files = {"model.spell": SPELL, "model.sig": alone(data=SPELL, name="model.spell")}
    assert [go(put(f"models/digits/v1/{file}", files[file])).status for file in order] == ["waiting", "registered"]

    pointer = known(deployment).pointer
    assert (pointer.signed_by, pointer.harmless, pointer.can_run_code, pointer.mistrust) == ("team", False, True, None)


def test_law_2_every_endpoint_that_serves_the_model_has_to_ask(deployment, put, go, trust):
    """A second endpoint did not; its name is in the reason."""
    trust(TEAM, allow=("spell",))
    settings = deployment.world.settings
    other = replace(settings.endpoints[0], name="careful", allow=())
    deployment.world = replace(deployment.world, settings=replace(settings, endpoints=(*settings.endpoints, other)))
    go(put("models/digits/v1/model.sig", alone(data=SPELL, name="model.spell")))

    assert "endpoint careful does not ask for it" in go(put("models/digits/v1/model.spell", SPELL)).reason


def test_law_2_nobody_asks_for_a_model_that_nobody_serves(deployment, put, go, trust):
    """An endpoint that is declared later has not opted in today."""
    trust(TEAM, allow=("spell",))
    go(put("models/iris/v1/model.sig", alone(data=SPELL, name="model.spell")))

    assert "no endpoint serves 'iris'" in go(put("models/iris/v1/model.spell", SPELL)).reason


def test_what_is_proved_harmless_needs_nobody(deployment, put, go):
    """Of a format that can hold code, a file that holds none."""
    go(put("models/digits/v1/model.spell", b"harmless words"))

    assert (known(deployment).pointer.harmless, known(deployment).pointer.mistrust) == (True, None)


def test_a_format_that_the_table_calls_harmless_cannot_register_code(deployment, put, go, trust, monkeypatch):
    """The predictor goes by the table, so a file that contradicts it is refused whoever signed."""
    monkeypatch.setitem(FORMATS, "spell", replace(spells.SPELL, code=False))
    trust(TEAM, allow=("spell",))
    go(put("models/digits/v1/model.sig", alone(data=SPELL, name="model.spell")))

    assert "the table of formats says that spell never does" in go(put("models/digits/v1/model.spell", SPELL)).reason


def test_an_endpoint_that_does_not_ask_any_more_starts_no_such_version(deployment, put, go, trust):
    """What was registered stays registered; neither a tick nor a person rolls it out again."""
    trust(TEAM, allow=("spell",))
    go(put("models/digits/v1/model.sig", alone(data=SPELL, name="model.spell")))
    go(put("models/digits/v1/model.spell", SPELL))
    trust(TEAM)
    deployment.settle()

    assert deployment.kinds == ["RolloutRefused"]
    with pytest.raises(Refused, match="does not opt in"):
        start(deployment.world, "digits", "v1", actor="ada", now=deployment.now)


# -- quarantine ---------------------------------------------------------------------------------------------------


def test_what_is_refused_is_quarantined_beside_its_other_tags(deployment, put, go):
    """Exactly that S3 version is marked; nobody's own tags are lost."""
    upload = put("models/digits/v1/model.onnx", b"nothing that parses")
    deployment.clients.s3.put_object_tagging(
        Bucket=BUCKET, Key=upload.key, Tagging={"TagSet": [{"Key": "team", "Value": "vision"}]}
    )
    go(upload)

    assert tags(deployment, upload) == {"team": "vision", "perch": "quarantined"}


def test_the_next_upload_under_the_same_key_is_not_held_back(deployment, put, go):
    """Tags and refusals are of an S3 version, not of a key."""
    bad = put("models/digits/v1/model.onnx", b"nothing that parses")
    go(bad)
    good = put("models/digits/v1/model.onnx", DATA)

    assert go(good).status == "registered"
    assert known(deployment).pointer.version_id == good.version_id
    assert (quarantined(deployment, bad), quarantined(deployment, good)) == (True, False)


def test_what_was_refused_stays_refused(deployment, put, go, trust):
    """Another setting or another file beside it does not make its old event pass; a new upload does."""
    trust(TEAM, required=True)
    go(put("models/digits/v1/model.sig", alone(STRANGER)))
    artifact = put("models/digits/v1/model.onnx", DATA)
    first = go(artifact)
    later = go(put("models/digits/v1/model.sig", alone(TEAM)))

    assert go(artifact).reason == first.reason
    assert later.status == "waiting"
    assert known(deployment) is None
    assert go(put("models/digits/v1/model.onnx", DATA)).status == "registered"


def test_a_corrected_signature_alone_does_not_revive_an_artifact_that_was_marked(deployment, put, go, trust):
    """Both were marked, so both are uploaded again; the reason says so."""
    trust(TEAM, required=True)
    go(put("models/digits/v1/model.onnx", DATA))
    go(put("models/digits/v1/model.sig", alone(STRANGER)))
    waiting = go(put("models/digits/v1/model.sig", alone()))

    assert waiting.status == "waiting"
    assert go(put("models/digits/v1/model.onnx", DATA)).status == "registered"


def test_a_version_in_service_cannot_be_quarantined_by_what_comes_later(deployment, put, go, trust):
    """A false signature put beside it is refused; the artifact stays readable, also when its event comes again."""
    go(put("models/digits/v1/model.sig", alone()))
    artifact = put("models/digits/v1/model.onnx", DATA)
    go(artifact)
    false = put("models/digits/v1/model.sig", alone(STRANGER))

    assert go(false).status == "rejected"
    assert go(artifact).status == "repeated"
    assert not quarantined(deployment, artifact)
    assert quarantined(deployment, false)


def test_an_object_that_is_gone_needs_no_mark(deployment, put, go):
    """It was deleted before it could be looked at; the refusal is kept all the same."""
    upload = put("models/digits/v1/model.onnx", b"nothing that parses")
    deployment.clients.s3.delete_object(Bucket=BUCKET, Key=upload.key, VersionId=upload.version_id)

    assert go(upload).status == "rejected"
    assert len(deployment.world.registry.rejections(prefix=upload.key)) == 1


HOSTILE = b"nothing that parses"


@pytest.mark.parametrize("order", list(itertools.permutations(["model.onnx", "perch.json", "model.sig"])))
@pytest.mark.parametrize("at_once", [True, False])
def test_every_file_of_a_refused_version_is_marked_whichever_came_last(deployment, put, go, trust, order, at_once):
    """The artifact is the culprit, and may have come first; beside it stay a manifest and a signature that held."""
    trust(TEAM, required=True)
    manifest = manifest_of()
    folder = {
        "model.onnx": HOSTILE,
        "perch.json": manifest,
        "model.sig": signature(model_onnx=HOSTILE, perch_json=manifest),
    }
    uploads = {}
    for file in order:
        uploads[file] = put(f"models/digits/v1/{file}", folder[file])
        if not at_once:
            deployment.now += timedelta(seconds=1)
            go(uploads[file])
    outcomes = [go(uploads[file]) for file in order]

    assert {outcome.status for outcome in outcomes} == {"rejected"}
    assert all(quarantined(deployment, upload) for upload in uploads.values())
    kept = deployment.world.registry.rejections(prefix="models/digits/v1/")
    assert {one.key.rsplit("/", 1)[1] for one in kept} == set(folder)
    assert {one.reason for one in kept} == {outcomes[0].reason}
    assert outcomes[0].reason.startswith("model.onnx: ")


def test_a_refused_version_is_announced_once_and_again_with_the_event_that_refused_it(deployment, put, go, monkeypatch):
    """Three files make one piece of news; the event that made it may have died before it could tell."""
    told = []
    monkeypatch.setattr(deployment.world.bus, "announce", told.extend)
    artifact = put("models/digits/v1/model.onnx", HOSTILE, perch="part")
    go(artifact)
    deployment.now += timedelta(seconds=1)
    manifest = put("models/digits/v1/perch.json", manifest_of())

    assert [go(upload).status for upload in (manifest, artifact, manifest)] == ["rejected"] * 3
    assert [(kind, detail["key"]) for kind, detail in told] == [("ModelVersionRejected", manifest.key)] * 2


def test_a_manifest_that_cannot_be_used_marks_nothing_but_itself(deployment, put, go):
    """Nobody has looked at the artifact; it waits for a manifest that can be, in either order."""
    for version, order in (("v1", ("model.onnx", "perch.json")), ("v2", ("perch.json", "model.onnx"))):
        files = {"model.onnx": DATA, "perch.json": b"{"}
        uploads = {file: put(f"models/digits/{version}/{file}", files[file], perch="part") for file in order}
        assert {file: go(uploads[file]).status for file in order} == {"model.onnx": "waiting", "perch.json": "rejected"}
        assert [quarantined(deployment, uploads[file]) for file in files] == [False, True]
        assert "was refused" in go(uploads["model.onnx"]).reason
        mended = manifest_of()
        assert go(put(f"models/digits/{version}/perch.json", mended)).status == "registered"


def test_files_of_a_registered_version_are_never_marked(deployment, put, go):
    """Neither its artifact nor its manifest nor its signature, by anything that comes beside them later."""
    for number, (file, data) in enumerate(
        (("model.onnx", HOSTILE), ("perch.json", b"{"), ("perch.json", manifest_of(probes=3)), ("model.sig", b"no"))
    ):
        folder = f"models/digits/v{number}"
        uploads = [put(f"{folder}/{name}", content) for name, content in folder_of().items()]
        for upload in uploads:
            go(upload)
        later = put(f"{folder}/{file}", data)
        assert go(later).status == "rejected"
        assert [go(upload).status for upload in uploads[:1]] == ["repeated"]
        assert [quarantined(deployment, upload) for upload in (later, *uploads)] == [True, False, False, False]


# -- killed in between --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", [True, False])
def test_a_registration_that_is_killed_anywhere_ends_the_same_when_it_is_tried_again(deployment, put, go, trust, good):
    """After every single call of AWS; the version, the refusals and the marks are those of a run that was let be."""
    trust(TEAM, required=True)
    calls = [deployment.clients.s3, deployment.clients.dynamodb, deployment.clients.events]
    for version, kill_after in ((f"v{n}", n) for n in range(1, 50)):
        signed = put(f"models/digits/{version}/model.sig", alone() if good else alone(STRANGER))
        go(signed)
        artifact = put(f"models/digits/{version}/model.onnx", DATA)
        left = [kill_after]

        def killed(left=left, **_):
            left[0] -= 1
            if left[0] == 0:
                raise ClientError({"Error": {"Code": "Killed"}}, "killed")

        for client in calls:
            client.meta.events.register("after-call.*.*", killed, unique_id="kill")
        try:
            go(artifact)
            finished = True
        except (ClientError, NotReady):
            finished = False
        for client in calls:
            client.meta.events.unregister("after-call.*.*", unique_id="kill")
        again = go(artifact)

        assert again.status in ("registered", "repeated") if good else again.status == "rejected"
        assert (known(deployment, version) is not None) == good
        assert {quarantined(deployment, upload) for upload in (artifact, signed)} == {not good}
        assert len(deployment.world.registry.rejections(prefix=f"models/digits/{version}/")) == (0 if good else 2)
        if finished:
            break
    else:
        pytest.fail("never ran to its end")

    assert deployment.world.registry.last_number("digits") == (int(version[1:]) if good else 0)
