"""Who calls AWS, and how often: every request that reaches the AWS API of a local cloud, by the function that made it.

A function's requests name their worker in the trace header that the SDK passes on, and the data plane knows which
function that worker runs. Requests from outside (the benchmark's own) have no function and are not kept.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from perch.local.compute import runtime_api, worker
from perch.local.patches import Patches

_SERVICE = re.compile(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/")


@dataclass(frozen=True)
class Call:
    """One AWS call; `at` is `time.perf_counter` of its answer."""

    at: float
    function: str
    service: str
    operation: str


@dataclass
class Watch:
    """What happened since the last `take`: AWS calls, and the invocations of each function."""

    calls: list[Call] = field(default_factory=list)
    invocations: Counter[str] = field(default_factory=Counter)

    def take(self, function: str) -> tuple[list[Call], int]:
        """Return the calls of a function and how often it was invoked, and begin anew."""
        found = [call for call in self.calls if call.function == function], self.invocations[function]
        self.calls.clear()
        self.invocations.clear()
        return found


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch a local cloud of this process; enter before it starts."""
    watch, functions, patches = Watch(), dict[str, str](), Patches()
    hand_over = runtime_api.event

    def event(request_id: str, deadline_ms: int, arn: str, trace_id: str, payload: bytes) -> bytes:
        functions[trace_id] = arn.split(":")[6]
        watch.invocations[functions[trace_id]] += 1
        return hand_over(request_id, deadline_ms, arn, trace_id, payload)

    def counted(answer: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        def answer_and_count(self: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            data = answer(self, environ, start_response)
            function = functions.get(environ.get("HTTP_X_AMZN_TRACE_ID", ""))
            if function is not None:
                service = _SERVICE.search(environ.get("HTTP_AUTHORIZATION", ""))
                operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2] or environ["REQUEST_METHOD"]
                watch.calls.append(Call(time.perf_counter(), function, service[1] if service else "?", operation))
            return data

        return answer_and_count

    patches.set(worker, "event", event)
    patches.wrap(DomainDispatcherApplication, "__call__", counted)
    try:
        yield watch
    finally:
        patches.undo()
