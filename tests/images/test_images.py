"""The predictors' images, built and run: who they run as, what they say of themselves, that they serve in both ways.

The one of ONNX shows all of the contract; those of the other runtimes, that they are built and serve what is theirs.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import pytest

from tests.images.builder import Buildah, Container, Engine, Missing, find_engine, pip_configuration
from tests.local.serving import ROW, Client, Load
from tests.local.tiny_models import ORDINARY, onnx_model, torch_model

pytestmark = pytest.mark.builder

EXTRA = "awslambdaric==4.2.2 snapshot-restore-py==1.0.0 simplejson==4.1.1"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    try:
        found = find_engine()
    except Missing as error:
        pytest.skip(f"no container engine works here: {error}")
    yield found
    if isinstance(found, Buildah):
        found.close()


def build(engine: Engine, folder: Path, runtime: str) -> str:
    """Build the image of a runtime, with Lambda's runtime client, because its base is not AWS's; return its tag."""
    tag = f"localhost/perch-test-{runtime}"
    base = os.environ.get("PERCH_TEST_BASE") or "localhost/perch-test-base"
    arguments = {"BASE": base, "EXTRA": EXTRA, "RUNTIME": runtime}
    dockerfile = "functions/container/Dockerfile"
    if runtime == "torch":
        dockerfile, arguments = "functions/predict_torch/Dockerfile", {"BASE": base, "EXTRA": EXTRA}
        if index := os.environ.get("PERCH_TEST_TORCH_INDEX"):
            arguments["TORCH_INDEX"] = index
    engine.build(dockerfile, tag, arguments, pip_configuration(folder))
    return tag


def store(folder: Path, name: str, data: bytes) -> Path:
    """Write a model where anybody may read it."""
    folder.chmod(0o755)
    path = folder / name
    path.write_bytes(data)
    path.chmod(0o644)
    return path


@pytest.fixture(scope="module")
def image(engine, tmp_path_factory):
    return build(engine, tmp_path_factory.mktemp("pip"), "onnx")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return store(tmp_path_factory.mktemp("model"), "rows.onnx", onnx_model(2))


class Running:
    """A container with its port, after it said that it serves."""

    def __init__(self, container: Container, port: int) -> None:
        self.container, self.port = container, port
        self.lines: list[dict] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.container.process.stdout is not None
        for line in self.container.process.stdout:
            self.lines.append(json.loads(line))

    def wait_for(self, event: str) -> dict:
        end = time.monotonic() + 300
        while True:
            for line in self.lines:
                if line.get("event") == event:
                    return line
            assert time.monotonic() < end, self.lines
            assert self.container.process.poll() is None, self.lines
            time.sleep(0.02)


@contextlib.contextmanager
def serving(engine: Engine, image: str, model: Path) -> Iterator[Running]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = f"/{model.name}"
    environ = {"PORT": str(port), "PERCH_MODEL": place, "PERCH_WORKERS": "2", "PERCH_DRAIN_S": "0.3"}
    one = Running(engine.start(image, environ, {model: place}), port)
    try:
        one.wait_for("predictor.serving")
        yield one
    finally:
        if one.container.process.poll() is None:
            one.container.terminate()


@pytest.fixture
def running(engine, image, model):
    with serving(engine, image, model) as one:
        yield one


def test_it_says_how_it_is_to_be_run(engine, image):
    """Nobody in particular, a health check, a stop signal, and that snapshots of it may be taken."""
    config = engine.config(image)
    assert config.user == "65532:65532"
    assert config.healthcheck == ["CMD", "python3", "-m", "perch.predictor.serve.health"]
    assert config.stop_signal in {"SIGTERM", "15"}
    assert config.entrypoint == ["/bin/sh", "/opt/perch/entrypoint.sh"]
    assert config.command == ["handler.handler"]
    assert config.labels["com.amazonaws.lambda.feature.snapstart"] == "Allow"
    assert config.labels["org.opencontainers.image.title"] == "perch-predict-onnx"
    assert config.folder == "/var/task"


def test_it_runs_as_nobody_and_can_write_nothing_of_its_own(engine, image):
    """Neither its code nor its packages."""
    script = "id -u; touch /var/task/x /opt/python/x /opt/perch/x 2>/dev/null && echo written || echo refused"
    assert engine.run_in(image, ["sh", "-c", script], {}).split() == ["65532", "refused"]


def test_it_holds_no_control_code_no_build_files_and_its_bytecode(engine, image):
    """Nothing is left of the stage that installed its packages; nothing is compiled at a cold start."""
    script = (
        "import importlib.util as u, pathlib, sys;"
        "print(sorted(p.name for p in pathlib.Path('/var/task').iterdir()),"
        " pathlib.Path('/build').exists(), pathlib.Path('/packages').exists());"
        "print([n for n in ('app', 'aws', 'cli', 'local', 'export', 'signing')"
        " if pathlib.Path('/var/task/perch', n).exists()]);"
        "print([n for n in ('perch.predictor.handler', 'numpy', 'onnxruntime', 'msgspec')"
        " if not pathlib.Path(u.cache_from_source(u.find_spec(n).origin)).exists()])"
    )
    told = engine.run_in(image, ["python3", "-c", script], {}).splitlines()
    assert told == ["['__pycache__', 'handler.py', 'perch'] False False", "[]", "[]"]


def test_it_serves_the_protocol_and_its_health_check_agrees(engine, image, running):
    """Metadata, readiness and an inference over HTTP; then the command of HEALTHCHECK."""
    client = Client(running.port)
    assert client.ask("/v2/health/ready", method="GET").document["ready"] is True
    assert client.ask("/v2/models/rows", method="GET").document["name"] == "rows"
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ORDINARY}
    answer = client.ask("/v2/models/rows/infer", json.dumps({"inputs": [tensor]}).encode())
    assert (answer.status, answer.document["model_version"]) == (200, "1")
    check = engine.config(image).healthcheck[1:]
    engine.run_in(image, check, {"PORT": str(running.port)})
    with pytest.raises(Missing, match="not live"):
        engine.run_in(image, check, {"PORT": "9"})


def test_sigterm_ends_it_with_0_and_no_request_lost(running):
    """Under load, from eight clients."""
    load = Load(running.port, "/models/rows/predict", ROW)
    clients = load.run(8)
    while len(load.statuses) < 100:
        time.sleep(0.01)
    assert running.container.terminate() == 0
    for client in clients:
        client.join(20)
    assert (load.lost, set(load.statuses)) == ([], {200})


def test_under_lambdas_runtime_it_is_a_lambda_function(engine, image):
    """With AWS_LAMBDA_RUNTIME_API the same entrypoint runs the handler, which has no model: 503."""
    event = {"requestContext": {"http": {"method": "GET", "path": "/models/rows"}}, "headers": {}}
    answers: Queue[dict] = Queue()
    api = ThreadingHTTPServer(("127.0.0.1", 0), _runtime_api(event, answers))
    threading.Thread(target=api.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{api.server_port}"
    environ = {
        "AWS_LAMBDA_RUNTIME_API": address,
        "AWS_LAMBDA_FUNCTION_NAME": "perch-rows",
        "AWS_LAMBDA_FUNCTION_VERSION": "3",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/perch-rows",
        "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
        "AWS_REGION": "us-east-1",
        "LAMBDA_TASK_ROOT": "/var/task",
        "_HANDLER": "handler.handler",
        "PERCH_ENDPOINT": "rows",
    }
    container = engine.start(image, environ, {})
    try:
        answer = answers.get(timeout=120)
        assert answer["statusCode"] == 503
        assert "no model has been deployed" in answer["body"]
    finally:
        if container.process.poll() is None:
            container.terminate()
        api.shutdown()


def _safetensors() -> tuple[str, bytes]:
    return "rows.safetensors", torch_model(2)


def _skops() -> tuple[str, bytes]:
    import skops.io
    from sklearn.linear_model import LogisticRegression

    rows = [[0.0, 0, 0, 0], [1, 1, 1, 1], [*ORDINARY]]
    return "rows.skops", skops.io.dumps(LogisticRegression().fit(rows, [0, 1, 2]))


def _pt2(folder: Path) -> tuple[str, bytes]:
    import torch

    from perch.export import torch_programs

    torch_programs.export_pt2(torch.nn.Linear(4, 3), folder / "rows.pt2", torch.zeros(2, 4), output="logits")
    return "rows.pt2", (folder / "rows.pt2").read_bytes()


@pytest.mark.parametrize("runtime", ["numpy", "sklearn", "torch"])
def test_the_image_of_another_runtime_serves_what_is_its_own(engine, tmp_path, runtime):
    """It is built, says which it is, answers the protocol with a model of its kind, and ends with 0."""
    name, data = {"numpy": _safetensors, "sklearn": _skops, "torch": lambda: _pt2(tmp_path)}[runtime]()
    tag = build(engine, tmp_path, runtime)
    config = engine.config(tag)
    assert config.labels["org.opencontainers.image.title"] == f"perch-predict-{runtime}"
    assert (config.user, config.environment["PERCH_RUNTIME"]) == ("65532:65532", runtime)
    folder = tmp_path / "model"
    folder.mkdir()
    with serving(engine, tag, store(folder, name, data)) as running:
        answer = Client(running.port).ask("/models/rows/predict", ROW)
        assert (answer.status, len(answer.document["predictions"])) == (200, 1)
        assert running.container.terminate() == 0


def _runtime_api(event: dict, answers: Queue[dict]) -> type[BaseHTTPRequestHandler]:
    """Lambda's Runtime API for one invocation; the second is waited for in vain."""
    waiting = [event]

    class Api(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not waiting:
                self.close_connection = True
                time.sleep(30)
                return
            body = json.dumps(waiting.pop()).encode()
            self.send_response(http.client.OK)
            self.send_header("Lambda-Runtime-Aws-Request-Id", "r-1")
            self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 30_000))
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:1:function:perch-rows")
            self.send_header("Content-Type", "application/json")
            self.send_header("Lambda-Runtime-Trace-Id", "Root=1-00000000-000000000000000000000000")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            answers.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(http.client.ACCEPTED)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    return Api
