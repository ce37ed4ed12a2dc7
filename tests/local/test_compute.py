"""The data plane runs functions as Lambda documents that it does."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from perch.local.compute import DataPlane
from perch.local.ports import Refused
from tests.local.compute_fakes import ARN, NOON, FakeFunctions, FixedClock, RecordedLogs, RecordedMetrics, until

ECHO = """
def handler(event, context):
    return event
"""

TOOLS = """
import os, signal, sys, time

def handler(event, context):
    match event["do"]:
        case "raise": raise ValueError("no such digit")
        case "exit": sys.exit(event["code"])
        case "signal": os.kill(os.getpid(), event["number"])
        case "sleep": time.sleep(event["seconds"])
        case "answer": return "x" * event["length"]
        case "grow":
            block = bytearray(event["mb"] << 20)
            block[::4096] = bytes([1]) * len(block[::4096])
            time.sleep(60)
        case "wait":
            open(event["file"] + ".here", "w").close()
            while not os.path.exists(event["file"]): time.sleep(0.005)
    return event["do"]
"""


class Cloud:
    """A running data plane with everything around it recorded."""

    def __init__(self, folder, **options):
        self.folder = folder
        self.functions = FakeFunctions(folder)
        self.clock = FixedClock()
        self.metrics = RecordedMetrics()
        self.logs = RecordedLogs()
        self.plane = DataPlane(self.functions, self.clock, self.metrics, self.logs, **options)
        self.plane.start()

    def run(self, name, event=None):
        return self.plane.invoke(name, json.dumps(event or {}).encode())

    def answer(self, name, event=None):
        result = self.run(name, event)
        assert result.error is None, result.payload
        return json.loads(result.payload)

    def error(self, name, event=None):
        result = self.run(name, event)
        assert result.error == "Unhandled"
        return json.loads(result.payload)


@pytest.fixture
def make_cloud(tmp_path):
    """Start data planes with options; all are stopped afterwards."""
    clouds = []

    def make(**options):
        clouds.append(Cloud(tmp_path, **options))
        return clouds[-1]

    yield make
    for cloud in clouds:
        cloud.plane.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One data plane for the tests that need nothing special of it."""
    cloud = Cloud(tmp_path_factory.mktemp("functions"), environment={"AWS_ENDPOINT_URL": "http://localhost:5000"})
    cloud.functions.add("echo", ECHO)
    cloud.functions.add("tools", TOOLS, timeout_s=60)
    yield cloud
    cloud.plane.stop()


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it was gone before, or went while its file was open
        return False


def workers_of(cloud):
    """The workers that live, as their loop knows them: they come and go on its thread."""

    async def look():
        return [worker for pool in cloud.plane._all_pools() for worker in pool.workers]

    return asyncio.run_coroutine_threadsafe(look(), cloud.plane.loop).result()


# What a handler gets


def test_a_handler_gets_the_event_and_its_answer_comes_back(shared):
    """JSON in, JSON out."""
    assert shared.answer("echo", {"digits": [1, 2, "drei"]}) == {"digits": [1, 2, "drei"]}


def test_no_payload_is_an_empty_event(shared):
    """Lambda hands `{}` to the handler."""
    assert json.loads(shared.plane.invoke("echo", b"").payload) == {}


def test_only_the_first_run_of_a_worker_is_cold(make_cloud):
    """Until its workers are retired."""
    cloud = make_cloud()
    cloud.functions.add("echo", ECHO)

    colds = [cloud.run("echo").cold for _ in range(3)]
    cloud.plane.retire("other")
    colds.append(cloud.run("echo").cold)
    cloud.plane.retire("echo")
    colds.append(cloud.run("echo").cold)

    assert colds == [True, False, False, False, True]


