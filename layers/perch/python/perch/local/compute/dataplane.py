"""The data plane: accepts invocations as Lambda's front end does, and runs them in worker processes.

One event loop in one thread of its own does all the work: it serves each worker's Runtime API and reads its log, and
the HTTP gateway shares it. Other threads hand their calls in through `invoke`.

    invoke ─▶ resolve ─▶ limits (6 MB, JSON, reserved concurrency) ─▶ Pool ─▶ Worker ─▶ metrics, log ─▶ Invocation

What differs from Lambda: a version runs on `max_workers` processes at most, further calls wait in order; about
`max_processes` workers live at once, of which the one idle longest makes room (when all are busy, one more starts
anyway, since a function may be waiting for another); there is no account-wide concurrency limit. Virtual time is held
while an invocation through the API runs, so no timer overtakes work that an earlier one began; requests of users, which
come through the gateway, do not hold it.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from random import Random

import uvloop

from perch.local.compute import faults
from perch.local.compute.call import Call, Meter, throttled
from perch.local.compute.emf import EmbeddedMetrics
from perch.local.compute.pool import Pool
from perch.local.compute.spawner import Spawner
from perch.local.compute.worker import Host
from perch.local.json_text import NotJson, parse
from perch.local.ports import Clock, Functions, Invocation, LogSink, MetricSink, Refused, Target

WATCH_S = 0.1
REAP_AFTER_S = 300.0


def _id_maker(random: Random) -> Callable[[], str]:
    """Return what makes request ids, which look like random UUIDs (the kernel's randomness costs more than a call)."""

    def new_id() -> str:
        digits = f"{random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    return new_id


class DataPlane:
    """Runs functions; `invoke` is safe to call from any thread but the loop's own."""

    def __init__(
        self,
        functions: Functions,
        clock: Clock,
        metrics: MetricSink,
        logs: LogSink,
        *,
        max_workers: int = 2,
        max_processes: int = 12,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
        region: str = "us-east-1",
        init_limit_s: float = 10.0,
        patience: float = 1.0,
        random: Random | None = None,
    ) -> None:
        """Make a data plane; `start` brings it up.

        Args:
            functions: Which functions exist; `resolve` is called from the loop and from callers' threads.
            clock: The virtual clock.
            metrics: Gets `AWS/Lambda` metrics and what functions write as embedded metrics.
            logs: Gets every log line.
            max_workers: Processes for each function version.
            max_processes: Worker processes in all.
            python: Interpreter of the workers, with `awslambdaric` installed.
            environment: Variables for every function (`AWS_ENDPOINT_URL`); a function's own win.
            region: Reported to functions.
            init_limit_s: How long a worker may take to become ready before it is tried once more.
            patience: How many times its limit a function may really take (init, timeout, integration); above 1 where
                the machine may be too busy for limits that are meant for one of its own.
            random: Where request ids come from; give a seeded one to get the same ids again.
        """
        self.clock = clock
        self.patience = patience
        self._functions = functions
        self._metrics = metrics
        self._logs = logs
        self._max_workers = max_workers
        self._max_processes = max_processes
        self._python = python
        self._environment = dict(environment or {})
        self._region = region
        self._init_limit_s = init_limit_s
        self._new_id = _id_maker(random or Random())  # noqa: S311 - names, not secrets
        self._pools: dict[tuple[str, str], Pool] = {}
        self._retired: set[Pool] = set()
        self._meters: dict[tuple[str, str, bool], Meter] = {}
        self._running: dict[str, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._host: Host | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._pycache = ""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop; the gateway serves on it."""
        if self._loop is None:
            raise RuntimeError("The data plane is not running: call start() first.")
        return self._loop

    def start(self) -> None:
        """Start the loop's thread and the fork server."""
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="perch-data-plane", daemon=True)
        self._thread.start()
        # On the loop's thread, because workers die with the thread that started them (PR_SET_PDEATHSIG).
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    def stop(self) -> None:
        """Kill every worker; invocations under way end with an error."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None
        shutil.rmtree(self._pycache, ignore_errors=True)

    def invoke(self, function: str, payload: bytes, *, qualifier: str | None = None) -> Invocation:
        """Run a function and wait.

        Args:
            function: Name or ARN.
            payload: The event, as JSON; empty for none.
            qualifier: Version or alias.

        Raises:
            Refused: Unknown function (404), version not ready (409), not JSON (400), too large (413), throttled (429).
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("invoke() would wait for its own thread; use invoke_async() on the data plane's loop.")
        with self.clock.hold():
            target = self._functions.resolve(function, qualifier)
            payload = _checked(payload)
            result: Future[Invocation] = Future()
            self.loop.call_soon_threadsafe(self._accept_for, result, target, payload, self.clock.now())
            return result.result()

    async def invoke_async(self, function: str, payload: bytes, *, qualifier: str | None = None) -> Invocation:
        """Run a function; the same as `invoke`, for coroutines on the data plane's loop."""
        with self.clock.hold():
            target = self._functions.resolve(function, qualifier)
            result: asyncio.Future[Invocation] = self.loop.create_future()

            def done(invocation: Invocation) -> None:
                if not result.done():
                    result.set_result(invocation)

            self._accept(target, _checked(payload), self.clock.now(), done, keep_log=True)
            return await result

    def submit(self, function: str, payload: bytes, at: datetime, done: Callable[[Invocation], None]) -> None:
        """Run a function for the gateway: on the loop, with a callback, and without keeping its log.

        The payload is JSON that the caller made. Virtual time is not held: users are no part of the cloud.

        Args:
            function: ARN, qualifier included.
            payload: The event.
            at: Virtual time of the request.
            done: Called once, on the loop.

        Raises:
            Refused: As `invoke`; `done` is not called then.
        """
        target = self._functions.resolve(function)
        if len(payload) > faults.REQUEST_LIMIT:
            raise _too_large(payload)
        self._accept(target, payload, at, done, keep_log=False)

    def retire(self, function: str | None = None) -> None:
        """End the workers of one function, or of all; busy ones end after the calls accepted so far."""

        async def retire() -> None:
            for key in [key for key in self._pools if function in (None, key[0])]:
                self._retire(key)

        asyncio.run_coroutine_threadsafe(retire(), self.loop).result()

    # For the pools

    def make_room(self) -> None:
        """End the worker that has been idle longest, if there are as many as may be."""
        if sum(len(pool.workers) for pool in self._all_pools()) < self._max_processes:
            return
        idle = [(worker.idle_since, pool, worker) for pool in self._all_pools() if (worker := pool.least_recent())]
        if idle:
            _, pool, worker = min(idle, key=lambda entry: entry[0])
            pool.stop_worker(worker)

    def emptied(self, pool: Pool) -> None:
        """Forget a pool that nothing runs in."""
        self._retired.discard(pool)
        key = (pool.function.name, pool.function.version)
        if self._pools.get(key) is pool:
            del self._pools[key]

    # On the loop

    def _accept_for(self, result: Future[Invocation], target: Target, payload: bytes, at: datetime) -> None:
        try:
            self._accept(target, payload, at, result.set_result, keep_log=True)
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller's thread
            result.set_exception(error)

    def _accept(
        self, target: Target, payload: bytes, at: datetime, done: Callable[[Invocation], None], *, keep_log: bool
    ) -> None:
        name = target.function.name
        running = self._running.get(name, 0)
        if target.reserved is not None and running >= target.reserved:
            throttled(self._metrics, target, at)
            reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
            raise Refused("TooManyRequestsException", "Rate Exceeded.", 429, reason)
        self._running[name] = running + 1

        def ended(invocation: Invocation) -> None:
            self._running[name] -= 1
            done(invocation)

        self._pool(target).submit(
            Call(
                request_id=self._new_id(),
                target=target,
                arn=_invoked_arn(target),
                payload=payload,
                at=at,
                running=running + 1,
                meter=self._meter(target),
                done=ended,
                keep_log=keep_log,
            )
        )

    def _pool(self, target: Target) -> Pool:
        function = target.function
        key = (function.name, function.version)
        pool = self._pools.get(key)
        if pool is not None and pool.function.fingerprint != function.fingerprint:
            self._retire(key)  # $LATEST was changed; what is under way ends on the old code
            pool = None
        if pool is None:
            if self._host is None:
                raise RuntimeError("The data plane was stopped.")
            pool = self._pools[key] = Pool(self._host, self, function, self._max_workers)
        return pool

    def _meter(self, target: Target) -> Meter:
        key = (target.resource, target.function.version, target.via_alias)
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = Meter(self._metrics, target)
        return meter

    def _retire(self, key: tuple[str, str]) -> None:
        pool = self._pools.pop(key)
        if pool.workers:
            self._retired.add(pool)
            pool.retire()

    def _all_pools(self) -> Iterator[Pool]:
        yield from self._pools.values()
        yield from self._retired

    def _look_after(self) -> None:
        """Look after every worker; end those that nobody has needed for a while."""
        unused = time.monotonic() - REAP_AFTER_S
        for pool in list(self._all_pools()):
            for worker in list(pool.workers):
                worker.look_after()
            worker_idle = pool.least_recent()
            if worker_idle is not None and worker_idle.idle_since < unused:
                pool.stop_worker(worker_idle)
        self._watch = self.loop.call_later(WATCH_S, self._look_after)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def _open(self) -> None:
        self._pycache = tempfile.mkdtemp(prefix="perch-pycache-")
        spawner = Spawner(self.loop, self._python, self._pycache)
        spawner.start()
        self._host = Host(
            loop=self.loop,
            spawner=spawner,
            clock=self.clock,
            embedded=EmbeddedMetrics(self._metrics),
            logs=self._logs,
            environment=self._environment,
            region=self._region,
            init_limit_s=self._init_limit_s,
            patience=self.patience,
        )
        self._look_after()

    async def _close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for pool in list(self._all_pools()):
            pool.kill()
        self._pools.clear()
        self._retired.clear()
        if self._host is not None:
            self._host.spawner.stop()
            self._host = None
        with suppress(TimeoutError):
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1)


def _checked(payload: bytes) -> bytes:
    """Check an event as Lambda's Invoke API does."""
    if not payload:
        return b"{}"
    if len(payload) > faults.REQUEST_LIMIT:
        raise _too_large(payload)
    try:
        parse(payload)
    except NotJson as error:
        message = f"Could not parse request body into json: {error}"
        raise Refused("InvalidRequestContentException", message, 400) from error
    return payload


def _too_large(payload: bytes) -> Refused:
    message = (
        f"{len(payload)} byte payload is too large for the RequestResponse invocation type "
        f"(limit {faults.REQUEST_LIMIT} bytes)"
    )
    return Refused("RequestEntityTooLargeException", message, 413)


def _invoked_arn(target: Target) -> str:
    """Return the ARN as invoked: that of the function, and the qualifier if there was one."""
    base = ":".join(target.function.arn.split(":")[:7])
    _, _, qualifier = target.resource.partition(":")
    return f"{base}:{qualifier}" if qualifier else base
