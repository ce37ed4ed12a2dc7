"""Every row of the table of formats, on every runtime that it names: uploaded, probed, live, and asked over HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest
import yaml

from perch.artifacts import inspect
from perch.domain.formats import FORMATS, RUNTIMES
from perch.signing import PrivateKey, Statement, sign_statement
from tests.hostile.good import GOOD
from tests.local.whole import Trial, synthesize_trial, trial
from tests.unit.sklearn_models import FRAMED, fitted, frame, samples, saved
from tests.unit.test_mlflow_folder import mlmodel

pytestmark = pytest.mark.slow

TEAM = PrivateKey.new("team")
ALLOWED = {"torch": ["torchscript"], "sklearn": ["joblib"]}
SETTINGS = """
name = "perch"
[signing]
keys = ["keys/team.pem"]
""" + "".join(
    f"""
[endpoints.on-{runtime}]
runtime = "{runtime}"
memory_mb = 2048
allow = {json.dumps(ALLOWED.get(runtime, []))}
[endpoints.on-{runtime}.rollout]
strategy = "direct"
"""
    for runtime in RUNTIMES
)
ROWS = [[0.5, -1.0, 2.0]]
RANGES = {"features": ["age", "income", "debt"], "inputs": {"age": {"max": 1}, "3": {"min": 0}}}
SIGNATURE = {
    "inputs": [{"name": "X", "datatype": "FP64", "shape": [-1, 3]}],
    "outputs": [{"name": "label", "datatype": "BOOL", "shape": [-1]}],
}
PAIRS = [(kind, runtime) for kind in GOOD for runtime in FORMATS[kind.split(" ")[0]].loaders]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """An endpoint a runtime; those that may hold code are allowed by name, and one key is trusted."""
    folder = tmp_path_factory.mktemp("formats")
    (folder / "keys").mkdir()
    (folder / "keys" / "team.pem").write_text(TEAM.public.pem)
    with trial(synthesize_trial(folder, text=SETTINGS), folder / "cloud") as found:
        yield found


def put_signed(cloud: Trial, folder: str, files: dict[str, bytes]) -> None:
    """Upload files with their signature before the one that comes last."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    statement = Statement(model="folder", files=digests)
    for name, data in {"model.sig": sign_statement(statement, TEAM), **files}.items():
        cloud.put(f"{folder}/{name}", data)


def served(cloud: Trial, endpoint: str, version: str) -> None:
    """Wait until a version serves, and ask it."""
    cloud.wait(lambda: cloud.stable(endpoint) == version, endpoint)
    answer = cloud.predict(endpoint, ROWS)
    assert (answer.status, answer.body["version"]) == (200, version), answer.body
    assert len(answer.body["predictions"]) == 1


def test_every_format_has_a_good_file() -> None:
    """Whoever adds a row adds one, and so is asked below."""
    assert {kind.split(" ")[0] for kind in GOOD} == set(FORMATS)


@pytest.mark.parametrize(("kind", "runtime"), PAIRS, ids=[f"{kind} on {runtime}" for kind, runtime in PAIRS])
def test_a_file_of_each_format_goes_into_service_on_each_runtime(cloud: Trial, kind: str, runtime: str) -> None:
    """What can run code only signed, and where it is allowed; what it takes is said beside it, and held to."""
    file, build = GOOD[kind]
    data, endpoint, version = build(), f"on-{runtime}", cloud.new_version()
    folder = f"models/{endpoint}/{version}"
    fmt = FORMATS[kind.split(" ", maxsplit=1)[0]]
    manifest = {"artifact": file, "ranges": RANGES, **({"signature": SIGNATURE} if fmt.declared else {})}
    files = {"perch.json": json.dumps(manifest).encode(), file: data}
    if fmt.code:
        put_signed(cloud, folder, files)
    else:
        assert inspect(file, data).code == ""
        for name, content in files.items():
            cloud.put(f"{folder}/{name}", content)
    served(cloud, endpoint, version)
    refused = [cloud.predict(endpoint, [row]) for row in ([2.0, 0.0, 0.0], [0.0, 0.0, -1.0])]
    assert [answer.status for answer in refused] == [400, 400]
    assert refused[0].body["error"] == "'age' in row 1 is 2.0; at most 1 is taken"
    assert refused[1].body["error"] == "column 3 in row 1 is -1.0; at least 0 is taken"


def test_a_pipeline_of_named_columns_goes_into_service(cloud: Trial) -> None:
    """As it was trained on a data frame: asked by records of numbers, truths and texts, with a gap, in any order."""
    version, endpoint = cloud.new_version(), "on-sklearn"
    model = fitted(FRAMED["categories that are refused"], frame(), samples()[1])
    cloud.put(f"models/{endpoint}/{version}/pipe.skops", saved(model))
    cloud.wait(lambda: cloud.stable(endpoint) == version, endpoint)
    path, asked = f"/models/{endpoint}/predict", frame().iloc[[0, 1]]
    records = [{"vip": bool(row.vip), "plan": row.plan, "age": int(row.age)} for row in asked.itertuples()]
    answer = cloud.request("POST", path, json.dumps({"records": records}).encode())
    assert answer.status == 200, answer.body
    assert answer.body["predictions"] == model.predict(asked).tolist()
    assert answer.body["probabilities"] == model.predict_proba(asked).tolist()
    gap = cloud.request("POST", path, json.dumps({"records": [{**records[0], "age": None}]}).encode())
    other = cloud.request("POST", path, json.dumps({"records": [{**records[0], "plan": "z"}]}).encode())
    assert gap.status == 200, gap.body
    assert (other.status, other.body["error"]) == (400, "'plan' in row 1 is 'z'; 'a', 'b' are taken")


def test_an_mlflow_folder_goes_into_service(cloud: Trial) -> None:
    """As `mlflow.onnx.save_model` leaves it: the MLmodel names the file, the rest is not run."""
    version = cloud.new_version()
    folder = f"models/on-onnx/{version}"
    cloud.put(f"{folder}/MLmodel", yaml.safe_dump(mlmodel("onnx")).encode())
    cloud.put(f"{folder}/conda.yaml", b"name: x\n")
    cloud.put(f"{folder}/model.onnx", GOOD["onnx"][1]())
    served(cloud, "on-onnx", version)