def test_a_worker_sees_lambdas_environment_and_nothing_of_ours(shared, monkeypatch):
    """Reserved variables win over the function's own, which win over the local cloud's."""
    monkeypatch.setenv("LEAKED_FROM_THE_PARENT", "yes")
    own = {"STAGE": "test", "AWS_REGION": "not-mine-to-set", "OMP_NUM_THREADS": "4"}
    code = shared.functions.add(
        "environment",
        "import os\nat_import = dict(os.environ)\ndef handler(event, context): return [at_import, os.getcwd()]",
        version="7",
        memory_mb=300,
        environment=own,
    )
    found, directory = shared.answer("environment")

    expected = {
        "_HANDLER": "handler.handler",
        "AWS_LAMBDA_FUNCTION_NAME": "environment",
        "AWS_LAMBDA_FUNCTION_VERSION": "7",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "300",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/environment",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_ENDPOINT_URL": "http://localhost:5000",
        "LAMBDA_TASK_ROOT": str(code),
        "TZ": ":UTC",
        "STAGE": "test",
        "OMP_NUM_THREADS": "4",
        "OPENBLAS_NUM_THREADS": "1",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["AWS_LAMBDA_LOG_STREAM_NAME"].startswith("2026/11/21/[7]")
    assert "LEAKED_FROM_THE_PARENT" not in found
    assert directory == str(code)


def test_the_context_names_the_invocation(shared):
    """Request id, the ARN as invoked, and the time that is left."""
    shared.functions.add(
        "context",
        """
        def handler(event, context):
            return [context.aws_request_id, context.invoked_function_arn, context.function_version,
                    context.memory_limit_in_mb, context.get_remaining_time_in_millis()]
        """,
        version="3",
        alias="live",
        timeout_s=20,
    )
    result = shared.run("context")
    request_id, arn, version, memory, left = json.loads(result.payload)

    assert request_id == result.request_id
    assert arn == f"{ARN}context:live"
    assert (version, memory) == ("3", "256")
    assert 0 < left <= 20_000


def test_the_copy_of_a_layer_wins_over_the_installed_package(shared, tmp_path):
    """A layer is `<layer>/python`, or the folder itself when it has none; code comes before layers, in order."""
    for layer, folder in (("first", "first/python"), ("second", "second")):
        package = tmp_path / folder / "perch"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"copy = {layer!r}")
        (tmp_path / folder / f"only_{layer}.py").write_text("")
    source = "import perch, only_first, only_second\ndef handler(event, context): return perch.copy"
    shared.functions.add("layered", source, layers=(tmp_path / "first", tmp_path / "second"))

    assert shared.answer("layered") == "first"


def test_an_editable_install_is_not_there_for_a_function_without_its_layer(shared):
    """On Lambda it would not be there either."""
    shared.functions.add("bare", "import perch\ndef handler(event, context): return 1")

    assert shared.error("bare")["errorMessage"] == "Unable to import module 'handler': No module named 'perch'"


def test_a_package_that_the_function_brings_wins_over_a_preloaded_one(shared):
    """Preloading is a matter of speed only."""
    code = shared.functions.add(
        "own", "import aws_lambda_powertools as p\ndef handler(event, context): return p.__version__"
    )
    (code / "aws_lambda_powertools").mkdir()
    (code / "aws_lambda_powertools" / "__init__.py").write_text("__version__ = 'mine'")

    assert shared.answer("own") == "mine"


def test_bytecode_of_the_function_is_kept_elsewhere_and_that_of_installed_packages_is_beside_them(shared):
    """Its folder stays as it is, like the read-only /var/task, and no package is compiled once more."""
    source = """
    import numpy
    import helper
    def handler(event, context):
        return [numpy.__cached__, helper.__cached__]
    """
    code = shared.functions.add("compiled", source)
    (code / "helper.py").write_text("")
    numpys, ours = shared.answer("compiled")

    assert numpys == np.__cached__
    assert Path(ours).is_file()
    assert not Path(ours).is_relative_to(code)
    assert not list(code.rglob("*.pyc"))


# What goes wrong


def test_an_exception_is_an_unhandled_error_with_its_stack(shared):
    """As the runtime client reports it."""
    error = shared.error("tools", {"do": "raise"})

    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no such digit")
    assert "raise ValueError" in error["stackTrace"][0]


