"""The predictor's own HTTP server: the answers of Lambda, for every kind of client, until the last one is served."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from perch.predictor.handler import make_handler
from perch.predictor.serve.lines import Lines
from perch.predictor.serve.local_file import read_local
from tests.local.serving import ROW, SERVE, Client, Load, request, serving
from tests.local.tiny_models import ORDINARY, onnx_model

PREDICT, INFER = "/models/rows/predict", "/v2/models/rows/infer"
TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32"}


@pytest.fixture(autouse=True, scope="module")
def hang_ups_reach_who_is_started_here():
    """Under `nohup`, where tests may run as well, servers are right to ignore them."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder, PERCH_RECEIVE_S="0.6", PERCH_IDLE_S="20") as running:
        yield running


@pytest.fixture
def client(server):
    one = Client(server.port)
    yield one
    one.close()


@pytest.fixture(scope="module")
def in_lambda(folder, server):
    """The handler as Lambda runs it, with text or base64 for a body."""
    local = read_local({"PERCH_MODEL": str(folder / "rows.onnx")})
    handler = make_handler(runtime="onnx", environ=local.environ, fetch=local.fetch)

    def ask(method, path, body, headers):
        event = {
            "headers": headers,
            "requestContext": {"http": {"method": method, "path": path}},
            "body": base64.b64encode(body).decode(),
            "isBase64Encoded": True,
        }
        return handler(event, SimpleNamespace(aws_request_id="x", function_version="local"))

    return ask


