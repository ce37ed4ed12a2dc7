"""Registration: every kind of upload, in any order, any number of times."""

import hashlib
import json
import os

import onnx
import pytest
from onnx import TensorProto, helper

from perch.app.apart import apart
from perch.app.probe import golden
from perch.app.register import Upload, inspect_apart, register
from perch.aws.clients import Clients
from perch.domain.errors import Conflict
from tests.aws.deployment import BUCKET, deployment

__all__ = ["deployment"]


def model(scale: float = 1.0, features: int = 4) -> bytes:
    """A small ONNX model: four numbers in, three scores out."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [features, 3], [scale] * (3 * features))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
        [weights],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    made.ir_version = 9
    onnx.checker.check_model(made)
    return made.SerializeToString()


@pytest.fixture
def put(deployment):
    """Put an object and return what the S3 event would say of it."""

    def put(key: str, data: bytes = b"", **metadata) -> Upload:
        answer = deployment.clients.s3.put_object(Bucket=BUCKET, Key=key, Body=data, Metadata=metadata)
        return Upload(key=key, version_id=answer["VersionId"], at=deployment.now, by="ada")

    return put


@pytest.fixture
def go(deployment):
    """Register an upload."""
    return lambda upload: register(deployment.world, upload)


def known(d, version="v1", model="digits"):
    return d.world.registry.version(model, version)


def test_a_lone_artifact_registers_with_what_can_be_read_from_it(deployment, put, go):
    """Hash, size, format, signature and probes come from the bytes."""
    data = model()
    outcome = go(put("models/digits/v1/model.onnx", data))
    found = known(deployment)

    assert outcome.status == "registered"
    assert (found.number, found.runtimes, found.created_by) == (1, ("onnx",), "ada")
    assert found.pointer.sha256 == hashlib.sha256(data).hexdigest()
    assert found.pointer.size == len(data)
    assert found.signature["features"] == 4
    assert {len(row) for probe in golden(found) for row in probe.features} == {4}


def test_a_file_that_kills_its_inspector_is_refused_with_that_reason(deployment, put):
    """A native parser may die of it; the event is not lost, and the next upload is inspected."""
    upload = put("models/digits/v1/model.onnx", model())
    outcome = register(deployment.world, upload, look_into=lambda *_: apart(lambda: os._exit(9), limit_s=30))
    after = register(deployment.world, put("models/digits/v2/model.onnx", model()), look_into=inspect_apart)

    assert outcome.status == "rejected"
    assert outcome.reason == "it cannot be inspected: it ended the process that did it (exit code 9)"
    assert known(deployment) is None
    assert after.status == "registered"


def test_law_1_the_same_event_again_changes_nothing(deployment, put, go):
    """EventBridge delivers at least once."""
    upload = put("models/digits/v1/model.onnx", model())
    first, again = go(upload), go(upload)

    assert (first.status, again.status) == ("registered", "repeated")
    assert deployment.world.registry.last_number("digits") == 1


def test_law_1_the_same_bytes_under_the_same_name_register_once(deployment, put, go):
    """A second upload of the same bytes is no news."""
    go(put("models/digits/v1/model.onnx", model()))
    before = known(deployment)

    assert go(put("models/digits/v1/model.onnx", model())).status == "repeated"
    assert known(deployment) == before


def test_law_1_other_bytes_under_the_same_name_are_refused(deployment, put, go):
    """The first stays; the refusal is kept with its reason."""
    go(put("models/digits/v1/model.onnx", model()))
    before = known(deployment)
    outcome = go(put("models/digits/v1/model.onnx", model(2.0)))

    assert outcome.status == "rejected"
    assert "upload under a new version name" in outcome.reason
    assert known(deployment) == before
    [kept] = deployment.world.registry.rejections(prefix="models/digits/")
    assert kept.reason == outcome.reason


def test_late_and_reordered_events_register_the_bytes_that_they_name(deployment, put, go):
    """Each event names an object version; versions are numbered in the order in which they were registered."""
    first = put("models/digits/v1/model.onnx", model())
    second = put("models/digits/v2/model.onnx", model(2.0))
    go(second)
    go(first)

    assert (known(deployment, "v1").number, known(deployment, "v2").number) == (2, 1)
    assert [v.version for v in deployment.world.registry.versions_after("digits", 0)] == ["v2", "v1"]


def test_an_event_of_overwritten_bytes_still_registers_its_own(deployment, put, go):
    """The version id, not the key, says which bytes are meant."""
    first = put("models/digits/v1/model.onnx", model())
    second = put("models/digits/v1/model.onnx", model(2.0))
    go(first)

    assert known(deployment).pointer.sha256 == hashlib.sha256(model()).hexdigest()
    assert go(second).status == "rejected"


def test_a_folder_registers_when_its_manifest_arrives(deployment, put, go):
    """A version is never half there."""
    part = go(put("models/digits/v1/model.onnx", model(), perch="part"))
    extra = go(put("models/digits/v1/labels.txt", b"0 1 2"))
    assert (part.status, extra.status) == ("waiting", "waiting")
    assert known(deployment) is None

    manifest = {
        "artifact": "model.onnx",
        "metadata": {"accuracy": 0.97, "dataset": "digits"},
        "probes": [{"features": [[1, 2, 3, 4]], "expect": {"predictions": [0]}}],
    }
    assert go(put("models/digits/v1/perch.json", json.dumps(manifest).encode())).status == "registered"
    found = known(deployment)
    assert found.metadata == {"accuracy": 0.97, "dataset": "digits"}
    assert found.probes[0].expect == {"predictions": [0]}


def manifest_of(**fields) -> bytes:
    return json.dumps({"artifact": "model.onnx", "metadata": {"accuracy": 0.9}} | fields).encode()


def test_a_manifest_that_comes_first_waits_for_its_artifact(deployment, put, go):
    """`aws s3 cp --recursive` puts the small file first; the folder is one version all the same."""
    manifest = put("models/digits/v1/perch.json", manifest_of())
    assert go(manifest).status == "waiting"

    assert go(put("models/digits/v1/model.onnx", model())).status == "registered"
    assert known(deployment).metadata == {"accuracy": 0.9}
    assert go(manifest).status == "repeated"


def test_events_of_a_folder_in_the_wrong_order_make_the_same_version(deployment, put, go):
    """Both files are there when the first event is handled, whichever it is."""
    artifact = put("models/digits/v1/model.onnx", model())
    manifest = put("models/digits/v1/perch.json", manifest_of())
    outcomes = [go(artifact).status, go(manifest).status]

    assert outcomes == ["registered", "repeated"]
    assert known(deployment).metadata == {"accuracy": 0.9}


def test_a_manifest_that_comes_too_late_is_refused_in_words(deployment, put, go):
    """The version exists without it, and never changes; nobody is left to think that the probes are used."""
    go(put("models/digits/v1/model.onnx", model()))
    outcome = go(put("models/digits/v1/perch.json", manifest_of()))

    assert outcome.status == "rejected"
    assert "before this manifest could be seen" in outcome.reason
    assert known(deployment).metadata == {}


def test_a_very_wide_model_registers(deployment, put, go):
    """Probes that are made are not stored, so they cannot outgrow the registry."""
    assert go(put("models/digits/v1/model.onnx", model(features=60_000))).status == "registered"
    assert [len(p.features[0]) for p in golden(known(deployment))] == [60_000]


def test_an_empty_list_of_probes_does_not_turn_probing_off(deployment, put, go):
    """Law 3: every revision answers golden requests before it sees a user."""
    go(put("models/digits/v1/model.onnx", model(), perch="part"))
    go(put("models/digits/v1/perch.json", manifest_of(probes=[])))

    assert len(golden(known(deployment))) == 3


@pytest.mark.parametrize("file", ["a" * 700 + ".onnx", "model\n.onnx", "mo del.onnx", "модель.onnx"])
def test_a_file_name_that_would_not_fit_everywhere_is_refused(deployment, put, go, file):
    """The key travels in the function's environment, which has 4 KB."""
    outcome = go(Upload(key=f"models/digits/v1/{file}", version_id="x" * 40, at=deployment.now, by="ada"))

    assert outcome.status == "rejected"
    assert "file" in outcome.reason