def test_a_handler_that_runs_too_long_is_killed(make_cloud):
    """Its worker is gone: the next run is cold."""
    cloud = make_cloud()
    cloud.functions.add("tools", TOOLS, timeout_s=0.25)
    result = cloud.run("tools", {"do": "sleep", "seconds": 60})

    assert json.loads(result.payload) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {result.request_id} Error: Task timed out after 0.25 seconds",
    }
    assert any(line.endswith("Task timed out after 0.25 seconds") for line in cloud.logs.lines)
    assert cloud.run("tools", {"do": "nothing"}).cold


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"do": "exit", "code": 0}, "Runtime exited without providing a reason"),
        ({"do": "exit", "code": 2}, "Runtime exited with error: exit status 2"),
        ({"do": "signal", "number": int(signal.SIGSEGV)}, "Runtime exited with error: signal: segmentation fault"),
    ],
)
def test_a_runtime_that_ends_is_an_exit_error(shared, event, text):
    """And the next invocation gets a new worker."""
    result = shared.run("tools", event)

    assert json.loads(result.payload) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {result.request_id} Error: {text}",
    }
    assert shared.answer("tools", {"do": "nothing"}) == "nothing"


def test_a_worker_above_its_memory_is_killed(shared):
    """As Lambda's out-of-memory killer does."""
    error = shared.error("tools", {"do": "grow", "mb": 400})

    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")
    assert "Runtime.OutOfMemory" in shared.logs.lines[-1]


def test_an_answer_above_six_megabytes_is_refused(shared):
    """The runtime is told 413 and ends."""
    error = shared.error("tools", {"do": "answer", "length": 6_291_556})

    assert error == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    }
    assert len(shared.answer("tools", {"do": "answer", "length": 6_291_000})) == 6_291_000


def test_an_event_of_almost_six_megabytes_arrives_whole(shared):
    """It is more than a socket takes at once; what it does not take goes after it, in order."""
    text = "".join(f"{number:08}" for number in range(785_000))

    assert shared.answer("echo", text) == text


@pytest.mark.parametrize(
    ("payload", "code", "status"),
    [
        (b'"' + b"x" * 6_291_455 + b'"', "RequestEntityTooLargeException", 413),
        (b"{not json", "InvalidRequestContentException", 400),
    ],
)
def test_a_payload_that_lambda_would_not_take_is_refused(shared, payload, code, status):
    """Before any worker sees it, and without a metric."""
    before = len(shared.metrics.points)
    with pytest.raises(Refused) as refused:
        shared.plane.invoke("echo", payload)

    assert (refused.value.code, refused.value.status) == (code, status)
    assert len(shared.metrics.points) == before


def test_an_unknown_function_is_refused(shared):
    """In the words of whoever knows the functions."""
    with pytest.raises(Refused, match="Function not found"):
        shared.run("nobody")


def test_a_handler_that_cannot_be_imported_fails_each_invocation(shared):
    """With the init error; it counts as an error."""
    shared.functions.add("broken", "import no_such_package\ndef handler(event, context): return 1")
    errors = [shared.error("broken") for _ in range(2)]

    assert [error["errorType"] for error in errors] == ["Runtime.ImportModuleError"] * 2
    assert "No module named 'no_such_package'" in errors[0]["errorMessage"]
    assert shared.metrics.values("Errors", FunctionName="broken") == [1.0, 1.0]


def test_a_slow_init_is_tried_again_on_the_functions_own_time(make_cloud):
    """It fails only if the second try is too slow as well."""
    cloud = make_cloud(init_limit_s=0.3)
    slow_once = """
        import os, time
        while not os.path.exists(os.environ["GATE"]): time.sleep(0.005)
        def handler(event, context): return "ready"
    """
    gate = cloud.folder / "gate"
    cloud.functions.add("once", slow_once, environment={"GATE": str(gate)}, timeout_s=60)
    cloud.functions.add("always", "import time\ntime.sleep(60)", timeout_s=0.5)
    cloud.plane.retire()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(cloud.answer, "once")
        until(lambda: any(line.startswith("INIT_REPORT") for line in cloud.logs.lines))
        gate.touch()

        assert answer.result() == "ready"
    assert cloud.error("always")["errorMessage"].endswith("Task timed out after 0.50 seconds")


def test_where_there_is_patience_limits_are_as_many_times_longer(make_cloud):
    """A machine that is busy with other things is no reason for a function to fail."""
    cloud = make_cloud(init_limit_s=0.01, patience=6000)
    cloud.functions.add("slow", "import time\ntime.sleep(0.1)\n" + TOOLS, timeout_s=0.01)

    assert cloud.answer("slow", {"do": "sleep", "seconds": 0.1}) == "sleep"


# How many at once


