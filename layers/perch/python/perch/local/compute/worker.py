"""One worker: a process that runs one function version, one invocation at a time, as Lambda's sandbox does.

    starting ──next──▶ idle ──deliver──▶ busy ──answer──▶ returning ──next──▶ idle …      any ──exit, kill──▶ dead

The worker owns its Runtime API listener, its log pipe and its timers, and tells its pool when it is ready and when it
is lost. The log pipe is read when the answer arrives, before the call ends: the handler wrote its lines before it
answered, so they are all in the pipe by then, and the metrics in them are measured before anyone sees the result.
Between answers it is emptied ten times a second, so the loop is not woken for every line; the pipe is large (1 MB),
and a handler that fills it waits for the next time.

Memory is watched from outside, by the resident size of the process ten times a second while it starts or is busy. An
address space limit would be exact, but torch and onnxruntime reserve far more than they use. So a short spike may pass
that Lambda would have killed, and pages shared with other workers count in each of them; processes that the handler
starts are not counted.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
import secrets
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from perch.local.compute import faults
from perch.local.compute.call import Call
from perch.local.compute.emf import EmbeddedMetrics
from perch.local.compute.environment import log_group, log_stream, spawn_for
from perch.local.compute.faults import Fault
from perch.local.compute.runtime_api import RuntimeApi, event
from perch.local.compute.spawner import Spawner
from perch.local.ports import Clock, FunctionVersion, LogSink

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Host:
    """What all workers of a data plane share."""

    loop: asyncio.AbstractEventLoop
    spawner: Spawner
    clock: Clock
    embedded: EmbeddedMetrics
    logs: LogSink
    environment: dict[str, str]
    region: str
    init_limit_s: float
    patience: float


class Owner(Protocol):
    """The pool, as a worker sees it."""

    def ready(self, worker: Worker) -> None:
        """The worker waits for an event."""

    def lost(self, worker: Worker, fault: Fault | None) -> None:
        """The worker runs nothing any more; a fault says that it never came to be ready, and why."""


class Worker:
    """One execution environment of `function`; belongs to the loop's thread."""

    def __init__(self, host: Host, owner: Owner, function: FunctionVersion, *, second_try: bool = False) -> None:
        """Start the process.

        Args:
            host: What is shared.
            owner: Whom to tell.
            function: What to run.
            second_try: The first init took too long, so this one counts against the function's own timeout.
        """
        self.function = function
        self.state = "starting"
        self.second_try = second_try
        self.timed_out_in_init = False
        self.pid = 0
        self.idle_since = 0.0
        self._host = host
        self._owner = owner
        self._call: Call | None = None
        self._connection: RuntimeApi | None = None
        self._fresh = True
        self._init_ms = 0.0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._rest = b""
        self._peak_pages = 0
        self._statm: int | None = None
        self._trace = f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)}"
        self._group = log_group(function)
        self._stream = log_stream(function, host.clock.now(), secrets.token_hex(16))

        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        self._server: asyncio.Server | None = None
        self._listening = host.loop.create_task(self._listen(listener))
        address, port = listener.getsockname()
        self._log_fd, output = os.pipe()
        os.set_blocking(self._log_fd, False)
        with suppress(OSError):  # more pipe memory than this user may have: a small pipe works too
            fcntl.fcntl(self._log_fd, fcntl.F_SETPIPE_SZ, _LONGEST_LINE)
        spawn = spawn_for(
            function,
            stream=self._stream,
            runtime_api=f"{address}:{port}",
            region=host.region,
            extra=host.environment,
        )
        self._log(f"INIT_START Runtime Version: {spawn.environment['AWS_EXECUTION_ENV'].removeprefix('AWS_Lambda_')}")
        self._began = time.perf_counter()
        self._number = host.spawner.spawn(spawn, output, self._on_started, self._on_exit)
        os.close(output)

    # What the pool asks for

    def deliver(self, call: Call) -> None:
        """Give the waiting runtime one event."""
        assert self._connection is not None  # noqa: S101 - the pool delivers to ready workers only
        connection, self._connection = self._connection, None
        self.state = "busy"
        self._call = call
        version = self.function.version
        self._log(f"START RequestId: {call.request_id} Version: {version}")
        seconds = self.function.timeout_s * self._host.patience
        if self.second_try and self._fresh:
            seconds = max(0.0, seconds - self._init_ms / 1000)
        call.started = now = time.perf_counter()
        self._deadline = now + seconds
        if self._timer is None:  # else it comes earlier, finds the new deadline, and sets itself again
            self._timer = self._host.loop.call_later(seconds, self._check_deadline)
        deadline_ms = int((time.time() + seconds) * 1000)
        connection.write(event(call.request_id, deadline_ms, call.arn, self._trace, call.payload))

    def stop(self) -> None:
        """Kill the process; an invocation under way fails."""
        if self._call is not None:
            self._fail(faults.exited(signal.SIGKILL))
        elif self.state != "dead":
            self._die()

    def look_after(self) -> None:
        """Empty the log pipe; read the resident size, and kill the worker if it is above the function's memory."""
        self._drain()
        if self.state in ("starting", "busy"):
            self._watch_memory()

    def _watch_memory(self) -> bool:
        """Whether the worker may live."""
        if self._statm is None:
            return True
        try:
            pages = int(os.pread(self._statm, 128, 0).split(b" ", 2)[1])
        except (OSError, IndexError):
            return True  # it is ending; its exit will be heard of
        self._peak_pages = max(self._peak_pages, pages)
        if self._memory_mb() <= self.function.memory_mb:
            return True
        if self.state == "starting":
            self._init_failed(faults.exited(signal.SIGKILL, out_of_memory=True))
        elif self.state == "busy":
            self._fail(faults.exited(signal.SIGKILL, out_of_memory=True))
        return False

    # What the Runtime API reports

    def on_next(self, connection: RuntimeApi) -> None:
        """The runtime waits for an event: init is over, or the last invocation is."""
        if self.state == "dead" or self._call is not None:
            return
        self._connection = connection
        if self.state == "starting":
            self._init_ms = (time.perf_counter() - self._began) * 1000
            self._cancel_timer()
            if not self._watch_memory():
                return
        self.state = "idle"
        self.idle_since = time.monotonic()
        self._owner.ready(self)

    def runs(self, request_id: str) -> bool:
        """Whether this is the invocation under way."""
        return self._call is not None and self._call.request_id == request_id

    def on_response(self, body: bytes) -> None:
        """The handler answered."""
        call = self._call
        if call is not None and len(body) > faults.RESPONSE_LIMIT:
            fault = faults.response_too_large()
            self._finish(fault.payload(call.request_id), fault)
        else:
            self._finish(body, None)

    def on_error(self, body: bytes) -> None:
        """The handler raised; the runtime client wrote the traceback into the log and the payload."""
        self._finish(body, Fault(kind="", status="", payload=lambda _: body))

    def on_init_error(self, body: bytes) -> None:
        """The handler's module could not be loaded."""
        if self.state == "starting":
            self._init_failed(faults.init_error(body))

    # What the process does

    def _on_started(self, pid: int) -> None:
        if self.state == "starting":  # the time before belongs to the fork server, which may still be loading
            self._began = time.perf_counter()
            self._timer = self._host.loop.call_later(self._init_limit_s * self._host.patience, self._init_too_long)
        self.pid = pid
        try:
            self._statm = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
        except FileNotFoundError:
            self._statm = None  # gone already

    def _on_exit(self, wait_status: int) -> None:
        fault = faults.exited(wait_status)
        if self.state == "starting":
            self._init_failed(fault)
        elif self._call is not None:
            self._fail(fault)
        elif self.state != "dead":
            self._die()
            self._owner.lost(self, None)
        self._drain()
        os.close(self._log_fd)
        self._log_fd = -1
        if self._statm is not None:
            os.close(self._statm)
            self._statm = None

    def _init_too_long(self) -> None:
        self._timer = None
        if self.state != "starting":
            return
        self.timed_out_in_init = True
        self._init_failed(faults.timed_out(self._init_limit_s))

    @property
    def _init_limit_s(self) -> float:
        return self.function.timeout_s if self.second_try else self._host.init_limit_s

    def _init_failed(self, fault: Fault) -> None:
        self._drain()
        elapsed = (time.perf_counter() - self._began) * 1000
        kind = f"\tError Type: {fault.kind}" if fault.status == "error" else ""
        self._log(f"INIT_REPORT Init Duration: {elapsed:.2f} ms\tPhase: init\tStatus: {fault.status}{kind}")
        self._die()
        self._owner.lost(self, fault)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._call is None:
            return
        left = self._deadline - time.perf_counter()
        if left > 0.001:
            self._timer = self._host.loop.call_later(left, self._check_deadline)
        else:
            self._fail(faults.timed_out(self.function.timeout_s))

    def _fail(self, fault: Fault) -> None:
        call = self._call
        if call is None:
            return
        self._die()
        self._owner.lost(self, None)
        self._finish(fault.payload(call.request_id), fault)

    def _die(self) -> None:
        self.state = "dead"
        self._cancel_timer()
        self._connection = None
        self._host.spawner.kill(self._number)
        if self._server is not None:
            self._server.close()
        else:
            self._listening.cancel()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _listen(self, listener: socket.socket) -> None:
        try:
            self._server = await self._host.loop.create_server(lambda: RuntimeApi(self), sock=listener)
        finally:
            if self._server is None:
                listener.close()

    # The end of a call, and the log

    def _finish(self, payload: bytes, fault: Fault | None) -> None:
        call = self._call
        if call is None:
            return
        duration = (time.perf_counter() - call.started) * 1000
        now = self._host.clock.now()
        self._drain(now)
        self._call = None
        if self.state == "busy":
            self.state = "returning"
        cold, self._fresh = self._fresh, False
        self._write_report(call, fault, duration, cold, now)
        call.end(payload, failed=fault is not None, duration_ms=duration, cold=cold)

    def _write_report(self, call: Call, fault: Fault | None, duration: float, cold: bool, now: datetime) -> None:
        if fault is not None and fault.note:
            prefix = f"{now:%Y-%m-%dT%H:%M:%S}Z {call.request_id} "
            prefix = prefix if fault.status == "timeout" else f"RequestId: {call.request_id} "
            self._log(prefix + fault.note, call, now)
        report = (
            f"REPORT RequestId: {call.request_id}\tDuration: {duration:.2f} ms\t"
            f"Billed Duration: {math.ceil(duration)} ms\t"
            f"Memory Size: {self.function.memory_mb} MB\tMax Memory Used: {self._memory_mb()} MB"
        )
        if cold:
            report += f"\tInit Duration: {self._init_ms:.2f} ms"
        if fault is not None and fault.status:
            report += f"\tStatus: {fault.status}"
            report += f"\tError Type: {fault.kind}" if fault.status == "error" else ""
        self._log(f"END RequestId: {call.request_id}", call, now)
        self._log(report, call, now)

    def _memory_mb(self) -> int:
        return self._peak_pages * _PAGE // (1024 * 1024)

    def _log(self, line: str, call: Call | None = None, now: datetime | None = None) -> None:
        self._host.logs.write(self._group, self._stream, now or self._host.clock.now(), line)
        call = call or self._call
        if call is not None and call.log is not None:
            call.log.append(line)

    def _drain(self, now: datetime | None = None) -> None:
        """Read what the worker wrote; whole lines go to the log, and what they measure to the metrics."""
        while self._log_fd >= 0:
            try:
                chunk = os.read(self._log_fd, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                if self._rest:
                    self._take_line(self._rest, self._host.clock.now())
                    self._rest = b""
                return
            lines = (self._rest + chunk if self._rest else chunk).split(b"\n")
            self._rest = lines.pop()
            if lines:
                now = now or self._host.clock.now()
                for line in lines:
                    self._take_line(line, now)
            if len(self._rest) > _LONGEST_LINE:  # CloudWatch's longest event; the rest becomes one of its own
                self._take_line(self._rest, self._host.clock.now())
                self._rest = b""
            if len(chunk) < _CHUNK:
                return

    def _take_line(self, line: bytes, now: datetime) -> None:
        # The runtime client joins the lines of one traceback with carriage returns, so that they stay one event.
        self._log(line.decode("utf-8", "replace").replace("\r", "\n"), None, now)
        if line[:1] == b"{":
            self._host.embedded.take(line, now)
