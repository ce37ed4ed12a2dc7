"""Time, events, metrics and alarms of a local cloud, wired together.

    clock ──> schedules ──┐                          ┌──> queues, topics, logs
    S3, PutEvents ────────┼──> bus ──> targets ──────┤
    metrics ──> alarms ───┘         └─ actions ──────┴──> asynchronous queue ──> Invoker (the data plane)

`start` puts all of it in moto's place in this process (for `mock_aws` and for moto's server alike), `stop` takes it
out. Between them either step the time (`advance`) or let it run (`run`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from perch.local.alarms.evaluator import AlarmEvaluator
from perch.local.asynchronous import AsyncLambda
from perch.local.clock import VirtualClock
from perch.local.events.bus import EventBus
from perch.local.metrics.api import MetricsApi
from perch.local.metrics.queues import QueueMetrics
from perch.local.metrics.store import MetricStore
from perch.local.ports import AsyncSettings, Invoker, LogSink


class Machinery:
    """The parts, as attributes, and their life.

    Args:
        invoker: Runs functions.
        async_settings: Tells how a function's asynchronous invocations are treated.
        clock: The one clock.
        check: Raises `Refused` for (function, qualifier) that do not exist; None takes every name.
        width: How many asynchronous invocations run at once; 1 keeps their order.
        account: The account.
        region: The region.
        store: The metric store, when the data plane has one already.
        logs: Takes what rules send to log groups.

    Attributes:
        clock: The one clock.
        store: Where measurements go (a `MetricSink`).
        asynchronous: Lambda's asynchronous queue (an `AsyncInvoker`).
        bus: The event bus; `bus.faults` and `bus.history` are for tests.
        alarms: The alarm evaluator.
    """

    def __init__(
        self,
        invoker: Invoker,
        async_settings: Callable[[str], AsyncSettings],
        *,
        clock: VirtualClock,
        check: Callable[[str, str | None], object] | None = None,
        width: int = 4,
        account: str = "123456789012",
        region: str = "us-east-1",
        store: MetricStore | None = None,
        logs: LogSink | None = None,
    ) -> None:
        self.clock = clock
        self.store = store or MetricStore()
        self.asynchronous = AsyncLambda(
            invoker, async_settings, clock, check=check, width=width, account=account, region=region
        )
        self.bus = EventBus(clock, self.asynchronous, account=account, region=region)
        self.bus.sender.logs = logs
        self.asynchronous.send = self.bus.sender.send
        self.alarms = AlarmEvaluator(
            clock, self.store, publish=self.bus.publish, send=self.bus.sender.send, account=account, region=region
        )
        self._api = MetricsApi(self.store, now=clock.now, region=region)
        self._queues = QueueMetrics(clock, self.store, account=account, region=region)
        self._started = False

    def start(self) -> None:
        """Take over from moto; the clock stands still until `advance` or `run`."""
        if not self._started:
            self._started = True
            self._api.install()
            self.bus.install()
            self._queues.install()  # before the alarms, which look at what it measured
            self.alarms.install()

    def stop(self) -> None:
        """Stop the clock, end the queue's threads, and give moto its own functions back."""
        if self._started:
            self._started = False
            self.clock.stop()
            self.alarms.uninstall()
            self._queues.uninstall()
            self.bus.uninstall()
            self._api.uninstall()
            self.asynchronous.stop()

    def run(self) -> None:
        """Let time run by itself, at the clock's speed."""
        self.clock.run()

    def advance(self, seconds: float) -> None:
        """Move time by `seconds`, firing what is due and waiting out its effects."""
        self.clock.advance(seconds)

    def advance_to(self, when: datetime) -> None:
        """Move time to `when`, as `advance` does."""
        self.clock.advance_to(when)

    def wait_idle(self, timeout_s: float | None = None) -> None:
        """Wait until no work holds the clock, for as long as the clock does. Raises `ClockStuckError`."""
        self.clock.wait_idle(timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