def test_reserved_concurrency_of_zero_refuses_everything(shared):
    """And counts a throttle, not an invocation."""
    shared.functions.add("off", ECHO, alias="live", reserved=0)
    with pytest.raises(Refused) as refused:
        shared.run("off")

    assert (refused.value.code, refused.value.status) == ("TooManyRequestsException", 429)
    assert refused.value.reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert shared.metrics.values("Throttles", FunctionName="off") == [1.0]
    assert shared.metrics.values("Throttles", FunctionName="off", Resource="off:live") == [1.0]
    assert shared.metrics.values("Invocations", FunctionName="off") == []


def test_reserved_concurrency_counts_what_runs(shared, tmp_path):
    """A place is free again when an invocation has ended."""
    shared.functions.add("one", TOOLS, reserved=1)
    gate = tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(shared.answer, "one", {"do": "wait", "file": str(gate)})
        until(lambda: Path(f"{gate}.here").exists())
        with pytest.raises(Refused, match="Rate Exceeded"):
            shared.run("one", {"do": "nothing"})
        gate.touch()

        assert first.result() == "wait"
    assert shared.answer("one", {"do": "nothing"}) == "nothing"


def test_invocations_beyond_the_workers_wait_in_order(make_cloud):
    """First come, first served, on the workers that there are."""
    cloud = make_cloud(max_workers=1)
    cloud.functions.add("tools", TOOLS)
    gate = cloud.folder / "gate"
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(cloud.run, "tools", {"do": "wait", "file": str(gate)})]
        until(lambda: Path(f"{gate}.here").exists())
        for number in range(3):
            calls.append(pool.submit(cloud.run, "tools", {"do": str(number)}))
            until(lambda accepted=number + 2: cloud.plane._running["tools"] == accepted)
        gate.touch()
        results = [call.result() for call in calls]

    started = [line.split()[2] for line in cloud.logs.lines if line.startswith("START")]
    assert started == [result.request_id for result in results]
    assert [json.loads(result.payload) for result in results] == ["wait", "0", "1", "2"]
    assert sum(line.startswith("INIT_START") for line in cloud.logs.lines) == 1


def test_two_workers_run_two_invocations_at_once(make_cloud):
    """Each waits for what the other does."""
    cloud = make_cloud(max_workers=2)
    meet = """
        import os, time
        def handler(event, context):
            open(event["mine"], "w").close()
            while not os.path.exists(event["other"]): time.sleep(0.005)
            return os.getpid()
    """
    cloud.functions.add("meet", meet)
    names = [str(cloud.folder / name) for name in "ab"]
    with ThreadPoolExecutor() as pool:
        events = [{"mine": mine, "other": other} for mine, other in (names, names[::-1])]
        pids = list(pool.map(lambda event: cloud.answer("meet", event), events))

    assert len(set(pids)) == 2
    assert sorted(cloud.metrics.values("ConcurrentExecutions", FunctionName="meet")) == [1.0, 2.0]


def test_the_worker_idle_longest_makes_room(make_cloud):
    """At most `max_processes` live when none of them is busy."""
    cloud = make_cloud(max_processes=2)
    for name in "abc":
        cloud.functions.add(name, ECHO)

    def run(name):
        cold = cloud.run(name).cold
        until(lambda: all(worker.state == "idle" for worker in workers_of(cloud)))
        return cold

    assert [run(name) for name in "abac"] == [True, True, False, True]
    assert [run(name) for name in "acb"] == [False, False, True]


def test_calls_one_after_the_other_need_one_worker(make_cloud):
    """A worker on its way back from an answer is waited for, and no second one started."""
    cloud = make_cloud()
    cloud.functions.add("echo", ECHO)

    assert sum(cloud.run("echo").cold for _ in range(200)) == 1


# What it leaves behind