def test_a_refused_file_does_not_make_the_next_wait_for_a_manifest(deployment, put, go):
    """Somebody who first uploaded a pickle can simply upload the right file beside it."""
    assert go(put("models/digits/v1/model.pkl", b"\x80\x04N.")).status == "rejected"
    assert go(put("models/digits/v1/model.onnx", model())).status == "registered"


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (b"{", "not JSON"),
        (b"[]", "names the artifact"),
        (b'{"artifact": "../v1/model.onnx"}', "a file of the same folder"),
        (b'{"artifact": "model.onnx", "metadata": []}', "metadata must be an object"),
        (b'{"artifact": "model.onnx", "probes": [{}]}', "a probe looks like"),
        (b'{"artifact": "model.onnx", "probes": [{"features": [[1, 2]]}]}', "the model takes 4"),
        (b'{"artifact": "model.onnx", "probes": [{"features": [[1, 2, 3, NaN]]}]}', "NaN is not JSON"),
        (b'{"artifact": "model.onnx", "metadata": {"accuracy": 1e999}}', "1e999 is not JSON"),
        (b'{"artifact": "model.onnx", "artifact": "other.onnx"}', "a key is there twice"),
        (b'{"artifact": "model.onnx", "probes": [{"features": [[1, 2, 3, 4]], "tolerance": "0.1"}]}', "not float"),
        (b'{"artifact": "model.onnx", "probes": {}}', "must be a list"),
        (b'{"artifact": "model.onnx", "metadata": {"x": "' + b"x" * 200_000 + b'"}}', "the limit is 100,000"),
        (b"[" * 5000, "not JSON"),
    ],
)
def test_a_bad_manifest_is_refused_in_words(deployment, put, go, manifest, why):
    """Each mistake has its sentence."""
    go(put("models/digits/v1/model.onnx", model(), perch="part"))
    outcome = go(put("models/digits/v1/perch.json", manifest))

    assert outcome.status == "rejected"
    assert why in outcome.reason