BINARY = json.dumps({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 16}}]}).encode()
CASES = {
    "predict": ("POST", PREDICT, ROW, {}),
    "one that is refused": ("POST", PREDICT, b'{"features": [[1, 2]]}', {}),
    "no JSON": ("POST", PREDICT, b"\xff\xfe", {}),
    "compressed": ("POST", PREDICT, gzip.compress(ROW), {"content-encoding": "gzip"}),
    "protocol": ("POST", INFER, json.dumps({"inputs": [{**TENSOR, "data": ORDINARY}]}).encode(), {}),
    "bytes in": (
        *("POST", INFER, BINARY + np.array(ORDINARY, dtype=np.float32).tobytes()),
        {"inference-header-content-length": str(len(BINARY))},
    ),
    "bytes out": (
        *("POST", INFER),
        json.dumps({"inputs": [{**TENSOR, "data": ORDINARY}], "parameters": {"binary_data_output": True}}).encode(),
        {},
    ),
    "MLflow": ("POST", "/invocations", json.dumps({"inputs": [ORDINARY]}).encode(), {}),
    "description": ("GET", "/models/rows", b"", {}),
    "live": ("GET", "/v2/health/live", b"", {}),
    "ready": ("GET", "/v2/health/ready", b"", {}),
    "ping": ("GET", "/ping", b"", {}),
    "elsewhere": ("GET", "/nothing%20here", b"", {}),
    "another method": ("PUT", PREDICT, b"", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_lambda(client, in_lambda, case):
    """Status, body and headers; only the request's id differs."""
    method, path, body, headers = CASES[case]
    expected = in_lambda(method, path.replace("%20", " "), body, headers)
    client.send(request(path, body, method, headers))
    answer = client.answer()
    text = expected["body"].encode()
    if expected.get("isBase64Encoded"):
        assert answer.body == base64.b64decode(text)
    else:
        assert {**answer.document, "request_id": ""} == {**json.loads(text), "request_id": ""}
    assert answer.status == expected["statusCode"]
    for name in expected["headers"].keys() - {"x-request-id"}:
        assert answer.headers[name] == expected["headers"][name]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2", "/models/rows", "/nothing"])
def test_the_head_of_a_path_is_its_answer_without_the_body(client, path):
    """HEAD, which monitors send; the connection goes on."""
    client.send(request(path, method="HEAD"))
    head = client.answer(head=True)
    whole = client.ask(path, method="GET")
    assert (head.status, head.headers["content-length"]) == (whole.status, str(len(whole.body)))


def test_a_connection_serves_many_requests_in_order(client):
    """Also when they were sent ahead, and when a body comes in chunks."""
    chunked = b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    chunked += b"".join(b"%x\r\n%c\r\n" % (1, letter) for letter in ROW) + b"0\r\n\r\n"
    client.send(request(PREDICT, ROW) + chunked + request("/x", method="GET") + request(PREDICT, ROW))
    assert [client.answer().status for _ in range(4)] == [200, 200, 404, 200]


REFUSED = {
    "no HTTP": (b"HELO mail.example.org\r\n\r\n", 400, "not an HTTP/1.1 request"),
    "a large body": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5000001\r\n\r\n", 413, "5,000,000 bytes"),
    "large headers": (request("/", headers={"x-much": "a" * 20_000}), 431, "16,384 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_is_refused_in_words(server, client, case):
    """As JSON, with the status that fits; the connection is closed and the log says it too."""
    data, status, words = REFUSED[case]
    before = len(server.said("predictor.refused"))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # answered and closed while we still sent
        client.send(data)
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert words in answer.document["error"]
    assert server.wait_for("predictor.refused", before + 1)[-1]["status"] == status


def test_a_slow_client_is_told_so(server):
    """Half a request holds a connection for PERCH_RECEIVE_S, a byte now and then or not; who sends nothing may wait."""
    idle, half, dripping = (Client(server.port) for _ in range(3))
    half.send(request(PREDICT, ROW)[:-5])
    dripping.send(b"POST / HTTP/1.1\r\nhost: ")
    while not select.select([dripping.sock], [], [], 0.02)[0]:
        dripping.send(b"a")
    for client in half, dripping:
        answer = client.answer()
        assert (answer.status, "0.6" in answer.document["error"] or "1 s" in answer.document["error"]) == (408, True)
    assert idle.ask(PREDICT, ROW).status == 200


def test_an_idle_connection_is_closed_after_a_while(folder):
    """PERCH_IDLE_S after its last answer."""
    with serving(folder, PERCH_IDLE_S="1") as server:
        client = Client(server.port)
        assert client.ask(PREDICT, ROW).status == 200
        assert client.file.read() == b""


def test_more_clients_than_are_taken_are_told_to_come_again(folder):
    """503 and closed; those inside are served."""
    with serving(folder, PERCH_CONNECTIONS="2") as server:
        first, second, third = (Client(server.port) for _ in range(3))
        assert first.ask(PREDICT, ROW).status == second.ask(PREDICT, ROW).status == 200
        answer = third.answer()
        assert (answer.status, answer.headers["connection"]) == (503, "close")


def allowed(files, *kinds):
    """The server's command where so many files may be open: by the soft limit (S), the hard one (H), or both."""
    limits = "".join(f"ulimit -{kind} -n {files}; " for kind in kinds)
    return ("sh", "-c", f'{limits}exec "$@"', "sh", *SERVE)


def test_it_opens_as_many_files_as_it_may(folder):
    """The soft limit is often 1,024, which is for programs that cannot take more."""
    with serving(folder, command=allowed(50, "S"), PERCH_CONNECTIONS="20") as server:
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard
        assert server.said("predictor.few_files") == []


def test_clients_beyond_the_files_that_may_be_open_are_told_and_the_log_says_so(folder):
    """Those inside are served, the next are told 503, a crowd is closed on; one line says what to do, and no other."""
    with serving(folder, command=allowed(128, "S", "H")) as server:
        few = server.wait_for("predictor.few_files")[0]["error"]
        assert "not 1,000: this process may open 128 files; allow it more" in few
        inside = Client(server.port)
        assert inside.ask(PREDICT, ROW).status == 200
        crowd = [Client(server.port) for _ in range(300)]
        assert "Too many open files" in server.wait_for("predictor.no_files")[0]["error"]
        for _ in range(2):  # the loop went round, and has come to all of them
            assert inside.ask(PREDICT, ROW).status == 200
        heard = {client.file.read().partition(b"\r\n")[0] for client in crowd if was_told(client)}
        assert heard == {b"HTTP/1.1 503 Service Unavailable", b""}
        for client in crowd:
            client.close()
        assert Client(server.port).ask(PREDICT, ROW).status == 200
        assert len(server.said("predictor.no_files")) == 1


def was_told(client):
    """Whether the server said something to a client who asks nothing, or ended the connection."""
    poll = select.poll()
    poll.register(client.sock, select.POLLIN)
    return bool(poll.poll(0))


SLOW = """
import json, os, socket, sys, time
from random import Random
from perch.predictor.serve.lines import Lines
from perch.predictor.serve.settings import read_settings
from perch.predictor.serve.worker import Worker

def handler(event, context):
    path = event["requestContext"]["http"]["path"]
    if path != "/asked":
        asked.append(path)
    if path.startswith("/slow"):
        time.sleep(float(path.rpartition("/")[2]))
    if path == "/hold":
        sys.stdout.write('{"event": "held"}\\n')
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.01)
    if path == "/raise":
        raise RuntimeError("a bug")
    return {"statusCode": 200, "headers": {"x-said": "a\\r\\nb: c"}, "body": json.dumps(asked)}

asked = []
sys.stdout = Lines(1)
sock = socket.socket()
sock.bind(("127.0.0.1", 0))
sys.exit(0 if Worker(handler, read_settings(os.environ), revision="1", random=Random(1)).run(sock) else 1)
"""
SLOW_COMMAND = (sys.executable, "-c", SLOW)


def test_the_first_request_of_a_worker_is_its_cold_one(folder):
    """As in Lambda: a worker asks its handler for health before, which runs no model and is no request."""
    with serving(folder) as running:
        one = Client(running.port)
        for _ in range(2):
            one.send(request("/v2/health/ready", method="GET"))
            one.answer()
            one.send(request(PREDICT, ROW))
            one.answer()
        one.close()
        lines = running.wait_for("predictor.answered", 2)
    assert [("ColdStarts" in line, "Latency" in line) for line in lines] == [(True, False), (False, True)]


def test_health_is_answered_while_the_model_is_busy(folder):
    """Liveness waits for nothing, or the container would be killed for being busy."""
    with serving(folder, command=SLOW_COMMAND, PERCH_STOP_S="0", GO="/never") as server:
        busy = Client(server.port)
        busy.send(request("/hold"))
        server.wait_for("held")
        assert Client(server.port).ask("/v2/health/live", method="GET").status == 200


def has_ipv6():
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::"])  # noqa: S104 - in a test
def test_the_containers_health_check_asks_where_it_listens(folder, host):
    """HOST may be one address; a check of another would have a healthy container killed."""
    if host == "::" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with serving(folder, HOST=host) as server:
        environ = {**os.environ, "PORT": str(server.port), "HOST": host}
        asked = subprocess.run((sys.executable, "-m", "perch.predictor.serve.health"), env=environ, check=False)
        assert asked.returncode == 0


def test_a_model_that_hangs_ends_its_worker_in_words(folder):
    """Its thread cannot be stopped, and behind it everybody would wait; who asked is told, and the log is."""
    with serving(folder, command=SLOW_COMMAND, PERCH_REQUEST_S="0.4") as server:
        client = Client(server.port)
        client.send(request("/slow/600"))
        answer = client.answer()
        assert (answer.status, answer.document["error"]) == (504, "the model did not answer within 0.4 s")
        assert (server.ended(), len(server.said("predictor.hangs"))) == (1, 1)


def test_many_slow_requests_are_no_model_that_hangs(folder):
    """Each has its own time, however long they take together."""
    with serving(folder, command=SLOW_COMMAND, PERCH_REQUEST_S="1") as server:
        client = Client(server.port)
        client.send(request("/slow/0.3") * 6)
        assert [client.answer().status for _ in range(6)] == [200] * 6


def test_a_handler_that_raises_costs_its_own_request_only(folder):
    """It is answered 500 without the trace, which is in the log; no header breaks out of its line."""
    with serving(folder, command=SLOW_COMMAND) as server:
        client = Client(server.port)
        failed, fine = client.ask("/raise"), client.ask("/fine")
        assert (failed.status, "a bug" in failed.body.decode()) == (500, False)
        assert "a bug" in server.wait_for("predictor.handler_raised")[0]["trace"]
        assert (fine.status, fine.headers["x-said"], "b" in fine.headers) == (200, "a  b: c", False)


def _close(client):
    client.close()


def _reset(client):
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.fixture
def held(folder):
    """A server whose model is busy until it is told to go on, and who waits for that answer."""
    go = folder / "go"
    with serving(folder, command=SLOW_COMMAND, GO=str(go)) as server:
        busy = Client(server.port)
        busy.send(request("/hold"))

        def go_on():
            one = Client(server.port)
            for _ in range(2):  # the loop went round, and has seen all that was sent before
                one.ask("/v2/health/live", method="GET")
            go.touch()
            assert busy.answer().status == 200

        yield server, go_on
    go.unlink()


@pytest.mark.parametrize("hang_up", [_close, _reset])
def test_a_client_who_hung_up_while_it_waited_is_not_computed_for(held, hang_up):
    """It would take time from those who still wait; the log says so."""
    server, go_on = held
    gone, patient = Client(server.port), Client(server.port)
    gone.send(request("/ping", method="GET") + request("/gone") * 2)
    gone.answer()
    hang_up(gone)
    patient.send(request("/patient"))
    go_on()
    patient.answer()
    asked = patient.ask("/asked").document
    assert ("/patient" in asked, "/gone" in asked) == (True, False)
    assert [line["client"] for line in server.wait_for("predictor.abandoned")] == ["127.0.0.1"]


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_client_who_only_sends_no_more_is_answered(held, version):
    """As `printf … | nc` does; with HTTP/1.1 an interim answer asks first whether it is there."""
    server, go_on = held
    half = Client(server.port)
    half.send(request("/half").replace(b"1.1", version))
    half.sock.shutdown(socket.SHUT_WR)
    go_on()
    interim, answer, _ = half.file.read().partition(b"HTTP/1.1 200 OK")
    assert (interim, bool(answer)) == (b"HTTP/1.1 100 Continue\r\n\r\n" if version == b"1.1" else b"", True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_request_in_flight_is_answered_before_the_end(folder, tmp_path, number):
    """The signal comes while the model runs; exit code 0."""
    go = tmp_path / "go"
    with serving(folder, command=SLOW_COMMAND, PERCH_STOP_S="60", GO=str(go)) as server:
        client = Client(server.port)
        client.send(request("/hold"))
        server.wait_for("held")
        client_of_health = Client(server.port)
        assert client_of_health.ask("/v2/health/ready", method="GET").status == 200
        server.process.send_signal(number)
        server.wait_for("predictor.draining")
        gone = client_of_health.ask("/v2/health/ready", method="GET")
        assert (gone.status, gone.document["error"]) == (503, "this server is shutting down")
        go.touch()
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert (server.ended(), server.said("predictor.stopped")[0]["cut_off"]) == (0, 0)


@pytest.mark.parametrize("how", ["time is up", "a second signal"])
def test_what_takes_too_long_is_cut_off_and_said(folder, how):
    """After PERCH_STOP_S, or at a second signal; exit code 1."""
    seconds = "0.2" if how == "time is up" else "60"
    with serving(folder, command=SLOW_COMMAND, PERCH_STOP_S=seconds, GO="/never") as server:
        client = Client(server.port)
        client.send(request("/hold"))
        server.wait_for("held")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("predictor.draining")
        if how == "a second signal":
            server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 1
        assert server.said("predictor.stopped")[0]["cut_off"] == 1
        with pytest.raises(OSError):
            client.answer()


def test_while_draining_new_clients_are_served_and_not_kept(folder):
    """Load balancers need a moment to notice that it is no longer ready."""
    with serving(folder, PERCH_DRAIN_S="30", PERCH_STOP_S="5") as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("predictor.draining")
        assert Client(server.port).ask("/v2/health/live", method="GET").status == 200
        assert Client(server.port).ask("/v2/models/rows/ready", method="GET").status == 503
        answer = Client(server.port).ask(PREDICT, ROW)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        server.process.send_signal(signal.SIGTERM)  # no more time


@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_is_lost_when_it_is_stopped_under_load(folder, workers):
    """16 clients ask without pause; each request that was sent is answered 200, and then nobody listens."""
    with serving(folder, workers=workers, PERCH_DRAIN_S="0.3") as server:
        load = Load(server.port, PREDICT, ROW)
        clients = load.run(16)
        while len(load.statuses) < 500:
            time.sleep(0.01)
        assert server.stop() == 0
        for client in clients:
            client.join(60)
        answered = len([line for line in server.said("predictor.answered") if line["status"] == 200])
    assert (load.lost, set(load.statuses)) == ([], {200})
    assert answered == len(load.statuses)


def test_a_worker_that_dies_is_replaced(folder):
    """And the other one serves meanwhile."""
    with serving(folder, workers=2) as server:
        died = server.said("predictor.serving")[0]["process"]
        os.kill(died, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            while True:  # until it is gone, and its door with it
                os.kill(died, 0)
                time.sleep(0.01)
        assert Client(server.port).ask(PREDICT, ROW).status == 200
        processes = {line["process"] for line in server.wait_for("predictor.serving", 3)}
        assert len(processes) == 3
        assert server.stop() == 0


def test_workers_do_not_outlive_their_supervisor(folder):
    """Else they would keep the port from the next one."""
    with serving(folder, workers=2) as server:
        server.process.kill()
        assert len(server.wait_for("predictor.stopped", 2)) == 2


def run(**environ):
    """Run a server that will not start; return its exit code and what it said."""
    ended = subprocess.run(
        SERVE, check=False, env={**os.environ, "PORT": "0", **environ}, capture_output=True, text=True, timeout=300
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_model_that_cannot_be_served_ends_it_in_words(tmp_path, workers):
    """Whoever runs the container decides what then."""
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04K\x01.")
    code, said = run(PERCH_MODEL=str(tmp_path / "model.pkl"), PERCH_WORKERS=workers)
    assert code == 1
    assert "a pickle can run code when it is loaded" in said
    assert "Traceback" not in said


def test_a_file_is_only_served_if_it_hashes_as_told(tmp_path):
    """PERCH_MODEL_SHA256."""
    (tmp_path / "model.onnx").write_bytes(onnx_model(0))
    code, said = run(PERCH_MODEL=str(tmp_path / "model.onnx"), PERCH_MODEL_SHA256="0" * 64)
    assert (code, "PERCH_MODEL_SHA256 is 000" in said) == (1, True)
    assert run(PERCH_MODEL=str(tmp_path / "none.onnx"))[0] == 1


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"PORT": "web"}, "PORT is 'web', which is no number"),
        ({"PORT": "70000"}, "PORT is 70000; it is 0 to 65535"),
        ({"PORT": "80.5"}, "PORT is '80.5', which is no whole number"),
        ({"PERCH_WORKERS": "0"}, "PERCH_WORKERS is 0"),
        ({"PERCH_WORKERS": "inf"}, "PERCH_WORKERS is 'inf', which is no whole number"),
        ({"PERCH_CAPTURE": "2", "PERCH_WORKERS": "1"}, "PERCH_CAPTURE is '2'"),
        ({"PERCH_CAPTURE": "2", "PERCH_WORKERS": "2"}, "PERCH_CAPTURE is '2'"),
        ({"PERCH_DRAIN_S": "-1"}, "PERCH_DRAIN_S is -1"),
    ],
)
def test_an_environment_that_makes_no_sense_is_named(environ, words):
    """With exit code 2."""
    code, said = run(**environ)
    assert (code, words in said, "Traceback" in said) == (2, True, False)


def test_a_log_that_nobody_reads_costs_its_lines_and_nothing_else(capsys):
    """A write that raised would end the thread that runs the model: a server that is ready and answers nobody."""
    reader, writer = os.pipe()
    lines = Lines(writer)
    lines.write("one\n")
    os.close(reader)
    for _ in range(3):
        assert lines.write("two\n") == 4
    os.close(writer)
    assert capsys.readouterr().err == "perch: log lines are lost: Broken pipe\n"


def test_a_line_that_was_torn_ends_before_the_next_one():
    """A disk that is full takes a part of a line; when it has room again, the next one is whole."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    lines = Lines(writer)
    lines.write("a" * 10_000_000 + "\n")
    os.read(reader, 10_000_000)
    lines.write("b\n")
    lines.write("c\n")
    assert os.read(reader, 100) == b"\nb\nc\n"
    os.close(reader)
    os.close(writer)


LOADING = """
import os, sys, time
from perch.predictor.serve import __main__ as serve
serve._handler = lambda environ: (os.write(1, b"loading\\n"), time.sleep(60))
sys.exit(serve.main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_while_the_model_loads_ends_it_at_once(number, workers):
    """Exit code 0 and not a word; to a container's first process, a signal that it does not handle never comes."""
    process = subprocess.Popen(
        (sys.executable, "-c", LOADING),
        env={**os.environ, "PORT": "0", "PERCH_WORKERS": workers},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"loading\n"
    process.send_signal(number)
    assert (process.wait(120), process.communicate()[1]) == (0, b"")


def test_a_port_that_is_taken_is_said_so():
    """Also with several workers, who share a port among themselves only."""
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        code, said = run(PORT=str(taken.getsockname()[1]), PERCH_WORKERS="2")
    assert (code, "cannot be listened at" in said) == (1, True)


def test_without_a_model_it_is_live_and_not_ready(folder):
    """As the placeholder revision of an endpoint."""
    with serving(folder, PERCH_MODEL="", PERCH_ENDPOINT="rows") as server:
        client = Client(server.port)
        assert client.ask("/v2/health/live", method="GET").status == 200
        assert client.ask("/v2/health/ready", method="GET").status == 503
        assert client.ask(PREDICT, ROW).status == 503