def test_each_invocation_is_measured_in_every_dimension_set(shared):
    """`ExecutedVersion` only for calls through an alias; the time is the virtual one."""
    shared.functions.add("measured", TOOLS, version="4", alias="live")
    start = len(shared.metrics.points)
    shared.run("measured", {"do": "nothing"})
    shared.run("measured", {"do": "raise"})
    points = shared.metrics.points[start:]

    through_alias = {"FunctionName": "measured", "Resource": "measured:live", "ExecutedVersion": "4"}
    for names in (1, 2, 3):
        dimensions = dict(list(through_alias.items())[:names])
        assert shared.metrics.values("Invocations", **dimensions) == [1.0, 1.0]
        assert shared.metrics.values("Errors", **dimensions) == [0.0, 1.0]
        assert all(value > 0 for value in shared.metrics.values("Duration", **dimensions))
    assert {(point[0], point[4]) for point in points} == {("AWS/Lambda", NOON)}
    assert {point[1]: point[5] for point in points} == {
        "Invocations": "Count",
        "Errors": "Count",
        "Duration": "Milliseconds",
        "ConcurrentExecutions": "Count",
    }

    shared.functions.change("measured", via_alias=False, resource="measured:4")
    before = len(shared.metrics.values("Invocations", **through_alias))
    shared.run("measured", {"do": "nothing"})
    assert shared.metrics.values("Invocations", FunctionName="measured", Resource="measured:4") == [1.0]
    assert len(shared.metrics.values("Invocations", **through_alias)) == before


def test_what_a_handler_measures_is_there_when_its_answer_is(make_cloud):
    """Embedded metrics go to the sink before `invoke` returns."""
    cloud = make_cloud()
    source = """
        import json
        def handler(event, context):
            print(json.dumps({"_aws": {"Timestamp": event["at"], "CloudWatchMetrics": [
                {"Namespace": "Perch", "Dimensions": [["Endpoint"], ["Endpoint", "Revision"]],
                 "Metrics": [{"Name": "Latency", "Unit": "Milliseconds"}]}]},
                "Endpoint": "digits", "Revision": "7", "Latency": event["value"]}))
    """
    cloud.functions.add("emf", source)
    for value in range(20):
        cloud.run("emf", {"at": int(NOON.timestamp() * 1000), "value": value})
        assert cloud.metrics.values("Latency", Endpoint="digits")[-1] == value

    assert cloud.metrics.values("Latency", Endpoint="digits", Revision="7") == [float(value) for value in range(20)]


def test_the_log_reads_as_lambdas_does(make_cloud):
    """START, the handler's lines from both streams, END, REPORT; one stream a worker."""
    cloud = make_cloud()
    source = """
        import sys
        def handler(event, context):
            print("to stdout")
            print("to stderr", file=sys.stderr)
            print("unfinished", end="")
    """
    cloud.functions.add("talks", source, version="5")
    result = cloud.run("talks")
    lines = cloud.logs.lines

    assert lines[0].startswith("INIT_START")
    assert lines[1:4] == [f"START RequestId: {result.request_id} Version: 5", "to stdout", "to stderr"]
    assert lines[4] == f"END RequestId: {result.request_id}"
    assert lines[5].startswith(f"REPORT RequestId: {result.request_id}\tDuration: ")
    assert "Memory Size: 256 MB\tMax Memory Used: " in lines[5]
    assert "Init Duration" in lines[5]
    assert result.log_tail.splitlines()[-1] == lines[5]
    assert len({(group, stream) for group, stream, _ in cloud.logs.entries}) == 1
    assert cloud.logs.entries[0][0] == "/aws/lambda/talks"


def test_a_log_larger_than_its_pipe_loses_nothing(make_cloud):
    """The writer waits, and every line arrives in order; only the tail is kept with the result."""
    cloud = make_cloud()
    source = """
        def handler(event, context):
            for number in range(30_000): print(f"{number:099}")
    """
    cloud.functions.add("chatty", source)
    result = cloud.run("chatty")

    numbers = [int(line) for line in cloud.logs.lines if line.isdecimal()]
    assert numbers == list(range(30_000))
    assert 3000 < len(result.log_tail) <= 4096


def test_virtual_time_is_held_while_a_function_runs(shared):
    """Once an invocation, and not after it."""
    before = shared.clock.ever_held
    shared.run("echo")

    assert shared.clock.ever_held == before + 1
    assert shared.clock.held == 0


# Change and end