@pytest.mark.parametrize(
    ("key", "data", "why"),
    [
        ("models/digits/v1/model.onnx", b"", "empty"),
        ("models/digits/v1/model.exe", b"MZ\x90", ""),
        ("models/digits/v1/model.zip", b"PK\x03\x04truncated", ""),
        ("models/digits/v1/model.onnx", b"not a protobuf at all", ""),
        ("models/digits/v1/model.pkl", b"\x80\x04N.", "code"),
        ("models/digits/v1/model.pt", b"PK\x03\x04data.pkl", "cut short"),
        ("model.onnx", b"x", "outside the layout"),
        ("models/número/v1/model.onnx", b"x", "ASCII"),
    ],
)
def test_bad_uploads_are_kept_recorded_and_announced(deployment, put, go, key, data, why):
    """A refused upload is never silently dropped, and its bytes stay in the store."""
    upload = put(key, data)
    outcome = go(upload)

    assert outcome.status == "rejected"
    assert why in outcome.reason
    kept = deployment.world.registry.rejections(prefix=key)
    assert [(k.key, k.reason) for k in kept] == [(key, outcome.reason)]
    assert deployment.clients.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == data
    assert deployment.world.registry.last_number("digits") == 0


def test_an_artifact_over_the_limit_is_not_even_read(deployment, put, go, monkeypatch):
    """The size is known before the bytes are."""
    upload = put("models/digits/v1/model.onnx", model())
    look = deployment.world.store.look
    monkeypatch.setattr(
        deployment.world.store, "look", lambda *a: look(*a).__class__(**vars(look(*a)) | {"size": 300_000_000})
    )
    monkeypatch.setattr(deployment.world.store, "read", lambda _: pytest.fail("read a file over the limit"))
    outcome = go(upload)

    assert outcome.status == "rejected"
    assert "300.0 MB, the limit is 200 MB" in outcome.reason


def test_an_object_that_is_gone_is_refused_not_retried_for_ever(deployment, put, go):
    """Deleted before its event was handled."""
    upload = put("models/digits/v1/model.onnx", model())
    deployment.clients.s3.delete_object(Bucket=BUCKET, Key=upload.key, VersionId=upload.version_id)

    assert "deleted before it could be registered" in go(upload).reason


def test_a_model_that_no_endpoint_serves_registers_and_says_so(deployment, put, go):
    """It is in the registry; nothing starts."""
    outcome = go(put("models/iris/v1/model.onnx", model()))
    deployment.settle()

    assert outcome.status == "registered"
    assert "no endpoint in perch.toml serves model 'iris'" in outcome.reason
    assert known(deployment, model="iris").number == 1
    assert deployment.kinds == []


def test_two_registrations_at_once_get_two_numbers(deployment, put, go, monkeypatch):
    """The loser of the race for a number reads it again."""
    registry = deployment.world.registry
    last_number, raced = registry.last_number, []

    def late(name):
        number = last_number(name)
        if not raced:
            raced.append(True)
            go(put("models/digits/v2/model.onnx", model(2.0)))
        return number

    monkeypatch.setattr(registry, "last_number", late)
    go(put("models/digits/v1/model.onnx", model()))

    assert (known(deployment, "v2").number, known(deployment, "v1").number) == (1, 2)


def test_a_registration_takes_a_constant_number_of_calls(deployment, put, go):
    """However many versions there are."""
    costs = []
    for n in range(1, 8):
        upload, calls = put(f"models/digits/v{n}/model.onnx", model(float(n))), []
        clients: Clients = deployment.clients
        watched = [clients.s3, clients.dynamodb, clients.events]
        for c in watched:
            c.meta.events.register(
                "before-call.*.*", lambda model, seen=calls, **_: seen.append(model.name), unique_id="n"
            )
        go(upload)
        for c in watched:
            c.meta.events.unregister("before-call.*.*", unique_id="n")
        costs.append(calls)

    assert all(c == costs[0] for c in costs)
    assert len(costs[0]) <= 8, costs[0]


def test_nothing_is_lost_when_the_number_is_always_taken(deployment, put, go, monkeypatch):
    """The event fails loudly, so that it is retried and then kept in the dead-letter queue."""

    def taken(_):
        raise Conflict("taken")

    monkeypatch.setattr(deployment.world.registry, "register", taken)

    with pytest.raises(Conflict, match="retry the event"):
        go(put("models/digits/v1/model.onnx", model()))
