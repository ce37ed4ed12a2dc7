"""One invocation on its way through the data plane, and the log lines and metrics that Lambda writes about it.

A call is born when Lambda accepts it, waits in the queue of a pool, runs in a worker, and ends once. Ending it writes
the `END` and `REPORT` lines and puts the `AWS/Lambda` metrics before anyone hears of the result, so whoever has an
answer can count on its measurements. Their time is the virtual time at which the call was accepted, as Lambda's
metrics carry the time of the invocation.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from perch.local.ports import Invocation, Metric, MetricSink, Target

NAMESPACE = "AWS/Lambda"
TAIL = 4096


class Meter:
    """The metric series of one way to reach one version; made once, because each call writes to all of them."""

    __slots__ = ("_recorder",)

    def __init__(self, sink: MetricSink, target: Target) -> None:
        """Lay out the dimension sets of a target."""
        name, resource, version = target.function.name, target.resource, target.function.version
        accepted = [{"FunctionName": name}, {"FunctionName": name, "Resource": resource}]
        if target.via_alias:
            accepted.append({"FunctionName": name, "Resource": resource, "ExecutedVersion": version})
        units = {"Invocations": "Count", "Errors": "Count", "Duration": "Milliseconds", "ConcurrentExecutions": "Count"}
        self._recorder = sink.recorder(
            [
                Metric(namespace=NAMESPACE, name=metric, unit=unit, dimensions=tuple(accepted))
                for metric, unit in units.items()
            ]
        )

    def ended(self, at: datetime, duration_ms: float, failed: bool, running: int) -> None:
        """Measure one invocation that ran; `running` is how many of the function ran when it was accepted."""
        self._recorder.record((1.0, 1.0 if failed else 0.0, duration_ms, float(running)), at)


def throttled(sink: MetricSink, target: Target, at: datetime) -> None:
    """Count a call that was refused for its function's reserved concurrency; no version executed it."""
    name = target.function.name
    sink.put(NAMESPACE, "Throttles", {"FunctionName": name}, 1.0, at=at, unit="Count")
    sink.put(NAMESPACE, "Throttles", {"FunctionName": name, "Resource": target.resource}, 1.0, at=at, unit="Count")


class Call:
    """One accepted invocation.

    `log` collects what its worker wrote while it ran, if somebody wants the tail of it. `started` is the
    `time.perf_counter` of when the handler got the event.
    """

    __slots__ = ("arn", "at", "done", "log", "meter", "payload", "request_id", "running", "started", "target")

    def __init__(
        self,
        *,
        request_id: str,
        target: Target,
        arn: str,
        payload: bytes,
        at: datetime,
        running: int,
        meter: Meter,
        done: Callable[[Invocation], None],
        keep_log: bool,
    ) -> None:
        """Take in what was asked, by whom, and when."""
        self.request_id = request_id
        self.target = target
        self.arn = arn
        self.payload = payload
        self.at = at
        self.running = running
        self.meter = meter
        self.done = done
        self.log: list[str] | None = [] if keep_log else None
        self.started = 0.0

    def end(self, payload: bytes, *, failed: bool, duration_ms: float, cold: bool) -> None:
        """Measure the call and hand its result on."""
        self.meter.ended(self.at, duration_ms, failed, self.running)
        tail = ""
        if self.log:
            tail = "\n".join(self.log).encode()[-TAIL:].decode("utf-8", "ignore")
        self.done(
            Invocation(
                request_id=self.request_id,
                payload=payload,
                error="Unhandled" if failed else None,
                executed_version=self.target.function.version,
                duration_ms=duration_ms,
                cold=cold,
                log_tail=tail,
            )
        )