def test_changed_code_takes_over_after_the_invocation_under_way(make_cloud):
    """An old worker ends what it was doing on the old code."""
    cloud = make_cloud()
    source = TOOLS + "\nVERSION = 'old'\nold = handler\ndef handler(e, c): return old(e, c) and VERSION"
    cloud.functions.add("f", source, version="$LATEST", fingerprint="a")
    gate = cloud.folder / "gate"
    with ThreadPoolExecutor() as pool:
        under_way = pool.submit(cloud.answer, "f", {"do": "wait", "file": str(gate)})
        until(lambda: Path(f"{gate}.here").exists())
        cloud.functions.add("f", source.replace("'old'", "'new'"), version="$LATEST", fingerprint="b")
        fresh = cloud.answer("f", {"do": "nothing"})
        gate.touch()

        assert (fresh, under_way.result()) == ("new", "old")
    assert cloud.answer("f", {"do": "nothing"}) == "new"
    until(lambda: len(workers_of(cloud)) == 1)


def test_stop_leaves_no_process_behind(make_cloud):
    """Not even one that a handler started; an invocation under way ends with an error."""
    cloud = make_cloud()
    source = """
        import os, subprocess, time
        def handler(event, context):
            child = subprocess.Popen(["sleep", "60"])
            with open(event["file"] + ".new", "w") as file: file.write(f"{os.getpid()} {child.pid}")
            os.rename(event["file"] + ".new", event["file"])
            time.sleep(60)
    """
    cloud.functions.add("parent", source)
    file = cloud.folder / "pids"
    with ThreadPoolExecutor() as pool:
        under_way = pool.submit(cloud.error, "parent", {"file": str(file)})
        until(file.exists)
        pids = [int(pid) for pid in file.read_text().split()]
        cloud.plane.stop()

        assert under_way.result()["errorType"] == "Runtime.ExitError"
    until(lambda: not any(is_running(pid) for pid in pids))


def test_nothing_outlives_a_local_cloud_that_was_killed(tmp_path):
    """Workers die with the process, even by SIGKILL."""
    script = """
        import sys, time
        from pathlib import Path
        from tests.local.test_compute import Cloud
        cloud = Cloud(Path(sys.argv[1]))
        cloud.functions.add("f", "import os\\ndef handler(event, context): return [os.getpid(), os.getppid()]")
        print(*cloud.answer("f"), flush=True)
        time.sleep(60)
    """
    root = Path(__file__).parents[2]
    lines = "\n".join(line.strip() for line in script.splitlines())
    with subprocess.Popen([sys.executable, "-c", lines, str(tmp_path)], cwd=root, stdout=subprocess.PIPE) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        assert all(is_running(pid) for pid in pids)
        process.kill()

    until(lambda: not any(is_running(pid) for pid in pids))


def test_a_fork_server_that_died_is_started_again(make_cloud):
    """Its workers died with it; the next invocation gets new ones."""
    cloud = make_cloud()
    cloud.functions.add("f", "import os\ndef handler(event, context): return [os.getpid(), os.getppid()]")
    worker, fork_server = cloud.answer("f")
    os.kill(fork_server, signal.SIGKILL)
    until(lambda: not is_running(worker))
    until(lambda: not workers_of(cloud))

    assert cloud.answer("f")[1] != fork_server


def test_coroutines_on_the_loop_have_their_own_invoke(shared):
    """It does the same as `invoke`, refusals included."""
    run = shared.plane.invoke_async
    result = asyncio.run_coroutine_threadsafe(run("echo", b'{"a": 1}'), shared.plane.loop).result(60)
    refused = asyncio.run_coroutine_threadsafe(run("nobody", b"{}"), shared.plane.loop).exception(60)

    assert json.loads(result.payload) == {"a": 1}
    assert isinstance(refused, Refused)


def test_a_stopped_data_plane_takes_no_calls(make_cloud):
    """And can be stopped again."""
    cloud = make_cloud()
    cloud.functions.add("echo", ECHO)
    cloud.plane.stop()
    cloud.plane.stop()

    with pytest.raises(RuntimeError, match="not running"):
        cloud.run("echo")


def test_the_loops_own_thread_may_not_wait_for_itself(shared):
    """`invoke` there would never return, so it says what to use."""
    raised = []

    def call():
        try:
            shared.plane.invoke("echo", b"{}")
        except RuntimeError as error:
            raised.append(str(error))
        done.set()

    done = threading.Event()
    shared.plane.loop.call_soon_threadsafe(call)
    done.wait(60)

    assert "invoke_async" in raised[0]
